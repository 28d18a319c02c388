'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { encodeHeader, encodeRecord, encodeRequest } = require('../records');
const { source } = require('../signals');
const { recordsOf } = require('../testing/receiver');

const { attributes: TYPES, events: EVENTS } = source('zone_mta');
const TIMES = { time: 1795537709428.7, observed: 1795537709500, body: 'One line.' };

function encode(attributes) {
    return JSON.parse(encodeRecord(EVENTS.accepted, TYPES, attributes, TIMES));
}

function valueOf(name, given) {
    return encode({ [name]: given }).attributes.find(({ key }) => key === name)?.value;
}

test('a record is OTLP JSON: 64-bit integers as strings, enums as numbers, the name and both times', () => {
    const record = encode({ 'zonemta.attempt.number': 2 });
    const [uid, ...rest] = record.attributes;
    assert.equal(uid.key, 'log.record.uid');
    assert.match(uid.value.stringValue, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    assert.equal(parseInt(uid.value.stringValue.replace('-', '').slice(0, 12), 16), TIMES.observed);
    assert.deepEqual({ ...record, attributes: rest }, {
        timeUnixNano: '1795537709428000000',
        observedTimeUnixNano: '1795537709500000000',
        severityNumber: 9,
        severityText: 'INFO',
        body: { stringValue: 'One line.' },
        attributes: [{ key: 'zonemta.attempt.number', value: { intValue: '2' } }],
        eventName: 'zonemta.delivery.accepted'
    });
});

test('a map has numbers and texts by their keys', () => {
    const { events, attributes: types } = source('haraka');
    const record = encodeRecord(events.accepted, types, { 'rspamd.symbols': { GTUBE: 0, "R'S\ud800": -0.5, NAN: NaN, WORD: 'yes' } }, TIMES);
    assert.deepEqual(JSON.parse(record).attributes[1].value, {
        kvlistValue: {
            values: [
                { key: 'GTUBE', value: { doubleValue: 0 } },
                { key: "R'S\ufffd", value: { doubleValue: -0.5 } },
                { key: 'WORD', value: { stringValue: 'yes' } }
            ]
        }
    });
});

test('each declared type has its value', () => {
    assert.deepEqual(valueOf('server.address', 'mx.test'), { stringValue: 'mx.test' });
    assert.deepEqual(valueOf('email.from.address', ''), { stringValue: '' });
    assert.deepEqual(valueOf('zonemta.message.size', 9007199254740993), { intValue: '9007199254740992' });
    assert.deepEqual(valueOf('zonemta.message.size', 12.9), { intValue: '12' });
    assert.deepEqual(valueOf('zonemta.queue.duration', 0.25), { doubleValue: 0.25 });
    assert.deepEqual(valueOf('tls.established', false), { boolValue: false });
    assert.deepEqual(valueOf('email.to.address', ['a@b', 'c@d']), {
        arrayValue: { values: [{ stringValue: 'a@b' }, { stringValue: 'c@d' }] }
    });
});

test('what has no value is left out', () => {
    for (const nothing of [undefined, null]) {
        assert.equal(valueOf('server.address', nothing), undefined);
    }
    assert.equal(valueOf('zonemta.message.size', NaN), undefined);
    assert.equal(valueOf('zonemta.queue.duration', Infinity), undefined);
});

test('what the event does not declare is an error', () => {
    assert.throws(() => encode({ 'email.subject': 'secret' }), /declares no attribute email\.subject/);
});

test('strings are bounded and well-formed', () => {
    assert.equal(valueOf('server.address', 'a'.repeat(5000)).stringValue.length, 1024);
    assert.equal(valueOf('server.address', 'x\ud83d').stringValue, 'x\ufffd');
    assert.equal(valueOf('server.address', '\ude00x').stringValue, '\ufffdx');
    assert.equal(valueOf('server.address', '\u{1f600}').stringValue, '\u{1f600}');
    assert.equal(valueOf('email.to.address', Array(2000).fill('a@b.test')).arrayValue.values.length, 500);
});

test('a request holds the resource, the scope and its records', () => {
    const header = encodeHeader({ 'service.name': 'zone-mta', 'server.port': 12080, 'service.version': undefined }, { name: 's' });
    const lines = [1, 2].map(number => Buffer.from(encodeRecord(EVENTS.accepted, TYPES, { 'zonemta.attempt.number': number }, TIMES)));
    const records = recordsOf(JSON.parse(encodeRequest(header, lines)));
    assert.deepEqual(
        records.map(record => record.attributes),
        [{ 'zonemta.attempt.number': 1 }, { 'zonemta.attempt.number': 2 }]
    );
    assert.deepEqual(records[0].resource, { 'service.name': 'zone-mta', 'server.port': 12080 });
    assert.equal(records[0].scope, 's');
});
