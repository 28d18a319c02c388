'use strict';

const assert = require('node:assert/strict');
const { execFile, execFileSync } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const test = require('node:test');
const { promisify } = require('node:util');
const { HttpClient } = require('../http-client');
const { readSettings } = require('../settings');
const { temporaryFolder } = require('../testing/emitting');

const BODY = Buffer.from('{}');
const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}';

function newClient(t, endpoint, settings = {}) {
    const client = new HttpClient(readSettings({ endpoint, timeout: 2, ...settings }, [], assert.fail));
    t.after(() => client.close());
    return client;
}

async function listening(t, server, host = '127.0.0.1') {
    const sockets = new Set();
    server.on('connection', socket => sockets.add(socket.on('error', () => {})));
    await new Promise(resolve => server.listen(0, host, resolve));
    t.after(() => {
        server.close();
        sockets.forEach(socket => socket.destroy());
    });
    return { port: server.address().port, sockets };
}

// A server of bytes: `answer(socket, number, text)` is called for each piece that comes, numbered over all connections.
async function bytesServer(t, answer) {
    let number = 0;
    const server = net.createServer(socket => {
        socket.on('data', data => answer(socket, (number += 1), data.toString()));
    });
    const { port, sockets } = await listening(t, server);
    return { endpoint: `http://127.0.0.1:${port}`, sockets, asked: () => number };
}

const pause = milliseconds => new Promise(resolve => setTimeout(resolve, milliseconds));

test('requests share one connection and are what Node\'s server takes', async t => {
    const seen = [];
    const server = http.createServer((request, response) => {
        let body = '';
        request.setEncoding('utf8');
        request.on('data', part => (body += part));
        request.on('end', () => {
            seen.push({ method: request.method, url: request.url, headers: request.headers, body });
            response.end('{"partialSuccess":{}}');
        });
    });
    const { port, sockets } = await listening(t, server);
    const client = newClient(t, `http://127.0.0.1:${port}/otlp`, { token: 'secret', headers: { 'X-Tenant': 'a', Host: 'other.test' } });
    const large = `{"text":"${'\u00e9\ud83d\udcec'.repeat(100_000)}"}`;
    for (const body of ['{}', large, '{"last":1}']) {
        const answer = await client.post(Buffer.from(body));
        assert.deepEqual([answer.status, answer.body], [200, '{"partialSuccess":{}}']);
    }
    assert.deepEqual(seen.map(each => each.body), ['{}', large, '{"last":1}']);
    assert.equal(sockets.size, 1);
    assert.deepEqual({ method: seen[0].method, url: seen[0].url }, { method: 'POST', url: '/otlp/v1/logs' });
    assert.deepEqual(seen[0].headers, {
        host: 'other.test',
        'content-type': 'application/json',
        authorization: 'Bearer secret',
        'x-tenant': 'a',
        'content-length': '2'
    });
});

test('an answer that comes in pieces, after interim ones, is whole', async t => {
    const { endpoint } = await bytesServer(t, async socket => {
        for (const piece of ['HTTP/1.1 100 Continue\r\n\r', '\nHTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n2', '\r\n{}\r\n0\r', '\n\r\n']) {
            socket.write(piece);
            await pause(10);
        }
    });
    const client = newClient(t, endpoint);
    for (let times = 0; times < 2; times += 1) {
        const { status, body } = await client.post(BODY);
        assert.deepEqual({ status, body }, { status: 503, body: '{}' });
    }
});

test('a connection that the server closed while it was idle is not used again', async t => {
    const { endpoint, sockets } = await bytesServer(t, socket => socket.end(OK));
    const client = newClient(t, endpoint);
    for (let times = 0; times < 3; times += 1) {
        assert.equal((await client.post(BODY)).status, 200);
        await pause(20);
    }
    assert.equal(sockets.size, 3);
});

test('a connection on which bytes come unasked is closed', async t => {
    const { endpoint, sockets } = await bytesServer(t, async socket => {
        socket.write(OK);
        await pause(20);
        socket.write('HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n');
    });
    const client = newClient(t, endpoint);
    assert.equal((await client.post(BODY)).status, 200);
    await pause(50);
    assert.equal((await client.post(BODY)).status, 200);
    assert.equal(sockets.size, 2);
});

test('a request that a closing connection swallowed is sent once more, on a new one', async t => {
    const { endpoint, asked } = await bytesServer(t, (socket, number) => (number === 2 ? socket.destroy() : socket.write(OK)));
    const client = newClient(t, endpoint);
    await client.post(BODY);
    assert.equal((await client.post(BODY)).status, 200);
    assert.equal(asked(), 3);
});

test('a request that is sent once more has the time of one', async t => {
    const { endpoint, asked } = await bytesServer(t, async (socket, number) => {
        if (number === 1) {
            socket.write(OK);
        } else if (number === 2) {
            await pause(700);
            socket.destroy();
        }
    });
    const client = newClient(t, endpoint, { timeout: 1 });
    await client.post(BODY);
    const begun = Date.now();
    await assert.rejects(client.post(BODY), /no answer within 1 s/);
    assert.ok(Date.now() - begun < 1400);
    assert.equal(asked(), 3);
});

test('a request that was answered in part, or on a new connection not at all, fails', async t => {
    let beginning = 'HTTP/1.1 200 OK\r\nContent-Le';
    const { endpoint, asked } = await bytesServer(t, (socket, number) => (number === 1 ? socket.write(OK) : socket.end(beginning)));
    const client = newClient(t, endpoint);
    await client.post(BODY);
    await assert.rejects(client.post(BODY), /closed before the answer/);
    assert.equal(asked(), 2);
    beginning = '';
    await assert.rejects(client.post(BODY), /closed before the answer/);
    assert.equal(asked(), 3);
});

test('silence ends with the timeout, also amid an answer, and a late answer is nobody\'s', async t => {
    let answer = () => {};
    const { endpoint, sockets } = await bytesServer(t, socket => answer(socket));
    const client = newClient(t, endpoint, { timeout: 0.2 });
    const begun = Date.now();
    await assert.rejects(client.post(Buffer.from('{"first":1}')), /no answer within 0.2 s/);
    answer = socket => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{');
    await assert.rejects(client.post(BODY), /no answer within 0.2 s/);
    assert.ok(Date.now() - begun < 1000);
    answer = socket => {
        sockets.forEach(each => each !== socket && each.destroyed === false && each.write('HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n'));
        socket.write(OK);
    };
    assert.equal((await client.post(BODY)).status, 200);
    assert.equal(sockets.size, 3);
});

test('a refusal that comes before the body is read counts', async t => {
    const { endpoint } = await bytesServer(t, (socket, number) => {
        if (number === 1) {
            socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
        }
    });
    const { status } = await newClient(t, endpoint).post(Buffer.alloc(600_000, 'x'));
    assert.equal(status, 413);
});

test('another protocol, nobody, and an unknown host are errors that say so', async t => {
    const { endpoint } = await bytesServer(t, socket => socket.write('220 mail.test ESMTP\r\n'));
    await assert.rejects(newClient(t, endpoint).post(BODY), /not HTTP\/1.1, it begins with "220 mai"/);
    const nobody = net.createServer();
    const { port } = await listening(t, nobody);
    await new Promise(resolve => nobody.close(resolve));
    await assert.rejects(newClient(t, `http://127.0.0.1:${port}`).post(BODY), /ECONNREFUSED/);
    await assert.rejects(newClient(t, 'http://nowhere.invalid:1').post(BODY), /ENOTFOUND|EAI_AGAIN/);
    await assert.rejects(newClient(t, 'unix:/nowhere/at.all').post(BODY), /ENOENT/);
});

test('an IPv6 address is an endpoint', async t => {
    const hosts = [];
    const server = http.createServer((request, response) => {
        hosts.push(request.headers.host);
        response.end('{}');
    });
    let port;
    try {
        ({ port } = await listening(t, server, '::1'));
    } catch {
        t.skip('this machine has no IPv6');
        return;
    }
    assert.equal((await newClient(t, `http://[::1]:${port}`).post(BODY)).status, 200);
    assert.deepEqual(hosts, [`[::1]:${port}`]);
});

test('a client that is closed ends its request and its connection', async t => {
    const { endpoint, sockets } = await bytesServer(t, () => {});
    const client = newClient(t, endpoint);
    const posted = client.post(BODY);
    await pause(50);
    client.close();
    await assert.rejects(posted, /the client was closed/);
    await pause(50);
    assert.deepEqual([...sockets].map(socket => socket.destroyed), [true]);
});

test('neither a request nor a kept connection keeps the process alive', async t => {
    const { endpoint, sockets } = await bytesServer(t, (socket, number) => (number === 1 ? socket.write(OK) : undefined));
    const code = `
        const { HttpClient } = require(${JSON.stringify(path.join(__dirname, '../http-client'))});
        const target = { protocol: 'http:', hostname: '127.0.0.1', port: '${new URL(endpoint).port}', path: '/' };
        const client = new HttpClient({ target, token: '', headers: {}, timeout: 60 });
        const anchor = setInterval(() => {}, 1000);
        client.post(Buffer.from('{}')).then(({ status }) => {
            console.log(status);
            clearInterval(anchor);
            client.post(Buffer.from('{}'));
        });`;
    const begun = Date.now();
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', code], { timeout: 20_000 });
    assert.equal(stdout, '200\n');
    assert.equal(sockets.size, 1);
    assert.ok(Date.now() - begun < 10_000);
});

test('over TLS a certificate must be one that Node trusts', async t => {
    const folder = temporaryFolder();
    const [key, cert] = ['key.pem', 'cert.pem'].map(name => path.join(folder, name));
    const names = 'subjectAltName=IP:127.0.0.1,DNS:localhost';
    const options = ['-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=localhost', '-addext', names];
    try {
        execFileSync('openssl', ['req', ...options, '-keyout', key, '-out', cert], { stdio: 'pipe' });
    } catch (error) {
        t.skip(`no certificate can be made: ${error.message}`);
        return;
    }
    const server = https.createServer({ key: fs.readFileSync(key), cert: fs.readFileSync(cert) }, (request, response) => {
        request.resume();
        request.on('end', () => response.end('{"partialSuccess":{}}'));
    });
    let connections = 0;
    server.on('secureConnection', () => (connections += 1));
    const { port } = await listening(t, server);
    await assert.rejects(newClient(t, `https://127.0.0.1:${port}`).post(BODY), /self-signed certificate/);
    connections = 0;
    // Such certificates are read when Node starts.
    const code = `
        const { HttpClient } = require(${JSON.stringify(path.join(__dirname, '../http-client'))});
        (async () => {
            for (const hostname of ['localhost', '127.0.0.1']) {
                const target = { protocol: 'https:', hostname, port: '${port}', path: '/' };
                const client = new HttpClient({ target, token: '', headers: {}, timeout: 5 });
                console.log((await client.post(Buffer.from('{}'))).status, (await client.post(Buffer.alloc(300_000, 'x'))).body);
                client.close();
            }
        })();
        setTimeout(() => {}, 2000);`;
    const environment = { ...process.env, NODE_EXTRA_CA_CERTS: cert };
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', code], { env: environment, timeout: 20_000 });
    assert.equal(stdout, '200 {"partialSuccess":{}}\n'.repeat(2));
    assert.equal(connections, 2);
});

test('headers that no request can have are refused by their setting', () => {
    for (const settings of [
        { headers: { 'x-a': 'a\r\nx-b: b' } },
        { headers: { 'x a': 'a' } },
        { headers: { 'Content-Length': '5' } },
        { token: 'a\nb' }
    ]) {
        assert.throws(() => readSettings(settings, [], assert.fail), /setting/);
    }
});
