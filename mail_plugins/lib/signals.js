'use strict';

// The declared events (signals.json, written by `postel describe --constants`), so that no plugin writes a name itself.

const DECLARED = require('./signals.json');

// The declaration of one source: scope, service, types of attributes, events by key.
function source(type) {
    const declaration = DECLARED[type];
    if (!declaration) {
        throw new Error(`no source ${type} is declared`);
    }
    return declaration;
}

// The heartbeat belongs to no server: its names are the agent's, its scope is that of the plugin's own events.
const heartbeat = DECLARED.agent.events.plugin_heartbeat;
const heartbeatTypes = DECLARED.agent.attributes;

// The events of a source by one field of their `source`, such as the action of a log entry.
function eventsBySource(type, field) {
    const events = Object.entries(source(type).events).filter(([, event]) => field in event.source);
    return new Map(events.map(([key, event]) => [event.source[field], key]));
}

module.exports = { eventsBySource, heartbeat, heartbeatTypes, source };
