'use strict';

// Recorded entries of the real server against the events that they become.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { describe } = require('../entries');

const RECORDINGS = path.join(__dirname, '../testdata');
const NOW = Date.parse('2026-11-24T16:28:30Z');

function recorded(name) {
    return JSON.parse(fs.readFileSync(path.join(RECORDINGS, `3.11.0/${name}.json`), 'utf8')).args[0];
}

// Without what has no value, as it is sent.
function event(entry, attempt = {}) {
    const described = describe(entry, attempt, NOW);
    return described && { ...described, attributes: JSON.parse(JSON.stringify(described.attributes)) };
}

test('QUEUED of a receiver', () => {
    assert.deepEqual(event(recorded('receiver.log_entry.QUEUED.1')), {
        key: 'queued',
        time: NOW,
        attributes: {
            'zonemta.message.id': '1a20e6326810000593',
            'zonemta.message.body.size': 6,
            'zonemta.recipient.count': 1,
            'zonemta.interface': 'feeder',
            'zonemta.transmission.type': 'ESMTP',
            'email.message_id': '<8cff647c-6e0e-45d3-8c1d-9f5b256d75e3@lab.test>',
            'email.from.address': 'sender@lab.test',
            'email.to.address': ['ok1@dest.test'],
            'email.direction': 'outbound',
            'client.address': '127.0.0.1',
            'tls.established': false
        },
        body: 'Queued for 1 recipient, by feeder'
    });
});

test('QUEUED of the API has no client, that of a bounce the null sender', () => {
    const { attributes: api } = event(recorded('main.log_entry.QUEUED.1'));
    assert.equal(api['client.address'], undefined);
    assert.equal(api['zonemta.interface'], 'api');
    assert.equal(api['zonemta.transmission.type'], 'HTTP');
    assert.equal(api['tls.established'], undefined);
    const { attributes: bounce } = event(recorded('main.log_entry.QUEUED.2'));
    assert.equal(bounce['email.from.address'], '');
    assert.equal(bounce['zonemta.interface'], 'bounce');
});

test('NOQUEUE and DROP of a plugin', () => {
    const refused = event(recorded('receiver.log_entry.NOQUEUE.1'));
    assert.equal(refused.key, 'refused');
    assert.equal(refused.body, 'Refused by a plugin with 550 5.7.1');
    assert.equal(refused.attributes['zonemta.reason'], 'spam');
    assert.equal(refused.attributes['smtp.response.status_code'], 550);
    assert.equal(refused.attributes['smtp.response.enhanced_code'], '5.7.1');
    assert.equal(refused.attributes['error.type'], undefined);
    const dropped = event(recorded('receiver.log_entry.DROP.1'));
    assert.equal(dropped.key, 'dropped');
    assert.equal(dropped.attributes['smtp.response.text'], '250 dropped');
});

test('NOQUEUE because the message could not be stored', () => {
    const { attributes, body } = event({ ...recorded('receiver.log_entry.QUEUED.1'), action: 'NOQUEUE', error: 'connection timed out' });
    assert.equal(attributes['error.type'], 'queue');
    assert.equal(attributes['zonemta.reason'], 'connection timed out');
    assert.equal(body, 'Refused, it could not be stored');
});

test('DROP of a suppressed recipient', () => {
    const entry = {
        id: 'q1',
        seq: '002',
        action: 'DROP',
        reason: 'Recipient was found from suppression list',
        recipient: 'a@b.test',
        'suppressed address': 'a@b.test'
    };
    assert.deepEqual(event(entry).attributes, {
        'zonemta.message.id': 'q1',
        'zonemta.message.seq': '002',
        'zonemta.recipient.count': 1,
        'zonemta.reason': 'Recipient was found from suppression list',
        'email.to.address': ['a@b.test'],
        'email.direction': 'outbound'
    });
});

test('DELETED by the API, and of a message that is gone', () => {
    const entry = { id: 'q1', seq: '001', action: 'DELETED', reason: 'Deletion requested from API' };
    assert.deepEqual(event(entry).attributes, {
        'zonemta.message.id': 'q1',
        'zonemta.message.seq': '001',
        'zonemta.reason': 'Deletion requested from API',
        'email.direction': 'outbound'
    });
    assert.equal(event({ id: 'q1', action: 'DELETED', reason: 'Not found from GridStore' }).key, 'deleted');
});

const ATTEMPT = {
    begun: NOW - 250,
    created: NOW - 61_500,
    number: 3,
    interface: 'feeder',
    origin: '192.0.2.7',
    user: null
};

test('ACCEPTED, with what is known of the attempt', () => {
    assert.deepEqual(event(recorded('sender.log_entry.ACCEPTED.1'), ATTEMPT), {
        key: 'accepted',
        time: NOW,
        attributes: {
            'zonemta.message.id': '1a20e6329730000593',
            'zonemta.message.seq': '001',
            'zonemta.zone': 'plain',
            'zonemta.interface': 'feeder',
            'zonemta.attempt.number': 3,
            'zonemta.attempt.duration': 0.25,
            'email.message_id': '<9f170f59-bd02-43ab-9f58-afb8df754a43@lab.test>',
            'email.from.address': 'sender@lab.test',
            'email.to.address': ['ok@hook.test'],
            'email.direction': 'outbound',
            'smtp.response.status_code': 250,
            'smtp.response.enhanced_code': '2.0.0',
            'smtp.response.text': '250 2.0.0 Ok: queued as ABC123',
            'server.address': 'sink.hook.test',
            'network.peer.address': '127.0.0.1',
            'network.local.address': '127.0.0.1',
            'network.protocol.name': 'smtp',
            'client.address': '192.0.2.7',
            'tls.established': false,
            'zonemta.message.size': 423,
            'zonemta.queue.duration': 61.5
        },
        body: 'Accepted by sink.hook.test with 250 2.0.0, attempt 3'
    });
});

test('ACCEPTED of an attempt that is not known says all that the entry says', () => {
    const { attributes, body } = event(recorded('sender.log_entry.ACCEPTED.1'));
    assert.equal(attributes['zonemta.attempt.number'], undefined);
    assert.equal(attributes['zonemta.queue.duration'], undefined);
    assert.equal(attributes['zonemta.message.size'], 423);
    assert.equal(body, 'Accepted by sink.hook.test with 250 2.0.0');
});

test('DEFERRED, with category and next attempt', () => {
    const { key, attributes, body } = event(recorded('sender.log_entry.DEFERRED.2'), ATTEMPT);
    assert.equal(key, 'deferred');
    assert.equal(attributes['zonemta.category'], 'greylist');
    assert.equal(attributes['zonemta.attempt.number'], 2);
    assert.equal(attributes['zonemta.next_attempt.time'], new Date(1795537726387).toISOString());
    assert.equal(attributes['error.type'], '451');
    assert.equal(attributes['zonemta.queue.duration'], undefined);
    // A deferred message went over the wire in part at most.
    assert.equal(attributes['zonemta.message.size'], undefined);
    assert.equal(body, 'Deferred at 127.0.0.1 with 451 4.7.1, greylist, attempt 2');
});

test('REJECTED, with category and the time in the queue', () => {
    const { key, attributes } = event(recorded('sender.log_entry.REJECTED.1'), ATTEMPT);
    assert.equal(key, 'rejected');
    assert.equal(attributes['zonemta.category'], 'recipient');
    assert.equal(attributes['smtp.response.enhanced_code'], '5.1.1');
    assert.equal(attributes['error.type'], '550');
    assert.equal(attributes['zonemta.queue.duration'], 61.5);
});

test('an attempt that reached no server has its category as the error, and no reply code', () => {
    const { attributes } = event(
        {
            ...recorded('sender.log_entry.DEFERRED.1'),
            category: 'network',
            mx: 'dest.test',
            host: undefined,
            ip: undefined,
            response: 'Network error: Error connecting to 192.0.2.1. connect ECONNREFUSED 192.0.2.1:25'
        },
        ATTEMPT
    );
    assert.equal(attributes['error.type'], 'network');
    assert.equal(attributes['smtp.response.status_code'], undefined);
    assert.equal(attributes['server.address'], 'dest.test');
    assert.equal(attributes['network.peer.address'], undefined);
});

test('TLS, SRS, LMTP and HTTP', () => {
    const accepted = recorded('sender.log_entry.ACCEPTED.1');
    const { attributes: tls } = event({ ...accepted, tls: true, tlsVersion: 'TLSv1.3', tlsCipher: 'TLS_AES_256_GCM_SHA384' });
    assert.equal(tls['tls.protocol.version'], '1.3');
    assert.equal(tls['tls.cipher'], 'TLS_AES_256_GCM_SHA384');
    const { attributes: srs } = event({ ...accepted, returnPath: 'SRS0=x=y@mta.test' });
    assert.equal(srs['zonemta.return_path'], 'SRS0=x=y@mta.test');
    assert.equal(srs['email.from.address'], 'sender@lab.test');
    const { attributes: http } = event({ ...accepted, protocol: 'http', httpUrl: 'https://u:p@up.test', httpResponse: 200, response: 'Message uploaded.' });
    assert.equal(http['http.response.status_code'], 200);
    assert.equal(JSON.stringify(http).includes('up.test'), false);
});

test('the null sender of an attempt is the empty string', () => {
    assert.equal(event({ ...recorded('sender.log_entry.ACCEPTED.1'), from: '', returnPath: '' }).attributes['email.from.address'], '');
});

test('recipients are told apart, quoted commas included', () => {
    const to = entry => event({ ...recorded('receiver.log_entry.QUEUED.1'), to: entry }).attributes['email.to.address'];
    assert.deepEqual(to('a@b.test,c@d.test'), ['a@b.test', 'c@d.test']);
    assert.deepEqual(to('"a,b"@c.test,d@e.test'), ['"a,b"@c.test', 'd@e.test']);
    assert.deepEqual(to('"a\\",b"@c.test,d@e.test'), ['"a\\",b"@c.test', 'd@e.test']);
    assert.deepEqual(to('half"quoted@a.test,b@c.test'), ['half"quoted@a.test', 'b@c.test']);
    assert.equal(to('<>'), undefined);
});

test('a message without Message-ID has none', () => {
    assert.equal(event({ ...recorded('receiver.log_entry.QUEUED.1'), 'message-id': '<>' }).attributes['email.message_id'], undefined);
    const { id, ...accepted } = recorded('sender.log_entry.ACCEPTED.1');
    assert.equal(event({ ...accepted, id, messageId: id }).attributes['email.message_id'], undefined);
});

test('other entries are no events, nor is what has no action', () => {
    for (const action of ['QUEUE_BOUNCE', 'SPAMCHECK', 'VIRUSCHECK', 'QUEUE_POLL', undefined, 'constructor']) {
        assert.equal(event({ id: 'q1', action }), null);
    }
});

test('no recorded entry leaves its subject in the event', () => {
    for (const file of fs.readdirSync(path.join(RECORDINGS, '3.11.0')).filter(name => name.includes('log_entry'))) {
        const entry = recorded(file.replace('.json', ''));
        const described = JSON.stringify(event({ ...entry, subject: 'a secret subject', headerFrom: 'a secret name' }));
        assert.equal(described.includes('secret'), false, file);
    }
});
