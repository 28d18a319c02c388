'use strict';

// What a process of a server holds and how late its event loop was, told to `support.node_observer` by SIGUSR2. SIGWINCH
// begins and ends a time in which the event loop is looked at. Loaded by `node --require`, so into each process of any
// server, with no plugin of its own.

const fs = require('fs');
const path = require('path');
const v8 = require('v8');
const vm = require('vm');
const { monitorEventLoopDelay } = require('perf_hooks');

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc');
const delay = monitorEventLoopDelay({ resolution: 10 });
let isLooking = false;

process.on('SIGWINCH', () => {
    isLooking = !isLooking;
    if (isLooking) {
        delay.enable();
    } else {
        delay.disable();
    }
});

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
