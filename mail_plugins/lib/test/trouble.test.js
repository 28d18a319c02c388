'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { QUIET_MS, Trouble } = require('../trouble');
const { keptLog } = require('../testing/receiver');

function begun() {
    const log = keptLog();
    const clock = { now: 1e12 };
    return { log, clock, trouble: new Trouble(log, () => clock.now) };
}

test('a trouble is said when it begins and when it ends, not in between', () => {
    const { log, clock, trouble } = begun();
    for (let times = 0; times < 100; times += 1) {
        trouble.begin('away');
        clock.now += QUIET_MS;
    }
    trouble.end('there');
    trouble.end('there');
    assert.deepEqual(log.said, ['error: away', `info: there, after ${(100 * QUIET_MS) / 1000} s`]);
});

test('what comes and goes is said once a minute at most', () => {
    const { log, clock, trouble } = begun();
    for (let times = 0; times < 60; times += 1) {
        trouble.begin('away');
        trouble.end('there');
        clock.now += QUIET_MS / 30;
    }
    assert.deepEqual(log.said, ['error: away', 'info: there, after 0 s', 'error: away', 'info: there, after 0 s']);
});

test('a further reason is said too, each once, and no more than a few', () => {
    const { log, clock, trouble } = begun();
    for (const text of ['nobody listens', 'expired', 'nobody listens', 'expired']) {
        trouble.begin(text);
        clock.now += QUIET_MS;
    }
    assert.deepEqual(log.said, ['error: nobody listens', 'error: expired']);
    for (let number = 0; number < 100; number += 1) {
        trouble.begin(`reason ${number}`);
        clock.now += QUIET_MS;
    }
    assert.equal(log.said.length, 5);
    trouble.end('there');
    trouble.begin('expired');
    assert.deepEqual(log.said.slice(-1), ['error: expired']);
});
