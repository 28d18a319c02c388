'use strict';

// From an entry of Zone-MTA's log to a declared event, without I/O. Sources, in Zone-MTA: lib/mail-drop.js (QUEUED,
// NOQUEUE), wild-plugins (NOQUEUE, DROP of plugins), lib/mail-queue.js (DROP, DELETED), lib/sender.js (the attempts).
//
// An entry also has the subject, the From header and the URL of an upload; none of them is used.

const { codes, eventsBySource, parseReply, plural, seconds, timestamp, tlsVersion } = require('postel-emitter');

const KEYS = eventsBySource('zone_mta', 'action');

// { key, attributes, time, body }, or null for an entry that is no event.
//   attempt: of attempts.js, {} where nothing is known; now: milliseconds since the epoch
function describe(entry, attempt, now) {
    const key = KEYS.get(entry.action);
    if (!key) {
        return null;
    }
    // A sender says `response`, a plugin that refuses or drops `responseText`.
    const reply = parseReply(entry.response || entry.responseText);
    const { attributes, body } = DESCRIBERS[key](entry, reply, attempt, now);
    return { key, attributes, time: now, body };
}

const DESCRIBERS = {
    queued: entry => ({
        attributes: { ...messageOf(entry), ...submissionOf(entry) },
        body: `Queued for ${plural(recipients(entry).length, 'recipient')}, by ${entry.interface || 'an unknown interface'}`
    }),

    refused: (entry, reply) => ({
        attributes: {
            ...messageOf(entry),
            ...submissionOf(entry),
            ...replyOf(reply),
            'zonemta.reason': reasonOf(entry),
            'error.type': entry.error ? 'queue' : undefined
        },
        body: entry.error ? 'Refused, it could not be stored' : `Refused by a plugin${codes(reply)}`
    }),

    dropped: (entry, reply) => ({
        attributes: {
            ...messageOf(entry),
            ...submissionOf(entry),
            ...replyOf(reply),
            'zonemta.message.seq': entry.seq,
            'zonemta.reason': reasonOf(entry)
        },
        body: entry.recipient ? 'Dropped, its recipient is suppressed' : 'Dropped by a plugin'
    }),

    deleted: entry => ({
        attributes: {
            'zonemta.message.id': entry.id,
            'zonemta.message.seq': entry.seq,
            'zonemta.reason': reasonOf(entry),
            'email.direction': 'outbound'
        },
        body: 'Deleted from the queue'
    }),

    accepted: (entry, reply, attempt, now) => ({
        attributes: {
            ...attemptOf(entry, reply, attempt, now),
            'zonemta.message.size': entry.size,
            'zonemta.queue.duration': seconds(attempt.created, now)
        },
        body: `Accepted by ${entry.mx}${codes(reply)}${which(entry, attempt)}`
    }),

    deferred: (entry, reply, attempt, now) => ({
        attributes: {
            ...attemptOf(entry, reply, attempt, now),
            ...failureOf(entry, reply),
            'zonemta.next_attempt.time': timestamp(entry.nextattempt)
        },
        body: `Deferred at ${entry.mx}${codes(reply)}, ${entry.category}${which(entry, attempt)}`
    }),

    rejected: (entry, reply, attempt, now) => ({
        attributes: {
            ...attemptOf(entry, reply, attempt, now),
            ...failureOf(entry, reply),
            'zonemta.queue.duration': seconds(attempt.created, now)
        },
        body: `Rejected at ${entry.mx}${codes(reply)}, ${entry.category}${which(entry, attempt)}`
    })
};

function messageOf(entry) {
    const to = recipients(entry);
    return {
        'zonemta.message.id': entry.id,
        'zonemta.message.body.size': entry.body,
        'zonemta.recipient.count': to.length || undefined,
        'email.message_id': messageId(entry['message-id'], entry.id),
        'email.from.address': sender(entry.from),
        'email.to.address': to.length ? to : undefined,
        'email.direction': 'outbound'
    };
}

function submissionOf(entry) {
    return {
        'zonemta.interface': entry.interface,
        'zonemta.transmission.type': entry.transtype,
        'client.address': entry.src || undefined,
        'user.name': entry.user || entry.auth || undefined,
        // RFC 3848: the S of ESMTPS and ESMTPSA. The API's is HTTP.
        'tls.established': /[SL]MTP/.test(entry.transtype) ? /[SL]MTPS/.test(entry.transtype) : undefined
    };
}

function attemptOf(entry, reply, attempt, now) {
    return {
        'zonemta.message.id': entry.id,
        'zonemta.message.seq': entry.seq,
        'zonemta.zone': entry.zone,
        'zonemta.interface': attempt.interface,
        'zonemta.return_path': entry.returnPath !== entry.from ? sender(entry.returnPath) : undefined,
        'zonemta.attempt.number': attemptNumber(entry, attempt),
        'zonemta.attempt.duration': seconds(attempt.begun, now),
        'email.message_id': messageId(entry.messageId, entry.id),
        'email.from.address': sender(entry.from),
        'email.to.address': [].concat(entry.to || []),
        'email.direction': 'outbound',
        ...replyOf(reply),
        'http.response.status_code': entry.httpResponse,
        'server.address': entry.mx || undefined,
        'network.peer.address': entry.host || undefined,
        'network.local.address': entry.ip || undefined,
        'network.protocol.name': entry.protocol,
        'client.address': attempt.origin || undefined,
        'user.name': attempt.user || undefined,
        'tls.established': entry.tls,
        'tls.protocol.version': entry.tls ? tlsVersion(entry.tlsVersion) : undefined,
        'tls.cipher': entry.tls ? entry.tlsCipher : undefined
    };
}

function failureOf(entry, { code }) {
    return {
        'zonemta.category': entry.category,
        'error.type': code ? String(code) : entry.category
    };
}

function replyOf({ code, enhancedCode, text }) {
    return {
        'smtp.response.status_code': code,
        'smtp.response.enhanced_code': enhancedCode,
        'smtp.response.text': text
    };
}

// Why, in the words of a plugin (description), of the server (reason) or of what failed (error).
function reasonOf(entry) {
    return entry.description || entry.reason || entry.error;
}

// '<>' is how the log writes the null sender.
function sender(address) {
    return address === '<>' ? '' : address;
}

// A message without the header has '<>' here, an attempt of it the queue id.
function messageId(header, queueId) {
    return header && header !== '<>' && header !== queueId ? header : undefined;
}

// The log joins recipients by commas, which a quoted local part may hold.
function recipients({ to, recipient }) {
    const joined = recipient || (to === '<>' ? '' : to) || '';
    return joined.match(/(?:"(?:\\.|[^"\\])*"|[^,])+/g) || [];
}

function attemptNumber(entry, attempt) {
    return entry.defcount || attempt.number;
}

function which(entry, attempt) {
    const number = attemptNumber(entry, attempt);
    return number ? `, attempt ${number}` : '';
}

module.exports = { describe };
