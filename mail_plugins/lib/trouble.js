'use strict';

// Says in the server's log when something begins to go wrong, for which reasons, and when it is over, and nothing for each
// event between.

// What comes and goes faster than this is said once.
const QUIET_MS = 60_000;
// A trouble's reasons, each said once: a receiver that was away may show a wrong certificate when it is there.
const MOST_REASONS = 5;

class Trouble {
    constructor(log, now = Date.now) {
        this.log = log;
        this.now = now;
        this.since = null;
        this.seen = -Infinity;
        this.said = new Set();
        this.lastSaid = -Infinity;
    }

    // It is there; called as often as it is met.
    begin(text) {
        this.seen = this.now();
        this.since ??= this.seen;
        if (this.seen - this.lastSaid >= QUIET_MS && !this.said.has(text) && this.said.size < MOST_REASONS) {
            this.said.add(text);
            this.lastSaid = this.seen;
            this.log.error(text);
        }
    }

    // It is not there now. `patience`: how long it must not have been met, where one good outcome proves nothing.
    end(text, patience = 0) {
        if (this.since === null || this.now() - this.seen < patience) {
            return;
        }
        if (this.said.size) {
            this.log.info(`${text}, after ${Math.round((this.now() - this.since) / 1000)} s`);
        }
        this.since = null;
        this.said.clear();
    }
}

module.exports = { QUIET_MS, Trouble };
