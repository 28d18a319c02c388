'use strict';

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const path = require('node:path');
const test = require('node:test');
const { uuid7 } = require('../uuid7');

const FORM = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test('the ids of a process differ, have the form, and begin with the time', () => {
    const ids = Array.from({ length: 200_000 }, () => uuid7(1795537709500));
    assert.equal(new Set(ids).size, ids.length);
    assert.ok(ids.every(id => FORM.test(id)));
    assert.ok(ids.every(id => parseInt(id.replace('-', '').slice(0, 12), 16) === 1795537709500));
});

test('those of two processes differ in the same millisecond', () => {
    const script = `console.log(require(${JSON.stringify(path.resolve(__dirname, '../uuid7'))}).uuid7(1))`;
    const ids = [0, 1, 2, 3].map(() => execFileSync(process.execPath, ['-e', script], { encoding: 'utf8' }).trim());
    assert.equal(new Set(ids.map(id => id.slice(-10))).size, 4);
});
