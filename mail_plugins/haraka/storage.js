'use strict';

// Whether a message was stored and where, without I/O.
//
// The first plugin that says OK in the hook `queue` has it. Haraka keeps that answer in the transaction's results, as
// `queue`, but not whose it was; that is seen from the plugins that it did not ask any more. What Haraka's own outbound
// queue took, for LMTP or SMTP, is in the results as `outbound`.

// Plugins of Haraka's own that hand the message to another server on the spot.
const FORWARDING = /^queue\/(smtp_forward|smtp_proxy|smtp_bridge)$|^smtp_(forward|proxy|bridge)$/;
const DISCARDING = /^(queue\/)?discard$/;

// Attributes; none where the message did not come so far.
//   seen: of transactions.js; outcome: the key of the event
function storageAttributes(transaction, seen, outcome) {
    if (!seen.queue) {
        return {};
    }
    const answer = transaction.results.queue || { pass: [], fail: [] };
    const plugin = outcome === 'accepted' && answer.pass.length ? lastAsked(seen.queue) : undefined;
    return {
        'haraka.storage.status': statusOf(transaction, outcome, plugin),
        'haraka.storage.plugin': plugin || (seen.denial && seen.denial.plugin),
        'haraka.storage.text': [...answer.fail, ...answer.pass].map(String).pop(),
        'haraka.storage.id': idInWildDuck(transaction.notes)
    };
}

// The name of the plugin that was asked last, and so decided.
function lastAsked({ plugins, rest }) {
    return plugins[plugins.length - rest.length - 1];
}

function statusOf(transaction, outcome, plugin) {
    if (outcome !== 'accepted') {
        return { deferred: 'deferred', rejected: 'refused' }[outcome] || 'unknown';
    }
    const outbound = transaction.results.outbound;
    if (outbound && outbound.pass.includes('queued')) {
        return 'queued';
    }
    if (DISCARDING.test(plugin)) {
        return 'discarded';
    }
    return FORWARDING.test(plugin) ? 'forwarded' : 'stored';
}

// haraka-plugin-wildduck, init_wildduck_transaction: an ObjectId, by which WildDuck's own log names the message.
function idInWildDuck({ id, targets }) {
    return id && targets && targets.users ? String(id) : undefined;
}

module.exports = { storageAttributes };
