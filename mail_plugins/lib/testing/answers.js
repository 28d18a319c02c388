'use strict';

// Valid HTTP/1.1 answers of many shapes, each the same whenever its seed is.

// mulberry32: a number in [0, 1) by each call.
function numbers(seed) {
    let state = seed;
    return () => {
        state = (state + 0x6d2b79f5) | 0;
        let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
        mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
        return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
    };
}

// { bytes, pieces }: the whole answer as a latin1 string, and lengths to cut it by.
function randomAnswer(seed) {
    const next = numbers(seed);
    const below = limit => Math.floor(next() * limit);
    const pick = choices => choices[below(choices.length)];
    const body = Array.from({ length: below(400) }, () => pick(['{', '"', 'a', '\r\n', '0', '\u00c3\u00a9', ' '])).join('');
    const ending = pick(['counted', 'chunked', 'closed']);
    const fields = [
        ...Array.from({ length: below(6) }, (_, index) => `X-Field-${index}: ${'v'.repeat(below(60))}`),
        `${pick(['Content-Type', 'content-type'])}:${pick(['', ' ', '\t '])}application/json${pick(['', ' '])}`,
        ...(ending === 'counted' ? [`Content-Length: ${body.length}`] : []),
        ...(ending === 'chunked' ? [`Transfer-Encoding: ${pick(['chunked', 'Chunked'])}`] : []),
        'Connection: close'
    ];
    const interim = pick(['', '', 'HTTP/1.1 100 Continue\r\n\r\n']);
    const status = pick(['200 OK', '400 Bad Request', '503 ', '429 Slow down']);
    return {
        bytes: `${interim}HTTP/1.1 ${status}\r\n${fields.join('\r\n')}\r\n\r\n${ending === 'chunked' ? chunks(body, below, pick) : body}`,
        pieces: Array.from({ length: 5 }, () => 1 + below(pick([3, 40, 2000])))
    };
}

function chunks(body, below, pick) {
    let text = '';
    for (let at = 0; at < body.length; ) {
        const chunk = body.slice(at, at + 1 + below(80));
        text += `${chunk.length.toString(16)}${pick(['', ';ext=1'])}\r\n${chunk}\r\n`;
        at += chunk.length;
    }
    return `${text}0\r\n${pick(['', 'X-Trailer: t\r\n'])}\r\n`;
}

module.exports = { randomAnswer };
