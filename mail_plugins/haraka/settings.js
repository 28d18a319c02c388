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
    const { main, headers, resource, spam_headers: named = {} } = config.get(FILE);
    const renamed = config.get('rspamd.ini').header || {};
    const spamHeaders = {};
    for (const [part, known] of Object.entries(HEADERS)) {
        spamHeaders[part] = named[part] === undefined ? [].concat(renamed[part] || [], known) : listed(named[part]);
    }
    return { emitter: { ...texts(main, NUMBERS), ...sections({ headers, resource }) }, spamHeaders };
}

// Haraka reads a number where a text looks like one: a token, for instance.
const NUMBERS = ['timeout', 'bufferSize', 'memorySize', 'heartbeatInterval'];

function texts(section, numbers) {
    return Object.fromEntries(
        Object.entries(section).map(([key, value]) => [key, numbers.includes(key) ? value : String(value)])
    );
}

function sections(given) {
    return Object.fromEntries(
        Object.entries(given)
            .filter(([, section]) => section)
            .map(([name, section]) => [name, texts(section, [])])
    );
}

const listed = text => String(text).split(/[\s,]+/).filter(Boolean);

module.exports = { readConfig };
