'use strict';

// Runs work at the end of the process, synchronously: on exit, and on a signal that would end it on the spot.
//
// A service manager sends SIGTERM to all processes of a server, also to children that handle none and die of it without
// a word. The handler here changes nothing else: where it is the signal's only one, the process ends by that signal
// after the work. There is one handler in a process, whatever the number of emitters and of copies of this package.

const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'];
const KEY = Symbol.for('postel.endings');

function all() {
    if (!process[KEY]) {
        process[KEY] = new Set();
        process.on('exit', run);
        for (const signal of SIGNALS) {
            process.on(signal, function ending() {
                if (process.listenerCount(signal) === 1) {
                    run();
                    process.removeListener(signal, ending);
                    process.kill(process.pid, signal);
                }
            });
        }
    }
    return process[KEY];
}

function run() {
    for (const work of process[KEY]) {
        try {
            work();
        } catch {
            // The process ends as it was about to.
        }
    }
}

// Returns what forgets the work.
function atEnd(work) {
    all().add(work);
    return () => all().delete(work);
}

module.exports = { atEnd };
