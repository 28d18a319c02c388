"""`postel serve` over a real, migrated PostgreSQL, and a headless Chromium that looks at it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, sql
from selenium import webdriver

from support.page import Rows, chromium_in, complaints, look, name_of, serving
from support.postgres import fresh_database, migrate_now, wheel_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """A PostgreSQL of these tests alone, because they read its log and close its doors; its URL."""
    with wheel_server() as url:
        yield url


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """The name of a migrated database that nobody is connected to."""
    with fresh_database(server) as url:
        migrate_now(url)
        yield name_of(url)


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """The URL of a migrated database without rows, whose every statement is in the server's log."""
    with fresh_database(server, template) as url:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET log_statement = 'all'").format(sql.Identifier(name_of(url)))
            )
        yield url


@pytest.fixture
def statements(server: str) -> Callable[[], str]:
    """Reads what every client of `database` asked since the server began, in the server's own log."""
    folder = str(conninfo.conninfo_to_dict(server)["host"])
    return lambda: (Path(folder) / "log").read_text("utf-8", "replace")


@pytest.fixture
def rows(database: str) -> Iterator[Rows]:
    """Inserts into `database`."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield Rows(connection)


@pytest.fixture
def page(tmp_path: Path, database: str) -> Iterator[str]:
    """The address of a running page over `database`, without the last slash."""
    with serving(tmp_path, database) as address:
        yield address


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    """One browser for all tests; `browser` gives it out fresh."""
    with chromium_in(tmp_path_factory.mktemp("chromium")) as chrome:
        yield chrome


@pytest.fixture
def browser(chromium: webdriver.Chrome, page: str) -> Iterator[webdriver.Chrome]:
    """A wide, light window in Berlin; what the page logs as a warning or error fails the test.

    It leaves before the page ends: a page that is gone is rightly complained about.
    """
    del page
    look(chromium)
    chromium.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
    complaints(chromium)
    yield chromium
    entries = complaints(chromium)
    chromium.get("about:blank")
    assert entries == []
