'use strict';

// The emitter's settings: defaults, checks, and where the requests go.

const { validateHeaderName, validateHeaderValue } = require('http');

const DEFAULTS = Object.freeze({
    // Where events go: http://host:port, https://host:port, or unix:/path/of/a/socket; /v1/logs is added.
    endpoint: 'http://127.0.0.1:4319',
    // Sent as `Authorization: Bearer`, which the agent asks for where it does not listen on loopback.
    token: '',
    // Where the endpoint is https://, a file with the authority to trust, PEM; '': those that Node.js trusts.
    tlsCa: '',
    // A file with the certificate to show where the receiver asks for one, PEM, its key with it or in tlsClientKey.
    tlsClientCertificate: '',
    // A file with the key of tlsClientCertificate, PEM.
    tlsClientKey: '',
    // Further HTTP headers.
    headers: {},
    // Seconds until a request without an answer is given up.
    timeout: 10,
    // Where events wait while nobody takes them, in a folder of the user's own; '': /var/lib/postel/plugins, or the
    // system's folder for temporary files where that cannot be made.
    bufferDirectory: '',
    // MiB of such files that each process writes at most.
    bufferSize: 64,
    // MiB of events that each process holds in memory at most.
    memorySize: 4,
    // Seconds from one heartbeat to the next.
    heartbeatInterval: 30,
    // A channel of the server's own Redis on which each event is published as well; '': none.
    redisChannel: '',
    // Further attributes of the resource, such as host.name where no agent adds them.
    resource: {}
});

const TLS = ['tlsCa', 'tlsClientCertificate', 'tlsClientKey'];
const ABOVE_ZERO = ['timeout', 'bufferSize', 'memorySize', 'heartbeatInterval'];

// Settings with the defaults for what is not given; Error where one cannot be meant. Keys of `others` are the server's.
function readSettings(given, others, warn) {
    const settings = { ...DEFAULTS };
    for (const [name, value] of Object.entries(given || {})) {
        if (others.includes(name)) {
            continue;
        }
        if (!(name in DEFAULTS)) {
            warn(`there is no setting ${name}; known are ${Object.keys(DEFAULTS).join(', ')}`);
            continue;
        }
        if (typeof value !== typeof DEFAULTS[name]) {
            throw new Error(`the setting ${name} must be a ${typeof DEFAULTS[name]}, not ${JSON.stringify(value)}`);
        }
        settings[name] = value;
    }
    for (const name of ABOVE_ZERO) {
        if (!(settings[name] > 0)) {
            throw new Error(`the setting ${name} must be above 0, not ${settings[name]}`);
        }
    }
    checkHeaders({ ...settings.headers, authorization: settings.token });
    const place = target(settings.endpoint);
    checkTls(settings, place);
    return { ...settings, target: place };
}

// Who sets them means TLS. What is in the files is looked at with each connection: they may come later, and change.
function checkTls(settings, { protocol }) {
    const given = TLS.filter(name => settings[name]);
    if (given.length && protocol !== 'https:') {
        throw new Error(`the setting ${given[0]} needs an endpoint of https://, not ${settings.endpoint}`);
    }
    if (settings.tlsClientKey && !settings.tlsClientCertificate) {
        throw new Error('the setting tlsClientKey is of no tlsClientCertificate; set that too');
    }
}

// What a header cannot be; those of a message's length and of the connection are the client's own (RFC 9112, 6 and 9).
function checkHeaders(headers) {
    for (const [name, value] of Object.entries(headers)) {
        if (['connection', 'content-length', 'transfer-encoding'].includes(name.toLowerCase())) {
            throw new Error(`the setting headers cannot have ${name}`);
        }
        try {
            validateHeaderName(name);
            validateHeaderValue(name, value);
        } catch {
            // The value may be a secret.
            throw new Error(`the settings headers and token have what no HTTP header can be: ${JSON.stringify(name)}`);
        }
    }
}

// The parts of an endpoint that HttpClient takes.
function target(endpoint) {
    if (/^unix:\/(?!\/)/.test(endpoint)) {
        return { protocol: 'http:', socketPath: endpoint.slice('unix:'.length), path: '/v1/logs' };
    }
    let url;
    try {
        url = new URL(endpoint);
    } catch {
        url = { protocol: '' };
    }
    if (!['http:', 'https:'].includes(url.protocol)) {
        throw new Error(`the setting endpoint must be http://..., https://... or unix:/..., not ${endpoint}`);
    }
    if (url.username || url.password || url.search || url.hash) {
        // What it has there may be a secret.
        throw new Error('the setting endpoint must have neither a user nor a query: use the settings token or headers');
    }
    const path = url.pathname.replace(/\/+$/, '');
    return {
        protocol: url.protocol,
        // A socket wants an IPv6 address without its brackets.
        hostname: url.hostname.replace(/^\[(.*)\]$/, '$1'),
        port: url.port || undefined,
        path: path.endsWith('/v1/logs') ? path : `${path}/v1/logs`
    };
}

module.exports = { DEFAULTS, readSettings };
