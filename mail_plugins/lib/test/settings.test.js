'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { readSettings } = require('../settings');

const read = endpoint => () => readSettings({ endpoint }, [], () => {});

test('an endpoint has no credentials, which would be logged and not sent', () => {
    for (const rest of ['u:secret@otlp.test', 'otlp.test/?key=secret', 'otlp.test/#secret']) {
        assert.throws(read(`https://${rest}`), ({ message }) => /neither a user nor a query/.test(message) && !/secret/.test(message));
    }
});

test('a socket has an absolute path', () => {
    for (const endpoint of ['unix:', 'unix:relative.sock', 'unix:///run/p.sock']) {
        assert.throws(read(endpoint), /must be http/);
    }
    assert.equal(readSettings({ endpoint: 'unix:/run/p.sock' }, [], () => {}).target.socketPath, '/run/p.sock');
});
