'use strict';

// Lines of text as bytes outside of the heap, where they cost the mail server's collections of garbage next to nothing.
// They stand one behind the other in slabs; a slab is free when none of its lines is held any more.

const SLAB_BYTES = 64 << 10;
// UTF-8 takes at least one and at most three bytes for a UTF-16 unit.
const MOST_BYTES = 3;

class LineWriter {
    constructor() {
        this.slab = Buffer.alloc(0);
        this.used = 0;
    }

    // The line's bytes with a newline behind, or null where they are more than `maxBytes`.
    write(text, maxBytes) {
        if (text.length + 1 > maxBytes || !this.#makeRoom(text, maxBytes)) {
            return null;
        }
        const length = this.slab.write(text, this.used) + 1;
        if (length > maxBytes) {
            return null;
        }
        const end = this.used + length;
        this.slab[end - 1] = 0x0a;
        const line = this.slab.subarray(this.used, end);
        this.used = end;
        return line;
    }

    #makeRoom(text, maxBytes) {
        if (this.used + text.length * MOST_BYTES + 1 <= this.slab.length) {
            return true;
        }
        const bytes = Buffer.byteLength(text) + 1;
        if (bytes > maxBytes) {
            return false;
        }
        if (this.used + bytes > this.slab.length) {
            this.slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
            this.used = 0;
        }
        return true;
    }
}

module.exports = { LineWriter, SLAB_BYTES };
