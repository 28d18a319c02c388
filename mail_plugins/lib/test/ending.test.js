'use strict';

// Processes that end, in order and not: what they did not send is sent by the next one.

const assert = require('node:assert/strict');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { Receiver, until } = require('../testing/receiver');
const { emit, expected, files, ids, newEmitter, temporaryFolder } = require('../testing/emitting');

const ENDPOINT = 'http://127.0.0.1:9'; // discard: nobody listens
const EVENTS = 40;

// A process that emits events that nobody takes, says so and then lives on or runs `ending`.
async function child(t, folder, { ending = '', wait = 0 } = {}) {
    const script = `
        const { emit, newEmitter } = require(${JSON.stringify(path.resolve(__dirname, '../testing/emitting'))});
        const { emitter } = newEmitter({ after() {} }, { endpoint: ${JSON.stringify(ENDPOINT)}, folder: ${JSON.stringify(folder)} });
        emit(emitter, ${EVENTS});
        setTimeout(() => { console.log('ready'); ${ending} }, ${wait});
        setInterval(() => {}, 1000);`;
    const process = spawn(globalThis.process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => process.kill('SIGKILL'));
    const ended = new Promise(resolve => process.on('exit', (code, signal) => resolve({ code, signal })));
    await new Promise(resolve => process.stdout.once('data', resolve));
    return { process, ended };
}

async function adopted(t, folder) {
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const { emitter } = newEmitter(t, { endpoint: server.endpoint, folder });
    await until(() => server.records.length && emitter.outbox.waiting === 0);
    await until(() => files(folder).length === 0);
    return { server, emitter };
}

test('events of a process that exits at once are adopted, and say of which process they are', async t => {
    const folder = temporaryFolder();
    const { process, ended } = await child(t, folder, { ending: 'process.exit(3)' });
    assert.deepEqual(await ended, { code: 3, signal: null });
    assert.ok(files(folder).length >= 1);
    const { server, emitter } = await adopted(t, folder);
    assert.deepEqual(ids(server.events), expected(EVENTS));
    assert.ok(server.events.every(event => event.resource['process.pid'] === process.pid));
    const last = server.records.filter(record => record.resource['process.pid'] === process.pid).at(-1);
    assert.equal(last.name, 'postel.plugin.heartbeat');
    assert.equal(last.attributes['postel.plugin.events.emitted'], EVENTS + 1);
    assert.equal(emitter.counts.adopted, EVENTS + 2);
    emitter.close();
    assert.deepEqual(fs.readdirSync(emitter.segments.folder), []);
});

for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) {
    test(`${signal} ends a process that handles none as ever, with its events in a file`, async t => {
        const folder = temporaryFolder();
        const { process, ended } = await child(t, folder);
        process.kill(signal);
        assert.deepEqual(await ended, { code: null, signal });
        const { server } = await adopted(t, folder);
        assert.deepEqual(ids(server.events), expected(EVENTS));
    });
}

test('a signal that the server handles is its own', async t => {
    const folder = temporaryFolder();
    const { process, ended } = await child(t, folder, { ending: "process.on('SIGTERM', () => setTimeout(() => process.exit(7), 200));" });
    await new Promise(resolve => setTimeout(resolve, 50));
    process.kill('SIGTERM');
    assert.deepEqual(await ended, { code: 7, signal: null });
});

test('SIGKILL loses what is younger than a second and no more, also with half a line at the end', async t => {
    const folder = temporaryFolder();
    const { process, ended } = await child(t, folder, { wait: 1000 });
    process.kill('SIGKILL');
    await ended;
    const [file] = files(folder);
    fs.appendFileSync(file, '{"timeUnixNano":"1');
    const { server, emitter } = await adopted(t, folder);
    assert.deepEqual(ids(server.events), expected(EVENTS));
    assert.equal(emitter.counts.damaged, 0);
});

test('files of a process that lives stay its own', async t => {
    const folder = temporaryFolder();
    await child(t, folder, { wait: 1000 });
    const before = files(folder);
    assert.equal(before.length, 1);
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const { emitter } = newEmitter(t, { endpoint: server.endpoint, folder });
    await until(() => server.records.length === 1);
    await emitter.segments.adopt();
    assert.deepEqual(files(folder), before);
});

test('two processes that start at once adopt each file once', async t => {
    const folder = temporaryFolder();
    await (await child(t, folder, { ending: 'process.exit()' })).ended;
    await (await child(t, folder, { ending: 'process.exit()' })).ended;
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const both = [0, 1].map(() => newEmitter(t, { endpoint: server.endpoint, folder }).emitter);
    await until(() => server.events.length >= 2 * EVENTS);
    await until(() => files(folder).length === 0);
    assert.equal(new Set(server.events.map(event => event.uid)).size, 2 * EVENTS);
    assert.equal(both[0].counts.adopted + both[1].counts.adopted, 2 * (EVENTS + 2));
});

test('a file that is no segment does no harm', async t => {
    const folder = temporaryFolder();
    await (await child(t, folder, { ending: 'process.exit()' })).ended;
    const [file] = files(folder);
    fs.writeFileSync(file, '\u0000\u0000\nnothing\nof it\n');
    const { server, emitter } = await adopted(t, folder);
    assert.deepEqual(server.events, []);
    assert.equal(emitter.counts.damaged, 2);
});

test('a plugin keeps no process alive', async t => {
    const folder = temporaryFolder();
    const script = `
        const { emit, newEmitter } = require(${JSON.stringify(path.resolve(__dirname, '../testing/emitting'))});
        const { emitter } = newEmitter({ after() {} }, { endpoint: ${JSON.stringify(ENDPOINT)}, folder: ${JSON.stringify(folder)} });
        emit(emitter, 3);`;
    const alone = spawn(process.execPath, ['-e', script], { stdio: 'inherit' });
    const code = await new Promise(resolve => alone.on('exit', resolve));
    assert.equal(code, 0);
});
