'use strict';

// What each hook does: take what is known now, and leave the making of events for later.
//
// A transaction's own object changes no more once it is reset; of its connection is copied what the events need.

const bounces = require('./bounces');
const deliveries = require('./deliveries');
const { begin, isSeen, partOf, seenOf } = require('./transactions');
const { addressOf, describeRecipient, refusedByHaraka, refusedByPlugin } = require('./recipients');
const { clientOf, describeClosed, describeDenied } = require('./connections');
const { describeTransaction, messageIdOf } = require('./messages');
const { readDenial } = require('./denials');

// haraka-constants: connection.state.DISCONNECTING
const DISCONNECTING = 99;

class Watch {
    // emitter: of postel-emitter; config: of settings.js
    constructor(emitter, { spamHeaders }, now = Date.now) {
        this.emitter = emitter;
        this.spamHeaders = spamHeaders;
        this.now = now;
        this.bounces = new bounces.Bounces();
    }

    mail({ transaction }) {
        begin(transaction, this.now());
    }

    unknownRecipient({ transaction, relaying }, [recipient]) {
        if (transaction && !relaying) {
            seenOf(transaction).unknown.push({ address: addressOf(recipient), time: this.now() });
        }
    }

    data({ transaction, last_response: reply }) {
        seenOf(transaction).data = { time: this.now(), reply };
    }

    queue(connection) {
        const { transaction } = connection;
        // Haraka takes from this very list, and puts another in its place when a plugin has decided.
        const rest = connection.hooks_to_run || [];
        const seen = seenOf(transaction);
        seen.queue = { rest, plugins: rest.map(([plugin]) => plugin.name) };
        seen.relaying = Boolean(connection.relaying);
    }

    deny(connection, params) {
        const { transaction, remote, relaying } = connection;
        if (!remote) {
            return; // of a delivery, which has events of its own
        }
        const denial = readDenial(params, this.now());
        if (transaction && (denial.hook === 'rcpt' || denial.hook === 'rcpt_ok')) {
            // The parameter of `rcpt` is [recipient, options], that of `rcpt_ok` the recipient.
            const address = addressOf([].concat(params[4])[0]);
            seenOf(transaction).denyRecipient(address, denial);
            this.#tellRecipient(connection, refusedByPlugin(address, denial));
        } else if (!transaction || !seenOf(transaction).deny(denial)) {
            const client = clientOf(connection);
            const id = transaction ? transaction.uuid : undefined;
            this.#tell(() => describeDenied(client, id, relaying, denial));
        }
    }

    reset(connection) {
        const { transaction } = connection;
        if (!transaction) {
            return;
        }
        const seen = seenOf(transaction);
        const part = partOf(transaction);
        const facts = {
            transaction: part,
            seen,
            client: clientOf(connection),
            relaying: connection.relaying,
            reply: connection.last_response,
            command: connection.current_line,
            isClosing: connection.state >= DISCONNECTING,
            isGone: connection.remote.closed,
            time: this.now()
        };
        this.#tell(() => describeTransaction(facts, this.spamHeaders));
        if (part.results.outbound) {
            // Haraka delivers it itself, and has given it a Message-ID where it had none.
            deliveries.learn(transaction, messageIdOf(transaction), seen.relaying);
        }
        for (const refused of refusedByHaraka(part, seen, facts.time)) {
            this.#tellRecipient(connection, refused);
        }
    }

    disconnect(connection) {
        const client = clientOf(connection);
        const { start_time, tran_count, msg_count, rcpt_count, totalbytes, errors, early_talker, last_reject } = connection;
        const session = { start_time, tran_count, msg_count, rcpt_count, totalbytes, errors, early_talker, last_reject };
        const [relaying, time] = [connection.relaying, this.now()];
        this.#tell(() => describeClosed(client, session, relaying, time));
    }

    attempt(delivery) {
        deliveries.begin(delivery, this.now());
    }

    delivered(delivery, params) {
        this.#tellDeliveries(deliveries.delivered(delivery, params, this.now()));
    }

    deferred(delivery, params) {
        this.#tellDeliveries(deliveries.deferred(delivery, params, this.now()));
    }

    bounce(delivery, error) {
        const time = this.now();
        this.bounces.expect(delivery, time);
        this.#tellDeliveries(deliveries.bounced(delivery, error, time));
    }

    outbound({ transaction }) {
        const time = this.now();
        if (isSeen(transaction) || !this.bounces.take(transaction, time)) {
            return; // a client's, which is told when it ends, or a plugin's
        }
        const part = bounces.partOf(transaction);
        deliveries.learn(transaction, messageIdOf(transaction), true);
        this.#tell(() => bounces.describeBounce(part, time));
    }

    #tellRecipient(connection, refused) {
        const { relaying } = connection;
        const { uuid, mail_from } = connection.transaction;
        const client = clientOf(connection);
        this.#tell(() => describeRecipient(client, { uuid, mail_from }, relaying, refused));
    }

    #tellDeliveries(events) {
        for (const event of events) {
            this.#tell(() => event);
        }
    }

    #tell(describe) {
        this.emitter.defer(() => {
            const { key, attributes, time, body } = describe();
            this.emitter.emit(key, attributes, { time, body });
        });
    }
}

module.exports = { Watch };
