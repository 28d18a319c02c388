'use strict';

// UUIDs of version 7 (RFC 9562, 5.7 and 6.2): 48 bits of milliseconds, a counter of 32 bits, and 42 random bits that stay
// for the life of the process. Random bits for each cost a call into OpenSSL, more than all the rest of it.

const { randomBytes } = require('crypto');

const RANDOM = randomBytes(6).toString('hex').slice(0, 10);
// The first bits of the counter are random, too: two processes that fork apart begin apart.
let counter = randomBytes(4).readUInt32BE();

const hex = (number, digits) => number.toString(16).padStart(digits, '0');

// What many have in common: those of a millisecond, and of 1M of the counter.
let last = { milliseconds: NaN, high: NaN, text: '' };

function uuid7(milliseconds) {
    counter = (counter + 1) >>> 0;
    // The counter's 32 bits: 12 behind the version, 14 behind the variant (binary 10), 6 in front of the random ones.
    const high = counter >>> 20;
    const low = counter & 0xfffff;
    if (last.milliseconds !== milliseconds || last.high !== high) {
        const time = hex(Math.trunc(milliseconds), 12);
        last = { milliseconds, high, text: `${time.slice(0, 8)}-${time.slice(8)}-7${hex(high, 3)}-` };
    }
    return `${last.text}${(0x8000 | (low >>> 6)).toString(16)}-${hex(low & 0x3f, 2)}${RANDOM}`;
}

module.exports = { uuid7 };
