'use strict';

// What hooks saw of the transactions under way, until `reset_transaction`.

// The hooks whose denial ends the transaction (Haraka's connection.js).
const ENDING = new Set(['mail', 'data', 'data_post', 'max_data_exceeded', 'queue', 'queue_outbound', 'vrfy']);

class Seen {
    constructor(begun) {
        this.begun = begun;
        // Since when no plugin knows a recipient: { address, time }.
        this.unknown = [];
        // Recipients that plugins denied, which have been told.
        this.denied = [];
        // DATA was asked for: { time, reply }, the reply being the one before.
        this.data = undefined;
        // The plugins that are asked to store the message, and those of them that were not asked yet.
        this.queue = undefined;
        // Whether the client may send to anywhere, when the message was to be stored.
        this.relaying = undefined;
        // The denial that ended the transaction.
        this.denial = undefined;
        // The denial of a recipient that ended the connection, and so the transaction.
        this.expulsion = undefined;
    }

    // True where the denial ends the transaction, whose event tells it then.
    deny(denial) {
        if (!ENDING.has(denial.hook) && !denial.disconnects) {
            return false;
        }
        this.denial = denial;
        return true;
    }

    denyRecipient(address, denial) {
        this.denied.push(address);
        if (denial.disconnects) {
            this.expulsion = denial;
        }
    }
}

// Kept in the transaction itself: a WeakMap costs each message more than the hook's work.
const SEEN = Symbol('postel.seen');

function begin(transaction, time) {
    transaction[SEEN] = new Seen(time);
}

// Whether a client began it, as far as this plugin saw.
const isSeen = transaction => Boolean(transaction[SEEN]);

// Of one that began before this plugin, nothing is known.
function seenOf(transaction) {
    if (!transaction[SEEN]) {
        transaction[SEEN] = new Seen(undefined);
    }
    return transaction[SEEN];
}

// What events need of a transaction. What waits to be told must hold neither the message nor the connection: each
// collection of garbage would copy thousands of objects (docs/decisions/0066).
function partOf(transaction) {
    const { uuid, mail_from, rcpt_count, data_bytes, data_post_start, data_post_delay, msg_status, header } = transaction;
    const { notes, results } = transaction;
    return {
        uuid,
        mail_from,
        rcpt_count,
        data_bytes,
        data_post_start,
        data_post_delay,
        msg_status,
        header,
        notes: { id: notes.id, targets: notes.targets },
        // Of Haraka itself, and of haraka-plugin-rspamd.
        results: {
            rcpt_to: results.get('rcpt_to'),
            queue: results.get('queue'),
            outbound: results.get('outbound'),
            rspamd: results.get('rspamd')
        }
    };
}

module.exports = { begin, isSeen, partOf, seenOf };
