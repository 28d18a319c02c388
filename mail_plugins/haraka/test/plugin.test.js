'use strict';

// The plugin as Haraka loads it, with its hooks called as Haraka calls them, and an OTLP receiver behind it.

const assert = require('node:assert/strict');
const test = require('node:test');
const { Receiver, until } = require('postel-emitter/testing/receiver');
const { temporaryFolder } = require('postel-emitter/testing/emitting');
const { smtpPort } = require('../server');
const { answered, address, config, connection, transaction } = require('../testing/haraka');

const SERVER = { notes: {}, cfg: { main: {} }, get_listen_addrs: () => ['[::0]:2525', '127.0.0.1:2526'] };

// The plugin as Haraka's own object of it, and `run`, which calls a hook and says that it went on, once.
async function loaded(t, { settings = {}, hook = 'postel_master' } = {}) {
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const [hooks, said] = [new Map(), []];
    const main = { endpoint: server.endpoint, bufferDirectory: temporaryFolder(), ...settings };
    const plugin = {
        ...require('..'),
        config: config({ 'postel.ini': { main } }),
        haraka_require: () => ({ version: '3.9.9' }),
        register_hook: (name, method, priority) => hooks.set(name, { method, priority }),
        logerror: text => said.push(text),
        loginfo: text => said.push(text),
        logcrit: text => said.push(text)
    };
    plugin.register();
    const call = (method, ...args) => {
        let called = 0;
        plugin[method]((...given) => {
            assert.deepEqual(given, []);
            called += 1;
        }, ...args);
        assert.equal(called, 1);
    };
    const run = (name, ...args) => call(hooks.get(name).method, ...args);
    const begin = () => call(hook, SERVER);
    return { server, run, begin, said, hooks };
}

test('hooks are first where they watch, and last where others may change the decision', async t => {
    const { hooks } = await loaded(t);
    const last = [...hooks].filter(([, { priority }]) => priority === 100).map(([name]) => name);
    assert.deepEqual(last, ['rcpt', 'deny']);
    assert.ok([...hooks.values()].every(({ priority }) => Math.abs(priority) === 100));
    // Haraka registers methods of such names once more.
    assert.ok([...hooks.values()].every(({ method }) => !method.startsWith('hook_')));
});

test('a transaction is followed from MAIL to its end', async t => {
    const { server, run, begin, said } = await loaded(t);
    begin();
    const txn = transaction({ named: { rcpt_to: answered(['a@x.test', 'accept']) }, rcpt_count: { accept: 1, tempfail: 0, reject: 0 } });
    const host = connection({ transaction: txn });
    run('mail', host, [address('from@sender.test'), {}]);
    run('data', host);
    host.hooks_to_run = [[{ name: 'first' }, 'hook_queue'], [{ name: 'second' }, 'hook_queue']];
    run('queue', host);
    host.hooks_to_run.shift();
    Object.assign(txn, { msg_status: 'accepted', data_bytes: 12 });
    txn.results = { get: name => ({ queue: { pass: ['Kept'], fail: [] }, rcpt_to: answered(['a@x.test', 'accept']) })[name] };
    host.last_response = '250 Kept (C.1)\r\n';
    run('reset_transaction', host);
    run('disconnect', connection());
    await until(() => server.events.length === 2);
    const [message, closed] = server.events;
    assert.equal(message.name, 'haraka.message.accepted');
    assert.equal(message.attributes['haraka.storage.plugin'], 'first');
    assert.equal(message.attributes['haraka.storage.text'], 'Kept');
    assert.equal(message.attributes['haraka.data.size'], 12);
    assert.equal(closed.name, 'haraka.connection.closed');
    assert.equal(closed.attributes['haraka.session.transaction.count'], 1);
    assert.equal(server.records[0].attributes['postel.plugin.process.kind'], 'single');
    assert.deepEqual(said, []);
});

test('each denial is told once: by its own event, by a recipient\'s, or by that of the message which it ended', async t => {
    const { server, run, begin } = await loaded(t);
    begin();
    const denial = (number, hook, params) => [number, 'No', 'judge', 'fn', params, hook];
    run('deny', connection({ transaction: null }), denial(902, 'connect'));
    const txn = transaction();
    const host = connection({ transaction: txn, last_response: '450 No' });
    run('deny', host, denial(902, 'noop'));
    run('deny', host, denial(903, 'rcpt', [address('a@x.test'), {}]));
    run('deny', host, denial(903, 'rcpt_ok', address('b@x.test')));
    run('deny', host, denial(903, 'data_post'));
    run('reset_transaction', host);
    await until(() => server.events.length === 5);
    const denied = server.events.map(({ name, attributes }) => [name, attributes['haraka.hook'], attributes['haraka.denial']]);
    assert.deepEqual(denied, [
        ['haraka.connection.denied', 'connect', 'deny'],
        ['haraka.connection.denied', 'noop', 'deny'],
        ['haraka.recipient.rejected', 'rcpt', 'denysoft'],
        ['haraka.recipient.rejected', 'rcpt_ok', 'denysoft'],
        ['haraka.message.deferred', 'data_post', 'denysoft']
    ]);
});

test('a bounce is told when Haraka queues it, and no message that a client or a plugin sent', async t => {
    const { server, run, begin } = await loaded(t);
    begin();
    const todo = { uuid: 'C.1.1', mail_from: address('a@x.test'), rcpt_to: [address('b@y.test')], domain: 'y.test', notes: {} };
    run('bounce', { todo, notes: {}, num_failures: 0 }, new Error('No such domain'));
    const headers = { 'message-id': '<n@mx.test>', references: '<m@x.test>' };
    const fromNobody = uuid => transaction({ uuid, mail_from: address(''), rcpt_to: [address('a@x.test')], headers });
    const received = fromNobody('D.1');
    run('mail', connection({ transaction: received }), [address(''), {}]);
    run('pre_send_trans_email', { transaction: received });
    const bounce = fromNobody('B');
    run('pre_send_trans_email', { transaction: bounce });
    run('pre_send_trans_email', { transaction: fromNobody('P') });
    const delivery = { todo: { ...todo, uuid: 'B.1', mail_from: address('') }, notes: bounce.notes, num_failures: 0 };
    run('delivered', delivery, ['mx.x.test', '192.0.2.1', '250 OK', 0, 25, 'SMTP', [address('a@x.test')], false]);
    await until(() => server.events.length === 3);
    const [rejected, queued, accepted] = server.events;
    assert.equal(rejected.name, 'haraka.delivery.rejected');
    assert.equal(queued.name, 'haraka.bounce.queued');
    assert.equal(queued.attributes['haraka.transaction.id'], 'B');
    assert.equal(queued.attributes['haraka.bounce.message_id'], '<m@x.test>');
    assert.deepEqual(queued.attributes['email.to.address'], ['a@x.test']);
    assert.equal(accepted.attributes['email.message_id'], '<n@mx.test>');
    assert.equal(accepted.attributes['haraka.transaction.id'], 'B');
});

test('a denial in a hook of deliveries is no connection\'s', async t => {
    const { server, run, begin } = await loaded(t);
    begin();
    run('deny', { todo: {}, notes: {} }, [902, 'No', 'judge', 'fn', 'far.test', 'get_mx']);
    run('disconnect', connection());
    await until(() => server.events.length === 1);
    assert.equal(server.events[0].name, 'haraka.connection.closed');
});

test('whatever a hook is given, the server goes on', async t => {
    const { server, run, begin, hooks } = await loaded(t);
    begin();
    const names = [...hooks.keys()].filter(name => !name.startsWith('init_'));
    for (const name of names) {
        for (const odd of [null, undefined, {}, 7, { transaction: {} }, connection({ transaction: { notes: null } })]) {
            run(name, odd, odd);
        }
    }
    run('disconnect', connection());
    await until(() => server.events.some(({ attributes }) => attributes['haraka.connection.id'] === 'C'));
});

test('before Haraka is set up hooks go on, and nothing is told', async t => {
    const { server, run } = await loaded(t);
    run('disconnect', connection());
    run('reset_transaction', connection({ transaction: transaction() }));
    assert.deepEqual(server.records, []);
});

test('a wrong setting is named, and the server goes on', async t => {
    const { server, run, begin, said } = await loaded(t, { settings: { endpoint: 'nowhere' } });
    begin();
    run('disconnect', connection());
    assert.equal(said.length, 1);
    assert.match(said[0], /nothing is told to Postel: the setting endpoint must be http/);
    assert.deepEqual(server.records, []);
});

test('a worker says that it is one', async t => {
    const { server, begin } = await loaded(t, { hook: 'postel_worker' });
    begin();
    await until(() => server.records.length === 1);
    const [{ attributes, resource }] = server.records;
    assert.equal(attributes['postel.plugin.process.kind'], 'worker');
    assert.equal(resource['service.version'], '3.9.9');
    assert.equal(resource['server.port'], 2525);
});

test('the port is that of the first address', () => {
    const port = listen => smtpPort({ ...SERVER, get_listen_addrs: () => [listen] });
    assert.equal(port('127.0.0.1:25'), 25);
    assert.equal(port('[::0]:587'), 587);
    assert.equal(port('/run/haraka.sock'), undefined);
});
