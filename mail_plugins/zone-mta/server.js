'use strict';

// What Zone-MTA says of itself: its version and the port of its API, which tells instances on one host apart.

const fs = require('fs');
const { createRequire } = require('module');
const path = require('path');

const NAME = /^(@[^/]+\/)?zone-mta$/;
// The name of its configuration module, since 3.11 and before.
const CONFIGURATIONS = ['@zone-eu/wild-config', 'wild-config'];

// { version, port }, each undefined where it cannot be found. Main process and children run a file of Zone-MTA's own.
function readServer(mainFile = require.main && require.main.filename) {
    const manifest = mainFile && findManifest(path.dirname(mainFile));
    return manifest ? { version: manifest.version, port: apiPort(manifest.path) } : {};
}

function findManifest(folder) {
    const file = path.join(folder, 'package.json');
    if (fs.existsSync(file)) {
        const { name, version } = JSON.parse(fs.readFileSync(file, 'utf8'));
        if (NAME.test(name)) {
            return { path: file, version };
        }
    }
    const above = path.dirname(folder);
    return above === folder ? null : findManifest(above);
}

function apiPort(manifest) {
    const requireAsServer = createRequire(manifest);
    for (const name of CONFIGURATIONS) {
        try {
            // The server has it loaded: this is its own configuration, with all that the command line added.
            return Number(requireAsServer(name).api.port) || undefined;
        } catch {
            // The other name, or no API.
        }
    }
    return undefined;
}

module.exports = { readServer };
