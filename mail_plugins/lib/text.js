'use strict';

// Strings that every receiver takes: no lone surrogates, which no UTF-8 has, and no more than so many characters.

const LONE_SURROGATE = /[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// A server that cuts a text at so many UTF-16 units (Zone-MTA: 312) may cut a character in two.
const wellFormed = String.prototype.toWellFormed
    ? text => text.toWellFormed()
    : text => text.replace(LONE_SURROGATE, '\ufffd'); // Node 18

function bounded(text, length) {
    return wellFormed(text.length > length ? text.slice(0, length) : text);
}

module.exports = { bounded };
