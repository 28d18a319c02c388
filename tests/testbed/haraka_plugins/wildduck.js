'use strict';

// Stands in for haraka-plugin-wildduck 6.0.1 of zone-eu, which is in no registry: no MongoDB, and the same answers to
// Haraka.
//
// Of its index.js: `init_wildduck_transaction` (notes.id, notes.targets), `real_rcpt_handler` (OK for a mailbox that
// there is, which ends the chain; DENY with a DSN for none, or for one that is full), `hook_queue` (OK "Message
// processed" when all mailboxes have it, DENYSOFT [ERRQ05] or DENY [ERRQ07] when one cannot have it). Local parts that
// begin with a word other than `box` choose; what is stored goes to a file, as a line of JSON.

const crypto = require('node:crypto');
const fs = require('node:fs');
const { Writable } = require('node:stream');
const DSN = require('haraka-dsn');

exports.register = function () {
    this.stored = this.config.get('wildduck.ini').main.stored;
};

exports.hook_mail = (next, { transaction }) => {
    init(transaction.notes);
    next();
};

exports.hook_rcpt = (next, { transaction }, [recipient]) => {
    const { users, recipients } = transaction.notes.targets;
    const address = recipient.format().slice(1, -1);
    recipients.add(address);
    const [kind] = recipient.user.split('+');
    if (kind === 'full') {
        return next(DENY, DSN.create(554, 'Mailbox full', 2, 2));
    }
    if (!['box', 'broken', 'nested'].includes(kind)) {
        return next(DENY, DSN.no_such_user());
    }
    users.set(address, { recipient: address });
    return next(OK);
};

exports.hook_queue = function (next, { transaction }) {
    const { users } = transaction.notes.targets;
    let size = 0;
    const collector = new Writable({
        write(chunk, encoding, done) {
            size += chunk.length;
            done();
        }
    });
    collector.on('finish', () => {
        for (const { recipient } of users.values()) {
            if (recipient.startsWith('broken')) {
                return next(DENYSOFT, 'Failed to queue message [ERRQ05]');
            }
            if (recipient.startsWith('nested')) {
                return next(DENY, 'Failed to queue message, too many nested attachments [ERRQ07]');
            }
            const entry = { id: String(transaction.notes.id), recipient, size };
            fs.appendFileSync(this.stored, `${JSON.stringify(entry)}\n`);
        }
        return next(OK, 'Message processed');
    });
    transaction.message_stream.pipe(collector);
};

function init(notes) {
    notes.id = new ObjectId();
    notes.targets = {
        users: new Map(),
        forwards: new Map(),
        recipients: new Set(),
        autoreplies: new Map(),
        forwardCounters: new Map()
    };
}

// Of MongoDB's: 12 bytes, whose text is 24 hexadecimal digits.
class ObjectId {
    constructor() {
        this.hex = crypto.randomBytes(12).toString('hex');
    }

    toString() {
        return this.hex;
    }
}
