'use strict';

// What a process of a server holds and how late its event loop is, told to `support.node_observer` by SIGUSR2.
// Loaded by `node --require`, so into each process of any server, with no plugin of its own.

const fs = require('fs');
const path = require('path');
const v8 = require('v8');
const vm = require('vm');
const { monitorEventLoopDelay } = require('perf_hooks');

v8.setFlagsFromString('--expose-gc');
const collectGarbage = vm.runInNewContext('gc');
const delay = monitorEventLoopDelay({ resolution: 10 });
delay.enable();

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
