'use strict';

// Brings the outbox's events to the receiver: one request at a time, at once after a pause.
//
// A request carries all that came while the one before was under way. What a receiver refuses for its bytes is halved
// until the one event is found that it will not have. Everything else is tried again, later each time.

const { judge } = require('./verdict');
const { QUIET_MS, Trouble } = require('./trouble');

// From one request's begin to the next one's: a request costs as much CPU as ten events. With what the outbox adds until
// it writes a file, it stays below the second of events that a killed process may lose.
const PAUSE_MS = 750;
// The same where lines wait that were in time for no request: before they are written to a file, and where they are.
const LATE_MS = 50;
// The same where so much happens that a request is full: all has to leave before the outbox writes files.
const FULL_MS = 10;
const MAX_LINES = 512;
const FIRST_DELAY_MS = 500;
const MAX_DELAY_MS = 30_000;

class Courier {
    // prepare: makes the events of work that was deferred
    // client: an HttpClient; encode: (header, lines) -> body
    // counts: `delivered` and `refused` are counted up
    constructor({ prepare, outbox, client, encode, endpoint, counts, log }) {
        this.prepare = prepare;
        this.outbox = outbox;
        this.client = client;
        this.encode = encode;
        this.endpoint = endpoint;
        this.counts = counts;
        this.log = log;
        this.away = new Trouble(log);
        this.refusing = new Trouble(log);
        this.limit = MAX_LINES;
        this.delay = FIRST_DELAY_MS;
        this.begun = 0;
        this.running = false;
        // How long the courier rests until its next run, 0 while it does not.
        this.resting = 0;
        this.timer = null;
        this.closed = false;
    }

    // Something waits. The work begins later, never within a hook, and not before the pause is over. An idle courier has
    // no timer: each wakes the process, which costs more than an event.
    wake() {
        if (this.closed) {
            return;
        }
        if (!this.running) {
            this.running = true;
            this.#rest();
        } else if (this.resting > FULL_MS && this.outbox.isFull) {
            clearTimeout(this.timer);
            this.#rest();
        }
    }

    // Run when the pause is over.
    #rest() {
        const pause = this.#pause();
        const rest = this.begun + pause - Date.now();
        if (rest > 0) {
            this.resting = pause;
            this.timer = setTimeout(() => this.#run(), Math.min(rest, pause)).unref();
        } else {
            this.resting = 0;
            setImmediate(() => this.#run());
        }
    }

    #pause() {
        if (this.outbox.isFull) {
            return FULL_MS;
        }
        return this.outbox.isLate ? LATE_MS : PAUSE_MS;
    }

    close() {
        this.closed = true;
        clearTimeout(this.timer);
        this.client.close();
    }

    async #run() {
        this.resting = 0;
        if (this.closed) {
            return;
        }
        try {
            this.prepare();
            const batch = await this.outbox.take(this.limit);
            if (batch && !this.closed) {
                this.begun = Date.now();
                const verdict = await this.#send(batch);
                // What was under way when the courier was closed is in a file.
                if (!this.closed) {
                    await this.#settle(batch, verdict);
                }
            }
        } catch (error) {
            this.log.error(`sending events failed: ${error.stack}`);
            await sleep(FIRST_DELAY_MS);
        }
        this.running = false;
        if (this.outbox.hasMore) {
            this.wake();
        }
    }

    async #send({ header, lines }) {
        try {
            return judge(await this.client.post(this.encode(header, lines)));
        } catch (error) {
            return { kind: 'retry', delay: null, reason: error.message || error.code };
        }
    }

    async #settle(batch, verdict) {
        if (verdict.kind === 'retry') {
            await this.#later(batch, verdict);
            return;
        }
        // Whatever it says of the bytes, the receiver is there.
        this.away.end(`events are taken by ${this.endpoint} again`);
        this.delay = FIRST_DELAY_MS;
        if (verdict.kind === 'taken') {
            await this.#taken(batch, verdict.refused, verdict.reason);
        } else if (batch.lines.length > 1) {
            this.limit = Math.ceil(batch.lines.length / 2);
            await this.outbox.returned(batch);
        } else {
            await this.#taken(batch, 1, verdict.reason);
        }
    }

    async #taken(batch, refused, reason) {
        this.counts.delivered += batch.lines.length - refused;
        this.counts.refused += refused;
        this.limit = Math.min(this.limit * 2, MAX_LINES);
        if (refused) {
            this.refusing.begin(`${this.endpoint} refuses events for good: ${reason}`);
        } else {
            this.refusing.end(`no event was refused for a while by ${this.endpoint}`, QUIET_MS);
        }
        await this.outbox.taken(batch);
    }

    async #later(batch, { delay, reason }) {
        this.away.begin(`events are kept, ${this.endpoint} does not take them: ${reason}`);
        await this.outbox.returned(batch);
        // Not all of a server's processes at the same moment; and no receiver may ask for more haste than that.
        await sleep(Math.max(delay ?? 0, this.delay * (0.8 + 0.4 * Math.random())));
        this.delay = Math.min(this.delay * 2, MAX_DELAY_MS);
    }
}

function sleep(milliseconds) {
    return new Promise(resolve => setTimeout(resolve, milliseconds).unref());
}

module.exports = { Courier };
