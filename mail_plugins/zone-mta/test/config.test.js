'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { DEFAULTS } = require('postel-emitter/settings');

const read = name => fs.readFileSync(path.join(__dirname, '..', name), 'utf8');

test('the sample shows every setting with its default', () => {
    const shown = [...read('config/postel.toml').matchAll(/^# ([a-zA-Z]+) = (.*)$/gm)];
    // These values are written in TOML as in JSON.
    assert.deepEqual(Object.fromEntries(shown.map(([, name, value]) => [name, JSON.parse(value)])), DEFAULTS);
});

test('the README shows the sample', () => {
    assert.ok(read('README.md').includes(`\`\`\`toml\n${read('config/postel.toml').trim()}\n\`\`\``));
});
