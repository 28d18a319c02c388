"""Asks filesystems for their space without ever waiting for one that hangs (a server that is away, a dying disk).

``statvfs`` of such a filesystem sleeps in the kernel and cannot be interrupted. So it is called in a daemon thread, is
waited for only so long, and a filesystem whose call is still out is not asked again.
"""

from __future__ import annotations

import os
import queue
import stat
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import psutil

from otel_receivers.system.parse import Mount

_PATIENCE = 0.5  # seconds for one filesystem
PATIENCE_FOR_ALL = 2.0  # seconds of one tick, however many hang


@dataclass(frozen=True, slots=True)
class Space:
    """The space of a filesystem in bytes: ``used + free + reserved == limit``; reserved is free for root alone."""

    used: int
    free: int
    reserved: int

    @property
    def limit(self) -> int:
        """The capacity."""
        return self.used + self.free + self.reserved

    @property
    def share_used(self) -> float:
        """Used, of what is not reserved, 0 to 1: the ``Use%`` of df(1)."""
        return self.used / (self.used + self.free) if self.used + self.free else 0.0


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A mounted filesystem and its space."""

    mount: Mount
    space: Space


def space_of(mountpoint: str) -> Space | None:
    """Ask one filesystem; None where it has no size or the mount point is a file (a container's /etc/hosts).

    Raises:
        OSError: it cannot be asked (gone since, no permission).
    """
    if not stat.S_ISDIR(os.stat(mountpoint).st_mode):  # noqa: PTH116 - a Path adds nothing here
        return None
    if hasattr(os, "statvfs"):
        found = os.statvfs(mountpoint)
        unit = found.f_frsize or found.f_bsize
        reserved = max(0, found.f_bfree - found.f_bavail)
        space = Space(
            (found.f_blocks - found.f_bfree) * unit, min(found.f_bavail, found.f_bfree) * unit, reserved * unit
        )
    else:
        usage = psutil.disk_usage(mountpoint)
        space = Space(usage.used, usage.free, max(0, usage.total - usage.used - usage.free))
    return space if space.limit > 0 else None


class _Worker:
    """One daemon thread that answers questions in turn; given up by its owner when it does not answer."""

    def __init__(self, ask: Callable[[str], Space | None]) -> None:
        self._ask = ask
        self._questions: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Space | OSError | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="postel-statvfs", daemon=True)
        self.thread.start()

    def ask(self, mountpoint: str, patience: float) -> Space | None:
        """Raises queue.Empty: no answer yet. OSError: the filesystem's own."""
        self._questions.put(mountpoint)
        answer = self._answers.get(timeout=patience)
        if isinstance(answer, OSError):
            raise answer
        return answer

    def end(self) -> None:
        """Let the thread end, once it answered what it was asked."""
        self._questions.put(None)

    def _run(self) -> None:
        while (mountpoint := self._questions.get()) is not None:
            try:
                self._answers.put(self._ask(mountpoint))
            except OSError as error:
                self._answers.put(error)


class Prober:
    """Asks many filesystems, one after the other.

    Args:
        ask: how one is asked; raises OSError.
        patience: seconds for one.
        patience_for_all: seconds of one :meth:`probe`.
    """

    def __init__(
        self,
        ask: Callable[[str], Space | None] = space_of,
        *,
        patience: float = _PATIENCE,
        patience_for_all: float = PATIENCE_FOR_ALL,
    ) -> None:
        self._ask = ask
        self._patience = patience
        self._patience_for_all = patience_for_all
        self._worker: _Worker | None = None
        self._hanging: dict[str, _Worker] = {}  # identity of the filesystem -> who still waits for it

    def probe(self, filesystems: Iterable[Sequence[Mount]]) -> tuple[list[Filesystem], list[str]]:
        """The space of each filesystem, under its first mount that answers.

        Returns:
            The filesystems, and the mount points that hang.
        """
        self._hanging = {identity: w for identity, w in self._hanging.items() if w.thread.is_alive()}
        until = time.monotonic() + self._patience_for_all
        answered: list[Filesystem] = []
        hanging: list[str] = []
        for group in filesystems:
            if group[0].identity in self._hanging:
                hanging.append(group[0].mountpoint)
                continue
            for mount in group:
                patience = min(self._patience, until - time.monotonic())
                if patience <= 0:
                    return answered, hanging
                try:
                    space = self._ask_worker(mount, patience)
                except queue.Empty:
                    hanging.append(mount.mountpoint)
                    break
                except OSError:
                    continue
                if space is not None:
                    answered.append(Filesystem(mount, space))
                    break
        return answered, hanging

    def close(self) -> None:
        """Let the thread end; one that hangs ends with the process."""
        if self._worker is not None:
            self._worker.end()
            self._worker = None

    def _ask_worker(self, mount: Mount, patience: float) -> Space | None:
        if self._worker is None:
            self._worker = _Worker(self._ask)
        try:
            return self._worker.ask(mount.mountpoint, patience)
        except queue.Empty:
            self._hanging[mount.identity] = self._worker
            self._worker.end()
            self._worker = None
            raise
