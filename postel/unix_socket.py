"""A Unix socket to listen on: who may connect is said by its mode, and nobody finds one that nobody listens on.

Source: unix(7); connecting takes the right to write to the socket, and to pass through the folders above it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from postel.errors import AddressInUseError, PostelError


@contextlib.contextmanager
def listening(path: Path, mode: int, setting: str, *, backlog: int = 128) -> Iterator[socket.socket]:
    """Listen on a Unix socket while the body runs; the path goes with it.

    A socket that a killed program left there is replaced, at once and never seen with other rights than ``mode``.

    Args:
        path: in a folder that this user may write; anything there but a socket stays.
        mode: of the socket, such as 0o660. Its group is this user's, or the folder's where that has the setgid bit.
        setting: the key that a user changes when it cannot be had, such as ``[intake] socket``.
        backlog: connections that wait to be accepted at most.

    Raises:
        AddressInUseError: another program listens there.
        PostelError: it cannot be listened on, for the reason that the message gives.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        try:
            _check_free(path, setting)
            ours = _place(listener, path, mode, backlog)
        except OSError as error:
            raise PostelError(f"cannot listen on {path}: {error.strerror}; set {setting} to another path") from error
        try:
            yield listener
        finally:
            _remove(path, ours)


def _check_free(path: Path, setting: str) -> None:
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise PostelError(f"cannot listen on {path}: it is there and no socket; remove it, or set {setting}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # noqa: FBT003 - a positional-only argument
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # its program is gone
        except BlockingIOError:
            pass  # so many connect that they wait in line
    raise AddressInUseError(str(path), setting)


def _place(listener: socket.socket, path: Path, mode: int, backlog: int) -> os.stat_result:
    # Until it listens nobody can connect, so nobody does with the rights that the umask left it.
    fresh = path.with_name(f".new-{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    listener.bind(str(fresh))
    try:
        fresh.chmod(mode)
        listener.listen(backlog)
        listener.setblocking(False)  # noqa: FBT003 - a positional-only argument
        ours = fresh.lstat()
        fresh.replace(path)
    except BaseException:
        fresh.unlink()
        raise
    return ours


def _remove(path: Path, ours: os.stat_result) -> None:
    with contextlib.suppress(OSError):
        if os.path.samestat(path.lstat(), ours):
            path.unlink()
