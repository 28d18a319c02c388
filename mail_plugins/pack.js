'use strict';

// Before a plugin is packed, lay the emitter into its node_modules, and take it out again behind it: npm bundles no
// neighbour of a workspace. `npm pack --workspace zone-mta` then makes one file that needs nothing else.

const fs = require('fs');
const path = require('path');

const EMITTER = path.join(__dirname, 'lib');
const { files } = require('./lib/package.json');

const modules = path.join(process.cwd(), 'node_modules');
const place = path.join(modules, 'postel-emitter');

fs.rmSync(modules, { recursive: true, force: true });
if (process.argv[2] === 'lay') {
    fs.mkdirSync(place, { recursive: true });
    const shipped = fs.readdirSync(EMITTER).filter(name => files.includes(`*${path.extname(name)}`) || files.includes(name));
    for (const name of [...shipped, 'package.json']) {
        fs.copyFileSync(path.join(EMITTER, name), path.join(place, name));
    }
}
