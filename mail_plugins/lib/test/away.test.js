'use strict';

// Receivers that are away, hang or ask for patience. They are waited for, so that these have a file, and a process, of
// their own.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const test = require('node:test');
const { receiver, until } = require('../testing/receiver');
const { emit, expected, files, ids, newEmitter, sorted, temporaryFolder } = require('../testing/emitting');

test('while the receiver is away events wait in files, and none is missing or twice when it is back', async t => {
    const server = await receiver(t);
    const { emitter, log, folder } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 10);
    await until(() => server.events.length === 10);
    await server.stop();
    for (let first = 10; first < 3010; first += 300) {
        emit(emitter, 300, first);
        await new Promise(resolve => setTimeout(resolve, 60));
    }
    await until(() => emitter.outbox.memory.length === 0);
    assert.equal(emitter.outbox.waiting, 3000);
    assert.ok(files(folder).length >= 1);
    await server.start();
    emit(emitter, 50, 3010);
    await until(() => server.events.length >= 3060);
    await until(() => emitter.outbox.waiting === 0);
    assert.deepEqual(sorted(ids(server.events)), expected(3060));
    await until(() => files(folder).length === 0);
    assert.deepEqual(log.said.map(text => text.replace(/\d+ s$/, 'N s').replace(server.endpoint, 'E')), [
        `error: events are kept, E does not take them: connect ECONNREFUSED 127.0.0.1:${server.place}`,
        'info: events are taken by E again, after N s'
    ]);
    assert.equal(emitter.counts.delivered, 3061);
});

test('once it is back no more files are written, though events never pause', async t => {
    const server = await receiver(t);
    await server.stop();
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 10);
    await until(() => emitter.segments.lines === 11);
    await server.start();
    let sent = 10;
    const more = () => emitter.defer(() => emit(emitter, 1, sent++));
    const timer = setInterval(more, 20);
    t.after(() => clearInterval(timer));
    await until(() => server.events.length > 10, 10);
    await new Promise(resolve => setTimeout(resolve, 500));
    const written = emitter.segments.serial;
    await new Promise(resolve => setTimeout(resolve, 2500));
    assert.equal(emitter.segments.serial, written);
    clearInterval(timer);
    await until(() => server.events.length === sent);
    assert.deepEqual(sorted(ids(server.events)), expected(sent));
});

test('adopted files go in their order', async t => {
    const server = await receiver(t);
    const folder = temporaryFolder();
    const first = newEmitter(t, { endpoint: 'http://127.0.0.1:9', folder });
    for (const start of [0, 10, 20]) {
        emit(first.emitter, 10, start);
        await until(() => first.emitter.segments.lines >= start + 10);
        // The next one begins another file.
        first.emitter.segments.open = null;
    }
    first.emitter.close();
    for (const file of files(folder)) {
        // As of a process that ended long ago.
        const ended = path.join(path.dirname(path.dirname(file)), '4194304-1-1');
        fs.mkdirSync(ended, { recursive: true });
        fs.renameSync(file, path.join(ended, path.basename(file)));
        fs.utimesSync(ended, 0, 0);
    }
    newEmitter(t, { endpoint: server.endpoint, folder });
    await until(() => server.events.length === 30);
    assert.deepEqual(ids(server.events), expected(30));
});

test('a receiver that answers 503 is asked again after its Retry-After', async t => {
    const server = await receiver(t);
    server.answer = () => (server.requests.length <= 2 ? { status: 503, headers: { 'retry-after': '1' } } : {});
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 5);
    await until(() => server.events.length === 5);
    const [first, second, third] = server.requests;
    assert.ok(second.at - first.at >= 1000 && third.at - second.at >= 1000);
    assert.deepEqual(ids(server.events), expected(5));
});

test('a receiver that accepts and never answers costs neither memory nor time', async t => {
    const silent = net.createServer(() => {});
    await new Promise(resolve => silent.listen(0, '127.0.0.1', resolve));
    t.after(() => silent.close());
    const endpoint = `http://127.0.0.1:${silent.address().port}`;
    const { emitter, log, folder } = newEmitter(t, { endpoint, settings: { timeout: 1, memorySize: 1 } });
    let longest = 0;
    for (let first = 0; first < 20_000; first += 200) {
        const begun = process.hrtime.bigint();
        emit(emitter, 200, first);
        longest = Math.max(longest, Number(process.hrtime.bigint() - begun) / 1e6);
        await new Promise(resolve => setTimeout(resolve, 20));
        assert.ok(emitter.outbox.bytes <= 1 << 20);
    }
    assert.ok(longest < 100, `${longest} ms for 200 events`);
    await until(() => emitter.outbox.memory.length === 0);
    assert.equal(emitter.counts.dropped, 0);
    assert.equal(emitter.outbox.waiting, 20_001);
    assert.ok(files(folder).length > 5);
    assert.equal(log.said.filter(text => text.includes('no answer within 1 s')).length, 1);
    assert.equal(log.said.length, 1);
});

test('when files and memory are full, events are dropped and counted, and the count goes out', async t => {
    const server = await receiver(t);
    const place = server.endpoint;
    await server.stop();
    const settings = { bufferSize: 1, memorySize: 0.25, heartbeatInterval: 1 };
    const { emitter, log } = newEmitter(t, { endpoint: place, settings });
    for (let first = 0; first < 12_000; first += 100) {
        emit(emitter, 100, first);
        await new Promise(resolve => setTimeout(resolve, 10));
    }
    const { dropped } = emitter.counts;
    assert.ok(dropped > 1000, `${dropped} dropped`);
    assert.ok(emitter.segments.bytes <= 1 << 20);
    assert.equal(log.said.filter(text => text.startsWith('error: events are dropped')).length, 1);
    await server.start();
    await until(() => emitter.outbox.waiting === 0, 20);
    const told = () => Math.max(...server.records.map(record => record.attributes['postel.plugin.events.dropped'] ?? 0));
    await until(() => told() === emitter.counts.dropped);
    const { counts } = emitter;
    assert.equal(counts.emitted, counts.delivered + counts.dropped + emitter.outbox.waiting);
    assert.equal(new Set(server.records.map(record => record.uid)).size, server.records.length);
});
