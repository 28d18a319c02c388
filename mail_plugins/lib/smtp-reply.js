'use strict';

// Reads an SMTP reply: reply code (RFC 5321, 4.2), enhanced status code (RFC 3463, RFC 2034) and a bounded text.
//
// A reply may have several lines, as the server sent it ("550-5.7.26 a\r\n550 5.7.26 b") or made into one by Zone-MTA
// ("550-5.7.26 a b"). Enhanced codes follow the reply code, as "5.1.1", "#5.1.0" (Cisco), "(5.7.1)", "[5.7.1]" or behind
// a repeated reply code; elsewhere in the text only a marked one of the reply's own class counts, since versions and
// addresses look alike. What is no reply ("Network error: ...") has neither code.

const { bounded } = require('./text');

const TEXT_LENGTH = 512;
const CODE = /^\s*([2-5]\d\d)(?=[\s-]|$)/;
const NUMBER = '([245]\\.\\d{1,3}\\.\\d{1,3})';
const AFTER_CODE = new RegExp(`^\\s*[2-5]\\d\\d[\\s-]+(?:[2-5]\\d\\d[\\s-]+)?[#([]?${NUMBER}(?!\\.?\\d)`, 'm');
const MARKED = new RegExp(`(?:#${NUMBER}(?!\\.?\\d))|\\(#?${NUMBER}\\)|\\[#?${NUMBER}\\]`, 'g');

function parseReply(reply) {
    if (typeof reply !== 'string' || !reply.trim()) {
        return {};
    }
    // Only the beginning is looked at: replies are at most a few lines, and this runs once for each delivery.
    const text = bounded(reply.trim(), 4096);
    const code = CODE.exec(text);
    return {
        code: code ? Number(code[1]) : undefined,
        enhancedCode: code ? enhancedCode(text, code[1][0]) : undefined,
        text: bounded(text.replace(/\s+/g, ' '), TEXT_LENGTH)
    };
}

function enhancedCode(text, replyClass) {
    const after = AFTER_CODE.exec(text);
    if (after) {
        return after[1];
    }
    for (const marked of text.matchAll(MARKED)) {
        const found = marked[1] || marked[2] || marked[3];
        if (found[0] === replyClass) {
            return found;
        }
    }
    return undefined;
}

module.exports = { parseReply };
