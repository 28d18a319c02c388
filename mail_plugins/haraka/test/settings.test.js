'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { DEFAULTS } = require('postel-emitter/settings');
const { readConfig } = require('../settings');
const { config } = require('../testing/haraka');

const EXAMPLE = fs.readFileSync(path.join(__dirname, '../config/postel.ini'), 'utf8');

test('the example names every setting with its default', () => {
    for (const [name, value] of Object.entries(DEFAULTS)) {
        const line = typeof value === 'object' ? `[${name}]` : `;${name} = ${value}`.trimEnd();
        assert.ok(EXAMPLE.split('\n').includes(line), line);
    }
    for (const [part, names] of Object.entries(readConfig(config()).spamHeaders)) {
        assert.ok(EXAMPLE.split('\n').includes(`;${part} = ${names.join(', ')}`), part);
    }
});

test('the README shows the example', () => {
    const readme = fs.readFileSync(path.join(__dirname, '../README.md'), 'utf8');
    assert.ok(readme.includes(`\`\`\`ini\n${EXAMPLE.trim()}\n\`\`\``));
});

test('what Haraka takes for a number is a text where a text is meant', () => {
    const main = { token: 123456, timeout: 5, memorySize: 0.5 };
    const { emitter } = readConfig(config({ 'postel.ini': { main, headers: { 'x-id': 7 }, resource: { 'host.name': 'mx1' } } }));
    assert.deepEqual(emitter, { token: '123456', timeout: 5, memorySize: 0.5, headers: { 'x-id': '7' }, resource: { 'host.name': 'mx1' } });
});

test('a text that looks like a number is as it is written', () => {
    const read = { main: { token: 12345, timeout: 5 }, headers: { 'x-id': 1.5, token: 7 } };
    const lines = [';token = 1', '  token=0012345 ', 'timeout = 005', '[headers]', 'x-id = 1.50', 'token = 007'];
    const { emitter } = readConfig(config({ 'postel.ini': read }, lines));
    assert.deepEqual(emitter, { token: '0012345', timeout: 5, headers: { 'x-id': '1.50', token: '007' } });
});

test('where the lines cannot be had, the settings count as they were read', () => {
    const sections = { main: { token: 12345, timeout: 5 } };
    assert.deepEqual(readConfig({ get: () => sections }).emitter, { token: '12345', timeout: 5 });
});

test('headers as rspamd.ini names them come first, and what is given here replaces all', () => {
    const { score } = readConfig(config({ 'rspamd.ini': { header: { score: 'X-Own' } } })).spamHeaders;
    assert.deepEqual(score.slice(0, 2), ['X-Own', 'X-Rspamd-Score']);
    const named = { score: 'X-A, X-B', report: '' };
    const { spamHeaders } = readConfig(config({ 'postel.ini': { spam_headers: named }, 'rspamd.ini': { header: { score: 'X-Own' } } }));
    assert.deepEqual(spamHeaders.score, ['X-A', 'X-B']);
    assert.deepEqual(spamHeaders.report, []);
    assert.ok(spamHeaders.action.length);
});
