'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { describeTransaction } = require('../messages');
const { clientOf } = require('../connections');
const { refusedByHaraka } = require('../recipients');
const { partOf } = require('../transactions');
const { CONFIG, answered, connection, recorded, revivedTransaction, transaction } = require('../testing/haraka');

const NOW = 60_000;

function described(txn, { seen = {}, relaying = false, ...given } = {}) {
    const host = connection(given.connection);
    return describeTransaction(
        {
            transaction: partOf(txn),
            seen: { denied: [], unknown: [], ...seen },
            client: clientOf(host),
            relaying,
            reply: host.last_response,
            command: host.current_line,
            isClosing: false,
            isGone: false,
            time: NOW
        },
        CONFIG.spamHeaders
    );
}

const rspamdOf = txn =>
    Object.fromEntries(Object.entries(described(txn).attributes).filter(([name, value]) => name.startsWith('rspamd.') && value !== undefined));

test('a recorded message that Haraka queued for LMTP', () => {
    const found = recorded('reset_transaction.2');
    const event = described(revivedTransaction(found), {
        seen: { begun: NOW - 1500, data: { time: NOW - 1200, reply: '' }, queue: { plugins: ['queue/discard', 'queue/lmtp'], rest: [] } },
        connection: { last_response: found.connection.last_response }
    });
    assert.equal(event.key, 'accepted');
    assert.equal(event.attributes['haraka.storage.status'], 'queued');
    assert.equal(event.attributes['haraka.storage.plugin'], 'queue/lmtp');
    assert.equal(event.attributes['haraka.transaction.duration'], 1.5);
    assert.equal(event.attributes['haraka.envelope.duration'], 0.3);
    assert.equal(event.attributes['rspamd.symbols'].MIME_GOOD, -0.1);
    assert.equal(event.attributes['rspamd.origin'], 'result');
    assert.deepEqual(event.attributes['email.to.address'], ['user03@lab.test']);
    assert.equal(event.attributes['smtp.response.status_code'], 250);
    assert.equal(event.body, 'Accepted for 1 recipient with 250, queued');
});

test('a recorded message that Rspamd rejected', () => {
    const found = recorded('reset_transaction.3');
    const event = described(revivedTransaction(found), {
        seen: { begun: NOW, data: { time: NOW, reply: '' }, denial: { kind: 'deny', isSoft: false, plugin: 'rspamd', hook: 'data_post' } },
        connection: { last_response: found.connection.last_response }
    });
    assert.equal(event.key, 'rejected');
    assert.equal(event.attributes['haraka.plugin'], 'rspamd');
    assert.equal(event.attributes['haraka.denial'], 'deny');
    assert.equal(event.attributes['rspamd.action'], 'reject');
    assert.deepEqual(event.attributes['rspamd.symbols'], { GTUBE: 0 });
    assert.equal(event.attributes['haraka.storage.status'], undefined);
    assert.equal(event.body, 'Rejected by rspamd in the hook data_post with 550');
});

test('the plugin that stored a message is the last that was asked', () => {
    const stored = (plugins, rest, results) =>
        described(transaction({ msg_status: 'accepted', named: results }), { seen: { queue: { plugins, rest } } }).attributes;
    const answer = { queue: { pass: ['Message Queued'], fail: [] } };
    assert.equal(stored(['a', 'b', 'c'], [['c']], answer)['haraka.storage.plugin'], 'b');
    assert.equal(stored(['a', 'b', 'c'], [], answer)['haraka.storage.plugin'], 'c');
    const status = plugin => stored([plugin], [], answer)['haraka.storage.status'];
    assert.equal(status('wildduck'), 'stored');
    assert.equal(status('queue/smtp_forward'), 'forwarded');
    assert.equal(status('queue/discard'), 'discarded');
    // All passed, and Haraka's own queue took it.
    const own = stored(['a'], [], { outbound: { pass: ['queued'] } });
    assert.deepEqual([own['haraka.storage.status'], own['haraka.storage.plugin']], ['queued', undefined]);
});

test('a client that goes while the message is stored does not know whether it was', () => {
    const { key, attributes } = described(transaction(), { seen: { data: { time: NOW, reply: '250 OK\r\n' }, queue: { plugins: ['wildduck'], rest: [] } } });
    assert.equal(key, 'abandoned');
    assert.equal(attributes['haraka.storage.status'], 'unknown');
});

test('durations of the phases add up', () => {
    const { attributes } = described(
        transaction({ msg_status: 'accepted', data_post_start: NOW - 400, data_post_delay: 0.1 }),
        { seen: { begun: NOW - 1000, data: { time: NOW - 700, reply: '' }, queue: { plugins: [], rest: [] } } }
    );
    const phases = ['envelope', 'data', 'filter', 'queue'].map(name => attributes[`haraka.${name}.duration`]);
    assert.deepEqual(phases, [0.3, 0.3, 0.1, 0.3]);
    assert.equal(attributes['haraka.transaction.duration'], 1);
});

test('a transaction that began before the plugin has what is known', () => {
    const { key, attributes } = described(transaction());
    assert.equal(key, 'abandoned');
    assert.equal(attributes['haraka.transaction.duration'], undefined);
    assert.equal(attributes['haraka.phase'], 'mail');
    assert.equal(attributes['email.to.address'], undefined);
});

test('recipients are told as they were answered', () => {
    const named = { rcpt_to: answered(['a@x.test', 'accept'], ['b@x.test', 'reject', 'No'], ['c@x.test', 'tempfail', 'Later']) };
    const { attributes } = described(transaction({ named, rcpt_count: { accept: 1, tempfail: 1, reject: 1 } }));
    assert.deepEqual(attributes['email.to.address'], ['a@x.test']);
    assert.deepEqual(attributes['haraka.recipient.refused.address'], ['b@x.test', 'c@x.test']);
    assert.deepEqual([attributes['haraka.recipient.accepted.count'], attributes['haraka.recipient.refused.count']], [1, 2]);
});

test('who was refused without a plugin is told once, at the time when no plugin knew him', () => {
    const named = { rcpt_to: answered(['a@x.test', 'reject', 'No'], ['a@x.test', 'reject', 'I cannot'], ['b@x.test', 'accept']) };
    const seen = { denied: ['a@x.test'], unknown: [{ address: 'a@x.test', time: 7 }] };
    assert.deepEqual(refusedByHaraka(partOf(transaction({ named })), seen, NOW), [{ address: 'a@x.test', code: 550, text: 'I cannot', time: 7 }]);
});

test('what Rspamd said, in the form of older versions of its plugin too', () => {
    const rspamd = { score: 3.5, action: 'greylist', symbols: { A: 1.5, B: { score: 2 }, C: null, D: {} }, skip: [], err: [] };
    assert.deepEqual(rspamdOf(transaction({ named: { rspamd } })), {
        'rspamd.score': 3.5,
        'rspamd.action': 'greylist',
        'rspamd.symbols': { A: 1.5, B: 2 },
        'rspamd.origin': 'result'
    });
});

test('headers count only where this Haraka does not ask Rspamd', () => {
    const headers = { 'x-spam-score': '7.5 (+++++++)\n', 'x-spam-report': 'A(1.0) B.C-1(-2)', 'x-rspamd-action': 'add header\n' };
    assert.deepEqual(rspamdOf(transaction({ headers })), {
        'rspamd.score': 7.5,
        'rspamd.action': 'add header',
        'rspamd.symbols': { A: 1, 'B.C-1': -2 },
        'rspamd.origin': 'header'
    });
    assert.deepEqual(rspamdOf(transaction({ headers, named: { rspamd: { skip: ['relay'], err: [] } } })), { 'rspamd.skip.reason': 'relay' });
});

test('TLS and authentication', () => {
    const cipher = { name: 'TLS_AES_256_GCM_SHA384', standardName: 'TLS_AES_256_GCM_SHA384', version: 'TLSv1.3' };
    const given = { tls: { enabled: true, cipher }, notes: { auth_user: 'a-user', auth_passwd: 'a secret' } };
    const { attributes } = described(transaction(), { connection: given });
    assert.equal(attributes['tls.protocol.version'], '1.3');
    assert.equal(attributes['haraka.transmission.type'], 'ESMTPSA');
    assert.equal(attributes['user.name'], 'a-user');
    assert.equal(JSON.stringify(attributes).includes('secret'), false);
});
