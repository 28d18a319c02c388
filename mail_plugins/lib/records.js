'use strict';

// Declared events as OTLP JSON, without I/O: an event becomes one line, a LogRecord; lines become a request's body.
//
// The types come from the declaration: an attribute that an event does not declare is an error, one without a value is
// left out. 64-bit integers are strings and enums numbers (OTLP, "JSON Protobuf Encoding").

const { bounded } = require('./text');
const { uuid7 } = require('./uuid7');

const STRING_LENGTH = 1024;
// An address has at most 254 characters (RFC 5321, 4.5.3.1.3), SMTPUTF8 and quoting apart.
const ITEM_LENGTH = 320;
const ITEMS = 500;

const nanoseconds = milliseconds => `${Math.trunc(milliseconds)}000000`;

const VALUES = {
    string: value => ({ stringValue: bounded(String(value), STRING_LENGTH) }),
    int: value => (Number.isFinite(Number(value)) ? { intValue: String(BigInt(Math.trunc(Number(value)))) } : null),
    double: value => (Number.isFinite(Number(value)) ? { doubleValue: Number(value) } : null),
    boolean: value => ({ boolValue: Boolean(value) }),
    'string[]': value => ({
        arrayValue: { values: value.slice(0, ITEMS).map(item => ({ stringValue: bounded(String(item), ITEM_LENGTH) })) }
    })
};

// One LogRecord as a line of JSON.
//   event: of signals.json; types: name -> type of its attributes; attributes: name -> value
//   time, observed: milliseconds since the epoch; body: one line of English, without addresses
function encodeRecord(event, types, attributes, { time, observed, body }) {
    const encoded = [{ key: 'log.record.uid', value: { stringValue: uuid7(observed) } }];
    for (const [key, value] of Object.entries(attributes)) {
        if (!event.attributes.includes(key)) {
            throw new Error(`${event.name} declares no attribute ${key}`);
        }
        const any = value === undefined || value === null ? null : VALUES[types[key]](value);
        if (any) {
            encoded.push({ key, value: any });
        }
    }
    return JSON.stringify({
        timeUnixNano: nanoseconds(time),
        observedTimeUnixNano: nanoseconds(observed),
        severityNumber: event.severityNumber,
        severityText: event.severityText,
        body: { stringValue: bounded(body, STRING_LENGTH) },
        attributes: encoded,
        eventName: event.name
    });
}

// The resource and scope of all records of a process, as one line of JSON.
function encodeHeader(resource, scope) {
    const attributes = Object.entries(resource)
        .filter(([, value]) => value !== undefined && value !== null && value !== '')
        .map(([key, value]) => ({ key, value: VALUES[Number.isInteger(value) ? 'int' : 'string'](value) }));
    return JSON.stringify({ resource: { attributes }, scope });
}

// The body of a request: an ExportLogsServiceRequest of these lines under this header.
function encodeRequest(header, lines) {
    const { resource, scope } = JSON.parse(header);
    const scopeLogs = `{"scope":${JSON.stringify(scope)},"logRecords":[${lines.join(',')}]}`;
    return `{"resourceLogs":[{"resource":${JSON.stringify(resource)},"scopeLogs":[${scopeLogs}]}]}`;
}

module.exports = { encodeHeader, encodeRecord, encodeRequest };
