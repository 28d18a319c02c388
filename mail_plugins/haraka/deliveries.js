'use strict';

// Haraka's own deliveries, by LMTP or SMTP: an event for each recipient and attempt.
//
// A delivery is an HMailItem (outbound/hmail.js). When some of its recipients fail, Haraka splits them off into a new
// item, which keeps the id (`todo.uuid`) and the notes of the one that it comes from; the notes are those of the
// transaction, so several deliveries of one message share them. So notes and id together name what goes on, for as long
// as this process has it.

const net = require('net');
const { codes, parseReply, seconds, timestamp } = require('postel-emitter');
const { addressOf } = require('./recipients');
const { directionOf } = require('./connections');

// The words with which Haraka introduces the last failure, and a reply.
const LAST = /^Too many failures \((.*)\)$/s;
const INTRODUCTION = /^(?:Error: )?(?:Upstream error: )?/;
// What went wrong where no server answered, from Haraka's own words.
const CAUSES = [
    ['connection', /^Tried all MXs/],
    ['dns', /\bMX\b|DNS|No Such Domain|Nowhere to deliver/],
    ['tls', /TLS/]
];

// In the notes: { transaction: { uuid, messageId, relaying }, begun: Map of delivery id -> time }. It is not enumerable:
// neither Haraka, which writes notes to its queue's files, nor a plugin that copies them takes it along.
const KNOWN = Symbol('postel.deliveries');

// What of a transaction its deliveries do not say.
function learn({ uuid, notes }, messageId, relaying) {
    knownOf(notes).transaction = { uuid, messageId, relaying };
}

// An attempt begins.
function begin(delivery, time) {
    knownOf(delivery.notes).begun.set(delivery.todo.uuid, time);
}

function delivered(delivery, [host, address, response, , , mode, recipients, isSecure], time) {
    const is = {
        ...attemptAttributes(delivery, time, delivery.num_failures + 1, mode === 'LMTP'),
        'server.address': host,
        'network.peer.address': ipOf(address),
        'tls.established': Boolean(isSecure),
        'smtp.response.text': parseReply(response).text
    };
    return recipients.map(recipient => event('delivery_accepted', is, recipient, time, `Accepted by ${host}`));
}

function deferred(delivery, { delay, err, fail_recips: recipients, mx }, time) {
    const is = {
        ...failedAttributes(delivery, time, delivery.num_failures, mx),
        'haraka.next_attempt.time': timestamp(time + delay * 1000)
    };
    return failures('delivery_deferred', is, delivery, recipients, err, time, 'Deferred');
}

function bounced(delivery, { message, mx, bounced_rcpt: rejected, deferred_rcpt: deferred }, time) {
    const isLast = LAST.test(message);
    const is = failedAttributes(delivery, time, delivery.num_failures + (isLast ? 0 : 1), mx);
    return failures('delivery_rejected', is, delivery, rejected || deferred, message, time, 'Rejected');
}

function failedAttributes(delivery, time, number, mx) {
    const { using_lmtp: isLmtp } = mx || delivery.todo.notes;
    return {
        ...attemptAttributes(delivery, time, number, Boolean(isLmtp)),
        'server.address': mx ? mx.from_dns || mx.exchange : delivery.todo.domain,
        'network.peer.address': mx ? ipOf(mx.exchange) : undefined
    };
}

function attemptAttributes(delivery, time, number, isLmtp) {
    const { todo, notes } = delivery;
    const { transaction, begun } = knownOf(notes);
    const id = todo.uuid.replace(/\.\d+$/, '');
    // A plugin may give the notes to a message of its own.
    const { messageId, relaying = !isLmtp } = transaction && transaction.uuid === id ? transaction : {};
    return {
        'haraka.transaction.id': id,
        'haraka.delivery.id': todo.uuid,
        'haraka.attempt.number': number,
        'haraka.attempt.duration': seconds(begun.get(todo.uuid), time),
        'haraka.delivery.duration': seconds(todo.queue_time, time),
        'email.message_id': messageId,
        'email.from.address': addressOf(todo.mail_from),
        'email.direction': directionOf(relaying),
        'network.protocol.name': isLmtp ? 'lmtp' : 'smtp'
    };
}

function knownOf(notes) {
    if (!notes[KNOWN]) {
        Object.defineProperty(notes, KNOWN, { value: { begun: new Map() } });
    }
    return notes[KNOWN];
}

const ipOf = address => (net.isIP(address) ? address : undefined);

function event(key, is, recipient, time, body) {
    const attributes = { ...is, 'email.to.address': [addressOf(recipient)] };
    return { key, attributes, time, body: `${body}, attempt ${is['haraka.attempt.number']}` };
}

// A recipient's own reply stands in its `reason` when the failure is about recipients; else all have the same one.
function failures(key, is, delivery, recipients, said, time, verb) {
    const common = String(said).replace(LAST, '$1').replace(INTRODUCTION, '');
    return (recipients || delivery.todo.rcpt_to).map(recipient => {
        const reply = parseReply(recipients ? recipient.reason : common);
        const attributes = {
            ...is,
            'smtp.response.status_code': reply.code,
            'smtp.response.enhanced_code': reply.enhancedCode,
            'smtp.response.text': reply.text,
            'error.type': reply.code ? String(reply.code) : causeOf(common)
        };
        return event(key, attributes, recipient, time, `${verb} at ${is['server.address']}${codes(reply)}`);
    });
}

function causeOf(text) {
    const found = CAUSES.find(([, words]) => words.test(text));
    return found ? found[0] : 'other';
}

module.exports = { begin, bounced, deferred, delivered, learn };
