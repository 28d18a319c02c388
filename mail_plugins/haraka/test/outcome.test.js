'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { outcomeOf } = require('../outcome');
const { transaction } = require('../testing/haraka');

const DATA = { time: 0, reply: '250 recipient ok\r\n' };

function outcome({ txn = {}, seen = {}, reply = DATA.reply, command = 'RSET', isClosing = false, isGone = false } = {}) {
    const { key, reply: parsed, error } = outcomeOf({ transaction: transaction(txn), seen, reply, command, isClosing, isGone });
    return [key, parsed.code, error];
}

test('what Haraka says itself is taken, with the reply that it gave', () => {
    assert.deepEqual(outcome({ txn: { msg_status: 'accepted' }, reply: '250 Queued' }), ['accepted', 250, undefined]);
    assert.deepEqual(outcome({ txn: { msg_status: 'rejected' }, reply: '550 No' }), ['rejected', 550, '550']);
    assert.deepEqual(outcome({ txn: { msg_status: 'deferred' }, reply: '451 Later' }), ['deferred', 451, '451']);
    assert.deepEqual(outcome({ txn: { msg_status: 'accepted' }, reply: '354 go ahead' }), ['accepted', undefined, undefined]);
    assert.deepEqual(outcome({ txn: { msg_status: 'of a later version' } }), ['abandoned', undefined, 'rset']);
});

test('a denial is final or not whatever became of the reply', () => {
    assert.deepEqual(outcome({ seen: { denial: { isSoft: true } }, reply: '450 Later' }), ['deferred', 450, '450']);
    assert.deepEqual(outcome({ seen: { expulsion: { isSoft: false } }, reply: '550 Out' }), ['rejected', 550, '550']);
    // The client was gone, and the last reply is an older one.
    assert.deepEqual(outcome({ seen: { denial: { isSoft: false }, data: DATA }, reply: '354 go ahead' }), ['rejected', undefined, undefined]);
});

test('from DATA on the class of a new reply decides', () => {
    const after = reply => outcome({ seen: { data: DATA }, reply, isClosing: true, command: 'DATA' });
    assert.deepEqual(after('550 Message too big!'), ['rejected', 550, '550']);
    assert.deepEqual(after('554 Transaction failed due to too many MIME parts'), ['rejected', 554, '554']);
    assert.deepEqual(after('451 Bare line-feed; see https://haraka.github.io/barelf/'), ['deferred', 451, 'bare_lf']);
    assert.deepEqual(after('421 Internal Server Error'), ['deferred', 421, '421']);
    assert.deepEqual(after('421 timeout'), ['abandoned', undefined, 'timeout']);
    assert.deepEqual(after('354 go ahead, make my day'), ['abandoned', undefined, 'disconnect']);
});

test('a reply from before DATA is not about the message', () => {
    const refused = '550 I cannot deliver mail for <b@x.test>';
    assert.deepEqual(outcome({ seen: { data: { time: 0, reply: refused } }, reply: refused, isClosing: true, command: 'DATA' }), [
        'abandoned',
        undefined,
        'disconnect'
    ]);
    // Nor is a reply to a wrong command while recipients are given.
    assert.deepEqual(outcome({ txn: { rcpt_count: { accept: 1, tempfail: 0, reject: 1 } }, reply: '500 Unrecognized command' }), [
        'abandoned',
        undefined,
        'rset'
    ]);
});

test('without an accepted recipient the refusals decide', () => {
    const refusing = (accept, tempfail, reject) => outcome({ txn: { rcpt_count: { accept, tempfail, reject } } });
    assert.deepEqual(refusing(0, 0, 2), ['rejected', undefined, 'recipients_refused']);
    assert.deepEqual(refusing(0, 1, 1), ['deferred', undefined, 'recipients_refused']);
    assert.deepEqual(refusing(1, 1, 1), ['abandoned', undefined, 'rset']);
    assert.deepEqual(refusing(0, 0, 0), ['abandoned', undefined, 'rset']);
});

test('how the client left', () => {
    assert.equal(outcome({ command: 'rset' })[2], 'rset');
    assert.equal(outcome({ command: 'EHLO x.test' })[2], 'new_session');
    assert.equal(outcome({ command: 'STARTTLS' })[2], 'new_session');
    assert.equal(outcome({ command: 'MAIL FROM:<a@x.test>' })[2], 'new_transaction');
    assert.equal(outcome({ command: 'QUIT', isClosing: true })[2], 'quit');
    assert.equal(outcome({ command: 'QUIT', isClosing: true, isGone: true })[2], 'disconnect');
    assert.equal(outcome({ command: null, isClosing: true })[2], 'disconnect');
    assert.equal(outcome({ isClosing: true, reply: '421 timeout' })[2], 'timeout');
});
