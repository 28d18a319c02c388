'use strict';

// Tells what becomes of every message in Haraka.
//
// `reset_transaction` runs at the end of each transaction, whatever way it ends, `disconnect` at the end of each
// connection. `deny` says which plugin denied what. The other hooks note when a transaction came how far, and who was
// to store it.

const { observers } = require('postel-emitter');
const { newEmitter } = require('./server');
const { readConfig } = require('./settings');
const { Watch } = require('./watch');

// Haraka runs a hook's handlers in the order of their priorities, as long as none decides.
const FIRST = -100;
const LAST = 100;

// What Haraka calls, and when; the methods are those of Watch.
const HOOKS = {
    mail: { method: 'mail', priority: FIRST },
    // Behind the plugins that know the recipient: those whom none of them knows come here.
    rcpt: { method: 'unknownRecipient', priority: LAST },
    data: { method: 'data', priority: FIRST },
    queue: { method: 'queue', priority: FIRST },
    queue_outbound: { method: 'queue', priority: FIRST },
    // Behind the plugins that may take a denial back.
    deny: { method: 'deny', priority: LAST },
    reset_transaction: { method: 'reset', priority: FIRST },
    disconnect: { method: 'disconnect', priority: FIRST },
    send_email: { method: 'attempt', priority: FIRST },
    delivered: { method: 'delivered', priority: FIRST },
    deferred: { method: 'deferred', priority: FIRST },
    bounce: { method: 'bounce', priority: FIRST },
    // Of each message that Haraka takes into its own queue, and of those that it writes.
    pre_send_trans_email: { method: 'outbound', priority: FIRST }
};

exports.register = function () {
    const { nextFirst } = observers(error => this.logcrit(`nothing is told to Postel: ${error.message}`));
    this.postel_master = nextFirst(server => begin(this, server, server.cluster ? 'master' : 'single'));
    this.postel_worker = nextFirst(server => begin(this, server, 'worker'));
    this.register_hook('init_master', 'postel_master', FIRST);
    this.register_hook('init_child', 'postel_worker', FIRST);
    for (const [hook, { priority }] of Object.entries(HOOKS)) {
        this[nameOf(hook)] = nextFirst(() => {});
        this.register_hook(hook, nameOf(hook), priority);
    }
};

// Not before now: Haraka has just given up root's rights, in which the emitter's folder would be nobody's but root's.
function begin(plugin, server, processKind) {
    const config = readConfig(plugin.config);
    const emitter = newEmitter(plugin, server, processKind, config.emitter);
    const watch = new Watch(emitter, config);
    for (const [hook, { method }] of Object.entries(HOOKS)) {
        plugin[nameOf(hook)] = emitter.observeFirst(watch[method].bind(watch));
    }
}

// Haraka itself registers what is called hook_...
const nameOf = hook => `postel_${hook}`;
