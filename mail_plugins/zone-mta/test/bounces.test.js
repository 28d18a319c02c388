'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { Bounces } = require('../bounces');

const QUEUED = { action: 'QUEUED', interface: 'bounce', id: 'b' };
const LINK = { action: 'QUEUE_BOUNCE', bounceId: 'b', id: 'm', seq: '001', bounceType: 'failure' };
const LINKED = {
    'zonemta.bounce.message.id': 'm',
    'zonemta.bounce.message.seq': '001',
    'zonemta.bounce.type': 'failure'
};

function newBounces(patience) {
    const emitted = [];
    return { emitted, bounces: new Bounces(({ attributes }) => emitted.push(attributes), patience) };
}

test('a bounce has its link whether that is logged before its event is made or after', () => {
    const { emitted, bounces } = newBounces();
    bounces.learn(LINK);
    bounces.pass(QUEUED, { attributes: {} });
    assert.deepEqual(emitted, [LINKED]);
    bounces.pass(QUEUED, { attributes: {} });
    assert.equal(emitted.length, 1);
    bounces.learn(LINK);
    assert.deepEqual(emitted, [LINKED, LINKED]);
});

test('one without a link goes out a moment later, and at the end at once', async () => {
    const { emitted, bounces } = newBounces(5);
    bounces.pass(QUEUED, { attributes: {} });
    await new Promise(resolve => setTimeout(resolve, 30));
    assert.deepEqual(emitted, [{}]);
    bounces.pass({ ...QUEUED, id: 'c' }, { attributes: { c: 1 } });
    bounces.releaseAll();
    assert.deepEqual(emitted, [{}, { c: 1 }]);
});

test('links that nobody asks for are bounded', () => {
    const { bounces } = newBounces();
    for (let number = 0; number < 5000; number += 1) {
        bounces.learn({ ...LINK, bounceId: `b${number}` });
    }
    assert.equal(bounces.links.size, 1000);
});
