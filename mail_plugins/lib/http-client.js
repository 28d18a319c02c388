'use strict';

// One POST at a time over one kept connection. It resolves to the whole answer or rejects; either comes within `timeout`
// seconds, whatever the other side does, and the disk that TLS's files are on. Nothing here keeps the process alive.
//
// Node's own client costs a process that does other work four times as much for each request (decision 0063).

const net = require('net');
const { performance } = require('perf_hooks');
const tls = require('tls');
const { AnswerReader } = require('./http-answer');
const { TlsFiles } = require('./tls-files');

class HttpClient {
    // As readSettings gives them.
    constructor(settings) {
        const { target, token, headers, timeout } = settings;
        const files = new TlsFiles(settings);
        this.place = placeOf(target);
        // Nothing is read where there is nothing to read.
        this.files = this.place.secure && !files.areNone ? files : null;
        this.timeout = timeout * 1000;
        this.head = headOf(target, token, headers);
        this.connection = null;
        this.closed = false;
    }

    // { status, headers, body }, the body a text
    //   bytes: the request's body
    async post(bytes) {
        const reused = this.connection?.isOpen;
        const end = performance.now() + this.timeout;
        try {
            return await this.#post(bytes, end);
        } catch (error) {
            // The server closed the kept connection at the moment of its use: it saw nothing of the request.
            if (reused && error.unseen) {
                return this.#post(bytes, end);
            }
            throw error;
        }
    }

    close() {
        this.closed = true;
        this.connection?.close(closed());
    }

    #post(bytes, end) {
        if (this.connection?.isOpen) {
            return this.#exchange(bytes, end);
        }
        if (this.files) {
            return this.#read(end).then(secureContext => this.#open(bytes, end, secureContext));
        }
        return this.#open(bytes, end);
    }

    // What TLS's files hold. A read that is given up goes on.
    #read(end) {
        return new Promise((resolve, reject) => {
            const timer = this.#at(end, () => reject(this.#late('the files of TLS were not read')));
            this.files.read().then(resolve, reject).finally(() => clearTimeout(timer));
        });
    }

    #open(bytes, end, secureContext) {
        if (this.closed) {
            throw closed();
        }
        this.connection = new Connection(this.place, secureContext);
        return this.#exchange(bytes, end);
    }

    #exchange(bytes, end) {
        const { connection } = this;
        const head = `${this.head}content-length: ${bytes.length}\r\n\r\n`;
        return new Promise((resolve, reject) => {
            const timer = this.#at(end, () => connection.close(this.#late('no answer')));
            connection.exchange(head, bytes, (error, answer) => {
                clearTimeout(timer);
                if (error) {
                    reject(error);
                } else {
                    resolve(answer);
                }
            });
        });
    }

    #at(end, giveUp) {
        return setTimeout(giveUp, Math.max(0, end - performance.now())).unref();
    }

    #late(what) {
        return new Error(`${what} within ${this.timeout / 1000} s`);
    }
}

class Connection {
    // secureContext: what TLS's files hold; undefined: Node's own
    constructor({ secure, options }, secureContext) {
        // Read into one buffer: what a stream allocates for each read was a quarter of a request's cost.
        const onread = { buffer: Buffer.alloc(4 << 10), callback: (length, buffer) => this.#received(buffer, length) };
        this.socket = (secure ? tls : net).connect({ ...options, secureContext, onread });
        // A receiver that wants TLS, or another certificate, may be gone before its word is read (TLS 1.3 has the latter
        // said when the handshake is over).
        this.guess = secure ? 'does it want another certificate?' : 'does it want https?';
        this.socket.unref();
        this.socket.on('error', error => this.#lost(error));
        this.socket.on('close', () => this.#ended());
        this.reader = null;
        this.done = null;
    }

    // True where a request can be sent: none is under way, and neither side has ended it.
    get isOpen() {
        return this.socket.writable && !this.done;
    }

    // Send a request; `done` is called once, with an error or an answer.
    exchange(head, body, done) {
        this.reader = new AnswerReader();
        this.done = done;
        // Together, in one call of the system.
        this.socket.cork();
        this.socket.write(head);
        this.socket.write(body);
        this.socket.uncork();
    }

    close(error) {
        this.socket.destroy();
        this.#settle(error);
    }

    #received(buffer, length) {
        if (!this.done) {
            // Nobody asked: a server that says why it closes an idle connection.
            this.socket.destroy();
            return true;
        }
        try {
            if (this.reader.feed(Buffer.from(buffer.subarray(0, length)))) {
                this.#answered();
            }
        } catch (error) {
            this.close(error);
        }
        return true;
    }

    #ended() {
        if (this.done && this.reader.end()) {
            this.#answered();
        } else {
            this.#lost(Object.assign(new Error('the connection was closed before the answer'), { code: 'ECONNRESET' }));
        }
    }

    #lost(error) {
        const unseen = Boolean(this.reader?.isUntouched) && ['ECONNRESET', 'EPIPE'].includes(error.code);
        this.close(Object.assign(new Error(this.#reason(error, unseen)), { code: error.code, unseen }));
    }

    // In words for one line of a log.
    #reason(error, unseen) {
        if (this.socket.authorizationError) {
            return `its certificate is not accepted: ${error.message}`;
        }
        const refusal = opensslReason(error);
        if (refusal) {
            return `no TLS came about: ${refusal}`;
        }
        return unseen ? `${error.message}; ${this.guess}` : error.message || error.code;
    }

    #answered() {
        if (!this.reader.keepsConnection) {
            this.socket.destroy();
        }
        this.#settle(null, this.reader.answer);
    }

    #settle(error, answer) {
        const { done } = this;
        this.done = null;
        done?.(error, answer);
    }
}

// Of OpenSSL's text, which also has numbers of threads and lines and ends a line, and does not always come in parts.
const opensslReason = ({ reason, message }) => reason || /:SSL routines:[^:]*:([^:]+):/.exec(message)?.[1];

const closed = () => new Error('the client was closed');

// What net.connect and tls.connect take of a target.
function placeOf({ protocol, hostname, port, socketPath }) {
    if (socketPath) {
        return { secure: false, options: { path: socketPath } };
    }
    const secure = protocol === 'https:';
    // An address is no name that a certificate could be asked for (RFC 6066, 3).
    const servername = secure && !net.isIP(hostname) ? hostname : undefined;
    const options = { host: hostname, port: Number(port) || (secure ? 443 : 80), noDelay: true };
    return { secure, options: secure ? { ...options, servername, ALPNProtocols: ['http/1.1'] } : options };
}

// A request's head, all but the body's length.
function headOf({ hostname, port, path }, token, headers) {
    const name = net.isIPv6(hostname) ? `[${hostname}]` : hostname || 'localhost';
    const fields = {
        host: port ? `${name}:${port}` : name,
        'content-type': 'application/json',
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...Object.fromEntries(Object.entries(headers).map(([key, value]) => [key.toLowerCase(), value]))
    };
    const lines = Object.entries(fields).map(([key, value]) => `${key}: ${value}\r\n`);
    return `POST ${path} HTTP/1.1\r\n${lines.join('')}`;
}

module.exports = { HttpClient };
