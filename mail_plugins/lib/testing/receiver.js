'use strict';

// An OTLP receiver for tests, on a free port or a Unix socket: keeps what it took, answers what a test asks for.

const http = require('http');

class Receiver {
    constructor() {
        // What to answer to a request's body: { status, headers, body }; null: nothing, ever.
        this.answer = () => ({});
        this.requests = [];
        this.taken = [];
        this.sockets = new Set();
        this.place = 0;
    }

    async start() {
        this.server = http.createServer((request, response) => this.#receive(request, response));
        this.server.on('connection', socket => {
            this.sockets.add(socket);
            socket.on('close', () => this.sockets.delete(socket));
        });
        await new Promise(resolve => this.server.listen(this.place, '127.0.0.1', resolve));
        this.place = this.server.address().port || this.place;
        return this;
    }

    async listenOn(path) {
        this.server = http.createServer((request, response) => this.#receive(request, response));
        await new Promise(resolve => this.server.listen(path, resolve));
        return this;
    }

    async stop() {
        this.sockets.forEach(socket => socket.destroy());
        if (this.server.listening) {
            await new Promise(resolve => this.server.close(resolve));
        }
    }

    get endpoint() {
        return `http://127.0.0.1:${this.place}`;
    }

    // Every record that was taken: { name, time, uid, body, severity, attributes, resource, scope }.
    get records() {
        return this.taken.flatMap(recordsOf);
    }

    // Those of the source's own, without heartbeats.
    get events() {
        return this.records.filter(record => record.name !== 'postel.plugin.heartbeat');
    }

    #receive(request, response) {
        const chunks = [];
        request.on('data', chunk => chunks.push(chunk));
        request.on('end', () => {
            const body = JSON.parse(Buffer.concat(chunks));
            this.requests.push({ url: request.url, headers: request.headers, body, at: Date.now() });
            const answer = this.answer(body, request);
            if (!answer) {
                return;
            }
            const { status = 200, headers = {}, body: text = '{"partialSuccess":{}}' } = answer;
            if (status === 200) {
                this.taken.push(body);
            }
            response.writeHead(status, { 'content-type': 'application/json', ...headers });
            response.end(text);
        });
    }
}

function recordsOf(body) {
    return body.resourceLogs.flatMap(({ resource, scopeLogs }) =>
        scopeLogs.flatMap(({ scope, logRecords }) =>
            logRecords.map(record => {
                const { 'log.record.uid': uid, ...attributes } = plain(record.attributes);
                return {
                    name: record.eventName,
                    time: record.timeUnixNano,
                    uid,
                    body: record.body.stringValue,
                    severity: record.severityText,
                    attributes,
                    resource: plain(resource.attributes),
                    scope: scope.name
                };
            })
        )
    );
}

function plain(attributes) {
    return Object.fromEntries(attributes.map(({ key, value }) => [key, plainValue(value)]));
}

function plainValue(value) {
    if (value.arrayValue) {
        return value.arrayValue.values.map(plainValue);
    }
    const [[kind, content]] = Object.entries(value);
    return kind === 'intValue' ? Number(content) : content;
}

// One that ends with the test.
async function receiver(t) {
    const started = await new Receiver().start();
    t.after(() => started.stop());
    return started;
}

// Ask until the answer is truthy; Error after `seconds`.
async function until(ask, seconds = 10, what = ask.toString()) {
    const deadline = Date.now() + seconds * 1000;
    while (!ask()) {
        if (Date.now() > deadline) {
            throw new Error(`not within ${seconds} s: ${what}`);
        }
        await new Promise(resolve => setTimeout(resolve, 20));
    }
}

// A log that keeps what was said.
function keptLog() {
    const said = [];
    return { said, error: text => said.push(`error: ${text}`), info: text => said.push(`info: ${text}`) };
}

module.exports = { Receiver, keptLog, receiver, recordsOf, until };
