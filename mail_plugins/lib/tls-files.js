'use strict';

// The files of a plugin's TLS: whom it trusts, and what it shows of itself, each PEM. They are read anew for each
// connection, so a renewed one counts without a restart of the mail server. Nothing here waits for the disk in a hook.

const { X509Certificate } = require('crypto');
const { readFile } = require('fs/promises');
const tls = require('tls');

class TlsFiles {
    // Settings: tlsCa, tlsClientCertificate, tlsClientKey, '' for none.
    constructor({ tlsCa = '', tlsClientCertificate = '', tlsClientKey = '' }) {
        this.authority = { setting: 'tlsCa', path: tlsCa };
        this.certificate = { setting: 'tlsClientCertificate', path: tlsClientCertificate };
        this.key = { setting: 'tlsClientKey', path: tlsClientKey };
        this.reading = null;
    }

    get areNone() {
        return !this.authority.path && !this.certificate.path;
    }

    // What tls.connect takes as `secureContext`; Error, which names the setting, where one cannot be used. A disk may give
    // nothing for ever, and holds one of libuv's four threads then: there is one read at a time, and whoever else asks has
    // what it gives.
    read() {
        this.reading ??= this.#read().finally(() => {
            this.reading = null;
        });
        return this.reading;
    }

    async #read() {
        const ca = await contentOf(this.authority);
        const cert = await contentOf(this.certificate);
        const key = await contentOf(this.key);
        attempt([this.authority], () => ca && checkCertificate(ca));
        const shown = [this.certificate, this.key].filter(({ path }) => path);
        return attempt(shown, () => tls.createSecureContext({ ca, cert, key: key ?? cert }));
    }
}

async function contentOf({ setting, path }) {
    if (!path) {
        return undefined;
    }
    try {
        return await readFile(path);
    } catch (error) {
        throw new Error(`the setting ${setting}: ${error.message}`);
    }
}

// Node takes a file without any for an empty list, with which nobody is trusted.
function checkCertificate(pem) {
    return new X509Certificate(pem);
}

function attempt(files, work) {
    try {
        return work();
    } catch (error) {
        const [settings, paths] = ['setting', 'path'].map(key => files.map(file => file[key]).join(' and '));
        throw new Error(`the setting ${settings}: ${paths} cannot be used: ${error.reason || error.message}`);
    }
}

module.exports = { TlsFiles };
