'use strict';

// Publishes events on a channel of the server's own Redis, for live listeners. It is no delivery: what cannot be
// published now is not published at all, so that nothing piles up in the client.

const MAX_OPEN = 100;

class Publisher {
    // client: an ioredis or node-redis client that the host server connected, or nothing; channel: '' for none
    constructor(client, channel) {
        this.client = channel && client && typeof client.publish === 'function' ? client : null;
        this.channel = channel;
        this.open = 0;
    }

    get isReady() {
        // ioredis says `status`, node-redis `isReady`; both queue without a bound while they are not connected.
        return Boolean(this.client) && (this.client.status === 'ready' || this.client.isReady === true) && this.open < MAX_OPEN;
    }

    // `make` gives the message, and is called only where it can be sent.
    publish(make) {
        if (!this.isReady) {
            return;
        }
        this.open += 1;
        const done = () => {
            this.open -= 1;
        };
        new Promise(resolve => resolve(this.client.publish(this.channel, make()))).then(done, done);
    }
}

module.exports = { Publisher };
