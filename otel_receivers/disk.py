"""Tells a disk that takes nothing (full, over a quota, read-only, failing) from every other reason of an error."""

from __future__ import annotations

import errno
import sqlite3
import tempfile
from pathlib import Path

# EFBIG: the process may make no larger files (`ulimit -f`).
_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EFBIG}
# What SQLite says too where a permission is missing, or where it keeps the system's own reason to itself.
_UNCLEAR = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY}
# Twice what SQLite maps as shared memory when it opens a database.
_PROBE_BYTES = 1 << 16


def fault(error: Exception, folder: Path) -> str | None:
    """Why the disk takes nothing, in the system's words; None where the error has another cause.

    Args:
        error: of the operating system, or of SQLite about a database in ``folder``; where SQLite's does not tell, the
            disk is probed.
        folder: exists, or did.
    """
    if isinstance(error, OSError):
        return _said(error)
    # The low byte is the primary code.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return str(error)
    if code not in _UNCLEAR:
        return None
    try:
        probe(folder)
    except OSError as found:
        return _said(found)
    return str(error) if code == sqlite3.SQLITE_IOERR else None


def probe(folder: Path) -> None:
    """Write a little into a file without a name.

    Raises:
        OSError: the disk, or a permission, does not let it.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))


def _said(error: OSError) -> str | None:
    return error.strerror if error.errno in _FAULTS else None
