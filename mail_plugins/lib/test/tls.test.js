'use strict';

// A receiver over TLS that may want a certificate. Certificates: tests/support/gateway.py says what they are.

const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const path = require('node:path');
const test = require('node:test');
const tls = require('node:tls');
const { HttpClient } = require('../http-client');
const { readSettings } = require('../settings');
const { emit, expected, files, ids, newEmitter, sorted, temporaryFolder } = require('../testing/emitting');
const { recordsOf, until } = require('../testing/receiver');

const BODY = Buffer.from('{}');
const CERTIFICATES = path.join(__dirname, '../../../tests/support/certificates');
const file = name => path.join(CERTIFICATES, `${name}.pem`);
const pem = name => fs.readFileSync(file(name));
const shown = name => ({ cert: pem(name), key: pem(name) });
const OK = 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}';

// Answers each request with 200; `connections` is the number of them, `peers` who showed a certificate, `bodies` what came.
async function tlsReceiver(t, certificate, clients) {
    const found = { connections: 0, peers: [], bodies: [] };
    const asked = clients ? { ca: pem(clients), requestCert: true } : {};
    const server = tls.createServer({ ...shown(certificate), ...asked }, socket => {
        found.connections += 1;
        found.peers.push(socket.getPeerCertificate().subject?.CN);
        let text = '';
        socket.on('error', () => {});
        socket.on('data', data => {
            text += data;
            const [head, body] = text.split('\r\n\r\n');
            if (body !== undefined && body.length >= Number(/content-length: (\d+)/.exec(head)[1])) {
                found.bodies.push(body);
                text = '';
                socket.write(OK);
            }
        });
    });
    server.on('tlsClientError', () => {});
    const sockets = new Set();
    server.on('connection', socket => sockets.add(socket.on('error', () => {})));
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    t.after(() => {
        server.close();
        sockets.forEach(socket => socket.destroy());
    });
    return Object.assign(found, { server, sockets, endpoint: `https://localhost:${server.address().port}` });
}

// Let who waits for a named pipe's content have none; false where nobody does.
function release(pipe) {
    try {
        fs.closeSync(fs.openSync(pipe, fs.constants.O_WRONLY | fs.constants.O_NONBLOCK));
        return true;
    } catch (error) {
        assert.equal(error.code, 'ENXIO');
        return false;
    }
}

function newClient(t, settings) {
    const client = new HttpClient(readSettings({ timeout: 2, ...settings }, [], assert.fail));
    t.after(() => client.close());
    return client;
}

test('whom the file names is trusted, and nobody else', async t => {
    const { endpoint } = await tlsReceiver(t, 'gateway');
    assert.equal((await newClient(t, { endpoint, tlsCa: file('authority') }).post(BODY)).status, 200);
    for (const settings of [{}, { tlsCa: file('lasting') }]) {
        await assert.rejects(newClient(t, { endpoint, ...settings }).post(BODY), {
            message: 'its certificate is not accepted: unable to verify the first certificate'
        });
    }
});

test('an expired certificate, and one of another name, are said as such', async t => {
    const expired = await tlsReceiver(t, 'gateway-expired');
    const tlsCa = file('authority');
    await assert.rejects(newClient(t, { endpoint: expired.endpoint, tlsCa }).post(BODY), {
        message: 'its certificate is not accepted: certificate has expired'
    });
    const foreign = await tlsReceiver(t, 'lasting');
    await assert.rejects(newClient(t, { endpoint: foreign.endpoint, tlsCa: file('lasting') }).post(BODY), /not accepted: Hostname\/IP does not match/);
});

test('a receiver that wants a certificate is shown it, its key with it or apart', async t => {
    const receiver = await tlsReceiver(t, 'gateway', 'authority');
    const given = { endpoint: receiver.endpoint, tlsCa: file('authority'), tlsClientCertificate: file('host') };
    for (const settings of [given, { ...given, tlsClientKey: file('host') }]) {
        const client = newClient(t, settings);
        for (let times = 0; times < 2; times += 1) {
            assert.equal((await client.post(BODY)).status, 200);
        }
    }
    assert.deepEqual(receiver.peers, ['host.test', 'host.test']);
});

test('a receiver that wants another certificate refuses in words, or is guessed at', async t => {
    const { endpoint, bodies } = await tlsReceiver(t, 'gateway', 'authority');
    const client = settings => newClient(t, { endpoint, tlsCa: file('authority'), ...settings });
    await assert.rejects(client({}).post(BODY), { message: 'no TLS came about: tlsv13 alert certificate required' });
    await assert.rejects(client({ tlsClientCertificate: file('host-expired') }).post(BODY), /does it want another certificate\?$/);
    assert.deepEqual(bodies, []);
});

test('who does not speak as the endpoint says is named', async t => {
    let last = 'HTTP/1.1 400 Bad Request\r\n\r\n';
    const server = net.createServer(socket => socket.on('error', () => {}).on('data', () => socket.end(last)));
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    const place = `127.0.0.1:${server.address().port}`;
    await assert.rejects(newClient(t, { endpoint: `https://${place}` }).post(BODY), /^Error: no TLS came about: [a-z ]+$/);
    // The agent's way with what is no TLS.
    last = '';
    await assert.rejects(newClient(t, { endpoint: `http://${place}` }).post(BODY), /closed before the answer; does it want https\?$/);
});

test('a file that cannot be used is named with its setting, and is used as soon as it can be', async t => {
    const receiver = await tlsReceiver(t, 'gateway', 'authority');
    const folder = temporaryFolder();
    const [tlsCa, tlsClientCertificate, tlsClientKey] = ['ca', 'certificate', 'key'].map(name => path.join(folder, name));
    const client = newClient(t, { endpoint: receiver.endpoint, tlsCa, tlsClientCertificate, tlsClientKey });
    const put = (name, content) => fs.writeFileSync(path.join(folder, name), content);
    put('certificate', pem('host'));
    put('key', pem('host'));
    const fails = words => assert.rejects(client.post(BODY), ({ message }) => words.test(message) && !message.includes('\n'));
    await fails(/^the setting tlsCa: ENOENT: no such file or directory, open '.*ca'$/);
    put('ca', 'no certificate\n');
    await fails(/^the setting tlsCa: .*ca cannot be used: no start line$/);
    put('ca', pem('authority'));
    put('key', pem('lasting'));
    await fails(/^the setting tlsClientCertificate and tlsClientKey: .*certificate and .*key cannot be used: key values mismatch$/);
    put('certificate', pem('authority'));
    await fails(/key values mismatch$/);
    assert.equal(receiver.connections, 0);
    put('certificate', pem('host'));
    put('key', pem('host'));
    assert.equal((await client.post(BODY)).status, 200);
});

test('files that nobody gives hold a request for its time alone, and one thread', { timeout: 20_000 }, async t => {
    const receiver = await tlsReceiver(t, 'gateway', 'authority');
    const folder = temporaryFolder();
    const [tlsCa, tlsClientCertificate, away] = ['ca', 'certificate', 'away'].map(name => path.join(folder, name));
    // Who opens one to read waits until somebody opens it to write, as with a mount whose server is away.
    execFileSync('mkfifo', [tlsCa, tlsClientCertificate]);
    // A thread that waits for ever would hold up this process's end.
    t.after(async () => {
        for (let times = 0; times < 20; times += 1) {
            files(folder).forEach(release);
            await new Promise(resolve => setTimeout(resolve, 10));
        }
    });
    const client = newClient(t, { endpoint: receiver.endpoint, timeout: 0.4, tlsCa, tlsClientCertificate });
    const begun = Date.now();
    for (let times = 0; times < 5; times += 1) {
        await assert.rejects(client.post(BODY), { message: 'the files of TLS were not read within 0.4 s' });
    }
    assert.ok(Date.now() - begun < 4000);
    // libuv has four threads for this process's disk and names (UV_THREADPOOL_SIZE); of more than four none would be left.
    await fs.promises.stat(folder);
    assert.equal(release(tlsClientCertificate), false);
    const posted = client.post(BODY);
    fs.renameSync(tlsCa, away);
    fs.rmSync(tlsClientCertificate);
    fs.copyFileSync(file('authority'), tlsCa);
    fs.copyFileSync(file('host'), tlsClientCertificate);
    assert.equal(release(away), true);
    // What was read at last is the answer to who waits for it then.
    await assert.rejects(posted, /the setting tlsCa: .*ca cannot be used/);
    assert.equal((await client.post(BODY)).status, 200);
});

test('a client that is closed while it reads its files opens no connection', async t => {
    const receiver = await tlsReceiver(t, 'gateway');
    const client = newClient(t, { endpoint: receiver.endpoint, tlsCa: file('authority') });
    const posted = client.post(BODY);
    client.close();
    await assert.rejects(posted, /the client was closed/);
    assert.equal(receiver.sockets.size, 0);
});

test('a renewed certificate is shown by the next connection', async t => {
    const receiver = await tlsReceiver(t, 'gateway', 'authority');
    const own = path.join(temporaryFolder(), 'shown.pem');
    fs.copyFileSync(file('host-expired'), own);
    const client = newClient(t, { endpoint: receiver.endpoint, tlsCa: file('authority'), tlsClientCertificate: own });
    await assert.rejects(client.post(BODY));
    fs.copyFileSync(file('host'), own);
    assert.equal((await client.post(BODY)).status, 200);
    // What is read is read for a connection, not for a request.
    fs.rmSync(own);
    assert.equal((await client.post(BODY)).status, 200);
    receiver.sockets.forEach(socket => socket.destroy());
    await until(() => !client.connection.isOpen);
    await assert.rejects(client.post(BODY), /tlsClientCertificate: ENOENT/);
});

test('events wait for a certificate that is accepted, and the log says it once', async t => {
    const receiver = await tlsReceiver(t, 'gateway-expired');
    const { emitter, log } = newEmitter(t, { endpoint: receiver.endpoint, settings: { tlsCa: file('authority') } });
    emit(emitter, 100);
    await until(() => receiver.sockets.size >= 3);
    receiver.server.setSecureContext(shown('gateway'));
    await until(() => emitter.outbox.waiting === 0, 20);
    const events = receiver.bodies.flatMap(body => recordsOf(JSON.parse(body)));
    assert.deepEqual(sorted(ids(events.filter(({ name }) => name !== 'postel.plugin.heartbeat'))), expected(100));
    assert.deepEqual(log.said.map(text => text.replace(/\d+ s$/, 'N s').replace(receiver.endpoint, 'E')), [
        'error: events are kept, E does not take them: its certificate is not accepted: certificate has expired',
        'info: events are taken by E again, after N s'
    ]);
});

test('settings of TLS without it are refused, and a key without its certificate', () => {
    const read = settings => () => readSettings(settings, [], assert.fail);
    for (const endpoint of ['http://127.0.0.1:4319', 'unix:/run/p.sock']) {
        assert.throws(read({ endpoint, tlsCa: '/a.pem' }), /the setting tlsCa needs an endpoint of https:\/\/, not /);
        assert.throws(read({ endpoint, tlsClientKey: '/a.pem' }), /the setting tlsClientKey needs an endpoint/);
    }
    assert.throws(read({ endpoint: 'https://otlp.test', tlsClientKey: '/a.pem' }), /tlsClientKey is of no tlsClientCertificate/);
});
