'use strict';

// Values and phrases that the events of all plugins have in common, without I/O.

// Seconds from one moment to another (milliseconds since the epoch); undefined where the first is not known.
function seconds(since, now) {
    return since === undefined ? undefined : Math.max(now - since, 0) / 1000;
}

// RFC 3339 in UTC; undefined where there is no such moment.
function timestamp(milliseconds) {
    return Number.isFinite(milliseconds) ? new Date(milliseconds).toISOString() : undefined;
}

// 'TLSv1.3' -> '1.3'
function tlsVersion(name) {
    return typeof name === 'string' ? name.replace(/^TLSv/, '') : undefined;
}

// ' with 451 4.7.1', for people; '' where there is no reply.
function codes({ code, enhancedCode }) {
    return code ? ` with ${code}${enhancedCode ? ` ${enhancedCode}` : ''}` : '';
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? '' : 's'}`;

module.exports = { codes, plural, seconds, timestamp, tlsVersion };
