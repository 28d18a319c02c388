'use strict';

// What is known of the deliveries that this sender has in hand, from `sender:fetch` to the log entry of the outcome.

// A sender has as many in hand as connections; some end without an entry, when a plugin suppresses them.
const MAX_OPEN = 10_000;
// The entries that end an attempt; a plugin may log others of its own meanwhile.
const OUTCOMES = new Set(['ACCEPTED', 'DEFERRED', 'REJECTED']);

class Attempts {
    constructor(now = Date.now) {
        this.now = now;
        this.open = new Map();
    }

    // A delivery was taken out of the queue.
    begin(delivery) {
        const key = keyOf(delivery);
        // Again at the end: a Map is in the order of insertion, the oldest first.
        this.open.delete(key);
        this.open.set(key, {
            begun: this.now(),
            created: new Date(delivery.created).getTime(),
            number: ((delivery._deferred && delivery._deferred.count) || 0) + 1,
            interface: delivery.interface,
            origin: delivery.origin,
            user: delivery.user
        });
        if (this.open.size > MAX_OPEN) {
            this.open.delete(this.open.keys().next().value);
        }
    }

    // What is known of the delivery whose outcome this entry is; {} where nothing is.
    end(entry) {
        if (!OUTCOMES.has(entry.action)) {
            return {};
        }
        const key = keyOf(entry);
        const attempt = this.open.get(key);
        this.open.delete(key);
        return attempt || {};
    }
}

const keyOf = ({ id, seq }) => `${id}.${seq}`;

module.exports = { Attempts, MAX_OPEN };
