'use strict';

// The plugin as Zone-MTA loads it, with its hooks called as wild-plugins calls them, and an OTLP receiver behind it.

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { Receiver, until } = require('postel-emitter/testing/receiver');
const { temporaryFolder } = require('postel-emitter/testing/emitting');
const { Attempts, MAX_OPEN } = require('../attempts');
const { readServer } = require('../server');
const plugin = require('..');

const recorded = name => JSON.parse(fs.readFileSync(path.join(__dirname, `../testdata/3.11.0/${name}.json`), 'utf8')).args[0];

// The application object of a plugin, and `run`, which calls a hook and says whether it went on.
async function loaded(t, context, config = {}) {
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const hooks = new Map();
    const said = [];
    const app = {
        manager: { context },
        config: { enabled: true, ordering: 1, endpoint: server.endpoint, bufferDirectory: temporaryFolder(), ...config },
        logger: { error: (...args) => said.push(args.join(' ')), info: (...args) => said.push(args.join(' ')) },
        addHook: (name, action) => hooks.set(name, action)
    };
    await new Promise((resolve, reject) => plugin.init(app, error => (error ? reject(error) : resolve())));
    const run = (name, ...args) => {
        let called = 0;
        hooks.get(name)(...args, () => (called += 1));
        assert.equal(called, 1);
    };
    return { server, run, said };
}

test('an attempt is followed from sender:fetch to its outcome', async t => {
    const { server, run, said } = await loaded(t, 'sender');
    const delivery = { ...recorded('sender.sender_fetch.1'), _deferred: { count: 2 } };
    run('sender:fetch', delivery);
    run('log:entry', { id: delivery.id, seq: delivery.seq, action: 'OF_A_PLUGIN' });
    run('log:entry', recorded('sender.log_entry.ACCEPTED.1'));
    await until(() => server.events.length === 1);
    const [event] = server.events;
    assert.equal(event.name, 'zonemta.delivery.accepted');
    assert.equal(event.attributes['zonemta.attempt.number'], 3);
    assert.equal(event.attributes['client.address'], '127.0.0.1');
    assert.ok(event.attributes['zonemta.attempt.duration'] < 5);
    assert.ok(event.attributes['zonemta.queue.duration'] >= 0);
    assert.equal(server.records[0].attributes['postel.plugin.process.kind'], 'sender');
    assert.deepEqual(said, []);
});

test('a bounce is linked with the message that it is about', async t => {
    const { server, run } = await loaded(t, 'main');
    run('log:entry', recorded('main.log_entry.QUEUED.2'));
    run('log:entry', recorded('main.log_entry.QUEUED.1'));
    run('log:entry', recorded('main.log_entry.QUEUE_BOUNCE.1'));
    await until(() => server.events.length === 2);
    const bounce = server.events.find(event => event.attributes['zonemta.interface'] === 'bounce');
    assert.equal(bounce.attributes['zonemta.message.id'], '1a20e63379e0000593');
    assert.equal(bounce.attributes['zonemta.bounce.message.id'], '1a20e6327910000593');
    assert.equal(bounce.attributes['zonemta.bounce.message.seq'], '003');
    assert.equal(bounce.attributes['zonemta.bounce.type'], 'failure');
});

test('a bounce that nobody links goes out all the same, and so does one that was not queued', async t => {
    const { server, run } = await loaded(t, 'main');
    run('log:entry', recorded('main.log_entry.QUEUED.2'));
    run('log:entry', { id: 'q1', seq: '001', action: 'QUEUE_BOUNCE', queued: 'no', bounceType: 'failure', error: 'x' });
    await until(() => server.events.length === 1);
    assert.equal(server.events[0].attributes['zonemta.bounce.message.id'], undefined);
});

test('whatever an entry looks like, the server goes on', async t => {
    const { server, run } = await loaded(t, 'receiver');
    const odd = [null, undefined, 7, 'QUEUED', {}, { action: 'QUEUED' }, { action: 'ACCEPTED', id: 1, to: null, response: {} }];
    for (const entry of odd) {
        run('log:entry', entry);
        run('sender:fetch', entry);
    }
    run('log:entry', recorded('receiver.log_entry.QUEUED.1'));
    await until(() => server.events.some(event => event.attributes['zonemta.message.id'] === '1a20e6326810000593'));
});

test('the entry stays as it was, for the plugins behind', async t => {
    const { run } = await loaded(t, 'main');
    for (const name of ['main.log_entry.QUEUED.2', 'main.log_entry.QUEUE_BOUNCE.1']) {
        const entry = recorded(name);
        run('log:entry', entry);
        assert.deepEqual(entry, recorded(name));
    }
});

test('a wrong setting is the server\'s to report, and names itself', () => {
    const app = { manager: { context: 'main' }, config: { enabled: true, endpoint: 'nowhere' }, logger: { error() {}, info() {} } };
    assert.throws(() => plugin.init(app, assert.fail), /setting endpoint/);
});

test('what is known of deliveries is bounded, and forgotten with the outcome', () => {
    const attempts = new Attempts();
    for (let number = 0; number < MAX_OPEN + 500; number += 1) {
        attempts.begin({ id: `q${number}`, seq: '001', created: '2026-11-24T16:28:29.438Z' });
    }
    assert.equal(attempts.open.size, MAX_OPEN);
    assert.deepEqual(attempts.end({ action: 'ACCEPTED', id: 'q0', seq: '001' }), {});
    assert.equal(attempts.end({ action: 'ACCEPTED', id: `q${MAX_OPEN}`, seq: '001' }).number, 1);
    assert.equal(attempts.open.size, MAX_OPEN - 1);
});

test('version and API port come from the server that runs', () => {
    const root = temporaryFolder();
    const put = (file, text) => {
        fs.mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
        fs.writeFileSync(path.join(root, file), text);
    };
    put('package.json', '{"name":"@zone-eu/zone-mta","version":"3.12.0"}');
    put('services/sender.js', '');
    assert.deepEqual(readServer(path.join(root, 'services/sender.js')), { version: '3.12.0', port: undefined });
    put('node_modules/wild-config/index.js', 'module.exports = { api: { port: "12081" } };');
    assert.deepEqual(readServer(path.join(root, 'services/sender.js')), { version: '3.12.0', port: 12081 });
    assert.deepEqual(readServer(__filename), {});
});
