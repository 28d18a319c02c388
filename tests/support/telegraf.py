"""Telegraf, with its OTLP input and its PostgreSQL output alone: what the sink is measured beside."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
from psycopg import conninfo
from testbed.backends import listens
from testbed.program import Program

from support.ports import free_port
from tools.bootstrap.collector import find_go, go_environment
from tools.bootstrap.console import CHECKOUT

_VERSION = "v1.36.4"
_MODULE = "github.com/influxdata/telegraf"
_PLUGINS = "custom,inputs.opentelemetry,outputs.postgresql"
_PROGRAM = CHECKOUT / ".build" / "telegraf" / _VERSION / "telegraf"
# As many rows in a write and a second in between as its own documentation proposes for much data.
_CONFIGURATION = """
[agent]
  flush_interval = "1s"
  metric_batch_size = 10000
  metric_buffer_limit = 20000000
  omit_hostname = true
[[inputs.opentelemetry]]
  service_address = "{address}"
[[outputs.postgresql]]
  connection = "{database}"
"""


def find_or_build() -> Path:
    """The program, built of its Go modules where it is not there: ten minutes, and a gigabyte of Go's caches.

    Raises:
        CalledProcessError: it cannot be built.
        AssertionError: there is no Go.
    """
    if _PROGRAM.exists():
        return _PROGRAM
    go = find_go()
    assert go, "Telegraf is built with Go"
    environment = go_environment(go)
    work = _PROGRAM.parent.with_suffix(".unfinished")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    def run(*words: str) -> str:
        done = subprocess.run([go, *words], cwd=work, env=environment, check=True, stdout=subprocess.PIPE, text=True)
        return done.stdout

    run("mod", "init", "telegraf")
    # The sums of all that it needs are its own: not each module's is known to Go's database of them.
    source = json.loads(run("mod", "download", "-json", f"{_MODULE}@{_VERSION}"))["Dir"]
    shutil.copyfile(Path(source) / "go.sum", work / "go.sum")
    run("get", f"{_MODULE}/cmd/telegraf@{_VERSION}")
    run("build", "-mod=mod", "-tags", _PLUGINS, "-o", _PROGRAM.name, f"{_MODULE}/cmd/telegraf")
    work.rename(_PROGRAM.parent)
    return _PROGRAM


class Telegraf:
    """One that runs, and the table that it makes of what it is told.

    Args:
        program: what runs.
        address: of its OTLP/gRPC.
        url: of its database.
    """

    def __init__(self, program: Program, address: str, url: str) -> None:
        self.program = program
        self.address = address
        self.url = url

    def rows(self, table: str) -> int:
        """How many are in a table; 0 where there is none yet."""
        with psycopg.connect(self.url) as connection:
            if connection.execute("SELECT to_regclass(format('%%I', %s::text))", (table,)).fetchone() == (None,):
                return 0
            ((count,),) = connection.execute(f'SELECT count(*) FROM "{table}"'.encode()).fetchall()
        return int(count)


@contextlib.contextmanager
def running_telegraf(folder: Path, url: str) -> Iterator[Telegraf]:
    """One that writes into a database, which has no table of its yet."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    database = " ".join(f"{key}={value}" for key, value in conninfo.conninfo_to_dict(url).items())
    configuration = folder / "telegraf.conf"
    configuration.write_text(_CONFIGURATION.format(address=address, database=database))
    program = Program("telegraf", [find_or_build(), "--config", configuration], folder / "telegraf.log")
    program.start(lambda: "Loaded outputs" in program.log.read_text() and listens(port))
    try:
        yield Telegraf(program, address, url)
    finally:
        program.stop()
