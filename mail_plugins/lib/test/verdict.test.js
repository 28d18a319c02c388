'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { judge } = require('../verdict');

const JSON_TYPE = { 'content-type': 'application/json; charset=utf-8' };
const kind = (status, headers = JSON_TYPE, body = '{"message":"why"}') => judge({ status, headers, body }).kind;

test('only what is about the bytes is final', () => {
    assert.equal(kind(400), 'refused');
    assert.equal(kind(413), 'refused');
    assert.equal(kind(413, { 'content-type': 'text/html' }, '<html>'), 'refused');
    // nginx that was asked for HTTP on its HTTPS port
    assert.equal(kind(400, { 'content-type': 'text/html' }, '<html>'), 'retry');
    // A server that speaks JSON of its own
    assert.equal(kind(400, JSON_TYPE, '{"error":"no handler found for uri [/v1/logs]","status":400}'), 'retry');
    assert.equal(kind(400, JSON_TYPE, 'no JSON'), 'retry');
    assert.equal(kind(400, JSON_TYPE, '{"code":3,"message":"why","details":[]}'), 'refused');
    assert.equal(kind(400, { 'content-type': 'application/x-protobuf' }, '\b\u0003'), 'refused');
    for (const status of [301, 401, 403, 404, 405, 415, 429, 500, 502, 503, 504]) {
        assert.equal(kind(status), 'retry', String(status));
    }
});

test('a 200 counts where its body is OTLP\'s or empty', () => {
    const taken = { kind: 'taken', refused: 0, reason: '' };
    assert.deepEqual(judge({ status: 200, headers: JSON_TYPE, body: '{"partialSuccess":{}}' }), taken);
    assert.deepEqual(judge({ status: 200, headers: JSON_TYPE, body: '{}' }), taken);
    assert.deepEqual(judge({ status: 200, headers: {}, body: '' }), taken);
    assert.deepEqual(judge({ status: 200, headers: JSON_TYPE, body: '{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}' }), {
        kind: 'taken',
        refused: 3,
        reason: 'x'
    });
    assert.equal(judge({ status: 200, headers: JSON_TYPE, body: '{"partialSuccess":{"rejectedLogRecords":"-5"}}' }).refused, 0);
    assert.equal(kind(200, { 'content-type': 'text/html' }, '<html>Welcome'), 'retry');
    assert.equal(kind(200, JSON_TYPE, '{"status":"ok"}'), 'retry');
    assert.equal(kind(200, JSON_TYPE, '[]'), 'retry');
    assert.equal(kind(200, JSON_TYPE, 'no JSON'), 'retry');
});

test('the reason holds the receiver\'s words, in one line', () => {
    assert.equal(judge({ status: 401, headers: JSON_TYPE, body: '{"message":"no token"}' }).reason, 'HTTP 401: no token');
    assert.equal(judge({ status: 502, headers: {}, body: 'Bad\r\nGateway' }).reason, 'HTTP 502: Bad Gateway');
    assert.equal(judge({ status: 503, headers: {}, body: '' }).reason, 'HTTP 503');
});

test('Retry-After is honoured as seconds and as a date, up to five minutes', () => {
    const now = Date.parse('2026-11-24T16:28:00Z');
    const delay = value => judge({ status: 503, headers: { 'retry-after': value }, body: '' }, now).delay;
    assert.equal(delay('7'), 7000);
    assert.equal(delay('0'), 0);
    assert.equal(delay('86400'), 300_000);
    assert.equal(delay('Tue, 24 Nov 2026 16:28:30 GMT'), 30_000);
    assert.equal(delay('Tue, 24 Nov 2026 16:00:00 GMT'), 0);
    assert.equal(delay('soon'), null);
    assert.equal(judge({ status: 503, headers: {}, body: '' }).delay, null);
});
