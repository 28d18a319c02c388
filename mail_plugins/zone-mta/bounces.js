'use strict';

// Links a bounce with the message that it is about.
//
// Zone-MTA logs a bounce as QUEUED like any message, and right after that QUEUE_BOUNCE with both ids. So the event of a
// bounce waits for a moment; where no QUEUE_BOUNCE comes (another plugin's bounces) it goes out without the link.

const PATIENCE_MS = 500;
const MAX_HELD = 1000;

class Bounces {
    // emit: takes the events, { key, attributes, time, body }
    constructor(emit, patience = PATIENCE_MS) {
        this.emit = emit;
        this.patience = patience;
        this.held = new Map();
    }

    // Emit an event, if it is a bounce's a moment later.
    pass(entry, event) {
        if (entry.action !== 'QUEUED' || entry.interface !== 'bounce' || this.held.size >= MAX_HELD) {
            this.emit(event);
            return;
        }
        const timer = setTimeout(() => this.#release(entry.id), this.patience).unref();
        this.held.set(entry.id, { event, timer });
    }

    // An entry that is no event of its own.
    learn(entry) {
        if (entry.action === 'QUEUE_BOUNCE' && this.held.has(entry.bounceId)) {
            const { attributes } = this.held.get(entry.bounceId).event;
            attributes['zonemta.bounce.message.id'] = entry.id;
            attributes['zonemta.bounce.message.seq'] = entry.seq;
            attributes['zonemta.bounce.type'] = entry.bounceType;
            this.#release(entry.bounceId);
        }
    }

    releaseAll() {
        [...this.held.keys()].forEach(id => this.#release(id));
    }

    #release(id) {
        const { event, timer } = this.held.get(id);
        clearTimeout(timer);
        this.held.delete(id);
        this.emit(event);
    }
}

module.exports = { Bounces };
