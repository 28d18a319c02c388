"""A bound of the memory that processes take together, the pages of files that they read and write among it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def limit_is_possible() -> bool:
    """Whether this user may make control groups with memory in them."""
    return os.access(_folder(), os.W_OK)


@contextmanager
def limited_memory(pid: int, size: int) -> Iterator[None]:
    """Bound a process and those that it starts from now on, until the block ends.

    Source: Documentation/admin-guide/cgroup-v2.rst of Linux, ``memory.max``; cgroup-v1/memory.rst.

    Args:
        pid: of the process; it has to have ended as the block ends, or it goes back to where it was not bound.
        size: bytes.
    """
    folder = _folder()
    group = folder / f"postel-bench-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    try:
        name = "memory.max" if folder == _CGROUPS else "memory.limit_in_bytes"
        (group / name).write_text(str(size))
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        while left := (group / "cgroup.procs").read_text().split():
            for one in left:
                # Those that serve a connection end by themselves.
                with suppress(ProcessLookupError):
                    (folder / "cgroup.procs").write_text(one)
        group.rmdir()


def _folder() -> Path:
    return _CGROUPS if (_CGROUPS / "cgroup.controllers").exists() else _CGROUPS / "memory"
