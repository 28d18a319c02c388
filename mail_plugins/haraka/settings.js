'use strict';

// config/postel.ini: the emitter's settings, and in which headers a filter before this server writes its verdict.

const FILE = 'postel.ini';

// Names in use: those of haraka-plugin-rspamd, those that they are often renamed to, and the one of Rspamd's own
// milter_headers. A report holds symbols with their scores.
const HEADERS = {
    score: ['X-Rspamd-Score', 'X-Spam-Score', 'X-Spamd-Result'],
    report: ['X-Rspamd-Report', 'X-Spam-Report', 'X-Spamd-Result'],
    action: ['X-Rspamd-Action', 'X-Spam-Action']
};

// { emitter: settings, spamHeaders: { score, report, action: names, the first that is there counts } }
//   config: of Haraka's plugin object
function readConfig(config) {
    const { main, headers, resource, spam_headers: named = {} } = withTexts(config.get(FILE), linesOf(config));
    const renamed = config.get('rspamd.ini').header || {};
    const spamHeaders = {};
    for (const [part, known] of Object.entries(HEADERS)) {
        spamHeaders[part] = named[part] === undefined ? [].concat(renamed[part] || [], known) : listed(named[part]);
    }
    return { emitter: { ...main, ...(headers && { headers }), ...(resource && { resource }) }, spamHeaders };
}

// Haraka 3.1 keeps one reading of a file for all types of it, but another one for each options: without them it gives the
// sections again.
function linesOf(config) {
    const lines = config.get(FILE, 'data', {});
    return Array.isArray(lines) ? lines : [];
}

// The settings that are numbers. All others are texts.
const NUMBERS = ['timeout', 'bufferSize', 'memorySize', 'heartbeatInterval'];

// Haraka reads a number where a text looks like one, and 12 where a token is 0012: what is written in the file counts.
function withTexts(sections, lines) {
    const written = {};
    let section = 'main';
    for (const line of lines) {
        const title = /^\s*\[\s*([^\]]*?)\s*\]/.exec(line);
        const setting = /^\s*([\w.-]+)\s*=\s*(.*?)\s*$/.exec(line);
        if (title) {
            section = title[1];
        } else if (setting) {
            written[`${section}.${setting[1]}`] = setting[2];
        }
    }
    const meant = (value, name, key) => {
        if (value === undefined || (name === 'main' && NUMBERS.includes(key))) {
            return value;
        }
        return typeof value === 'number' ? written[`${name}.${key}`] || String(value) : String(value);
    };
    return mapped(sections, (settings, name) => mapped(settings, (value, key) => meant(value, name, key)));
}

const mapped = (object, map) => Object.fromEntries(Object.entries(object).map(([key, value]) => [key, map(value, key)]));

const listed = text => String(text).split(/[\s,]+/).filter(Boolean);

module.exports = { readConfig };
