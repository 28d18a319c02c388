'use strict';

// Tells what becomes of every message in Zone-MTA, from the entries of its own log.
//
// `log:entry` is the one hook that sees every outcome, in each process its own: receivers what they queue, refuse and
// drop, the main process the API's messages, bounces and deletions, senders each attempt. `sender:fetch` adds what the
// entry of an attempt does not say: which attempt it is, since when the message waits, who handed it over.

const { Emitter } = require('postel-emitter');
const { Attempts } = require('./attempts');
const { Bounces } = require('./bounces');
const { describe } = require('./entries');
const { readServer } = require('./server');
const { name, version } = require('./package.json');

// Settings of Zone-MTA's own, which it reads itself.
const SERVER_SETTINGS = ['enabled', 'ordering'];

module.exports.title = 'Postel';

module.exports.init = (app, done) => {
    const emitter = newEmitter(app);
    const attempts = new Attempts();
    const bounces = new Bounces(({ key, attributes, time, body }) => emitter.emit(key, attributes, { time, body }));

    app.addHook('sender:fetch', emitter.observe(delivery => attempts.begin(delivery)));
    app.addHook('log:entry', emitter.observe(entry => take(entry, attempts, bounces, emitter)));
    emitter.beforeEnd(() => bounces.releaseAll());
    done();
};

// Within the hook: what is known now. The entry is copied, for plugins behind this one may change theirs.
function take(entry, attempts, bounces, emitter) {
    if (entry.action === 'QUEUE_BOUNCE') {
        bounces.learn(entry);
        return;
    }
    const [copy, attempt, now] = [{ ...entry }, attempts.end(entry), Date.now()];
    emitter.defer(() => tell(copy, attempt, now, bounces));
}

function tell(entry, attempt, now, bounces) {
    const event = describe(entry, attempt, now);
    if (event) {
        bounces.pass(entry, event);
    }
}

function newEmitter(app) {
    return new Emitter({
        sourceType: 'zone_mta',
        plugin: { name, version },
        server: readServer(),
        processKind: app.manager.context,
        settings: app.config === true ? {} : app.config,
        serverSettings: SERVER_SETTINGS,
        log: {
            error: text => app.logger.error('Postel', '%s', text),
            info: text => app.logger.info('Postel', '%s', text)
        },
        redis: app.redis
    });
}
