'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { parseReply } = require('../smtp-reply');

// reply, reply code, enhanced status code; as real servers say them
const REPLIES = [
    ['250 2.0.0 Ok: queued as 4XyZ', 250, '2.0.0'],
    ['250 2.1.5 Recipient ok', 250, '2.1.5'],
    ['250 OK id=1rABCD-000123-45', 250, undefined],
    ['250 Ok', 250, undefined],
    ['250', 250, undefined],
    ['451 4.7.1 Greylisted, try again later', 451, '4.7.1'],
    ['451 4.7.500 Server busy. Please try again later', 451, '4.7.500'],
    ['550 5.1.1 <a@b.test>: Recipient address rejected', 550, '5.1.1'],
    ['550 5.1.1: no such user', 550, '5.1.1'],
    ['550-5.7.26 This mail has been blocked because the sender is unauthenticated. 5.7.26 Gmail requires', 550, '5.7.26'],
    ['550-5.7.26 This mail has been blocked\r\n550-5.7.26 requires SPF\r\n550 5.7.26 see the help', 550, '5.7.26'],
    ['550-first line without\r\n550 5.7.1 second line with', 550, '5.7.1'],
    ['452-4.2.2 The email account that you tried to reach is over quota', 452, '4.2.2'],
    ['550 #5.1.0 Address rejected.', 550, '5.1.0'],
    ['554 (5.7.1) refused', 554, '5.7.1'],
    ['554 [5.7.1] refused', 554, '5.7.1'],
    ['550 Requested action not taken: mailbox unavailable (5.1.1)', 550, '5.1.1'],
    ['550 permanent failure for one or more recipients (a@b.test:blocked #5.7.1)', 550, '5.7.1'],
    ['550 550 5.1.1 unknown user', 550, '5.1.1'],
    ['550 5.1.10 RESOLVER.ADR.RecipientNotFound', 550, '5.1.10'],
    ['421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred', 421, '4.7.0'],
    ['550 4.7.1 of another class, as the server said it', 550, '4.7.1'],
    // What looks like one and is not.
    ['550-5.1.1.7 is on a blocklist', 550, undefined],
    ['550 Blocked, see http://example.test/5.7.1', 550, undefined],
    ['451 Exim 4.9.4 is busy', 451, undefined],
    ['550 Message from 5.1.1.9 refused (5.1.1.9)', 550, undefined],
    ['550 try later (4.7.1)', 550, undefined],
    ['550 9.1.1 no such class', 550, undefined],
    // What is no reply.
    ['Network error: Error connecting to 192.0.2.1. connect ECONNREFUSED 192.0.2.1:25', undefined, undefined],
    ['Message uploaded. Received 12 B response with status code 200.', undefined, undefined],
    ['5500 is no reply code', undefined, undefined],
    ['199 neither', undefined, undefined]
];

for (const [reply, code, enhanced] of REPLIES) {
    test(`reads ${JSON.stringify(reply)}`, () => {
        const parsed = parseReply(reply);
        assert.equal(parsed.code, code);
        assert.equal(parsed.enhancedCode, enhanced);
        assert.equal(parsed.text, reply.replace(/\s+/g, ' '));
    });
}

test('nothing is read of nothing', () => {
    for (const nothing of [undefined, null, false, '', '  ', 250, {}]) {
        assert.deepEqual(parseReply(nothing), {});
    }
});

test('a text without end is cut, and no character in two', () => {
    const { text, code } = parseReply(`550 ${'a'.repeat(507)}\u{1f600}${'b'.repeat(1e6)}`);
    assert.equal(code, 550);
    assert.equal(text, `550 ${'a'.repeat(507)}\ufffd`);
});

test('a long reply is read in no time, whatever is in it', () => {
    const begun = process.hrtime.bigint();
    for (const part of ['(5.7.', '550-5.7.1.', '#', '[5.1.1', '550 550-', '\r\n550-']) {
        parseReply(`550 ${part.repeat(1e5)}`);
    }
    assert.ok(Number(process.hrtime.bigint() - begun) < 1e9);
});
