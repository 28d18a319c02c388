'use strict';

// One POST at a time over one kept connection. It resolves to the whole answer or rejects; either comes within `timeout`
// seconds, whatever the other side does. Nothing here keeps the process alive.

const http = require('http');
const https = require('https');

// An answer is a short JSON object; a proxy's error page is not worth more memory.
const MAX_ANSWER = 64 << 10;

class HttpClient {
    constructor({ target, token, headers, timeout }) {
        const { protocol, ...options } = target;
        this.module = protocol === 'https:' ? https : http;
        this.timeout = timeout * 1000;
        this.options = {
            ...options,
            method: 'POST',
            agent: new this.module.Agent({ keepAlive: true, maxSockets: 1 }),
            headers: {
                'content-type': 'application/json',
                ...(token ? { authorization: `Bearer ${token}` } : {}),
                ...headers
            }
        };
    }

    // { status, headers, body }
    async post(body) {
        try {
            return await this.#post(body);
        } catch (error) {
            // The server closed the kept connection at the moment of its use: it saw nothing of the request.
            if (error.stale) {
                return this.#post(body);
            }
            throw error;
        }
    }

    close() {
        this.options.agent.destroy();
    }

    #post(body) {
        return new Promise((resolve, reject) => {
            const request = this.module.request({
                ...this.options,
                headers: { ...this.options.headers, 'content-length': Buffer.byteLength(body) }
            });
            const timer = setTimeout(() => {
                reject(new Error(`no answer within ${this.timeout / 1000} s`));
                request.destroy();
            }, this.timeout).unref();
            request.on('socket', socket => socket.unref());
            request.on('response', response => {
                const chunks = [];
                let size = 0;
                const done = () => {
                    clearTimeout(timer);
                    resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() });
                };
                response.on('data', chunk => {
                    size += chunk.length;
                    chunks.push(chunk);
                    if (size > MAX_ANSWER) {
                        done();
                        request.destroy();
                    }
                });
                response.on('end', done);
                response.on('error', error => {
                    clearTimeout(timer);
                    reject(error);
                });
            });
            request.on('error', error => {
                clearTimeout(timer);
                error.stale = request.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(error.code);
                reject(error);
            });
            // As a string it goes out together with the head, in one write.
            request.end(body);
        });
    }
}

module.exports = { HttpClient };
