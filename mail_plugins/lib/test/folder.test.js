'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const test = require('node:test');
const { findFolder } = require('../segments');
const { temporaryFolder } = require('../testing/emitting');

test('the first place that takes a folder of its own is used, and the folder is the user\'s alone', () => {
    const base = temporaryFolder();
    fs.writeFileSync(path.join(base, 'file'), '');
    const places = [path.join(base, 'file/below'), path.join(base, 'a/b'), path.join(base, 'c')];
    const folder = findFolder(places, 'postel-x');
    assert.equal(folder, path.join(base, 'a/b/postel-x'));
    assert.equal(fs.statSync(folder).mode & 0o777, 0o700);
    assert.equal(fs.statSync(path.dirname(folder)).mode & 0o055, 0o055);
    assert.equal(findFolder(places, 'postel-x'), folder);
});

test('a link, a file or somebody else\'s folder is not used', t => {
    const base = temporaryFolder();
    fs.mkdirSync(path.join(base, 'elsewhere'));
    fs.symlinkSync(path.join(base, 'elsewhere'), path.join(base, 'link'));
    fs.writeFileSync(path.join(base, 'file'), '');
    assert.equal(findFolder([base], 'link'), null);
    assert.equal(findFolder([base], 'file'), null);
    if (process.getuid() !== 0) {
        t.skip('only root can give a folder away');
        return;
    }
    fs.mkdirSync(path.join(base, 'theirs'));
    fs.chownSync(path.join(base, 'theirs'), 65534, 65534);
    assert.equal(findFolder([base], 'theirs'), null);
});
