'use strict';

// Objects as Haraka hands them to hooks, made by hand or of recordings, in which methods are missing.

const fs = require('node:fs');
const path = require('node:path');
const { domainToASCII } = require('node:url');
const { readConfig } = require('../settings');

const recorded = name => JSON.parse(fs.readFileSync(path.join(__dirname, `../testdata/3.3.4/${name}.json`), 'utf8'));

// As Haraka's Address has it: `host` is in small letters and ASCII, what is printed is as it was written.
function address(text) {
    const [, user = '', host = ''] = /^(.*)@(.*)$/.exec(text) || [];
    return { user, host: domainToASCII(host), format: () => `<${text}>` };
}

// Headers by their names in lowercase.
const header = headers => ({ get: name => headers[name.toLowerCase()] || '' });

const results = named => ({ get: name => named[name] });

function answered(...recipients) {
    return { recipient: recipients.map(([text, action, msg]) => ({ address: text, action, msg })) };
}

function transaction({ headers = {}, named = {}, ...given } = {}) {
    return {
        uuid: 'C.1',
        mail_from: address('from@sender.test'),
        rcpt_count: { accept: 0, tempfail: 0, reject: 0 },
        data_bytes: 0,
        data_post_start: null,
        data_post_delay: 0,
        notes: {},
        header: header(headers),
        results: results(named),
        ...given
    };
}

function connection(given = {}) {
    return {
        uuid: 'C',
        remote: { ip: '192.0.2.7', host: 'client.example.org', closed: false },
        hello: { host: 'client.test', verb: 'EHLO' },
        tls: { enabled: false, cipher: {} },
        notes: {},
        relaying: false,
        state: 1,
        last_response: '250 OK\r\n',
        current_line: 'RSET',
        start_time: 1_000,
        tran_count: 1,
        msg_count: { accept: 0, tempfail: 0, reject: 0 },
        rcpt_count: { accept: 0, tempfail: 0, reject: 0 },
        totalbytes: 0,
        errors: 0,
        early_talker: false,
        last_reject: '',
        hooks_to_run: [],
        ...given
    };
}

// A recorded transaction, with the methods that plugins call.
function revivedTransaction({ connection: { transaction: found } }) {
    return {
        ...found,
        mail_from: address(found.mail_from_str.slice(1, -1)),
        results: results(found.results),
        header: header(Object.fromEntries(Object.entries(found.headers || {}).map(([name, value]) => [name, [].concat(value).join('\n')])))
    };
}

// A recorded delivery and its recipients, likewise.
function revivedDelivery({ hmail }) {
    const { todo } = hmail;
    const revive = ({ user, host, ...rest }) => ({ ...rest, ...address(user ? `${user}@${host}` : '') });
    return { ...hmail, todo: { ...todo, mail_from: revive(todo.mail_from), rcpt_to: todo.rcpt_to.map(revive) } };
}

// An object of Haraka's configuration, of sections by file; lines: those of postel.ini, where they matter.
const config = (files = {}, lines = []) => ({ get: (name, type) => (type === 'data' ? lines : { main: {}, ...files[name] }) });

const CONFIG = readConfig(config());

module.exports = {
    CONFIG,
    address,
    answered,
    config,
    connection,
    header,
    recorded,
    revivedDelivery,
    revivedTransaction,
    transaction
};
