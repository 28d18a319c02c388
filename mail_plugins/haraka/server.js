'use strict';

// What Haraka says of itself, and the emitter that tells it.

const { Emitter } = require('postel-emitter');
const { name, version } = require('./package.json');

//   plugin: Haraka's own object of this plugin; server: Haraka's server; settings: of the emitter
function newEmitter(plugin, server, processKind, settings) {
    return new Emitter({
        sourceType: 'haraka',
        plugin: { name, version },
        server: { version: plugin.haraka_require('package').version, port: smtpPort(server) },
        processKind,
        settings,
        log: { error: text => plugin.logerror(text), info: text => plugin.loginfo(text) },
        redis: sharedRedis(server)
    });
}

// The first port that it listens on, which tells instances on one host apart.
function smtpPort(server) {
    const [first] = server.get_listen_addrs(server.cfg.main);
    const port = /:(\d+)$/.exec(first);
    return port ? Number(port[1]) : undefined;
}

// The client that haraka-plugin-redis connects, some time after this plugin has begun.
function sharedRedis({ notes }) {
    return {
        get isReady() {
            return Boolean(notes.redis && notes.redis.isReady);
        },
        publish: (channel, message) => notes.redis.publish(channel, message)
    };
}

module.exports = { newEmitter, smtpPort };
