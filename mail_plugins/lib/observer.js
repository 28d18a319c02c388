'use strict';

// The one place where a hook's `next` is called: once, whatever the work does, and always plain, so that watching
// changes nothing. Zone-MTA hands `next` last, Haraka first. The work is synchronous; it must not wait for anything.

function observers(onError) {
    function run(work, self, args) {
        try {
            const result = work.apply(self, args);
            if (result && typeof result.then === 'function') {
                // Nobody waits for it, but a rejection that nobody handles would end the server.
                result.then(undefined, onError);
            }
        } catch (error) {
            onError(error);
        }
    }

    return {
        nextLast: work =>
            function (...args) {
                const next = args.pop();
                run(work, this, args);
                next();
            },
        nextFirst: work =>
            function (next, ...args) {
                run(work, this, args);
                next();
            }
    };
}

module.exports = { observers };
