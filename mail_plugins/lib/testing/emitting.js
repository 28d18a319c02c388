'use strict';

// An emitter of Zone-MTA's events for tests: `emitter(t, {...})` ends with the test, in a folder of its own.

const fs = require('fs');
const os = require('os');
const path = require('path');
const { Emitter } = require('..');
const { keptLog } = require('./receiver');

const PLUGIN = { name: 'postel-test', version: '1.2.3' };

function temporaryFolder() {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'postel-test-'));
    // After the test's emitters, which write into it when they close.
    process.on('exit', () => fs.rmSync(folder, { recursive: true, force: true }));
    return folder;
}

function newEmitter(t, { endpoint, folder = temporaryFolder(), settings = {}, ...rest }) {
    const log = keptLog();
    const emitter = new Emitter({
        sourceType: 'zone_mta',
        plugin: PLUGIN,
        server: { version: '3.11.0', port: 12080 },
        processKind: 'sender',
        log,
        settings: { ...(endpoint && { endpoint }), bufferDirectory: folder, heartbeatInterval: 600, ...settings },
        ...rest
    });
    t.after(() => emitter.close());
    return { emitter, log, folder };
}

// Number them, so that each can be found again.
function emit(emitter, count, first = 0) {
    for (let number = first; number < first + count; number += 1) {
        emitter.emit('queued', { 'zonemta.message.id': `m${number}` }, { time: 1e12 + number, body: 'Queued.' });
    }
}

function ids(records) {
    return records.map(record => record.attributes['zonemta.message.id']);
}

function expected(count, first = 0) {
    return Array.from({ length: count }, (_, index) => `m${first + index}`);
}

// Ids in the order of their numbers.
function sorted(list) {
    return [...list].sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
}

// All files under a folder.
function files(folder) {
    return fs
        .readdirSync(folder, { withFileTypes: true })
        .flatMap(entry => (entry.isDirectory() ? files(path.join(folder, entry.name)) : [path.join(folder, entry.name)]));
}

module.exports = { PLUGIN, emit, expected, files, ids, newEmitter, sorted, temporaryFolder };
