"""The testbed as pytest fixtures; a failed test shows the end of every program's log.

`zone_mta` and `wildduck` are one running server of the test's own; `new_zone_mta` and `new_wildduck` start as many as
wanted, set up as wanted; `watched_zone_mta` and `watched_haraka` those with Postel's plugin; `rspamd` and `new_rspamd`
likewise. The database and Redis under them are started once a session.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed import haraka
from testbed.backends import Backends
from testbed.haraka import Haraka
from testbed.mail_plugins import pack
from testbed.npm_packages import InstallationError, install
from testbed.program import started
from testbed.rspamd import Rspamd
from testbed.smtp_sink import SmtpSink
from testbed.wildduck import WildDuck
from testbed.zone_mta import NEWEST, RELEASES, ZoneMta

from support.node import Node, find_node
from support.otlp_thread import OtlpThread
from support.requirements import require
from tools.bootstrap.programs import find_redis, find_rspamd

NewZoneMta = Callable[..., ZoneMta]
"""`new_zone_mta(zones=("default", "bulk"), version=NEWEST, **options of ZoneMta)`: started, its sink is `.sink`."""

WatchedZoneMta = Callable[..., ZoneMta]
"""`watched_zone_mta(endpoint, plugin={...}, **options of new_zone_mta)`: with Postel's plugin, which sends there."""

NewWildDuck = Callable[..., WildDuck]
"""`new_wildduck(version="1.51", **options of WildDuck)`: started."""

WatchedHaraka = Callable[..., Haraka]
"""`watched_haraka(endpoint, version=haraka.NEWEST, plugin="lines of postel.ini", **options of Haraka)`: started."""

NewRspamd = Callable[..., Rspamd]
"""`new_rspamd(**options of Rspamd)`: started."""


@pytest.fixture(scope="session")
def node() -> Node:
    found = find_node()
    require("node", available=found)
    assert found
    return found


@pytest.fixture(scope="session")
def pglite_packages(node: Node) -> Path:
    return _packages("pglite", node)


def _packages(name: str, node: Node) -> Path:
    try:
        return install(name, node)
    except InstallationError as error:
        require(name, available=False, how=str(error))
        raise


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    require("redis", available=find_redis())
    require("secantusdb", available=importlib.util.find_spec("secantus"))
    backends = Backends(tmp_path_factory.mktemp("backends"))
    try:
        backends.start()
        yield backends
    finally:
        backends.stop()


@pytest.fixture
def new_zone_mta(tmp_path: Path, node: Node, backends: Backends) -> Iterator[NewZoneMta]:
    with contextlib.ExitStack() as ending:
        count = 0

        def new(zones: tuple[str, ...] = ("default", "bulk"), version: str = NEWEST, **options: Any) -> ZoneMta:
            nonlocal count
            count += 1
            sink = SmtpSink(zones)
            sink.start()
            ending.callback(sink.stop)
            server = ZoneMta(
                tmp_path / f"zone-mta-{count}",
                node=node,
                packages=_packages(RELEASES[version].folder, node),
                version=version,
                backends=backends,
                sink=sink,
                **options,
            )
            ending.callback(server.kill)
            server.start()
            return server

        yield new


@pytest.fixture
def zone_mta(new_zone_mta: NewZoneMta) -> ZoneMta:
    return new_zone_mta(bounce_zone="default")


@pytest.fixture
def otlp_receiver() -> Iterator[OtlpThread]:
    with contextlib.closing(OtlpThread()) as receiver:
        receiver.start()
        yield receiver


@pytest.fixture(scope="session")
def zone_mta_plugin(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is packed for users."""
    return pack(node, "zone-mta", tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def watched_zone_mta(new_zone_mta: NewZoneMta, zone_mta_plugin: Path, tmp_path: Path) -> WatchedZoneMta:
    def new(endpoint: str, *, plugin: dict[str, Any] | None = None, **options: Any) -> ZoneMta:
        settings = options.pop("settings", {})
        plugins = {
            # A path from anywhere is a plugin's key, too.
            str(zone_mta_plugin): {
                "enabled": True,
                "ordering": 1,
                "endpoint": endpoint,
                "bufferDirectory": str(tmp_path / "buffer"),
                "heartbeatInterval": 2,
                **(plugin or {}),
            },
            "judge": {"enabled": ["receiver", "main"], "ordering": 2},
        }
        return new_zone_mta(settings={**settings, "plugins": plugins}, **options)

    return new


@pytest.fixture(scope="session")
def haraka_plugin(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plugin as it is packed for users."""
    return pack(node, "haraka", tmp_path_factory.mktemp("plugin"))


@pytest.fixture
def watched_haraka(tmp_path: Path, node: Node, haraka_plugin: Path) -> Iterator[WatchedHaraka]:
    with contextlib.ExitStack() as ending:
        count = 0

        def new(endpoint: str, *, version: str = haraka.NEWEST, plugin: str = "", **options: Any) -> Haraka:
            nonlocal count
            count += 1
            settings = f"endpoint={endpoint}\nbufferDirectory={tmp_path / 'buffer'}\nheartbeatInterval=2\n{plugin}\n"
            server = Haraka(
                tmp_path / f"haraka-{count}",
                node=node,
                packages=_packages(haraka.RELEASES[version], node),
                version=version,
                plugin=haraka_plugin,
                plugin_settings=settings,
                **options,
            )
            ending.callback(server.kill)
            server.start()
            return server

        yield new


@pytest.fixture
def new_wildduck(tmp_path: Path, node: Node, backends: Backends) -> Iterator[NewWildDuck]:
    with contextlib.ExitStack() as ending:
        count = 0

        def new(version: str = "1.51", **options: Any) -> WildDuck:
            nonlocal count
            count += 1
            folder = tmp_path / f"wildduck-{count}"
            packages = _packages(f"wildduck-{version}", node)
            server = WildDuck(folder, node=node, packages=packages, backends=backends, **options)
            ending.callback(server.close)
            server.start()
            return server

        yield new


@pytest.fixture
def wildduck(new_wildduck: NewWildDuck) -> WildDuck:
    return new_wildduck()


@pytest.fixture
def new_rspamd(tmp_path: Path) -> Iterator[NewRspamd]:
    program = find_rspamd()
    require("rspamd", available=program)
    assert program
    with contextlib.ExitStack() as ending:
        count = 0

        def new(**options: Any) -> Rspamd:
            nonlocal count
            count += 1
            server = Rspamd(tmp_path / f"rspamd-{count}", program=program, **options)
            ending.callback(server.close)
            server.start()
            return server

        yield new


@pytest.fixture
def rspamd(new_rspamd: NewRspamd) -> Rspamd:
    return new_rspamd()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"log of {program.name}", program.tail()) for program in started() if program.log.exists()]
    return report
