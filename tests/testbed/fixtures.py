"""The testbed as pytest fixtures; a failed test shows the end of every program's log.

`zone_mta` and `wildduck` are one running server of the test's own; `new_zone_mta` and `new_wildduck` start as many as
wanted, set up as wanted; `watched_zone_mta` and `watched_haraka` those with Postel's plugin; `rspamd` and `new_rspamd`
likewise. The database and Redis under them are started once a session.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from testbed import haraka, maven_packages, pglite
from testbed.backends import Backends
from testbed.haraka import Haraka
from testbed.kafka import KafkaBroker, running
from testbed.mail_plugins import pack
from testbed.npm_packages import install
from testbed.once import InstallationError
from testbed.program import started
from testbed.rspamd import Rspamd
from testbed.smtp_sink import SmtpSink
from testbed.wildduck import WildDuck
from testbed.zone_mta import NEWEST, RELEASES, ZoneMta

from support.node import Node, find_node
from support.otlp_thread import OtlpThread
from support.requirements import require
from support.tls_listeners import CERTIFICATES
from timescale_sink.store.migrate import migrate
from tools.bootstrap.programs import find_java, find_redis, find_rspamd

NewZoneMta = Callable[..., ZoneMta]
"""`new_zone_mta(zones=("default", "bulk"), version=NEWEST, **options of ZoneMta)`: its sink is `.sink`.

Started, but for `begin=False`.
"""

WatchedZoneMta = Callable[..., ZoneMta]
"""`watched_zone_mta(endpoint, plugin={...}, **options of new_zone_mta)`: with Postel's plugin, which sends there."""

NewWildDuck = Callable[..., WildDuck]
"""`new_wildduck(version="1.51", **options of WildDuck)`: started."""

NewHaraka = Callable[..., Haraka]
"""`new_haraka(version=haraka.NEWEST, **options of Haraka)`: started."""

WatchedHaraka = Callable[..., Haraka]
"""`watched_haraka(endpoint, plugin="lines of postel.ini", **options of new_haraka)`: with Postel's plugin."""

NewRspamd = Callable[..., Rspamd]
"""`new_rspamd(**options of Rspamd)`: started."""


class Startable(Protocol):
    """What the testbed starts."""

    def start(self) -> None:
        """Returns when it can be used."""


@pytest.fixture(scope="session")
def node() -> Node:
    found = find_node()
    require("node", available=found)
    assert found
    return found


@pytest.fixture(scope="session")
def pglite_packages(node: Node) -> Path:
    return _packages("pglite", node)


@pytest.fixture(scope="session")
def migrated_pglite(node: Node, pglite_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a migrated database for `pglite.database`, which makes a new one in three times the time."""
    file = tmp_path_factory.mktemp("pglite") / "migrated.tar"
    with pglite.database(node, pglite_packages) as running:
        asyncio.run(migrate(running.connection))
        assert asyncio.run(migrate(running.connection)) == []
        running.keep(file)
    return file


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


class Servers:
    """The servers of a test, each in a folder of its own; they end with it, the last one first."""

    def __init__(self, folder: Path, ending: contextlib.ExitStack) -> None:
        self._folder = folder
        self._ending = ending
        self._count = 0

    def folder(self, name: str) -> Path:
        """Where the next one lies, not made yet."""
        self._count += 1
        return self._folder / f"{name}-{self._count}"

    def start(self, server: Startable, end: Callable[[], None]) -> None:
        """Start it; it is ended also where it does not come up."""
        self.end(end)
        server.start()

    def end(self, end: Callable[[], None]) -> None:
        """End one that the test starts by itself."""
        self._ending.callback(end)


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with contextlib.ExitStack() as ending:
        yield Servers(tmp_path, ending)


@pytest.fixture
def new_zone_mta(servers: Servers, node: Node, backends: Backends) -> NewZoneMta:
    def new(
        zones: tuple[str, ...] = ("default", "bulk"),
        version: str = NEWEST,
        backends: Backends = backends,
        *,
        begin: bool = True,
        **options: Any,
    ) -> ZoneMta:
        sink = SmtpSink(zones)
        servers.start(sink, sink.stop)
        server = ZoneMta(
            servers.folder("zone-mta"),
            node=node,
            packages=_packages(RELEASES[version].folder, node),
            version=version,
            backends=backends,
            sink=sink,
            **options,
        )
        if begin:
            servers.start(server, server.kill)
        else:
            servers.end(server.kill)
        return server

    return new


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
def new_haraka(servers: Servers, node: Node) -> NewHaraka:
    def new(*, version: str = haraka.NEWEST, **options: Any) -> Haraka:
        packages = _packages(haraka.RELEASES[version], node)
        server = Haraka(servers.folder("haraka"), node=node, packages=packages, version=version, **options)
        servers.start(server, server.kill)
        return server

    return new


@pytest.fixture
def watched_haraka(new_haraka: NewHaraka, haraka_plugin: Path, tmp_path: Path) -> WatchedHaraka:
    def new(endpoint: str, *, plugin: str = "", **options: Any) -> Haraka:
        settings = f"endpoint={endpoint}\nbufferDirectory={tmp_path / 'buffer'}\nheartbeatInterval=2\n{plugin}\n"
        return new_haraka(plugin=haraka_plugin, plugin_settings=settings, **options)

    return new


@pytest.fixture
def haraka_certificate(tmp_path: Path) -> dict[str, str]:
    """A self-signed one, its key and parameters, as files of Haraka's configuration, which lets it offer STARTTLS."""
    openssl = shutil.which("openssl")
    require("openssl", available=openssl, how="it makes a certificate")
    key, certificate, parameters = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "dhparams.pem"
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=mx.haraka.test")
    # Where there are none, Haraka lets a process look for some for half a minute.
    group = ("genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048", "-out", parameters)
    for command in ((*request, "-keyout", key, "-out", certificate), group):
        subprocess.run([str(openssl), *command], check=True, capture_output=True)
    return {
        "tls.ini": "dhparam=dhparams.pem\n",
        "tls_key.pem": key.read_text(),
        "tls_cert.pem": certificate.read_text(),
        "dhparams.pem": parameters.read_text(),
    }


@pytest.fixture
def new_wildduck(servers: Servers, node: Node, backends: Backends) -> NewWildDuck:
    def new(version: str = "1.51", **options: Any) -> WildDuck:
        packages = _packages(f"wildduck-{version}", node)
        server = WildDuck(servers.folder("wildduck"), node=node, packages=packages, backends=backends, **options)
        servers.start(server, server.close)
        return server

    return new


@pytest.fixture
def wildduck(new_wildduck: NewWildDuck) -> WildDuck:
    return new_wildduck()


@pytest.fixture
def new_rspamd(servers: Servers) -> NewRspamd:
    program = find_rspamd()
    require("rspamd", available=program)
    assert program

    def new(**options: Any) -> Rspamd:
        server = Rspamd(servers.folder("rspamd"), program=program, **options)
        servers.start(server, server.close)
        return server

    return new


@pytest.fixture
def rspamd(new_rspamd: NewRspamd) -> Rspamd:
    return new_rspamd()


@pytest.fixture
def kafka_broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    java = find_java()
    require("kafka", available=java)
    require("openssl", available=shutil.which("openssl"), how="it writes Kafka's key in another form")
    assert java
    try:
        jars = maven_packages.install("kafka", java)
    except InstallationError as error:
        require("kafka", available=False, how=str(error))
        raise
    certificate = CERTIFICATES / "gateway.pem"
    with running(KafkaBroker(tmp_path / "kafka", java=java, jars=jars, certificate=certificate)) as broker:
        yield broker


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        report.sections += [(f"log of {program.name}", program.tail()) for program in started() if program.log.exists()]
    return report
