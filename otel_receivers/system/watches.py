"""What happened on the host between two ticks: processes killed for memory, filesystems that became read-only."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from otel_receivers.system import parse
from otel_receivers.system.parse import Mount, OomKill

_RECORD = 8192  # bytes; the kernel's own bound of a record (PRINTKRB_RECORD_MAX and its prefix)


class KernelLog:
    """The kernel's log from now on, where it may be read (root, or kernel.dmesg_restrict = 0).

    Args:
        path: a device like /dev/kmsg: one record a read, no waiting at the end.
    """

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        self._file: int | None = None
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError:
            self.close()

    def records(self) -> Iterator[bytes]:
        """The records since the last call."""
        while self._file is not None:
            try:
                record = os.read(self._file, _RECORD)
            except OSError as error:
                if error.errno == errno.EPIPE:  # records were overwritten before they were read: go on with the oldest
                    continue
                return  # EAGAIN: the end
            if not record:
                return
            yield record

    def close(self) -> None:
        """Close the device."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class OomWatch:
    """Kills since the tick before.

    The counter tells that there were some, the kernel's log which; the log is read only then.

    Args:
        log: the kernel's log.
    """

    def __init__(self, log: KernelLog) -> None:
        self._log = log
        self._counted: int | None = None

    def since_last(self, vmstat: Mapping[str, int]) -> tuple[list[OomKill], int]:
        """The kills that the log names, and how many more were counted; the first call only takes the count."""
        counted = vmstat.get("oom_kill")  # Linux 4.13 and later
        if counted is None:
            return [], 0
        before, self._counted = self._counted, counted
        if before is None or counted <= before:
            return [], 0
        named = list(parse.oom_kills(self._log.records()))
        return named, max(0, counted - before - len(named))


class ReadOnlyWatch:
    """Filesystems that could be written at the tick before and no longer can (a disk's error, a remount)."""

    def __init__(self) -> None:
        self._writable: set[tuple[str, str]] = set()

    def since_last(self, filesystems: Sequence[Sequence[Mount]]) -> list[Mount]:
        """One mount for each such filesystem; the first call only takes what is."""
        lost = [
            mount
            for group in filesystems
            for mount in group[:1]
            if mount.read_only and (mount.identity, mount.mountpoint) in self._writable
        ]
        self._writable = {(m.identity, m.mountpoint) for group in filesystems for m in group[:1] if not m.read_only}
        return lost


def wall_clock(since_boot: float) -> int:
    """Nanoseconds since 1970 of a moment of the kernel's clock; never later than now."""
    ago = max(0.0, time.monotonic() - since_boot)
    return time.time_ns() - int(ago * 1e9)
