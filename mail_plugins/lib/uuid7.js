'use strict';

// UUIDs of version 7 (RFC 9562, 5.7): 48 bits of milliseconds, then random bits.

const { randomUUID } = require('crypto');

function uuid7(milliseconds) {
    const time = Math.trunc(milliseconds).toString(16).padStart(12, '0');
    // Node keeps a pool of random bits for randomUUID: 0.1 us a call, where randomBytes takes 1 us.
    return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

module.exports = { uuid7 };
