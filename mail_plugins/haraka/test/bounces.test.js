'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { Bounces, describeBounce } = require('../bounces');
const { address, header, recorded, revivedDelivery } = require('../testing/haraka');

const NOW = Date.parse('2026-11-24T17:00:00Z');

const givenUp = sender => ({ todo: { mail_from: address(sender) } });

const written = (recipient, sender = '') => ({ mail_from: address(sender), rcpt_to: [address(recipient)] });

test('what goes from the null sender to the sender of a recorded bounce\'s delivery is its bounce, once', () => {
    const bounces = new Bounces();
    bounces.expect(revivedDelivery(recorded('bounce.2')), NOW);
    assert.equal(bounces.take(written('another@lab.test'), NOW), false);
    assert.equal(bounces.take(written('relay@lab.test', 'vacation@out.test'), NOW), false);
    assert.equal(bounces.take(written('relay@lab.test'), NOW + 3), true);
    assert.equal(bounces.take(written('relay@lab.test'), NOW + 4), false);
});

test('a bounce goes to the domain in small letters and ASCII, however the client wrote it', () => {
    const bounces = new Bounces();
    bounces.expect(givenUp('Bob@Example.TEST'), NOW);
    bounces.expect(givenUp('bob@bücher.test'), NOW);
    assert.equal(bounces.take(written('Bob@example.test'), NOW), true);
    assert.equal(bounces.take(written('bob@xn--bcher-kva.test'), NOW), true);
});

test('as many bounces are expected as deliveries were given up, for a minute, and none about a bounce', () => {
    const bounces = new Bounces();
    bounces.expect(givenUp('a@x.test'), NOW);
    bounces.expect(givenUp('a@x.test'), NOW + 30_000);
    bounces.expect(givenUp(''), NOW);
    assert.equal(bounces.take(written(''), NOW), false);
    assert.equal(bounces.take(written('a@x.test'), NOW + 70_000), true);
    assert.equal(bounces.take(written('a@x.test'), NOW + 70_000), false);
});

test('deliveries without a bounce are bounded', () => {
    const bounces = new Bounces();
    for (let number = 0; number < 5000; number += 1) {
        bounces.expect(givenUp(`a${number}@x.test`), NOW);
    }
    assert.equal(bounces.expected.length, 1000);
    bounces.expect(givenUp('b@x.test'), NOW + 60_000);
    assert.deepEqual(bounces.expected, [{ sender: 'b@x.test', time: NOW + 60_000 }]);
});

test('a bounce names the message that it is about, where that had an id', () => {
    const about = headers => {
        const { attributes } = describeBounce({ uuid: 'B', ...written('a@x.test'), header: header(headers) }, NOW);
        return [attributes['email.message_id'], attributes['haraka.bounce.message_id']];
    };
    assert.deepEqual(about({ 'message-id': '<b@mx.test>', references: '<m@x.test>\n' }), ['<b@mx.test>', '<m@x.test>']);
    assert.deepEqual(about({ 'message-id': '<b@mx.test>' }), ['<b@mx.test>', undefined]);
});
