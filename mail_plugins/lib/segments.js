'use strict';

// Events in files, for when nobody takes them: segments that a process appends to in a folder of its own.
//
// A segment is text: the header (resource and scope) in its first line, then an event a line. It is written with one
// append at a time, never synced (a file outlives the process, not the machine's power), and removed when all of it was
// taken. Folders of processes that ended are adopted: a rename gives each file to exactly one process. Every operation
// waits for the one before; none throws: what fails is said once, and told by the return value.

const fs = require('fs');
const path = require('path');
const { hasEnded, ownName } = require('./processes');
const { Trouble } = require('./trouble');

const SEGMENT_BYTES = 1 << 20;
const NAME = /^[\d-]+\.jsonl$/;
const NEWLINE = 0x0a;

class Segments {
    // folder: all processes' folder, or null where there is none
    // header: the first line of each segment; maxBytes: of all segments together
    // counts: `adopted` and `damaged` are counted up
    constructor({ folder, header, maxBytes, counts, log, segmentBytes = SEGMENT_BYTES }) {
        this.folder = folder;
        this.own = folder && path.join(folder, ownName());
        this.header = Buffer.from(`${header}\n`);
        this.maxBytes = maxBytes;
        this.segmentBytes = segmentBytes;
        this.counts = counts;
        this.disk = new Trouble(log);
        this.full = new Trouble(log);
        this.serial = 0;
        // The oldest first: { path, size, offset, lines }; lines are those from offset on.
        this.list = [];
        this.open = null;
        this.last = Promise.resolve();
    }

    get isEmpty() {
        return this.list.length === 0;
    }

    get bytes() {
        return this.list.reduce((sum, segment) => sum + segment.size, 0);
    }

    get lines() {
        return this.list.reduce((sum, segment) => sum + segment.lines, 0);
    }

    // Write lines, all into one segment. Resolves to what `advance` takes, or null where they could not be written.
    append(lines) {
        return this.#inTurn(() => this.#append(lines), null);
    }

    // The next lines: { header, lines, segment, end }, or null where there are none.
    read(maxLines, maxBytes) {
        return this.#inTurn(() => this.#read(maxLines, maxBytes), null);
    }

    // These lines, given by `read` or `append`, were taken.
    advance({ segment, end, lines }) {
        return this.#inTurn(() => this.#advance(segment, end, lines), undefined);
    }

    // Take over the files of processes that ended, as far as there is room.
    adopt() {
        return this.#inTurn(() => this.#adopt(), undefined);
    }

    // Write lines at the very end of the process, when nothing may be awaited any more.
    appendNow(lines) {
        if (!this.own || !lines.length) {
            return;
        }
        try {
            fs.mkdirSync(this.own, { recursive: true, mode: 0o700 });
            fs.writeFileSync(this.#newPath(), Buffer.concat([this.header, ...lines]), { mode: 0o600 });
        } catch (error) {
            this.disk.begin(`events are lost at the end of the process, their folder takes none: ${error.message}`);
        }
    }

    // Remove the own folder where nothing is in it.
    removeIfEmpty() {
        try {
            fs.rmdirSync(this.own);
        } catch {
            // It was never made, or holds events.
        }
    }

    // Show that this process lives to those that cannot see it.
    touch() {
        if (this.list.length) {
            const now = new Date();
            fs.utimes(this.own, now, now, () => {});
        }
    }

    #inTurn(work, otherwise) {
        const done = this.last.then(work).catch(error => {
            this.disk.begin(`the folder ${this.own} cannot be used: ${error.message}`);
            return otherwise;
        });
        this.last = done;
        return done;
    }

    async #append(lines) {
        if (!this.own) {
            return null;
        }
        const bytes = Buffer.concat(lines);
        const size = bytes.length;
        if (this.bytes + size > this.maxBytes) {
            this.full.begin(`${this.bytes} bytes of events wait in ${this.own}, which is all that it may hold`);
            return null;
        }
        let { open } = this;
        if (!open || open.size + size > this.segmentBytes) {
            open = await this.#begin();
        }
        try {
            await fs.promises.appendFile(open.path, bytes, { mode: 0o600 });
        } catch (error) {
            // A part of them may be behind its end, where nobody reads; nothing must be written behind that.
            this.open = null;
            throw error;
        }
        open.size += size;
        open.lines += lines.length;
        this.disk.end(`the folder ${this.own} can be used again`);
        return { segment: open, end: open.size, lines };
    }

    async #begin() {
        await fs.promises.mkdir(this.own, { recursive: true, mode: 0o700 });
        const size = this.header.length;
        const segment = { path: this.#newPath(), size, offset: size, lines: 0 };
        await fs.promises.writeFile(segment.path, this.header, { mode: 0o600, flag: 'wx' });
        this.list.push(segment);
        this.open = segment;
        return segment;
    }

    #newPath() {
        this.serial += 1;
        // The names of all processes' segments differ, so that an adopted one keeps its own.
        return path.join(this.own, `${path.basename(this.own)}-${String(this.serial).padStart(6, '0')}.jsonl`);
    }

    async #read(maxLines, maxBytes) {
        while (this.list.length) {
            const [segment] = this.list;
            const batch = await this.#linesOf(segment, maxLines, maxBytes);
            if (batch) {
                return batch;
            }
            // What is left of it cannot be read, or is half a line of a process that was killed.
            this.counts.damaged += segment.lines;
            await this.#remove(segment);
        }
        return null;
    }

    async #linesOf(segment, maxLines, maxBytes) {
        let content;
        try {
            // A segment is small, and read again for each batch: nothing of it stays in memory.
            content = (await fs.promises.readFile(segment.path)).subarray(0, segment.size);
        } catch (error) {
            this.disk.begin(`events are lost, ${segment.path} cannot be read: ${error.message}`);
            return null;
        }
        const headerEnd = content.indexOf(NEWLINE) + 1;
        const header = content.toString('utf8', 0, headerEnd);
        if (!isJson(header)) {
            return null;
        }
        const lines = [];
        let end = Math.max(segment.offset, headerEnd);
        for (let bytes = 0; lines.length < maxLines; ) {
            const next = content.indexOf(NEWLINE, end) + 1;
            if (next === 0 || (lines.length && bytes + next - end > maxBytes)) {
                break;
            }
            lines.push(Buffer.from(content.subarray(end, next)));
            bytes += next - end;
            end = next;
        }
        return lines.length ? { header, lines, segment, end } : null;
    }

    async #advance(segment, end, lines) {
        segment.offset = end;
        segment.lines -= lines.length;
        if (end >= segment.size) {
            await this.#remove(segment);
        }
        this.full.end(`there is room in ${this.own} again`);
    }

    async #remove(segment) {
        this.list = this.list.filter(each => each !== segment);
        if (this.open === segment) {
            this.open = null;
        }
        await fs.promises.rm(segment.path, { force: true });
    }

    async #adopt() {
        if (!this.folder) {
            return;
        }
        for (const name of await fs.promises.readdir(this.folder)) {
            try {
                await this.#adoptFolder(name);
            } catch {
                // Another process was quicker, or it is not this user's.
            }
        }
    }

    async #adoptFolder(owner) {
        const theirs = path.join(this.folder, owner);
        if (theirs === this.own || !hasEnded(owner, (await fs.promises.stat(theirs)).mtimeMs)) {
            return;
        }
        // They are older than what this process wrote: each goes before that, and behind those that came before it.
        let place = this.list.filter(segment => segment.isAdopted).length;
        for (const name of (await fs.promises.readdir(theirs)).filter(each => NAME.test(each)).sort()) {
            const { size } = await fs.promises.stat(path.join(theirs, name));
            if (this.bytes + size > this.maxBytes) {
                return;
            }
            await fs.promises.mkdir(this.own, { recursive: true, mode: 0o700 });
            const adopted = path.join(this.own, name);
            await fs.promises.rename(path.join(theirs, name), adopted);
            const content = await fs.promises.readFile(adopted);
            // All but the header; what stands behind the last newline is half a line.
            const lines = Math.max(content.reduce((sum, byte) => sum + (byte === NEWLINE ? 1 : 0), 0) - 1, 0);
            this.counts.adopted += lines;
            this.list.splice(place, 0, { path: adopted, size, offset: 0, lines, isAdopted: true });
            place += 1;
        }
        await fs.promises.rmdir(theirs);
    }
}

function isJson(text) {
    try {
        JSON.parse(text);
        return true;
    } catch {
        return false;
    }
}

// `name` in the first of these places where it is, or can be made, this user's own and nobody else's; null where none is.
function findFolder(places, name) {
    for (const place of places) {
        const folder = path.join(place, name);
        try {
            fs.mkdirSync(place, { recursive: true });
            makeOwn(folder);
            const stat = fs.lstatSync(folder);
            // In /tmp somebody else may have made it first, or laid a link there.
            if (stat.isDirectory() && (!process.getuid || stat.uid === process.getuid())) {
                return folder;
            }
        } catch {
            // The next one.
        }
    }
    return null;
}

function makeOwn(folder) {
    try {
        fs.mkdirSync(folder, { mode: 0o700 });
    } catch (error) {
        if (error.code !== 'EEXIST') {
            throw error;
        }
        fs.accessSync(folder, fs.constants.W_OK);
    }
}

module.exports = { Segments, findFolder };
