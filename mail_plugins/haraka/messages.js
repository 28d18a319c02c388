'use strict';

// The event of a transaction's end, without I/O.

const { codes, plural, seconds } = require('postel-emitter');
const { addressOf, addressesOf } = require('./recipients');
const { clientAttributes, directionOf } = require('./connections');
const { denialAttributes } = require('./denials');
const { outcomeOf } = require('./outcome');
const { rspamdAttributes } = require('./rspamd');
const { storageAttributes } = require('./storage');

// { key, attributes, time, body }
//   facts: of watch.js; spamHeaders: of settings.js
function describeTransaction(facts, spamHeaders) {
    const { transaction, seen, client, relaying, time } = facts;
    const { key, reply, error } = outcomeOf(facts);
    const { accepted, refused } = addressesOf(transaction);
    const addressed = accepted.length ? accepted : refused;
    const attributes = {
        'haraka.connection.id': client.id,
        'haraka.transaction.id': transaction.uuid,
        'haraka.phase': phaseOf(transaction, seen),
        'haraka.recipient.accepted.count': transaction.rcpt_count.accept,
        'haraka.recipient.refused.count': transaction.rcpt_count.reject + transaction.rcpt_count.tempfail,
        'haraka.recipient.refused.address': refused.length ? refused : undefined,
        'haraka.data.size': sizeOf(transaction, seen),
        ...durations(transaction, seen, time),
        'haraka.relaying': Boolean(relaying),
        'haraka.transmission.type': transmissionType(client),
        ...storageAttributes(transaction, seen, key),
        ...denialAttributes(seen.denial),
        ...rspamdAttributes(transaction, spamHeaders),
        'email.message_id': messageIdOf(transaction),
        'email.from.address': transaction.mail_from ? addressOf(transaction.mail_from) : undefined,
        'email.to.address': addressed.length ? addressed : undefined,
        'email.direction': directionOf(relaying),
        'smtp.response.status_code': reply.code,
        'smtp.response.enhanced_code': reply.enhancedCode,
        'smtp.response.text': reply.text,
        ...clientAttributes(client),
        'error.type': error
    };
    return { key, attributes, time, body: BODIES[key](attributes, codes(reply)) };
}

const BODIES = {
    accepted: (is, code) =>
        `Accepted for ${plural(is['haraka.recipient.accepted.count'], 'recipient')}${code}, ${is['haraka.storage.status']}`,
    rejected: (is, code) => `Rejected${by(is)}${code}`,
    deferred: (is, code) => `Deferred${by(is)}${code}`,
    abandoned: is => `Abandoned in the phase ${is['haraka.phase']}, ${is['error.type']}`
};

const by = is => (is['haraka.plugin'] ? ` by ${is['haraka.plugin']} in the hook ${is['haraka.hook']}` : `, ${is['error.type']}`);

function phaseOf(transaction, seen) {
    if (seen.queue) {
        return 'queue';
    }
    if (transaction.data_post_start) {
        return 'filter';
    }
    if (seen.data) {
        return 'data';
    }
    return transaction.results.rcpt_to ? 'rcpt' : 'mail';
}

// Until DATA is answered Haraka counts its own Received header.
function sizeOf(transaction, seen) {
    const isBegun = seen.data && !(seen.denial && seen.denial.hook === 'data');
    return isBegun ? transaction.data_bytes : undefined;
}

function durations(transaction, seen, time) {
    const { data_post_start: filtered, data_post_delay: delay } = transaction;
    const isFiltered = Boolean(filtered) && (Boolean(seen.queue) || delay > 0);
    return {
        'haraka.transaction.duration': seconds(seen.begun, time),
        'haraka.envelope.duration': seen.data && seconds(seen.begun, seen.data.time),
        'haraka.data.duration': seen.data && filtered ? seconds(seen.data.time, filtered) : undefined,
        'haraka.filter.duration': isFiltered ? delay : undefined,
        'haraka.queue.duration': seen.queue && filtered ? seconds(filtered + delay * 1000, time) : undefined
    };
}

// As in the Received header that Haraka writes (connection.js, received_line).
function transmissionType({ verb, isSecure, user }) {
    const base = verb === 'EHLO' ? 'ESMTP' : 'SMTP';
    return `${base}${isSecure ? 'S' : ''}${user ? 'A' : ''}`;
}

function messageIdOf({ header }) {
    return header.get('Message-ID').trim() || undefined;
}

module.exports = { describeTransaction, messageIdOf };
