'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { Receiver, receiver, until } = require('../testing/receiver');
const { PLUGIN, emit, expected, files, ids, newEmitter, sorted, temporaryFolder } = require('../testing/emitting');

test('an event after a pause comes at once, under the resource of the server', async t => {
    const server = await receiver(t);
    const { emitter, log } = newEmitter(t, { endpoint: server.endpoint });
    await until(() => server.records.length === 1);
    await new Promise(resolve => setTimeout(resolve, 900));
    const begun = Date.now();
    emit(emitter, 1);
    await until(() => server.events.length === 1);
    assert.ok(Date.now() - begun < 400, `${Date.now() - begun} ms`);
    const [heartbeat, event] = server.records;
    assert.equal(heartbeat.name, 'postel.plugin.heartbeat');
    assert.equal(heartbeat.attributes['postel.plugin.process.kind'], 'sender');
    assert.deepEqual(event, {
        name: 'zonemta.message.queued',
        time: '1000000000000000000',
        uid: event.uid,
        body: 'Queued.',
        severity: 'INFO',
        attributes: { 'zonemta.message.id': 'm0' },
        resource: {
            'service.name': 'zone-mta',
            'service.version': '3.11.0',
            'server.port': 12080,
            'process.pid': process.pid,
            'postel.plugin.name': PLUGIN.name,
            'postel.plugin.version': PLUGIN.version
        },
        scope: 'postel.zone_mta'
    });
    assert.equal(server.requests[0].url, '/v1/logs');
    assert.deepEqual(log.said, []);
});

test('what comes while a request is under way goes with the next one', async t => {
    const server = await receiver(t);
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 1);
    await until(() => server.events.length === 1);
    emit(emitter, 1500, 1);
    await until(() => server.events.length === 1501);
    assert.deepEqual(ids(server.events), expected(1501));
    assert.ok(server.requests.length <= 5, `${server.requests.length} requests`);
    assert.equal(server.sockets.size, 1);
});

test('what fills a request does not wait, so that beside a receiver that takes all no file is written', async t => {
    const server = await receiver(t);
    const { emitter } = newEmitter(t, { endpoint: server.endpoint, settings: { memorySize: 0.5 } });
    emit(emitter, 1);
    await until(() => server.events.length === 1);
    // In the 750 ms of the pause as much as memory holds; above half of it a file is written.
    for (let first = 1; first < 1501; first += 50) {
        emit(emitter, 50, first);
        await new Promise(resolve => setTimeout(resolve, 20));
    }
    await until(() => server.events.length === 1501);
    assert.deepEqual(ids(server.events), expected(1501));
    assert.equal(emitter.segments.serial, 0);
    assert.ok(server.requests.length <= 10, `${server.requests.length} requests`);
});

test('token, headers and a path of the endpoint are sent', async t => {
    const server = await receiver(t);
    const settings = { token: 'secret', headers: { 'x-tenant': 'a' } };
    newEmitter(t, { endpoint: `${server.endpoint}/otlp/`, settings });
    await until(() => server.requests.length === 1);
    const { url, headers } = server.requests[0];
    assert.equal(url, '/otlp/v1/logs');
    assert.equal(headers.authorization, 'Bearer secret');
    assert.equal(headers['x-tenant'], 'a');
});

test('a Unix socket is an endpoint', async t => {
    const socket = path.join(temporaryFolder(), 'intake.sock');
    const server = await new Receiver().listenOn(socket);
    t.after(() => server.stop());
    const { emitter } = newEmitter(t, { endpoint: `unix:${socket}` });
    emit(emitter, 3);
    await until(() => server.events.length === 3);
});

test('one event that the receiver will not have costs no other', async t => {
    const server = await receiver(t);
    const bad = 'm237';
    server.answer = body => (JSON.stringify(body).includes(`"${bad}"`) ? { status: 400, body: '{"message":"bad"}' } : {});
    const { emitter, log } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 400);
    await until(() => emitter.outbox.waiting === 0, 20);
    assert.deepEqual(sorted(ids(server.events)), expected(400).filter(id => id !== bad));
    assert.equal(emitter.counts.refused, 1);
    assert.deepEqual(log.said, [`error: ${server.endpoint} refuses events for good: HTTP 400: bad`]);
});

test('what a receiver of small requests refuses as too large comes in pieces', async t => {
    const server = await receiver(t);
    server.answer = body => (JSON.stringify(body).length > 20_000 ? { status: 413 } : {});
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 300);
    await until(() => server.events.length === 300, 20);
    assert.deepEqual(ids(server.events), expected(300));
    assert.equal(emitter.counts.refused, 0);
});

test('a partial success is counted and not sent again', async t => {
    const server = await receiver(t);
    server.answer = () => ({ body: '{"partialSuccess":{"rejectedLogRecords":"2","errorMessage":"two are bad"}}' });
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 9);
    await until(() => server.records.length === 10);
    await until(() => emitter.outbox.waiting === 0);
    assert.equal(emitter.counts.delivered, 8);
    assert.equal(emitter.counts.refused, 2);
    assert.equal(server.requests.length, 1);
});

test('a wrong token costs no event until it is mended', async t => {
    const server = await receiver(t);
    server.answer = () => ({ status: 401, body: '{"message":"no token"}' });
    const { emitter } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 20);
    await until(() => server.requests.length === 2);
    server.answer = () => ({});
    await until(() => server.events.length === 20);
    assert.equal(emitter.counts.refused, 0);
});

test('an answer that comes late, when the batch is in a file already, counts', async t => {
    const server = await receiver(t);
    const waiting = [];
    server.server.removeAllListeners('request');
    server.server.on('request', (request, response) => {
        request.resume();
        request.on('end', () => waiting.push(response));
    });
    const { emitter, folder } = newEmitter(t, { endpoint: server.endpoint });
    emit(emitter, 5);
    await until(() => waiting.length === 1);
    await until(() => files(folder).length === 1);
    waiting[0].writeHead(200).end();
    await until(() => files(folder).length === 0);
    assert.equal(emitter.counts.delivered, 6);
    assert.equal(emitter.outbox.waiting, 0);
    emit(emitter, 1, 5);
    await until(() => waiting.length === 2);
});

test('a folder that takes nothing leaves memory, and is said once', async t => {
    const folder = temporaryFolder();
    const { emitter, log } = newEmitter(t, { endpoint: 'http://127.0.0.1:9', folder });
    // Where the process's own folder would be there is a file.
    fs.writeFileSync(emitter.segments.own, '');
    emit(emitter, 100);
    await until(() => log.said.some(text => text.includes('cannot be used')));
    await new Promise(resolve => setTimeout(resolve, 700));
    assert.equal(emitter.outbox.waiting, 101);
    assert.equal(log.said.filter(text => text.includes('cannot be used')).length, 1);
});

test('a broken work is counted and said once, and an undeclared event too', async t => {
    const server = await receiver(t);
    const { emitter, log } = newEmitter(t, { endpoint: server.endpoint });
    const handler = emitter.observe(() => {
        throw new Error('broken');
    });
    let called = 0;
    for (let times = 0; times < 5; times += 1) {
        handler({}, () => (called += 1));
    }
    emitter.emit('no such event', {}, { body: '' });
    emitter.emit('queued', { 'no.such.attribute': 1 }, { body: '' });
    assert.equal(called, 5);
    assert.equal(emitter.counts.failed, 7);
    assert.equal(log.said.length, 1);
    assert.match(log.said[0], /an event could not be made: Error: broken/);
});

test('a setting that cannot be meant is an error that names it', t => {
    for (const [settings, message] of [
        [{ endpoint: 'localhost:4319' }, /setting endpoint must be/],
        [{ timeout: 0 }, /setting timeout must be above 0/],
        [{ bufferSize: '64' }, /setting bufferSize must be a number/]
    ]) {
        assert.throws(() => newEmitter(t, { folder: '/nonexistent', settings }), message);
    }
});

test('events are published where the server has a ready Redis client, and nothing piles up in it', async t => {
    const server = await receiver(t);
    const published = [];
    const redis = { status: 'ready', publish: (channel, text) => new Promise(() => published.push([channel, JSON.parse(text)])) };
    const { emitter } = newEmitter(t, { endpoint: server.endpoint, settings: { redisChannel: 'postel' }, redis });
    emit(emitter, 300);
    assert.equal(published.length, 100);
    const [channel, request] = published[1];
    assert.equal(channel, 'postel');
    assert.equal(request.resourceLogs[0].scopeLogs[0].logRecords[0].eventName, 'zonemta.message.queued');
    await until(() => server.events.length === 300);

    redis.status = 'reconnecting';
    published.length = 0;
    emitter.publisher.open = 0;
    emit(emitter, 1);
    assert.equal(published.length, 0);
});
