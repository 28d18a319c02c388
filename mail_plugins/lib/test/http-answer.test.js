'use strict';

const assert = require('node:assert/strict');
const http = require('node:http');
const net = require('node:net');
const test = require('node:test');
const { AnswerReader, MAX_BODY, MAX_HEAD } = require('../http-answer');
const { randomAnswer } = require('../testing/answers');

// Feed it in pieces; what is left of `bytes` when the answer is there is not fed.
function read(bytes, pieces = [bytes.length]) {
    const reader = new AnswerReader();
    let at = 0;
    let done = false;
    for (let index = 0; at < bytes.length && !done; index += 1) {
        const next = at + pieces[index % pieces.length];
        done = reader.feed(Buffer.from(bytes.slice(at, next), 'latin1'));
        at = next;
    }
    return { done: done || reader.end(), reader, answer: reader.answer };
}

function body(bytes) {
    const { done, answer, reader } = read(bytes);
    assert.ok(done, JSON.stringify(bytes));
    return { body: answer.body, keeps: reader.keepsConnection };
}

test('a body ends with its length, its last chunk, or the connection', () => {
    assert.deepEqual(body('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}'), { body: '{}', keeps: true });
    assert.deepEqual(body('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'), { body: '', keeps: true });
    assert.deepEqual(body('HTTP/1.1 200\r\nContent-Length: 2, 2\r\n\r\n{}'), { body: '{}', keeps: true });
    assert.deepEqual(body('HTTP/1.1 204 No Content\r\n\r\n'), { body: '', keeps: true });
    assert.deepEqual(body('HTTP/1.1 200 OK\r\n\r\n{}'), { body: '{}', keeps: false });
    const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n';
    assert.deepEqual(body(`${chunked}1\r\n{\r\n01 ; a="b"\r\n}\r\n0\r\nX-Trailer: y\r\n\r\n`), { body: '{}', keeps: true });
    assert.deepEqual(body(`${chunked}0\r\n\r\n`), { body: '', keeps: true });
    assert.deepEqual(body('HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nxyz'), { body: 'xyz', keeps: false });
    // A length beside chunks means nothing (RFC 9112, 6.3).
    const both = 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n';
    assert.deepEqual(body(both), { body: '{}', keeps: false });
});

test('a connection is kept where both sides want it', () => {
    const keeps = head => body(`${head}\r\nContent-Length: 0\r\n\r\n`).keeps;
    assert.equal(keeps('HTTP/1.1 200 OK\r\nConnection: Close'), false);
    assert.equal(keeps('HTTP/1.1 200 OK\r\nConnection: x, close'), false);
    assert.equal(keeps('HTTP/1.1 200 OK\r\nConnection: keep-alive'), true);
    assert.equal(keeps('HTTP/1.0 200 OK'), false);
    assert.equal(keeps('HTTP/1.0 200 OK\r\nConnection: Keep-Alive'), true);
    // More came than was asked for.
    assert.equal(body('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 408').keeps, false);
});

test('interim answers are passed over', () => {
    const early = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n';
    const { answer } = read(`${early}HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n`);
    assert.equal(answer.status, 503);
    assert.deepEqual({ ...answer.headers }, { 'retry-after': '7', 'content-length': '0' });
});

test('headers are joined where they come twice or go on', () => {
    const { answer } = read('HTTP/1.1 200 OK\r\nA: 1\r\nB:\t2 \r\na: 3\r\n 4\r\n__proto__: 5\r\nContent-Length:0\r\n\r\n');
    assert.deepEqual(Object.entries(answer.headers).slice(0, 2), [['a', '1, 3 4'], ['b', '2']]);
    assert.ok(Object.keys(answer.headers).includes('__proto__'));
});

test('of a long body the beginning is kept, and the connection is not', () => {
    const long = 'x'.repeat(MAX_BODY + 100);
    for (const answer of [
        `HTTP/1.1 500 No\r\nContent-Length: ${long.length}\r\n\r\n${long}`,
        `HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n${long.length.toString(16)}\r\n${long}\r\n0\r\n\r\n`,
        `HTTP/1.1 500 No\r\n\r\n${long}`
    ]) {
        const { done, reader } = read(answer, [1000]);
        assert.ok(done);
        assert.equal(reader.answer.body.length, MAX_BODY);
        assert.equal(reader.answer.status, 500);
        assert.equal(reader.keepsConnection, false);
    }
});

test('what is no answer is an error at once', () => {
    for (const [bytes, message] of [
        ['220 mail.test ESMTP\r\n', /not HTTP\/1.1, it begins with "220 mai"/],
        ['HTTP/2 200\r\n\r\n', /not HTTP\/1.1/],
        ['HTTP/1.1 2x0 OK\r\n\r\n', /not HTTP\/1.1/],
        ['HTTP/1.1 099 OK\r\n\r\n', /not HTTP\/1.1/],
        ['HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n', /changes the protocol/],
        ['HTTP/1.1 200 OK\r\nno header\r\n\r\n', /malformed header/],
        ['HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n', /malformed header/],
        ['HTTP/1.1 200 OK\r\n: 2\r\n\r\n', /malformed header/],
        ['HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n', /content-length/],
        ['HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n', /content-length/],
        ['HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n', /content-length/],
        ['HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n', /content-length/],
        ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n', /without a size/],
        ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n', /without a size/],
        ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n', /longer than its size/],
        [`HTTP/1.1 200 OK\r\nA: ${'x'.repeat(MAX_HEAD)}`, /head is longer/],
        [`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;${'x'.repeat(2000)}`, /lines longer/]
    ]) {
        assert.throws(() => read(bytes), message, JSON.stringify(bytes.slice(0, 60)));
    }
});

test('an answer that the connection cuts off is none', () => {
    const whole = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n';
    for (let length = 0; length < whole.length; length += 1) {
        assert.equal(read(whole.slice(0, length)).done, false, String(length));
    }
    assert.equal(read(whole).done, true);
});

test('answers of any shape and in any pieces are read as Node reads them', async t => {
    let answer;
    const server = net.createServer(socket => {
        socket.on('error', () => {});
        socket.once('data', () => socket.end(answer, 'latin1'));
    });
    await new Promise(resolve => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    for (let seed = 1; seed <= 300; seed += 1) {
        const { bytes, pieces } = randomAnswer(seed);
        answer = bytes;
        const expected = await askedByNode(server.address().port);
        const ours = read(bytes, pieces);
        assert.ok(ours.done, `seed ${seed}: ${JSON.stringify(bytes)}`);
        assert.equal(ours.answer.status, expected.status, `seed ${seed}`);
        assert.equal(ours.answer.body, expected.body, `seed ${seed}: ${JSON.stringify(bytes)}`);
        assert.equal(ours.answer.headers['content-type'], expected.headers['content-type'], `seed ${seed}`);
    }
});

function askedByNode(port) {
    return new Promise((resolve, reject) => {
        const request = http.request({ port, host: '127.0.0.1', method: 'POST', agent: false }, response => {
            response.setEncoding('utf8');
            let text = '';
            response.on('data', part => (text += part));
            response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body: text }));
            response.on('error', reject);
        });
        request.on('error', reject);
        request.end('{}');
    });
}
