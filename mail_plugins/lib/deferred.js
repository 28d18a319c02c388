'use strict';

// Work that a hook leaves for later, done together: a piece of code that runs now and then costs ten to twenty times what
// it costs in a row (80 us instead of 4 us to make one event), because the mail server's own work has emptied the caches.

// The courier comes by then; this is for when it waits for a receiver that is away.
const LATEST_MS = 750;
// Few enough to be gone before the next collection of garbage, which copies what still waits.
const MANY = 32;
// So much work only piles up where the event loop never comes to an end; then it is done on the spot.
const MOST = 4096;

class Deferred {
    constructor(onError) {
        this.onError = onError;
        this.works = [];
        this.timer = null;
    }

    add(work) {
        this.works.push(work);
        const { length } = this.works;
        if (length === 1) {
            this.timer = setTimeout(() => this.run(), LATEST_MS).unref();
        } else if (length === MANY) {
            setImmediate(() => this.run());
        } else if (length >= MOST) {
            this.run();
        }
    }

    run() {
        clearTimeout(this.timer);
        const { works } = this;
        this.works = [];
        for (const work of works) {
            try {
                work();
            } catch (error) {
                this.onError(error);
            }
        }
    }
}

module.exports = { Deferred, MOST };
