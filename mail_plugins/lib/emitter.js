'use strict';

// The emitter: a plugin tells it what happened, it brings that to Postel's agent or any other OTLP receiver.
//
// Contract: `emit` and the handlers of `observe` never throw, never wait for the network or the disk, and hold no more
// memory than the settings say. An event is sent once at least, with one `log.record.uid`, unless it is counted as
// dropped (memory and files full) or refused (by the receiver, for good). Nothing keeps the process alive.

const os = require('os');
const { Courier } = require('./courier');
const { Deferred } = require('./deferred');
const { HttpClient } = require('./http-client');
const { Outbox } = require('./outbox');
const { Publisher } = require('./publisher');
const { Segments, findFolder } = require('./segments');
const { Trouble, QUIET_MS } = require('./trouble');
const { atEnd } = require('./endings');
const { encodeHeader, encodeRecord, encodeRequest } = require('./records');
const { heartbeat, heartbeatTypes, source } = require('./signals');
const { observers } = require('./observer');
const { readSettings } = require('./settings');

const MIB = 1 << 20;

class Emitter {
    // sourceType: the declaration, such as 'zone_mta'
    // plugin: { name, version } of the plugin; server: { version, port } of the mail server, each where it is known
    // processKind: what the process is for; settings: as given by the server's configuration
    // serverSettings: names in there that are the server's own; log: { error(text), info(text) }
    // redis: a connected client of the server's, for `redisChannel`
    constructor({ sourceType, plugin, server, processKind, settings, serverSettings = [], log, redis }) {
        this.log = log;
        this.settings = readSettings(settings, serverSettings, text => log.error(text));
        this.declaration = source(sourceType);
        this.processKind = processKind;
        this.counts = { emitted: 0, adopted: 0, delivered: 0, dropped: 0, refused: 0, damaged: 0, failed: 0 };
        this.header = this.#header(plugin, server);
        this.segments = this.#segments();
        const memoryBytes = this.settings.memorySize * MIB;
        this.outbox = new Outbox({ segments: this.segments, header: this.header, memoryBytes });
        this.deferred = new Deferred(error => this.#failed(error));
        this.courier = new Courier({
            prepare: () => this.deferred.run(),
            outbox: this.outbox,
            client: new HttpClient(this.settings),
            encode: encodeRequest,
            endpoint: this.settings.endpoint,
            counts: this.counts,
            log
        });
        this.publisher = new Publisher(redis, this.settings.redisChannel);
        this.full = new Trouble(log);
        this.failing = new Trouble(log);
        this.observers = observers(error => this.#failed(error));
        this.lastWords = [];
        this.forgetEnd = atEnd(() => this.#end());
        this.timer = setInterval(() => this.#beat(), this.settings.heartbeatInterval * 1000).unref();
        this.#beat();
    }

    // Tell of an event that happened at `time` (milliseconds since the epoch).
    //   key: of the source's declaration; attributes: declared name -> value, undefined where there is none
    //   body: one line of English, without addresses
    emit(key, attributes, { time = Date.now(), body }) {
        try {
            this.#emit(this.declaration.events[key], this.declaration.attributes, attributes, time, body);
        } catch (error) {
            this.#failed(error);
        }
    }

    // Do this later, together with more of its kind, but before the next batch is sent. For what a hook has to tell: the
    // hook takes what it needs, and `work` emits. It must not rely on what the server changes meanwhile.
    defer(work) {
        this.deferred.add(work);
        this.courier.wake();
    }

    // A hook's handler that does `work` with the hook's arguments and calls the hook's last one, `next`, exactly once.
    observe(work) {
        return this.observers.nextLast(work);
    }

    // The same where `next` comes first.
    observeFirst(work) {
        return this.observers.nextFirst(work);
    }

    // Do this before the last events are saved at the end of the process.
    beforeEnd(work) {
        this.lastWords.push(work);
    }

    // End without the process: what waits is written to files, for the next process to adopt.
    close() {
        this.forgetEnd();
        this.#end();
    }

    #emit(event, types, attributes, time, body) {
        const text = encodeRecord(event, types, attributes, { time, observed: Date.now(), body });
        this.counts.emitted += 1;
        if (this.outbox.push(text)) {
            this.full.end('there is room for events again', QUIET_MS);
            this.courier.wake();
        } else {
            this.counts.dropped += 1;
            this.full.begin('events are dropped and counted: neither memory nor files have room for them');
        }
        this.publisher.publish(() => encodeRequest(this.header, [Buffer.from(text)]).toString());
    }

    #failed(error) {
        this.counts.failed += 1;
        this.failing.begin(`an event could not be made: ${error && error.stack ? error.stack : error}`);
    }

    #beat() {
        try {
            this.#sayHeartbeat();
        } catch (error) {
            this.#failed(error);
        }
        this.failing.end('all events can be made again', QUIET_MS);
        this.segments.touch();
        this.segments.adopt().then(() => {
            if (!this.segments.isEmpty) {
                this.courier.wake();
            }
        });
    }

    #sayHeartbeat() {
        const { counts } = this;
        const waiting = this.outbox.waiting;
        const attributes = {
            'postel.plugin.process.kind': this.processKind,
            'postel.plugin.heartbeat.interval': this.settings.heartbeatInterval,
            'postel.plugin.events.waiting': waiting
        };
        for (const [name, count] of Object.entries(counts)) {
            attributes[`postel.plugin.events.${name}`] = count;
        }
        const body = `Plugin loaded in a ${this.processKind} process, ${waiting} events waiting, ${counts.dropped} dropped`;
        this.told = this.#lost();
        this.#emit(heartbeat, heartbeatTypes, attributes, Date.now(), body);
    }

    #lost() {
        return this.counts.dropped + this.counts.refused + this.counts.damaged + this.counts.failed;
    }

    #end() {
        clearInterval(this.timer);
        this.courier.close();
        this.deferred.run();
        for (const work of this.lastWords) {
            work();
        }
        if (this.outbox.waiting || this.#lost() > this.told) {
            this.#sayHeartbeat();
        }
        this.outbox.saveNow();
        this.segments.removeIfEmpty();
    }

    #header(plugin, server) {
        const resource = {
            'service.name': this.declaration.service,
            'service.version': server.version,
            'server.port': server.port,
            'process.pid': process.pid,
            'postel.plugin.name': plugin.name,
            'postel.plugin.version': plugin.version,
            ...this.settings.resource
        };
        return encodeHeader(resource, { name: this.declaration.scope, version: plugin.version });
    }

    #segments() {
        const user = process.getuid ? process.getuid() : 'user';
        const { bufferDirectory, bufferSize } = this.settings;
        const places = bufferDirectory ? [bufferDirectory] : ['/var/lib/postel/plugins', os.tmpdir()];
        const folder = findFolder(places, `postel-${this.declaration.service}-${user}`);
        if (!folder) {
            this.log.error(`events are kept in memory alone, no folder of ${places.join(', ')} can be written`);
        }
        return new Segments({
            folder,
            header: this.header,
            maxBytes: bufferSize * MIB,
            counts: this.counts,
            log: this.log
        });
    }
}

module.exports = { Emitter };
