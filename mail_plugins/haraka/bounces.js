'use strict';

// The bounces that Haraka writes, and the messages that they are about.
//
// When Haraka gives up a delivery it runs the hook `bounce` for it, reads the message's headers from its queue, and
// hands a message of its own to its queue, for which it runs `pre_send_trans_email` (outbound/hmail.js,
// bounce_respond). Nothing of that names the delivery. So what no client sent, from the null sender to the sender of a
// delivery that was given up a moment ago, is a bounce; its header References is the Message-ID of the message.

const { addressOf } = require('./recipients');
const { directionOf } = require('./connections');
const { messageIdOf } = require('./messages');

// A plugin may forbid a bounce in the hook; then none comes. Headers are read in milliseconds.
const PATIENCE_MS = 60_000;
const MAX_EXPECTED = 1000;

// Equal for the sender as the client wrote it and as Haraka writes it to the bounce, of which the domain is in small
// letters and ASCII (address-rfc2821, index.js); '' for the null sender.
const keyOf = ({ user, host }) => (user ? `${user}@${host}` : '');

class Bounces {
    constructor() {
        // Of deliveries that were given up, the oldest first: { sender: keyOf its address, time }.
        this.expected = [];
    }

    // A delivery was given up. Of a bounce that cannot be delivered Haraka writes none.
    expect({ todo }, time) {
        const sender = keyOf(todo.mail_from);
        if (!sender) {
            return;
        }
        while (this.expected.length >= MAX_EXPECTED || (this.expected.length && this.#isLate(this.expected[0], time))) {
            this.expected.shift();
        }
        this.expected.push({ sender, time });
    }

    // True where the message, which no client sent, is a bounce that was expected; it no longer is.
    take({ mail_from, rcpt_to }, time) {
        if (keyOf(mail_from)) {
            return false;
        }
        const recipient = keyOf(rcpt_to[0]);
        const index = this.expected.findIndex(each => each.sender === recipient && !this.#isLate(each, time));
        if (index < 0) {
            return false;
        }
        this.expected.splice(index, 1);
        return true;
    }

    #isLate(expected, time) {
        return time - expected.time >= PATIENCE_MS;
    }
}

// What the event needs of a bounce.
const partOf = ({ uuid, mail_from, rcpt_to, header }) => ({ uuid, mail_from, rcpt_to, header });

function describeBounce({ uuid, mail_from, rcpt_to, header }, time) {
    return {
        key: 'bounce_queued',
        time,
        attributes: {
            'haraka.transaction.id': uuid,
            'haraka.bounce.message_id': header.get('References').trim() || undefined,
            'email.message_id': messageIdOf({ header }),
            'email.from.address': addressOf(mail_from),
            'email.to.address': rcpt_to.map(addressOf),
            'email.direction': directionOf(true)
        },
        body: 'Bounce queued'
    };
}

module.exports = { Bounces, describeBounce, partOf };
