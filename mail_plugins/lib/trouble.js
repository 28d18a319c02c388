'use strict';

// Says in the server's log when something begins to go wrong and when it is over, and nothing for each event between.

// What comes and goes faster than this is said once.
const QUIET_MS = 60_000;

class Trouble {
    constructor(log, now = Date.now) {
        this.log = log;
        this.now = now;
        this.since = null;
        this.seen = -Infinity;
        this.said = false;
        this.lastSaid = -Infinity;
    }

    // It is there; called as often as it is met.
    begin(text) {
        this.seen = this.now();
        this.since ??= this.seen;
        if (!this.said && this.seen - this.lastSaid >= QUIET_MS) {
            this.said = true;
            this.lastSaid = this.seen;
            this.log.error(text);
        }
    }

    // It is not there now. `patience`: how long it must not have been met, where one good outcome proves nothing.
    end(text, patience = 0) {
        if (this.since === null || this.now() - this.seen < patience) {
            return;
        }
        if (this.said) {
            this.log.info(`${text}, after ${Math.round((this.now() - this.since) / 1000)} s`);
        }
        this.since = null;
        this.said = false;
    }
}

module.exports = { QUIET_MS, Trouble };
