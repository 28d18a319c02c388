'use strict';

// Lines of text as bytes outside of the heap, where they cost the mail server's collections of garbage nothing.

const SLAB_BYTES = 64 << 10;
// UTF-8 takes at most so many bytes for a UTF-16 unit.
const UNIT_BYTES = 3;

class Lines {
    constructor() {
        this.slab = Buffer.alloc(0);
        this.used = 0;
    }

    // The line's bytes with a newline behind, or null where they are more than `maxBytes`.
    write(text, maxBytes) {
        this.#makeRoom(text.length * UNIT_BYTES + 1);
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

    #makeRoom(bytes) {
        if (this.used + bytes > this.slab.length) {
            this.slab = Buffer.allocUnsafeSlow(Math.max(SLAB_BYTES, bytes));
            this.used = 0;
        }
    }
}

module.exports = { Lines };
