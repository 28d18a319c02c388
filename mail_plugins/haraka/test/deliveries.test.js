'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const deliveries = require('../deliveries');
const { address, recorded, revivedDelivery, transaction } = require('../testing/haraka');

const NOW = Date.parse('2026-11-24T17:00:00Z');

function delivery(given = {}) {
    const { todo, ...rest } = given;
    return {
        num_failures: 0,
        notes: {},
        todo: {
            uuid: 'C.1.1',
            domain: 'far.test',
            queue_time: NOW - 2000,
            mail_from: address('from@sender.test'),
            rcpt_to: [address('a@far.test'), address('b@far.test')],
            notes: {},
            ...todo
        },
        ...rest
    };
}

const revived = ({ user, host, ...rest }) => ({ ...rest, ...address(`${user}@${host}`) });

test('a recorded delivery by LMTP', () => {
    const found = recorded('delivered.1');
    const params = found.params.map(each => (Array.isArray(each) ? each.map(revived) : each));
    const [event, ...others] = deliveries.delivered(revivedDelivery(found), params, NOW);
    assert.deepEqual(others, []);
    assert.equal(event.key, 'delivery_accepted');
    assert.equal(event.attributes['network.protocol.name'], 'lmtp');
    assert.equal(event.attributes['email.direction'], 'inbound');
    assert.equal(event.attributes['smtp.response.text'], 'Message stored as 6b05bb308704118fd9b337c1');
    assert.deepEqual(event.attributes['email.to.address'], ['user03@lab.test']);
    assert.equal(event.attributes['haraka.transaction.id'], 'EE7D9079-6689-4903-A059-5EA49C70247A.1');
    assert.equal(event.attributes['haraka.attempt.number'], 1);
    // Of a delivery that this process read from its queue nothing more is known.
    assert.equal(event.attributes['haraka.attempt.duration'], undefined);
    assert.equal(event.attributes['email.message_id'], undefined);
});

test('a recorded deferral has the server\'s reply to each recipient, and when the next attempt is due', () => {
    const found = recorded('deferred.1');
    const params = { ...found.params, fail_recips: found.params.fail_recips.map(revived) };
    const [event] = deliveries.deferred(revivedDelivery(found), params, NOW);
    assert.equal(event.key, 'delivery_deferred');
    assert.equal(event.attributes['smtp.response.status_code'], 451);
    assert.equal(event.attributes['smtp.response.enhanced_code'], '4.7.1');
    assert.equal(event.attributes['error.type'], '451');
    assert.equal(event.attributes['haraka.next_attempt.time'], '2026-11-24T17:01:04.000Z');
    assert.equal(event.attributes['haraka.attempt.number'], 1);
    assert.equal(event.attributes['network.protocol.name'], 'smtp');
    assert.equal(event.body, 'Deferred at 127.0.0.1 with 451 4.7.1, attempt 1');
});

test('a recorded bounce', () => {
    const found = recorded('bounce.2');
    const error = Object.assign(new Error('Some recipients failed: <reject1@out.test>'), found.params);
    error.bounced_rcpt = error.bounced_rcpt.map(revived);
    const [event] = deliveries.bounced(revivedDelivery(found), error, NOW);
    assert.equal(event.key, 'delivery_rejected');
    assert.equal(event.attributes['smtp.response.enhanced_code'], '5.1.1');
    assert.deepEqual(event.attributes['email.to.address'], ['reject1@out.test']);
});

test('where no recipient has a reply of his own, all have that of the server, or what went wrong', () => {
    const failed = (err, mx) => deliveries.deferred(delivery({ num_failures: 1 }), { delay: 64, err, mx }, NOW);
    const events = failed('Upstream error: 421 4.3.2 Busy', { exchange: '192.0.2.1', from_dns: 'mx.far.test' });
    assert.deepEqual(events.map(({ attributes }) => attributes['email.to.address'][0]), ['a@far.test', 'b@far.test']);
    const [{ attributes }] = events;
    assert.equal(attributes['smtp.response.text'], '421 4.3.2 Busy');
    assert.equal(attributes['error.type'], '421');
    assert.equal(attributes['server.address'], 'mx.far.test');
    assert.equal(attributes['network.peer.address'], '192.0.2.1');
    const typeOf = err => failed(err)[0].attributes['error.type'];
    assert.equal(typeOf('Tried all MXs'), 'connection');
    assert.equal(typeOf('DNS lookup failure: Error: queryMx ETIMEOUT far.test'), 'dns');
    assert.equal(typeOf('No TLS available but required by configuration.'), 'tls');
    assert.equal(typeOf('Error reading queue file'), 'other');
    assert.equal(failed('Tried all MXs')[0].attributes['server.address'], 'far.test');
});

test('the last attempt is not counted twice', () => {
    const numberOf = (failures, message) =>
        deliveries.bounced(delivery({ num_failures: failures }), new Error(message), NOW)[0].attributes;
    assert.equal(numberOf(0, '550 No')['haraka.attempt.number'], 1);
    const last = numberOf(3, 'Too many failures (Upstream error: 451 Later)');
    assert.equal(last['haraka.attempt.number'], 3);
    assert.equal(last['smtp.response.status_code'], 451);
    assert.equal(numberOf(3, 'Too many failures (Tried all MXs)')['error.type'], 'connection');
});

test('a split-off delivery keeps what is known of the one that it comes from', () => {
    const txn = transaction();
    deliveries.learn(txn, '<m@x.test>', true);
    deliveries.begin(delivery({ notes: txn.notes }), NOW - 500);
    deliveries.begin(delivery({ notes: txn.notes, todo: { uuid: 'C.1.2' } }), NOW - 100);
    const split = delivery({ notes: txn.notes, num_failures: 1 });
    const [{ attributes }] = deliveries.deferred(split, { delay: 1, err: 'Tried all MXs' }, NOW);
    assert.equal(attributes['haraka.attempt.duration'], 0.5);
    assert.equal(attributes['email.message_id'], '<m@x.test>');
    assert.equal(attributes['email.direction'], 'outbound');
    assert.equal(attributes['haraka.delivery.duration'], 2);
});
