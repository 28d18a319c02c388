'use strict';

// Links a bounce with the message that it is about.
//
// Zone-MTA logs a bounce as QUEUED like any message, and QUEUE_BOUNCE with both ids in the next turn of its event loop. By
// the time that events are made the link is mostly known; else the event waits for a moment, and where no QUEUE_BOUNCE
// comes (another plugin's bounces) it goes out without the link.

// A turn of a loaded server's event loop may take as long as a tenth of a second.
const PATIENCE_MS = 200;
const MAX_HELD = 1000;

class Bounces {
    // emit: takes the events, { key, attributes, time, body }
    constructor(emit, patience = PATIENCE_MS) {
        this.emit = emit;
        this.patience = patience;
        this.held = new Map();
        this.links = new Map();
    }

    // Emit an event, if it is a bounce's a moment later.
    pass(entry, event) {
        const isBounce = entry.action === 'QUEUED' && entry.interface === 'bounce';
        if (isBounce && this.links.has(entry.id)) {
            Object.assign(event.attributes, this.links.get(entry.id));
            this.links.delete(entry.id);
            this.emit(event);
            return;
        }
        if (!isBounce || this.held.size >= MAX_HELD) {
            this.emit(event);
            return;
        }
        const timer = setTimeout(() => this.#release(entry.id), this.patience).unref();
        this.held.set(entry.id, { event, timer });
    }

    // An entry QUEUE_BOUNCE, at the moment that it is logged.
    learn({ bounceId, id, seq, bounceType }) {
        const link = {
            'zonemta.bounce.message.id': id,
            'zonemta.bounce.message.seq': seq,
            'zonemta.bounce.type': bounceType
        };
        if (this.held.has(bounceId)) {
            Object.assign(this.held.get(bounceId).event.attributes, link);
            this.#release(bounceId);
            return;
        }
        if (this.links.size >= MAX_HELD) {
            this.links.delete(this.links.keys().next().value);
        }
        this.links.set(bounceId, link);
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
