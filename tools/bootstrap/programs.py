"""The distribution's programs that the tests run: where they are, and the packages that they come in.

Set-up and the tests look here alike, so that what set-up counts as there is what the tests run. Standard library only:
set-up looks before there is an environment.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

POSTGRES_AT_LEAST = 15
JAVA_AT_LEAST = 17
# Debian and Ubuntu keep the server's programs out of PATH, one folder for each major version.
_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
# Where Debian keeps servers, which is in the PATH of root alone.
_DEBIAN_SERVERS = Path("/usr/sbin")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRIVERS = (
    "chromedriver",
    "chromium.chromedriver",
    "/snap/bin/chromium.chromedriver",
    "/usr/lib/chromium-browser/chromedriver",
)


@dataclass(frozen=True)
class Browser:
    """A Chromium that runs, and the driver of its version."""

    program: Path
    driver: Path


@dataclass(frozen=True)
class Java:
    """A Java that Kafka runs on, and Maven, which brings Kafka."""

    program: Path
    maven: Path


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL: its major version, and the folder with its ``initdb``, ``postgres`` and ``pg_config``."""

    version: int
    programs: Path


def find_redis() -> Path | None:
    """Redis's server."""
    return next(_there("redis-server"), None)


def find_rspamd() -> Path | None:
    """Rspamd."""
    return next(_there("rspamd"), None)


def find_nginx() -> Path | None:
    """nginx, the web server."""
    return next(_there("nginx", str(_DEBIAN_SERVERS / "nginx")), None)


def find_systemd_analyze() -> Path | None:
    """What checks systemd's units; it needs no systemd that runs."""
    return next(_there("systemd-analyze"), None)


def find_java() -> Java | None:
    """Java, recent enough, with Maven."""
    program, maven = next(_there("java"), None), next(_there("mvn"), None)
    if program and maven and (_major(program) or 0) >= JAVA_AT_LEAST:
        return Java(program, maven)
    return None


def find_browser() -> Browser | None:
    """The first Chromium with a driver of the same major version, which is all that a driver takes."""
    # Where Ubuntu has no snap, its chromium-browser only says so and fails.
    for program, driver in product(_there(*_BROWSERS), list(_there(*_DRIVERS))):
        if (major := _major(program)) and major == _major(driver):
            return Browser(program, driver)
    return None


def find_postgres() -> list[PostgresServer]:
    """Every PostgreSQL that is new enough, the oldest first."""
    programs = [*_DEBIAN_POSTGRES.glob("*/bin/postgres"), *_there("postgres")]
    servers = [
        PostgresServer(major, folder)
        for folder in {program.resolve().parent for program in programs}
        if all((folder / name).exists() for name in ("initdb", "pg_config"))
        and (major := _major(folder / "postgres"))
        and major >= POSTGRES_AT_LEAST
    ]
    return sorted(servers, key=lambda server: server.version)


@dataclass(frozen=True)
class Needed:
    """Something that the tests run.

    Attributes:
        what: for the reader.
        packages: what to install, in the names of Debian, then in other names that a distribution knows it by.
        find: truthy where it is there.
        without: what the tests do where it is not.
    """

    what: str
    packages: tuple[tuple[str, ...], ...]
    find: Callable[[], object]
    without: str


NEEDED = (
    Needed("Rspamd", (("rspamd",),), find_rspamd, "the tests that run it are skipped"),
    Needed("Redis", (("redis-server",),), find_redis, "the tests with a real Zone-MTA are skipped"),
    Needed("nginx", (("nginx",),), find_nginx, "the test that follows docs/add-a-source.md is skipped"),
    Needed("systemd-analyze", (("systemd",),), find_systemd_analyze, "systemd's units are not checked"),
    Needed(
        f"Java {JAVA_AT_LEAST} or later with Maven",
        (("default-jre-headless", "maven"), (f"openjdk-{JAVA_AT_LEAST}-jre-headless", "maven")),
        find_java,
        "the tests with a real Kafka are skipped",
    ),
    Needed(
        "Chromium with its driver",
        (("chromium", "chromium-driver"), ("chromium-browser", "chromium-chromedriver")),
        find_browser,
        "the tests that look at the page are skipped",
    ),
    Needed(
        f"PostgreSQL {POSTGRES_AT_LEAST} or later",
        (("postgresql",),),
        find_postgres,
        "the tests run on the embedded PostgreSQL alone",
    ),
)


def _there(*names: str) -> Iterator[Path]:
    return (Path(found) for name in names if (found := shutil.which(name)))


def _major(program: Path) -> int | None:
    """The first number of what it prints as its version; None where it does not run."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    number = re.search(r"\d+", done.stdout)
    return int(number[0]) if done.returncode == 0 and number else None
