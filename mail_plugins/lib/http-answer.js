'use strict';

// Reads one HTTP/1.1 answer to a POST (RFC 9112) from a connection's bytes, in pieces of any size, without I/O.
//
// Interim answers (1xx) are passed over. A body ends after content-length, with the last chunk, or with the connection
// (RFC 9112, 6.3); of one that is longer than MAX_BODY the rest is left unread. What is no HTTP/1.x is an Error.

// As much as Node's own parser takes.
const MAX_HEAD = 16 << 10;
// An answer is a short JSON object; a proxy's error page is not worth more memory.
const MAX_BODY = 64 << 10;
const MAX_LINE = 1 << 10;
// Where the minor version stands in a status line.
const MINOR = 'HTTP/1.'.length;

const EMPTY = Buffer.alloc(0);

class AnswerReader {
    constructor() {
        this.unread = EMPTY;
        this.parts = [];
        this.size = 0;
        // The rest of the body, or of a chunk.
        this.left = 0;
        // What comes next: reads it and returns true, or false where the bytes do not reach.
        this.next = this.#head;
        this.status = 0;
        this.headers = {};
        // Another answer can come on the connection.
        this.keepsConnection = false;
    }

    // True where the answer is there as a whole.
    feed(bytes) {
        this.unread = this.unread.length ? Buffer.concat([this.unread, bytes]) : bytes;
        while (this.next && this.next());
        return this.next === null;
    }

    // The connection ended. True where that completes the answer.
    end() {
        return this.next === this.#untilEnd;
    }

    // True where nothing of an answer came.
    get isUntouched() {
        return this.status === 0 && this.unread.length === 0;
    }

    get answer() {
        return { status: this.status, headers: this.headers, body: Buffer.concat(this.parts).toString() };
    }

    #head() {
        const end = this.unread.indexOf('\r\n\r\n');
        if (end < 0 ? this.unread.length > MAX_HEAD : end > MAX_HEAD) {
            throw new Error(`the answer's head is longer than ${MAX_HEAD} bytes`);
        }
        if (end < 0) {
            checkBeginning(this.unread);
            return false;
        }
        const lines = this.#take(end + 4).toString('latin1', 0, end).split('\r\n');
        const status = statusOf(lines[0]);
        if (status === 101) {
            throw new Error('the answer changes the protocol, which nobody asked for');
        }
        if (status >= 200) {
            this.status = status;
            this.headers = headersOf(lines);
            this.#expectBody(lines[0][MINOR]);
        }
        return true;
    }

    // RFC 9112, 6.3 (the length of a body) and 9.3 (whether a connection persists).
    #expectBody(minor) {
        const { headers } = this;
        const options = list(headers.connection);
        const codings = list(headers['transfer-encoding']);
        this.keepsConnection = minor === '0' ? options.includes('keep-alive') : !options.includes('close');
        if (this.status === 204 || this.status === 304) {
            this.#complete();
        } else if (codings.length) {
            // Beside a transfer coding a length means nothing, and may be an attack.
            this.keepsConnection &&= !('content-length' in headers);
            this.next = codings.at(-1) === 'chunked' ? this.#chunkSize : this.#untilEnd;
        } else if ('content-length' in headers) {
            this.left = lengthOf(headers['content-length']);
            this.next = this.#counted;
        } else {
            this.next = this.#untilEnd;
        }
    }

    #counted() {
        if (!this.#body()) {
            return false;
        }
        this.#complete();
        return true;
    }

    #untilEnd() {
        this.keepsConnection = false;
        this.left = Infinity;
        return this.#body();
    }

    #chunkSize() {
        const line = this.#line();
        if (line === null) {
            return false;
        }
        const size = line.split(';')[0].trim();
        if (!/^[\da-f]{1,13}$/i.test(size)) {
            throw new Error('the answer has a chunk without a size');
        }
        this.left = parseInt(size, 16);
        this.next = this.left ? this.#chunk : this.#trailer;
        return true;
    }

    #chunk() {
        if (this.#body()) {
            this.next = this.#chunkEnd;
        }
        return this.next !== this.#chunk;
    }

    #chunkEnd() {
        const line = this.#line();
        if (line) {
            throw new Error('the answer has a chunk that is longer than its size');
        }
        this.next = line === null ? this.next : this.#chunkSize;
        return line !== null;
    }

    #trailer() {
        const line = this.#line();
        if (line === '') {
            this.#complete();
        }
        return line !== null;
    }

    // Take of the body what is there; true where `left` is used up.
    #body() {
        const part = this.#take(Math.min(this.left, this.unread.length, MAX_BODY - this.size));
        this.parts.push(part);
        this.size += part.length;
        this.left -= part.length;
        if (this.size === MAX_BODY && this.left) {
            this.keepsConnection = false;
            this.next = null;
        }
        return this.left === 0;
    }

    #line() {
        const end = this.unread.indexOf('\r\n');
        if (end < 0 ? this.unread.length > MAX_LINE : end > MAX_LINE) {
            throw new Error(`the answer's chunks have lines longer than ${MAX_LINE} bytes`);
        }
        return end < 0 ? null : this.#take(end + 2).toString('latin1', 0, end);
    }

    #take(length) {
        const taken = this.unread.subarray(0, length);
        this.unread = this.unread.subarray(length);
        return taken;
    }

    #complete() {
        this.next = null;
        // Nothing was asked for that more bytes could be an answer to.
        this.keepsConnection &&= this.unread.length === 0;
    }
}

// Another protocol's greeting is told at once, not when the time is over.
function checkBeginning(bytes) {
    const beginning = bytes.toString('latin1', 0, MINOR);
    if (!'HTTP/1.'.startsWith(beginning)) {
        throw new Error(`the answer is not HTTP/1.1, it begins with ${JSON.stringify(beginning)}`);
    }
}

// The status of 'HTTP/1.1 200 OK'; what no later version may change of it is the beginning (RFC 9112, 4).
function statusOf(line) {
    const status = Number(line.slice(MINOR + 2, MINOR + 5));
    if (!line.startsWith('HTTP/1.') || line[MINOR + 1] !== ' ' || !(status >= 100)) {
        throw new Error(`the answer is not HTTP/1.1, it begins with ${JSON.stringify(line.slice(0, 40))}`);
    }
    return status;
}

// Lower-case name -> value; those that come more than once are joined (RFC 9110, 5.3).
function headersOf(lines) {
    const headers = Object.create(null);
    let last;
    for (let index = 1; index < lines.length; index += 1) {
        const line = lines[index];
        const colon = line.indexOf(':');
        if (last && (line[0] === ' ' || line[0] === '\t')) {
            // A line that goes on, which is obsolete, counts as a space (RFC 9112, 5.2).
            headers[last] += ` ${line.trim()}`;
        } else if (colon > 0 && line[colon - 1] !== ' ' && line[colon - 1] !== '\t') {
            last = line.slice(0, colon).toLowerCase();
            const value = line.slice(colon + 1).trim();
            headers[last] = last in headers ? `${headers[last]}, ${value}` : value;
        } else {
            throw new Error('the answer has a malformed header');
        }
    }
    return headers;
}

function lengthOf(value) {
    // The same length may stand there several times (RFC 9112, 6.3).
    const [length, ...others] = list(value);
    if (!/^\d{1,15}$/.test(length) || others.some(other => other !== length)) {
        throw new Error('the answer has no valid content-length');
    }
    return Number(length);
}

const list = value => (value ? value.toLowerCase().split(',').map(item => item.trim()) : []);

module.exports = { AnswerReader, MAX_BODY, MAX_HEAD };
