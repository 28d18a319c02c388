'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { observers } = require('../observer');

function counting() {
    const calls = [];
    const next = (...args) => calls.push(args);
    return { calls, next };
}

const WORKS = {
    'does its work': () => 1,
    throws: () => {
        throw new Error('broken');
    },
    'throws nothing': () => {
        throw undefined; // eslint-disable-line no-throw-literal
    },
    'rejects later': async () => {
        throw new Error('later');
    },
    'never ends': () => new Promise(() => {})
};

for (const [name, work] of Object.entries(WORKS)) {
    test(`next is called once and plain, and nothing comes out, when the work ${name}`, async () => {
        const errors = [];
        const { nextFirst, nextLast } = observers(error => errors.push(error));
        for (const [handler, arrange] of [
            [nextLast(work), next => ['entry', next]],
            [nextFirst(work), next => [next, 'connection']]
        ]) {
            const { calls, next } = counting();
            assert.equal(handler(...arrange(next)), undefined);
            assert.deepEqual(calls, [[]]);
        }
        await new Promise(resolve => setImmediate(resolve));
        assert.equal(errors.length, name.startsWith('throws') || name.startsWith('rejects') ? 2 : 0);
    });
}

test('the work has the hook\'s arguments and its `this`', () => {
    const seen = [];
    const { nextFirst, nextLast } = observers(assert.fail);
    function work(...args) {
        seen.push([this.name, ...args]);
    }
    nextLast(work).call({ name: 'zone-mta' }, 'a', 'b', () => {});
    nextFirst(work).call({ name: 'haraka' }, () => {}, 'a', 'b');
    assert.deepEqual(seen, [['zone-mta', 'a', 'b'], ['haraka', 'a', 'b']]);
});

test('an error of what follows is not taken for one of the work', () => {
    const { nextLast } = observers(assert.fail);
    assert.throws(() => nextLast(() => {})(() => { throw new Error('of the server'); }), /of the server/);
});
