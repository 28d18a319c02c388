'use strict';

// What a process of a server holds and how late its event loop was, told to `support.node_observer` by SIGUSR2. The event
// loop is looked at from SIGWINCH to SIGURG. Loaded by `node --require`, so into each process of any
// server, with no plugin of its own.

const fs = require('fs');
const path = require('path');
const v8 = require('v8');
const vm = require('vm');
const { createHistogram } = require('perf_hooks');

const RESOLUTION_MS = 10;

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc');
const delay = createHistogram();
let looking = null;

// As monitorEventLoopDelay of perf_hooks does, which cannot be interrupted: it takes the pause for a delay.
function look(since) {
    looking = setTimeout(() => {
        const now = process.hrtime.bigint();
        delay.record(now - since);
        look(now);
    }, RESOLUTION_MS).unref();
}

process.on('SIGWINCH', () => look(process.hrtime.bigint()));
process.on('SIGURG', () => clearTimeout(looking));

process.on('SIGUSR2', () => {
    const p99 = delay.percentile(99) / 1e6;
    // What is left is what is held.
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    const file = path.join(process.env.OBSERVER_FOLDER, `${process.pid}.json`);
    fs.writeFileSync(`${file}.new`, JSON.stringify({ p99, held: heapUsed + external }));
    fs.renameSync(`${file}.new`, file);
    delay.reset();
});
