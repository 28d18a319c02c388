"""Keeps Python's garbage collector from holding up the event loop while a large page is read.

A full collection holds the interpreter for as long as it takes to walk all objects: 25 ms and more while the tens of
thousands of small objects of a 1 MiB page are made. None of them is in a cycle; reference counts free them.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Pause:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._depth = 0
        self._was_enabled = False

    def enter(self) -> None:
        with self._lock:
            if self._depth == 0:
                self._was_enabled = gc.isenabled()
                gc.disable()
            self._depth += 1

    def leave(self) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth == 0 and self._was_enabled:
                gc.enable()


_pause = _Pause()


@contextmanager
def collector_paused() -> Iterator[None]:
    """No garbage collection in this process meanwhile; may be nested and used by several threads."""
    _pause.enter()
    try:
        yield
    finally:
        _pause.leave()
