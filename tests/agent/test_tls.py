"""Certificates of real listeners: what they say, how often they are looked at, and what is no listener or hangs."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from testbed.fixtures import NewHaraka

from otel_receivers.agent import Collecting
from otel_receivers.building import Context
from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.tls.handshake import Listener, listener_of
from otel_receivers.tls.receiver import CertificateReceiver, build
from postel.settings import Discovery, Intervals, Settings
from postel.signals import load_all
from support.ports import free_port
from support.raw_http_server import server
from support.tls_listeners import EXPIRED_AT, LASTING_UNTIL, dialogue, served, smtp, until_it_leaves

NOW = 1_795_600_000
TICK = Tick(NOW * 1_000_000_000)
Left = dict[tuple[int, str], int]


def context(folder: Path, every: int = 3600, **discovery: Any) -> Context:
    settings = Settings(data_dir=folder, discovery=Discovery(**discovery), intervals=Intervals(tls_certificates=every))
    return Context(settings, load_all(), identify(folder, setting="node-1"), Epochs())


def left(batch: Batch) -> Left:
    """By port and name."""
    points: list[Any] = [
        point
        for resource in batch.metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return {
        (point.attributes["server.port"], point.attributes["tls.certificate.name"]): point.value for point in points
    }


async def look(folder: Path, *listeners: str, target: Target | None = None, patience: float = 5.0) -> Batch:
    receiver = CertificateReceiver(context(folder), [*map(listener_of, listeners)], target, timeout=patience)
    return await receiver.collect(TICK)


async def test_the_end_is_told_of_whatever_is_shown_at_once(tmp_path: Path) -> None:
    async with (
        served(until_it_leaves, certificate="lasting") as lasting,
        served(until_it_leaves, certificate="expired") as expired,
        served(until_it_leaves, certificate="bare") as bare,
    ):
        found = await look(tmp_path, *(f"127.0.0.1:{port}" for port in (lasting, expired, bare)))
    assert left(found) == {
        (lasting, "mx.lasting.test"): LASTING_UNTIL - NOW,
        (expired, "old.test"): EXPIRED_AT - NOW,
        (bare, "mx.bare.test"): LASTING_UNTIL - NOW,
    }
    assert not found.problems


@pytest.mark.parametrize("protocol", ["imap", "pop3"])
async def test_the_end_is_told_after_starttls_of_mailboxes(protocol: str, tmp_path: Path) -> None:
    async with served(dialogue(protocol, "expired")) as port:
        found = await look(tmp_path, f"{protocol}://127.0.0.1:{port}")
    assert left(found) == {(port, "old.test"): EXPIRED_AT - NOW}


async def test_the_end_is_told_after_starttls_of_smtp(tmp_path: Path) -> None:
    async with smtp("lasting") as port:
        found = await look(tmp_path, f"smtp://127.0.0.1:{port}")
    assert left(found) == {(port, "mx.lasting.test"): LASTING_UNTIL - NOW}


async def test_a_haraka_shows_its_certificate(
    new_haraka: NewHaraka, haraka_certificate: dict[str, str], tmp_path: Path
) -> None:
    haraka = await asyncio.to_thread(new_haraka, plugins=("tls",), config=haraka_certificate)
    found = left(await look(tmp_path, f"smtp://127.0.0.1:{haraka.port}"))
    # openssl made it for two days, from today's second on.
    ((where, seconds),) = found.items()
    assert where == (haraka.port, "mx.haraka.test")
    assert abs(seconds + NOW - time.time() - 2 * 86400) < 300


async def test_what_offers_no_tls_is_quiet_unless_it_is_named(tmp_path: Path) -> None:
    async with smtp("") as port:
        where = f"smtp://127.0.0.1:{port}"
        found = await look(tmp_path, where)
        assert (left(found), *found.problems) == ({},)
        with pytest.raises(ScrapeError, match="offers no TLS") as raised:
            await look(tmp_path, where, target=Target("127.0.0.1", port))
    assert raised.value.error_type == "no_tls"


async def test_nobody_who_listens_is_quiet_unless_he_is_named(tmp_path: Path) -> None:
    port = free_port()
    found = await look(tmp_path, f"127.0.0.1:{port}")
    assert (left(found), *found.problems) == ({},)
    with pytest.raises(ScrapeError) as raised:
        await look(tmp_path, f"127.0.0.1:{port}", target=Target("127.0.0.1", port))
    assert raised.value.error_type == "connection"


@pytest.mark.parametrize("protocol", ["tls", "smtp", "imap", "pop3"])
async def test_one_that_never_answers_costs_its_time_and_nobody_elses_figures(protocol: str, tmp_path: Path) -> None:
    async with served(until_it_leaves) as silent, served(until_it_leaves, certificate="lasting") as other:
        begun = time.monotonic()
        found = await look(tmp_path, f"{protocol}://127.0.0.1:{silent}", f"127.0.0.1:{other}", patience=0.5)
        took = time.monotonic() - begun
    assert left(found).keys() == {(other, "mx.lasting.test")}
    assert [problem.error_type for problem in found.problems] == ["timeout"]
    assert took < 4


@pytest.mark.parametrize(
    ("protocol", "says", "error"),
    [
        ("tls", b"220 mx.test ESMTP\r\n", "tls"),
        ("smtp", b"554 no\r\n", "protocol"),
        ("smtp", b"220 mx.test ESMTP\r\n250-mx.test\r\n" + 200 * b"250-X\r\n", "protocol"),
        ("smtp", 70_000 * b"2", "protocol"),
        ("imap", b"* BYE\r\n", "protocol"),
        ("imap", b"* OK\r\n" + 200 * b"* OK\r\n", "protocol"),
        ("pop3", b"-ERR\r\n", "protocol"),
    ],
)
async def test_what_answers_nonsense_is_told_of(protocol: str, says: bytes, error: str, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await writer.drain()
        await reader.read()

    async with server(serve, reads=False) as port:
        found = await look(tmp_path, f"{protocol}://127.0.0.1:{port}")
    assert left(found) == {}
    assert [problem.error_type for problem in found.problems] == [error]


async def test_a_listener_is_looked_at_once_in_its_interval_and_told_of_at_each_tick(tmp_path: Path) -> None:
    looks: Counter[int] = Counter()

    async def serve(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        looks["all"] += 1  # type: ignore[index]
        await reader.read()

    async with served(serve, certificate="lasting") as port:
        receiver = CertificateReceiver(context(tmp_path), [Listener(Target("127.0.0.1", port), "tls")])
        assert receiver.interval == 300
        for number in range(3):
            found = await receiver.collect(Tick((NOW + number * 300) * 1_000_000_000))
            assert left(found) == {(port, "mx.lasting.test"): LASTING_UNTIL - NOW - number * 300}
        assert looks.total() == 1
        receiver._every = 0
        await receiver.collect(TICK)
        assert looks.total() == 2
    # Gone: nothing is told of it any more.
    assert left(await receiver.collect(TICK)) == {}


async def test_the_settings_name_listeners_of_which_each_has_to_answer(tmp_path: Path) -> None:
    named = ("mail.example.org:993", "smtp://mx.example.org:2525", "mx.example.org:25", "imap://mail.example.org:993")
    receivers = build(context(tmp_path, every=60, tls_listeners=named))
    assert [(one.name, str(one.target), one.interval) for one in receivers] == [
        ("tls@mail.example.org:993", "mail.example.org:993", 60),
        ("tls@mx.example.org:2525", "mx.example.org:2525", 60),
        ("tls@mx.example.org:25", "mx.example.org:25", 60),
    ]
    assert [listener_of(one).protocol for one in named] == ["tls", "smtp", "smtp", "imap"]
    assert build(context(tmp_path, tls_listeners=())) == []


async def test_without_settings_the_mail_ports_of_this_host_are_looked_at(tmp_path: Path) -> None:
    async with smtp("lasting") as port:
        collecting = Collecting(
            Settings(data_dir=tmp_path, discovery=Discovery(haraka_smtp_port=port)),
            identify(tmp_path, setting="node-1"),
            Epochs(),
        )
        (receiver,) = collecting.standing()
        collected = await collecting.ask(receiver, TICK)
    assert (port, "mx.lasting.test") in left(collected.batches[0])
    assert collected.asking.up


def test_an_old_server_with_a_small_key_is_looked_at_too() -> None:
    """The context takes what no client of today takes: it only looks."""
    from otel_receivers.tls.handshake import _context  # noqa: PLC0415

    made = _context()
    assert (made.verify_mode, made.check_hostname, made.security_level) == (ssl.CERT_NONE, False, 0)
