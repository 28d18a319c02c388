"""A whole `postel up` on free ports, with its own data folder, for tests that watch it from outside."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import psycopg

from support.environment import without_settings
from support.ports import free_ports

T = TypeVar("T")


def until(ask: Callable[[], T], seconds: float, what: str | Callable[[], str], pause: float = 0.2) -> T:
    """Ask until the answer is truthy; AssertionError with `what` (it may be asked for then) where it is not in time."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)


@dataclass
class RunningPostel:
    """`postel up` as a child of the test.

    Args:
        folder: of the test; the log goes there.
        environment: variables beside those that give it ports and a data folder of its own.
        arguments: of `postel up`.
        under: the command that starts it, such as `nohup`.
        python: of the environment that it is installed in.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    under: Sequence[str] = ()
    python: str | Path = sys.executable

    def __post_init__(self) -> None:
        self.ports = dict(
            zip(
                ("sink_grpc", "sink_http", "page", "col_grpc", "col_http", "col_health", "intake"),
                free_ports(7),
                strict=True,
            )
        )
        self.log = self.folder / "up.log"
        # As root the embedded PostgreSQL runs as a user of its own, for whom pytest closes its folders now and then.
        self.data = Path(tempfile.mkdtemp(prefix="postel-test-"))
        self.data.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    @property
    def variables(self) -> dict[str, str]:
        """The environment of every command that belongs to this Postel."""
        own = {
            "POSTEL_DATA_DIR": str(self.data),
            "POSTEL_SINK__GRPC_ADDRESS": f"127.0.0.1:{self.ports['sink_grpc']}",
            "POSTEL_SINK__HTTP_ADDRESS": f"127.0.0.1:{self.ports['sink_http']}",
            "POSTEL_SERVE__ADDRESS": f"127.0.0.1:{self.ports['page']}",
            "POSTEL_INTAKE__ADDRESS": f"127.0.0.1:{self.ports['intake']}",
            "POSTEL_OTLP__COLLECTOR_GRPC_ADDRESS": f"127.0.0.1:{self.ports['col_grpc']}",
            "POSTEL_OTLP__COLLECTOR_HTTP_ADDRESS": f"127.0.0.1:{self.ports['col_http']}",
            "POSTEL_OTLP__COLLECTOR_HEALTH_ADDRESS": f"127.0.0.1:{self.ports['col_health']}",
        }
        kept = without_settings(keep="POSTEL_COLLECTOR")
        return {**kept, **own, **self.environment}

    @property
    def page(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.ports['page']}/"

    def start(self) -> None:
        """Start `postel up`, the leader of a session of its own."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [*self.under, self.python, "-m", "postel.cli", "up", *self.arguments],
                cwd=self.folder,
                env=self.variables,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 45) -> int:
        """Ask for the end and wait for it; what does not end is killed, and the test fails."""
        assert self._process
        self._process.send_signal(number)
        return self.end(seconds)

    def end(self, seconds: float = 45) -> int:
        """Wait for the end that something else asked for; what does not end is killed, and the test fails."""
        process = self._process
        assert process
        family = self._family()
        try:
            return process.wait(seconds)
        finally:
            process.kill()
            process.wait(10)
            for member in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            self._process = None

    @property
    def running(self) -> bool:
        """Whether `postel up` has not ended."""
        return self._process is not None and self._process.poll() is None

    def pid(self, program: str) -> int:
        """The process id of `sink`, `collector`, `agent`, `serve` or `demo` as it runs now."""
        needle = "otelcol" if program == "collector" else program
        for child in self._family():
            with contextlib.suppress(psutil.NoSuchProcess):
                command = child.cmdline()
                if (program == "collector" and needle in command[0]) or command[-1:] == [needle]:
                    return child.pid
        raise LookupError(f"{program} does not run")

    def runs(self, program: str, *, but: int) -> bool:
        """Whether a program runs in another process than `but`."""
        try:
            return self.pid(program) != but
        except LookupError:
            return False

    def kill(self, program: str) -> int:
        """End one program with SIGKILL; returns its process id."""
        pid = self.pid(program)
        os.kill(pid, signal.SIGKILL)
        return pid

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a `postel` command on the same settings."""
        return subprocess.run(
            [self.python, "-m", "postel.cli", *arguments],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def rows_of_host(self) -> int:
        """How many ticks of this host are stored; 0 while it cannot be asked yet."""
        counted = self.query("SELECT count(*) FROM metrics_system WHERE cpu_load IS NOT NULL")
        return counted[0][0] if counted else 0

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of the database that is in use; [] while it cannot be asked yet."""
        # The command starts a program, which takes a second of whoever asks again and again.
        self._url = self._url or self.command("db", "url").stdout.strip()
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                return connection.execute(sql.encode(), parameters or None).fetchall()
        except psycopg.OperationalError:
            self._url = ""
            return []
        except psycopg.Error:
            return []

    def _family(self) -> list[psutil.Process]:
        if self._process is None or self._process.poll() is not None:
            return []
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self._process.pid).children()
        return []


@contextlib.contextmanager
def running(
    folder: Path,
    *arguments: str,
    under: Sequence[str] = (),
    python: str | Path = sys.executable,
    **environment: str,
) -> Iterator[RunningPostel]:
    """A Postel that runs inside the block; its log is shown when the block fails."""
    postel = RunningPostel(folder, environment, arguments, under, python)
    postel.start()
    try:
        yield postel
    except BaseException:
        sys.stderr.write(postel.log.read_text("utf-8", "replace")[-20_000:])
        raise
    finally:
        if postel.running:
            postel.stop()
        shutil.rmtree(postel.data, ignore_errors=True)
