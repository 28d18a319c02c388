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

const nanoseconds = milliseconds => `"${Math.trunc(milliseconds)}000000"`;
const string = (value, length) => `"stringValue":${JSON.stringify(bounded(String(value), length))}`;

// The inside of an AnyValue as JSON, by the declared type; null where the value is none. The text is put together here
// because an event costs the mail server half as much as by way of objects.
const VALUES = {
    string: value => string(value, STRING_LENGTH),
    int: value => {
        const number = Math.trunc(Number(value));
        return Number.isFinite(number) ? `"intValue":"${Number.isSafeInteger(number) ? number : BigInt(number)}"` : null;
    },
    double: value => (Number.isFinite(Number(value)) ? `"doubleValue":${Number(value)}` : null),
    boolean: value => `"boolValue":${Boolean(value)}`,
    'string[]': value => {
        const items = value.slice(0, ITEMS).map(item => `{${string(item, ITEM_LENGTH)}}`);
        return `"arrayValue":{"values":[${items.join(',')}]}`;
    },
    map: value => {
        const pairs = Object.entries(value).slice(0, ITEMS).map(([key, item]) => pair(bounded(key, ITEM_LENGTH), item));
        return `"kvlistValue":{"values":[${pairs.filter(Boolean).join(',')}]}`;
    }
};

// An entry of a map: a number or a text.
function pair(key, item) {
    const inside = typeof item === 'number' ? VALUES.double(item) : string(item, ITEM_LENGTH);
    return inside === null ? null : `{"key":${JSON.stringify(key)},"value":{${inside}}}`;
}

// One LogRecord as a line of JSON.
//   event: of signals.json; types: name -> type of its attributes; attributes: name -> value
//   time, observed: milliseconds since the epoch; body: one line of English, without addresses
function encodeRecord(event, types, attributes, { time, observed, body }) {
    const { head, encoders } = prepared(event, types);
    let encoded = `{"key":"log.record.uid","value":{"stringValue":"${uuid7(observed)}"}}`;
    for (const key in attributes) {
        const encoder = encoders.get(key);
        if (!encoder) {
            throw new Error(`${event.name} declares no attribute ${key}`);
        }
        const value = attributes[key];
        const inside = value === undefined || value === null ? null : encoder.value(value);
        if (inside !== null) {
            encoded += `${encoder.head}${inside}}}`;
        }
    }
    const times = `"timeUnixNano":${nanoseconds(time)},"observedTimeUnixNano":${nanoseconds(observed)}`;
    return `{${times},${head},"body":{${string(body, STRING_LENGTH)}},"attributes":[${encoded}]}`;
}

// What is the same for all records of an event, made once.
const PREPARED = new Map();

function prepared(event, types) {
    if (!PREPARED.has(event)) {
        const encoder = key => ({ head: `,{"key":${JSON.stringify(key)},"value":{`, value: VALUES[types[key]] });
        PREPARED.set(event, {
            head: JSON.stringify({
                severityNumber: event.severityNumber,
                severityText: event.severityText,
                eventName: event.name
            }).slice(1, -1),
            encoders: new Map(event.attributes.map(key => [key, encoder(key)]))
        });
    }
    return PREPARED.get(event);
}

// The resource and scope of all records of a process, as one line of JSON.
function encodeHeader(resource, scope) {
    const attributes = Object.entries(resource)
        .filter(([, value]) => value !== undefined && value !== null && value !== '')
        .map(([key, value]) => `{"key":${JSON.stringify(key)},"value":{${VALUES[Number.isInteger(value) ? 'int' : 'string'](value)}}}`);
    return `{"resource":{"attributes":[${attributes.join(',')}]},"scope":${JSON.stringify(scope)}}`;
}

const COMMA = Buffer.from(',');
const CLOSED = Buffer.from(']}]}]}');

// The body of a request: an ExportLogsServiceRequest of these lines, each as bytes, under this header.
function encodeRequest(header, lines) {
    const parts = [opened(header)];
    for (const line of lines) {
        parts.push(line, COMMA);
    }
    parts[parts.length - 1] = CLOSED;
    return Buffer.concat(parts);
}

// A request up to its first record. Nearly all are under the header of the process itself.
let last = { header: '', bytes: null };

function opened(header) {
    if (last.header !== header) {
        const { resource, scope } = JSON.parse(header);
        const scopeLogs = `{"scope":${JSON.stringify(scope)},"logRecords":[`;
        const text = `{"resourceLogs":[{"resource":${JSON.stringify(resource)},"scopeLogs":[${scopeLogs}`;
        last = { header, bytes: Buffer.from(text) };
    }
    return last.bytes;
}

module.exports = { encodeHeader, encodeRecord, encodeRequest };
