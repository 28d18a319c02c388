'use strict';

// Names of processes that outlive them, so that the files of those that ended can be told from those of the living.
//
// `<pid>-<start>-<namespace>`: the kernel gives a pid again, but not with the same start (clock ticks since boot), and in
// a container pids mean something else. Where /proc is missing the pid alone has to do.

const fs = require('fs');

// A process touches its folder with every heartbeat. In another pid namespace that is all that can be seen of it.
const SILENT_MS = 10 * 60_000;

function startOf(pid) {
    try {
        const stat = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
        // The second field is the program's name in parentheses and may hold anything; the start is the 22nd.
        return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    } catch {
        return null;
    }
}

function namespace() {
    try {
        return /\d+/.exec(fs.readlinkSync('/proc/self/ns/pid'))[0];
    } catch {
        return '0';
    }
}

function exists(pid) {
    try {
        process.kill(pid, 0);
        return true;
    } catch (error) {
        return error.code === 'EPERM';
    }
}

const ownName = () => `${process.pid}-${startOf(process.pid) || 0}-${namespace()}`;

// True where a process of this name ended. `touched`: when its folder last changed, in milliseconds since the epoch.
function hasEnded(name, touched) {
    const parts = /^(\d+)-(\d+)-(\d+)$/.exec(name);
    if (!parts) {
        return false;
    }
    const [, pid, start, space] = parts;
    if (space !== namespace()) {
        return Date.now() - touched > SILENT_MS;
    }
    const found = startOf(pid);
    return found === null ? !exists(Number(pid)) : found !== start;
}

module.exports = { hasEnded, ownName };
