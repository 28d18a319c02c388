'use strict';

// Events on their way: in memory while a receiver takes them, in files as soon as none does.
//
// Memory holds lines, as bytes, that are in no file yet. Where files hold any, those are older and go first. What is
// older than SAVE_AFTER_MS and was not taken is written to a file, the batch that a request carries at that moment
// included: a process that is killed loses what came after that. Half a full memory is written at once. Memory is
// bounded; where it is full, because the disk takes nothing, `push` refuses.

const { LineWriter } = require('./lines');

// With the 750 ms that an event may wait for its request: no second without being sent or saved.
const SAVE_AFTER_MS = 200;
// One batch: the sizes of agent, Collector and sink fit a request of up to 1 MiB.
const BATCH_BYTES = 512 << 10;
const MANY = 256;

class Outbox {
    // segments: a Segments; header: of this process; memoryBytes: of lines that are in no file
    constructor({ segments, header, memoryBytes }) {
        this.segments = segments;
        this.header = header;
        this.memoryBytes = memoryBytes;
        this.writer = new LineWriter();
        this.memory = [];
        this.bytes = 0;
        this.flight = null;
        this.saving = null;
        this.timer = null;
        // The last batch left lines behind, or was of a file: what waits has waited for it, and is late.
        this.crowded = false;
        // So many of memory's lines were there when the timer began.
        this.late = 0;
        // The timer is for now: memory is half full.
        this.urgent = false;
        // The disk took nothing the last time.
        this.stuck = false;
    }

    // Lines that nobody took yet.
    get waiting() {
        const flying = this.flight && !this.flight.saved ? this.flight.lines.length : 0;
        return this.memory.length + flying + this.segments.lines;
    }

    // Take a line's text; false where there is no room for it.
    push(text) {
        const line = this.writer.write(text, this.memoryBytes - this.bytes);
        if (!line) {
            return false;
        }
        this.memory.push(line);
        this.bytes += line.length;
        if (!this.segments.isEmpty) {
            // Nobody takes them now; in good times nothing has to be watched.
            this.#saveLater();
        }
        if (this.bytes > this.memoryBytes / 2 && !this.stuck) {
            this.#saveLater(0);
        }
        return true;
    }

    // True where `take` would give a batch.
    get hasMore() {
        return this.memory.length > 0 || !this.segments.isEmpty;
    }

    // True where what waits fills a request, or is soon too much for memory.
    get isFull() {
        const flying = this.flight && !this.flight.saved ? this.flight.bytes : 0;
        const full = Math.min(BATCH_BYTES, this.memoryBytes / 4);
        return this.memory.length > MANY || this.bytes - flying > full;
    }

    // True where lines wait that were in time for no request.
    get isLate() {
        return this.crowded || !this.segments.isEmpty;
    }

    // The next batch { header, lines }, or null where nothing waits. It is `taken` or `returned` before the next one.
    async take(maxLines) {
        await this.saving;
        if (!this.segments.isEmpty) {
            if (this.memory.length) {
                this.#saveLater();
            }
            this.crowded = true;
            return this.segments.read(maxLines, BATCH_BYTES);
        }
        const lines = this.memory.splice(0, this.#fit(maxLines));
        if (!lines.length) {
            return null;
        }
        this.crowded = this.memory.length > 0;
        this.late = Math.max(this.late - lines.length, 0);
        this.flight = { header: this.header, lines, bytes: bytesOf(lines), saved: null };
        this.#saveLater();
        return this.flight;
    }

    async taken(batch) {
        if (batch !== this.flight) {
            await this.segments.advance(batch);
            return;
        }
        await this.saving;
        this.flight = null;
        this.#saveNoMore();
        if (batch.saved) {
            this.crowded = true;
            await this.segments.advance(batch.saved);
        } else {
            this.#forget(batch.lines);
        }
    }

    async returned(batch) {
        if (batch !== this.flight) {
            return;
        }
        await this.save();
        this.flight = null;
        if (!batch.saved) {
            this.memory.unshift(...batch.lines);
            this.#saveLater();
        }
    }

    // Write all that is in memory to files.
    save() {
        this.saving = this.saving || this.#save().finally(() => (this.saving = null));
        return this.saving;
    }

    // The same at the very end of the process. What is being written at that moment is written twice, which the events'
    // ids make up for.
    saveNow() {
        const flying = this.flight && !this.flight.saved ? this.flight.lines : [];
        this.segments.appendNow([...flying, ...this.memory]);
        this.memory = [];
        this.flight = null;
        this.#saveNoMore();
    }

    async #save() {
        this.stuck = true;
        const { flight } = this;
        if (flight && !flight.saved) {
            flight.saved = await this.segments.append(flight.lines);
            if (!flight.saved) {
                return;
            }
            this.#forget(flight.lines);
        }
        while (this.memory.length) {
            const lines = this.memory.slice(0, this.#fit(Infinity));
            if (!(await this.segments.append(lines))) {
                return;
            }
            this.memory.splice(0, lines.length);
            this.#forget(lines);
        }
        this.stuck = false;
    }

    // How many lines of memory one batch takes: at least one.
    #fit(maxLines) {
        let bytes = 0;
        let count = 0;
        for (const { length } of this.memory) {
            bytes += length;
            if (count === maxLines || (count && bytes > BATCH_BYTES)) {
                break;
            }
            count += 1;
        }
        return count;
    }

    #forget(lines) {
        this.bytes -= bytesOf(lines);
    }

    // Save what is not taken by then. A timer that is there stays, unless this one is for now.
    #saveLater(delay = SAVE_AFTER_MS) {
        if (this.timer && (delay > 0 || this.urgent)) {
            return;
        }
        clearTimeout(this.timer);
        this.urgent = delay === 0;
        this.late = this.memory.length;
        this.timer = setTimeout(() => {
            this.timer = null;
            this.save().then(() => {
                // The disk took nothing, or more came meanwhile.
                if (this.memory.length || (this.flight && !this.flight.saved)) {
                    this.#saveLater();
                }
            });
        }, delay).unref();
    }

    // What the timer was for was taken, unless more came than one request could carry.
    #saveNoMore() {
        if (this.late && this.memory.length) {
            return;
        }
        clearTimeout(this.timer);
        this.timer = null;
        if (this.memory.length && !this.segments.isEmpty) {
            this.#saveLater();
        }
    }
}

const bytesOf = lines => lines.reduce((sum, line) => sum + line.length, 0);

module.exports = { BATCH_BYTES, Outbox };
