"""What the kernel's text says: bytes of /proc in, values out. Pure; formats are those of proc(5) and its kin.

A line that cannot be read is as if it were not there, so that a newer kernel costs a value and not the tick.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# Not on a disk, or not space that anyone could run out of. tmpfs is left out of the disk columns only.
PSEUDO_FILESYSTEMS = frozenset(
    {
        *("autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "cpuset", "debugfs"),
        *("devfs", "devpts", "devtmpfs", "efivarfs", "fdescfs", "fuse.gvfsd-fuse", "fuse.lxcfs", "fuse.portal"),
        *("fusectl", "hugetlbfs", "linprocfs", "linsysfs", "mqueue", "nsfs", "nullfs", "pipefs", "proc", "procfs"),
        *("pstore", "ramfs", "resctrl", "rpc_pipefs", "securityfs", "selinuxfs", "smackfs", "sockfs", "sysfs"),
        "tracefs",
    }
)
# Images that are full by design.
IMAGE_FILESYSTEMS = frozenset(
    {"cd9660", "cramfs", "erofs", "fuse.snapfuse", "iso9660", "romfs", "squashfs", "udf"},
)
MEMORY_FILESYSTEMS = frozenset({"tmpfs"})
# What containers and units mount for themselves.
_IGNORED_MOUNTPOINT = re.compile(
    r"^/(dev|proc|sys|run/(credentials|containerd|docker|netns|user/\d+)/.+"
    r"|var/lib/(docker|containerd|containers/storage|kubelet/pods)/.+)($|/)"
)
_OCTAL = re.compile(rb"\\([0-7]{3})")
_HEX = re.compile(rb"\\x([0-9a-f]{2})")

# include/net/tcp_states.h -> network.connection.state; NEW_SYN_RECV (0C) is a SYN_RECV of the SYN cache.
_TCP_STATES: Mapping[bytes, str] = {
    b"01": "established",
    b"02": "syn_sent",
    b"03": "syn_received",
    b"04": "fin_wait_1",
    b"05": "fin_wait_2",
    b"06": "time_wait",
    b"07": "closed",
    b"08": "close_wait",
    b"09": "last_ack",
    b"0A": "listen",
    b"0B": "closing",
    b"0C": "syn_received",
}
# fs/proc/array.c -> process.state: D and I (uninterruptible, idle kernel thread) sleep, t is stopped by a debugger.
PROCESS_STATES: Mapping[str, str] = {
    "R": "running",
    "S": "sleeping",
    "D": "sleeping",
    "I": "sleeping",
    "W": "sleeping",
    "P": "sleeping",
    "T": "stopped",
    "t": "stopped",
    "Z": "defunct",
    "X": "defunct",
    "x": "defunct",
}
_OOM_SUMMARY = re.compile(
    r"oom-kill:constraint=(?:CONSTRAINT_)?(?P<constraint>\w+),.*task_memcg=(?P<cgroup>[^,]*),"
    r"task=.*,pid=(?P<pid>\d+),uid=\d+"
)
_OOM_KILLED = re.compile(r"Killed process (?P<pid>\d+) \((?P<name>.*)\),?(?: UID:?\s?\d+,?)? total-vm:")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted filesystem.

    Attributes:
        identity: equal for all mounts of one filesystem.
        whole: the filesystem's own root is mounted, not a folder of it (a bind mount, a subvolume).
        read_only: the mount or the filesystem under it cannot be written.
    """

    identity: str
    device: str
    mountpoint: str
    type: str
    read_only: bool
    whole: bool = True

    @property
    def on_disk(self) -> bool:
        """Whether it is space on a disk, here or on a server, not memory."""
        return self.type not in MEMORY_FILESYSTEMS


@dataclass(frozen=True, slots=True)
class OomKill:
    """A process that the kernel killed for memory; ``since_boot`` in seconds of the kernel's clock."""

    pid: int
    name: str
    since_boot: float
    cgroup: str | None = None
    constraint: str | None = None


def counters(text: bytes, names: Iterable[str] | None = None) -> dict[str, int]:
    """Lines of a name and a number: /proc/vmstat, /proc/meminfo (kB become bytes), some of /proc/stat.

    Args:
        text: the file.
        names: only these; None: all.
    """
    wanted = None if names is None else set(names)
    found: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or not words[1].isdigit():  # noqa: PLR2004 - a name and its number
            continue
        name = words[0].rstrip(b":").decode("ascii", "replace")
        if wanted is None or name in wanted:
            found[name] = int(words[1]) * (1024 if words[2:] == [b"kB"] else 1)
    return found


def process_state(stat: bytes) -> str | None:
    """The value of ``process.state`` from /proc/PID/stat; the name in parentheses may hold anything."""
    end = stat.rfind(b") ")
    return PROCESS_STATES.get(chr(stat[end + 2])) if end >= 0 and len(stat) > end + 2 else None


def tcp_states(table: bytes) -> Counter[str]:
    """Sockets by state from /proc/net/tcp or tcp6."""
    # The fourth word: splitting no further than that halves the time.
    states = Counter(words[3] for line in table.splitlines()[1:] if len(words := line.split(None, 4)) > 4)  # noqa: PLR2004
    found: Counter[str] = Counter()
    for code, count in states.items():
        if (state := _TCP_STATES.get(code)) is not None:
            found[state] += count
    return found


def sockets(table: bytes) -> int:
    """Sockets in /proc/net/udp or udp6: every line but the head."""
    return max(0, len(table.splitlines()) - 1)


def mounts(mountinfo: bytes) -> list[Mount]:
    """Every mount of /proc/PID/mountinfo that can be reached, in its order.

    Where several lie on one mount point only the last is seen by programs.
    """
    found: dict[str, Mount] = {}
    for line in mountinfo.decode("utf-8", "surrogateescape").splitlines():
        left, separator, right = line.partition(" - ")
        fields, tail = left.split(" "), right.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:  # noqa: PLR2004 - the fields up to the options
            continue
        mountpoint = _unescape(fields[4])
        found.pop(mountpoint, None)
        found[mountpoint] = Mount(
            identity=fields[2],
            device=_unescape(tail[1]),
            mountpoint=mountpoint,
            type=tail[0],
            read_only="ro" in fields[5].split(",") or "ro" in tail[2].split(","),
            whole=fields[3] == "/",
        )
    return list(found.values())


def real(found: Iterable[Mount]) -> list[list[Mount]]:
    """The filesystems that can fill up: one list for each, its best mount first.

    Left out are pseudo filesystems, images, and what containers mount for themselves. An overlay counts where it is
    the root (in a container); elsewhere it shows a filesystem that is counted anyway. Bind mounts follow the whole
    filesystem; among equals the shortest mount point is first.
    """
    groups: dict[str, list[Mount]] = {}
    for mount in found:
        if (
            mount.type in PSEUDO_FILESYSTEMS
            or mount.type in IMAGE_FILESYSTEMS
            or _IGNORED_MOUNTPOINT.match(mount.mountpoint)
            or (mount.type.endswith("overlay") and mount.mountpoint != "/")
        ):
            continue
        groups.setdefault(mount.identity, []).append(mount)
    return [sorted(group, key=lambda m: (not m.whole, len(m.mountpoint), m.mountpoint)) for group in groups.values()]


def oom_kills(records: Iterable[bytes]) -> Iterator[OomKill]:
    """The kills that records of /dev/kmsg tell of, oldest first.

    Linux 5.0 and later write a summary before each kill (mm/oom_kill.c, dump_oom_summary); older ones only the kill.
    """
    summaries: dict[int, re.Match[str]] = {}
    for record in records:
        prefix, _, message = record.partition(b"\n")[0].decode("utf-8", "replace").partition(";")
        if summary := _OOM_SUMMARY.search(message):
            summaries[int(summary["pid"])] = summary
        elif killed := _OOM_KILLED.search(message):
            pid = int(killed["pid"])
            told = summaries.pop(pid, None)
            yield OomKill(
                pid=pid,
                name=_unescape_hex(killed["name"]),
                since_boot=_kernel_seconds(prefix),
                cgroup=told["cgroup"] if told else None,
                constraint=told["constraint"].lower() if told else None,
            )


def _kernel_seconds(prefix: str) -> float:
    """The time of a record: ``priority,sequence,microseconds,flags`` (Documentation/ABI/testing/dev-kmsg)."""
    fields = prefix.split(",")
    return int(fields[2]) / 1e6 if len(fields) > 2 and fields[2].isdigit() else 0.0  # noqa: PLR2004 - third field


def _unescape(field: str) -> str:
    """Spaces and backslashes stand as octal numbers in mountinfo; bytes that are no UTF-8 become U+FFFD."""
    raw = _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "replace")


def _unescape_hex(text: str) -> str:
    """Control characters and bytes beyond ASCII stand as hexadecimal numbers in records."""
    raw = _HEX.sub(lambda match: bytes([int(match[1], 16)]), text.encode())
    return raw.decode("utf-8", "replace")
