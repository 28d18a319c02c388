'use strict';

// The recipients of a transaction, and the events of those that were refused, without I/O.
//
// Haraka keeps each answer to RCPT in the transaction's results, as `rcpt_to`: { address, action, msg, code }
// (connection.js, rcpt_incr); `code` is a number only where a plugin gave a DSN.

const { codes, parseReply } = require('postel-emitter');
const { clientAttributes, directionOf } = require('./connections');
const { denialAttributes } = require('./denials');

// The replies to RCPT in Haraka's connection.js, rcpt_respond.
const REPLY_CODES = { reject: 550, tempfail: 450 };

// 'user@host' of the Address of any version of Haraka; '' for the null sender.
const addressOf = address => address.format().slice(1, -1);

// The answered ones in their order: [{ address, action: accept | reject | tempfail, msg, code }]
function answered(transaction) {
    const { rcpt_to: result } = transaction.results;
    return (result && result.recipient) || [];
}

// { accepted, refused }: addresses
function addressesOf(transaction) {
    const [accepted, refused] = [[], []];
    for (const { address, action } of answered(transaction)) {
        (action === 'accept' ? accepted : refused).push(address);
    }
    return { accepted, refused };
}

// Those that Haraka itself refused, for it takes none that no plugin knows: [{ address, code, text, time }]
//   seen: of transactions.js; time: now
function refusedByHaraka(transaction, seen, time) {
    const denied = [...seen.denied];
    return answered(transaction)
        .filter(({ action, address }) => action !== 'accept' && !taken(denied, address))
        .map(({ action, address, msg }) => {
            const noted = seen.unknown.find(unknown => unknown.address === address);
            return { address, code: REPLY_CODES[action], text: msg, time: noted ? noted.time : time };
        });
}

// One that a plugin denied.
function refusedByPlugin(address, denial) {
    const { code = REPLY_CODES[denial.isSoft ? 'tempfail' : 'reject'], text, time } = denial;
    return { address, code, text, time, denial };
}

// True where the item was in the list, which has it no more.
function taken(list, item) {
    const index = list.indexOf(item);
    if (index >= 0) {
        list.splice(index, 1);
    }
    return index >= 0;
}

// The event of a refused recipient.
//   refused: { address, code, text, time, denial }
function describeRecipient(client, transaction, relaying, { address, code, text = '', time, denial }) {
    const reply = parseReply(`${code} ${text}`);
    return {
        key: 'recipient_rejected',
        time,
        attributes: {
            'haraka.connection.id': client.id,
            'haraka.transaction.id': transaction.uuid,
            ...denialAttributes(denial),
            'haraka.relaying': Boolean(relaying),
            'email.from.address': addressOf(transaction.mail_from),
            'email.to.address': [address],
            'email.direction': directionOf(relaying),
            'smtp.response.status_code': reply.code,
            'smtp.response.enhanced_code': reply.enhancedCode,
            'smtp.response.text': reply.text,
            ...clientAttributes(client),
            'error.type': String(code)
        },
        body: `Recipient refused${denial ? ` by ${denial.plugin}` : ', no plugin knows it'}${codes(reply)}`
    };
}

module.exports = { addressOf, addressesOf, describeRecipient, refusedByHaraka, refusedByPlugin };
