'use strict';

// What Rspamd said of a message, without I/O: from the results of haraka-plugin-rspamd, and where this Haraka has no
// such plugin, from the headers that a filter before it wrote. Anybody can write headers: `rspamd.origin` tells them
// apart.

const MAX_SYMBOLS = 200;
const NUMBER = /-?\d+(?:\.\d+)?/;
// 'GTUBE(0.00)', in the plugin's report and in X-Spamd-Result alike.
const SYMBOL = /([A-Za-z][\w.-]*)\((-?\d+(?:\.\d+)?)\)/g;

//   spamHeaders: of settings.js
function rspamdAttributes(transaction, spamHeaders) {
    const result = transaction.results.rspamd;
    return result ? fromResult(result) : fromHeaders(transaction.header, spamHeaders);
}

function fromResult({ score, required_score: required, action, symbols, time, skip, err }) {
    return {
        'rspamd.score': score,
        'rspamd.required_score': required,
        'rspamd.action': action,
        'rspamd.symbols': symbols && bounded(scored(symbols)),
        'rspamd.scan.time': time,
        'rspamd.origin': score === undefined && action === undefined ? undefined : 'result',
        'rspamd.skip.reason': listed(skip),
        'rspamd.error': listed(err)
    };
}

// Versions of the plugin give a symbol as an object of Rspamd's or as its score.
function scored(symbols) {
    return Object.entries(symbols)
        .map(([name, symbol]) => [name, symbol !== null && typeof symbol === 'object' ? symbol.score : symbol])
        .filter(([, score]) => typeof score === 'number');
}

const listed = texts => (texts && texts.length ? texts.join(', ') : undefined);

function fromHeaders(header, { score, report, action }) {
    const number = NUMBER.exec(first(header, score) || '');
    const symbols = [...(first(header, report) || '').matchAll(SYMBOL)].map(([, name, value]) => [name, Number(value)]);
    const attributes = {
        'rspamd.score': number ? Number(number[0]) : undefined,
        'rspamd.action': first(header, action),
        'rspamd.symbols': symbols.length ? bounded(symbols) : undefined
    };
    const isThere = Object.values(attributes).some(value => value !== undefined);
    return isThere ? { ...attributes, 'rspamd.origin': 'header' } : {};
}

// The value of the first of these headers that the message has.
function first(header, names) {
    for (const name of names) {
        const value = header.get(name).trim();
        if (value) {
            return value;
        }
    }
    return undefined;
}

const bounded = pairs => Object.fromEntries(pairs.slice(0, MAX_SYMBOLS));

module.exports = { rspamdAttributes };
