'use strict';

// What is known of a client, and the events of connections, without I/O.

const { parseReply, plural, seconds, tlsVersion } = require('postel-emitter');
const { denialAttributes } = require('./denials');

// What Haraka has for a name where reverse DNS has none.
const NAMELESS = new Set(['NXDOMAIN', 'DNSERROR', 'Unknown', '']);

// What of a connection may be other when the event is made.
function clientOf(connection) {
    const { tls } = connection;
    return {
        id: connection.uuid,
        address: connection.remote.ip,
        name: connection.remote.host,
        hello: connection.hello.host,
        verb: connection.hello.verb,
        user: connection.notes.auth_user,
        isSecure: Boolean(tls.enabled),
        cipher: tls.cipher && { name: tls.cipher.standardName || tls.cipher.name, version: tls.cipher.version }
    };
}

function clientAttributes(client) {
    const cipher = (client.isSecure && client.cipher) || {};
    return {
        'haraka.hello.name': client.hello || undefined,
        'haraka.client.name': client.name && !NAMELESS.has(client.name) ? client.name : undefined,
        'client.address': client.address || undefined,
        'user.name': client.user || undefined,
        'tls.established': client.isSecure,
        'tls.protocol.version': tlsVersion(cipher.version),
        'tls.cipher': cipher.name
    };
}

const directionOf = relaying => (relaying ? 'outbound' : 'inbound');

// The event of a denial that ended no transaction and refused no recipient.
//   id: of the transaction that is open, undefined where none is
function describeDenied(client, id, relaying, denial) {
    const { code, enhancedCode, text } = parseReply(denial.code ? `${denial.code} ${denial.text}` : denial.text);
    return {
        key: 'connection_denied',
        time: denial.time,
        attributes: {
            'haraka.connection.id': client.id,
            'haraka.transaction.id': id,
            ...denialAttributes(denial),
            'email.direction': directionOf(relaying),
            'smtp.response.status_code': code,
            'smtp.response.enhanced_code': enhancedCode,
            'smtp.response.text': text,
            ...clientAttributes(client)
        },
        body: `Denied by ${denial.plugin} in the hook ${denial.hook}`
    };
}

// The event of a connection's end.
//   session: fields of Haraka's connection
function describeClosed(client, session, relaying, time) {
    const { msg_count: messages, rcpt_count: recipients } = session;
    const duration = seconds(session.start_time, time);
    return {
        key: 'connection_closed',
        time,
        attributes: {
            'haraka.connection.id': client.id,
            'haraka.session.duration': duration,
            'haraka.session.transaction.count': session.tran_count,
            'haraka.session.accepted.count': messages.accept,
            'haraka.session.deferred.count': messages.tempfail,
            'haraka.session.rejected.count': messages.reject,
            'haraka.recipient.accepted.count': recipients.accept,
            'haraka.recipient.refused.count': recipients.tempfail + recipients.reject,
            'haraka.session.size': session.totalbytes,
            'haraka.session.error.count': session.errors,
            'haraka.early_talker': session.early_talker,
            'haraka.relaying': Boolean(relaying),
            'smtp.response.text': parseReply(session.last_reject).text,
            ...clientAttributes(client)
        },
        body: `Closed after ${duration} s and ${plural(session.tran_count, 'transaction')}`
    };
}

module.exports = { clientAttributes, clientOf, describeClosed, describeDenied, directionOf };
