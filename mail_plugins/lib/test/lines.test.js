'use strict';

const assert = require('node:assert/strict');
const test = require('node:test');
const { LineWriter, SLAB_BYTES } = require('../lines');

const slabsOf = lines => new Set(lines.map(line => line.buffer)).size;

test('lines stay as they were written, whatever comes behind them', () => {
    const writer = new LineWriter();
    const texts = Array.from({ length: 5000 }, (_, number) => `${number} ${'\u00e9\ud83d\udcec'.repeat(number % 40)}`);
    const lines = texts.map(text => writer.write(text, Infinity));
    assert.deepEqual(lines.map(String), texts.map(text => `${text}\n`));
});

test('what is held is little more than the lines', () => {
    for (const length of [1400, 10_000, 21_800, 40_000]) {
        const writer = new LineWriter();
        const lines = Array.from({ length: 100 }, () => writer.write('x'.repeat(length), Infinity));
        assert.ok(slabsOf(lines) * SLAB_BYTES < 1.7 * 100 * length, `${slabsOf(lines)} slabs for 100 lines of ${length}`);
    }
});

test('a line longer than a slab has one of its own', () => {
    const writer = new LineWriter();
    const text = '\u20ac'.repeat(SLAB_BYTES);
    assert.equal(String(writer.write(text, Infinity)), `${text}\n`);
    assert.equal(String(writer.write('next', Infinity)), 'next\n');
});

test('what is more than there is room for is refused, and costs the next one nothing', () => {
    const writer = new LineWriter();
    const first = writer.write('first', 100);
    for (const text of ['x'.repeat(10), '\u20ac'.repeat(4), 'x'.repeat(SLAB_BYTES), '\u20ac'.repeat(SLAB_BYTES)]) {
        assert.equal(writer.write(text, 10), null);
    }
    const exact = writer.write('x'.repeat(9), 10);
    assert.deepEqual([first, exact].map(String), ['first\n', `${'x'.repeat(9)}\n`]);
    assert.equal(slabsOf([first, exact]), 1);
});
