'use strict';

// Refuses and drops messages as their first recipient's local part says (noqueue, drop), as an anti-spam plugin would,
// and takes every password, so that tests can authenticate.

module.exports.title = 'Judge';
module.exports.init = function (app, done) {
    app.addHook('message:headers', (envelope, messageInfo, next) => {
        const [recipient] = [].concat(envelope.to);
        if (recipient.startsWith('noqueue')) {
            return next(app.reject(envelope, 'judged', messageInfo, '550 5.7.1 Refused by the judge'));
        }
        if (recipient.startsWith('drop')) {
            return next(app.drop(envelope, 'judged', messageInfo, '250 2.0.0 Dropped by the judge'));
        }
        return next();
    });
    app.addHook('smtp:auth', (auth, session, next) => next());
    done();
};
