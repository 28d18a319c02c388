'use strict';

// A plugin's denial: what it was, and the reply that it leads to, without I/O.

// haraka-constants, the return codes of a plugin that denies.
const KINDS = {
    902: { kind: 'deny', isSoft: false, disconnects: false },
    903: { kind: 'denysoft', isSoft: true, disconnects: false },
    904: { kind: 'denydisconnect', isSoft: false, disconnects: true },
    909: { kind: 'denysoftdisconnect', isSoft: true, disconnects: true }
};

// From the parameters of the hook `deny` (Haraka's plugins.js).
//   { kind, isSoft, disconnects, plugin, hook, code, text, time }: code only where the plugin gave a DSN
function readDenial([number, message, plugin, , , hook], time) {
    return { ...KINDS[number], plugin, hook, ...replyOf(message), time };
}

// A plugin gives a text, lines of it, or an object of haraka-dsn, whose code counts.
function replyOf(message) {
    if (message && message.reply !== undefined) {
        return { code: message.code, text: String(message.reply) };
    }
    return { code: undefined, text: message ? [].concat(message).join('\n') : undefined };
}

function denialAttributes(denial) {
    return denial ? { 'haraka.plugin': denial.plugin, 'haraka.hook': denial.hook, 'haraka.denial': denial.kind } : {};
}

module.exports = { denialAttributes, readDenial };
