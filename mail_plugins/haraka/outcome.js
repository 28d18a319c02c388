'use strict';

// How a transaction ended, without I/O.
//
// Haraka sets `msg_status` where the final dot was answered in the hooks data_post, queue and queue_outbound.
// Everywhere else it is undefined, and what ended the transaction is found from who ended it: a plugin, Haraka by a
// reply of its own, or the client. The class of the reply says which: 5yz is rejected, 4yz deferred (RFC 5321, 4.2.1),
// also where Haraka says 451 to a bare line feed. See docs/decisions/0080.

const { parseReply } = require('postel-emitter');

const ENDED = new Set(['accepted', 'rejected', 'deferred']);
// The client was silent for too long: it is the client that left, not Haraka that refused.
const TIMEOUT = /^421 timeout/;
// Haraka's connection.js, accumulate_data.
const BARE_LF = /Bare line-feed/;
const COMMANDS = { RSET: 'rset', MAIL: 'new_transaction', EHLO: 'new_session', HELO: 'new_session', STARTTLS: 'new_session' };

// { key, reply: { code, enhancedCode, text }, error }: error is error.type, undefined where there is none
//   facts: of watch.js
function outcomeOf(facts) {
    const { transaction, seen } = facts;
    if (ENDED.has(transaction.msg_status)) {
        return replied(facts, transaction.msg_status);
    }
    const denial = seen.denial || seen.expulsion;
    if (denial) {
        return replied(facts, denial.isSoft ? 'deferred' : 'rejected');
    }
    return repliedByHaraka(facts) || refused(transaction) || { key: 'abandoned', reply: {}, error: leftBy(facts) };
}

// The last reply, which is about this transaction where it was given by what ended it.
function replied({ reply }, key) {
    const parsed = parseReply(reply);
    if (key === 'accepted') {
        return { key, reply: parsed.code < 300 ? parsed : {} };
    }
    if (!(parsed.code >= 400)) {
        return { key, reply: {} }; // the client was gone, and had none
    }
    return { key, reply: parsed, error: BARE_LF.test(parsed.text) ? 'bare_lf' : String(parsed.code) };
}

// From DATA on every further reply is the answer to the message.
function repliedByHaraka(facts) {
    const { seen, reply } = facts;
    if (!seen.data || reply === seen.data.reply || TIMEOUT.test(reply)) {
        return null;
    }
    const { code } = parseReply(reply);
    return code >= 400 ? replied(facts, code >= 500 ? 'rejected' : 'deferred') : null;
}

// Recipients were given, and none was accepted.
function refused({ rcpt_count: count }) {
    if (count.accept || !(count.reject || count.tempfail)) {
        return null;
    }
    return { key: count.tempfail ? 'deferred' : 'rejected', reply: {}, error: 'recipients_refused' };
}

function leftBy({ reply, command, isClosing, isGone }) {
    const word = String(command || '').split(' ', 1)[0].toUpperCase();
    if (!isClosing) {
        return COMMANDS[word] || 'rset';
    }
    if (TIMEOUT.test(reply)) {
        return 'timeout';
    }
    return word === 'QUIT' && !isGone ? 'quit' : 'disconnect';
}

module.exports = { outcomeOf };
