'use strict';

// What an answer to a request means, without I/O (OTLP, "OTLP/HTTP Response", "OTLP/HTTP Throttling").
//
// As in the agent (docs/decisions/0007), only what is about the request's bytes is final: 400 in an OTLP receiver's own
// words, and 413. A wrong token, a wrong path or another server's page may be mended, and costs no event until then.

const MAX_DELAY_MS = 300_000;

// { kind: 'taken', refused, reason } | { kind: 'refused', reason } | { kind: 'retry', delay (ms or null), reason }
function judge({ status, headers, body }, now = Date.now()) {
    const mediaType = (headers['content-type'] || '').split(';')[0].trim().toLowerCase();
    if (status >= 200 && status < 300) {
        return taken(status, mediaType, body);
    }
    const reason = `HTTP ${status}: ${words(mediaType, body)}`.replace(/: $/, '');
    if (status === 413 || (status === 400 && isStatus(mediaType, body))) {
        return { kind: 'refused', reason };
    }
    return { kind: 'retry', delay: retryAfter(headers['retry-after'], now), reason };
}

function taken(status, mediaType, body) {
    if (body === '' || mediaType === 'application/x-protobuf') {
        return { kind: 'taken', refused: 0, reason: '' };
    }
    const answer = mediaType === 'application/json' ? parse(body) : null;
    // An answer in which nothing is OTLP's is that of some other server on this port.
    if (!answer || Object.keys(answer).some(key => key !== 'partialSuccess')) {
        return { kind: 'retry', delay: null, reason: `HTTP ${status}, but the answer is not OTLP's: ${words(mediaType, body)}` };
    }
    const { rejectedLogRecords = 0, errorMessage = '' } = answer.partialSuccess || {};
    return { kind: 'taken', refused: Math.max(Number(rejectedLogRecords) || 0, 0), reason: errorMessage };
}

// Whether a body is the `Status` that an OTLP receiver says a failure with (google/rpc/status.proto).
function isStatus(mediaType, body) {
    if (mediaType === 'application/x-protobuf') {
        return true;
    }
    const answer = mediaType === 'application/json' ? parse(body) : null;
    return answer !== null && Object.keys(answer).every(key => ['code', 'message', 'details'].includes(key));
}

// Milliseconds of a Retry-After (RFC 9110, 10.2.3: seconds or a date), or null.
function retryAfter(value, now) {
    if (value === undefined) {
        return null;
    }
    const delay = /^\s*\d+\s*$/.test(value) ? Number(value) * 1000 : Date.parse(value) - now;
    return Number.isNaN(delay) ? null : Math.min(Math.max(delay, 0), MAX_DELAY_MS);
}

function words(mediaType, body) {
    const answer = mediaType === 'application/json' ? parse(body) : null;
    const text = answer && typeof answer.message === 'string' ? answer.message : body;
    return text.slice(0, 200).replace(/[^\x20-\x7e]+/g, ' ').trim();
}

function parse(body) {
    try {
        const value = JSON.parse(body);
        return value && typeof value === 'object' && !Array.isArray(value) ? value : null;
    } catch {
        return null;
    }
}

module.exports = { judge };
