'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const test = require('node:test');
const { Deferred, MOST } = require('../deferred');
const { Receiver, until } = require('../testing/receiver');
const { emit, files, newEmitter } = require('../testing/emitting');

test('deferred work is done in its order, soon, whatever one of it does', async () => {
    const errors = [];
    const done = [];
    const deferred = new Deferred(error => errors.push(error.message));
    deferred.add(() => done.push(1));
    deferred.add(() => {
        throw new Error('broken');
    });
    deferred.add(() => done.push(2));
    assert.deepEqual(done, []);
    await until(() => done.length === 2, 1);
    assert.deepEqual([done, errors], [[1, 2], ['broken']]);
});

test('work that piles up is bounded', () => {
    let done = 0;
    const deferred = new Deferred(assert.fail);
    for (let number = 0; number < 3 * MOST; number += 1) {
        deferred.add(() => (done += 1));
        assert.ok(deferred.works.length <= MOST);
    }
    deferred.run();
    assert.equal(done, 3 * MOST);
});

test('deferred events come at once after a pause, and are saved at the end of the process', async t => {
    const server = await new Receiver().start();
    t.after(() => server.stop());
    const { emitter, folder } = newEmitter(t, { endpoint: server.endpoint });
    await until(() => server.records.length === 1);
    await new Promise(resolve => setTimeout(resolve, 900));
    const begun = Date.now();
    emitter.defer(() => emit(emitter, 1));
    await until(() => server.events.length === 1);
    assert.ok(Date.now() - begun < 400);

    emitter.defer(() => emit(emitter, 2, 1));
    emitter.close();
    const [file] = files(folder);
    const saved = fs.readFileSync(file, 'utf8');
    assert.ok(saved.includes('"m1"') && saved.includes('"m2"'));
});
