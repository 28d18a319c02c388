'use strict';

// Decides as what a client says of itself, the addresses and the header X-Judge say, so that a test has every way in
// which a message can end. In its hooks a word stands for a verdict: `defer+7@...`, `X-Judge: queue reject`.

const VERDICTS = {
    ok: [OK],
    reject: [DENY, '5.7.1'],
    defer: [DENYSOFT, '4.7.1'],
    expel: [DENYDISCONNECT, '5.7.1'],
    dismiss: [DENYSOFTDISCONNECT, '4.7.1']
};

exports.register = function () {
    for (const hook of ['data_post', 'queue', 'queue_outbound', 'reset_transaction']) {
        this.register_hook(hook, `judge_${hook}`);
        this[`judge_${hook}`] = (next, connection) => this.by_header(next, connection.transaction, hook);
    }
    this.DSN = require('haraka-dsn');
};

// A host called `reject.x.test` is refused.
exports.hook_ehlo = (next, connection, host) => verdict(next, host.split('.')[0], 'the host');

exports.hook_mail = (next, connection, [{ user, host }]) => {
    if (host === 'relay.test') {
        connection.relaying = true;
    }
    return verdict(next, (user || '').split('+')[0], 'the sender');
};

exports.hook_rcpt = function (next, connection, [{ user }]) {
    if (user.startsWith('dsn')) {
        return next(DENY, this.DSN.no_such_user());
    }
    return verdict(next, user.split('+')[0], 'the recipient');
};

exports.hook_data = (next, { transaction }) => {
    const found = /^data-(\w+)/.exec(transaction.mail_from.user || '');
    return verdict(next, found && found[1], 'DATA');
};

// `slow`: as a plugin that waits for another server.
exports.by_header = (next, { header }, hook) => {
    const [named, word] = header.get('X-Judge').trim().split(' ');
    if (named === hook && word === 'slow') {
        return setTimeout(next, 700);
    }
    return verdict(next, named === hook ? word : undefined, `the message in ${hook}`);
};

// What is relayed goes to the sink on this host.
exports.hook_get_mx = function (next, hmail) {
    const { port } = this.config.get('judge.ini').main;
    if (hmail.todo.notes.using_lmtp || !port) {
        return next();
    }
    return next(OK, { exchange: '127.0.0.1', port, priority: 0 });
};

function verdict(next, word, what) {
    const [code, enhancedCode] = VERDICTS[word] || [];
    return enhancedCode ? next(code, `${enhancedCode} Judged ${what}`) : next(code);
}
