"""The Rspamd receiver against a controller that misbehaves: an error of its kind, no wrong point, no password shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import Batch, ScrapeError, Target, Tick
from otel_receivers.rspamd.receiver import RspamdReceiver
from postel.signals import load_all
from support.ports import free_port
from support.raw_http_server import OK, server, sized
from support.rspamd_answers import METRICS, PAGES, STAT, StandIn, standing_in

NOW = 1_795_600_000_000_000_000
RIGHT, WRONG = "right-password", "wrong-password"
OTHER = b"HTTP/1.1 200 OK\r\nServer: nginx\r\n"


@asynccontextmanager
async def receiver(port: int, tmp_path: Path, password: str | None = None, **options: Any) -> AsyncIterator[Any]:
    made = RspamdReceiver(
        load_all()["rspamd"],
        identify(tmp_path, setting="node-1"),
        Epochs(),
        target=Target("127.0.0.1", port),
        password=password,
        **{"interval": 30, **options},
    )
    try:
        yield made
    finally:
        await made.close()


def names(batch: Batch) -> set[str]:
    return {m.name for r in batch.metrics for scope in r.scope_metrics for m in scope.metrics}


async def test_all_its_answers_become_one_batch_of_one_instance(tmp_path: Path) -> None:
    stand_in = StandIn()
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as rspamd:
        batch = await rspamd.collect(Tick(NOW))
    assert names(batch) == {metric.name for metric in load_all()["rspamd"].metrics.values()}
    assert batch.problems == ()
    (resource,) = {resource.resource.attributes["service.instance.id"] for resource in batch.metrics}
    assert resource == f"node-1:{port}"
    # Without a password nothing needs to be recognised first.
    assert stand_in.asked == [("/stat", ""), ("/metrics", ""), ("/counters", "")]


async def test_the_password_is_shown_to_an_rspamd(tmp_path: Path) -> None:
    stand_in = StandIn(password=RIGHT)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, RIGHT) as rspamd:
        assert "rspamd.messages" in names(await rspamd.collect(Tick(NOW)))
    assert stand_in.asked == [("/ping", ""), ("/stat", RIGHT), ("/metrics", RIGHT), ("/counters", RIGHT)]


@pytest.mark.parametrize("header", ["nginx", "", "not-rspamd/3.4"])
async def test_the_password_is_shown_to_nobody_else(header: str, tmp_path: Path) -> None:
    stand_in = StandIn(server=header)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, RIGHT) as rspamd:
        # At each tick: another program may have come to the port meanwhile.
        for _ in range(2):
            with pytest.raises(ScrapeError, match="rspamd_controller_port") as caught:
                await rspamd.collect(Tick(NOW))
            assert caught.value.error_type == "unrecognised"
    assert stand_in.asked == [("/ping", ""), ("/ping", "")]


async def test_it_follows_no_redirect_with_the_password(tmp_path: Path) -> None:
    elsewhere = StandIn()
    async with standing_in(elsewhere) as other:
        head = f"HTTP/1.1 302 Found\r\nServer: rspamd/3.4\r\nLocation: http://127.0.0.1:{other}/stat\r\n".encode()
        stand_in = StandIn(instead=lambda _path: sized(b"", head))
        async with standing_in(stand_in) as port, receiver(port, tmp_path, RIGHT) as rspamd:
            with pytest.raises(ScrapeError, match="rspamd_controller_port") as caught:
                await rspamd.collect(Tick(NOW))
    assert caught.value.error_type == "302"
    assert elsewhere.asked == []


@pytest.mark.parametrize("shown", [None, WRONG])
async def test_a_refused_password_is_tried_less_and_less_often(shown: str | None, tmp_path: Path) -> None:
    stand_in = StandIn(password=RIGHT)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, shown) as rspamd:
        for _ in range(3):
            with pytest.raises(ScrapeError, match=r"\[discovery\] rspamd_password") as caught:
                await rspamd.collect(Tick(NOW))
            assert caught.value.error_type == "401"
            assert WRONG not in str(caught.value)
    assert [path for path, _ in stand_in.asked if path != "/ping"] == ["/stat"]


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        pytest.param(sized(b"no", b"HTTP/1.1 500 Oh\r\n"), "500", id="500"),
        pytest.param(sized(b"no", b"HTTP/1.1 404 Oh\r\n"), "404", id="404"),
        pytest.param(sized(b"hello", OTHER), "malformed", id="another server"),
        pytest.param(sized(b"<html>"), "html", id="html"),
        pytest.param(sized(b""), "empty", id="empty"),
        pytest.param(sized(METRICS), "malformed", id="another page"),
        pytest.param(sized(STAT[:300], length=len(STAT)), "incomplete", id="cut"),
        pytest.param(OK + b"\r\n" + STAT[:300], "malformed", id="cut, without a length"),
        pytest.param(OK + b"\r\n" + STAT + b" " * (2 << 20), "too_large", id="without end"),
        pytest.param(sized(b"{}"), "unexpected_page", id="another JSON"),
        pytest.param(b"", "incomplete", id="hangs up"),
    ],
)
async def test_misbehaviour_is_an_error_of_its_kind(answer: bytes, error_type: str, tmp_path: Path) -> None:
    stand_in = StandIn(instead=lambda path: answer if path == "/stat" else None)
    async with standing_in(stand_in) as port, receiver(port, tmp_path, page_bytes=1 << 20) as rspamd:
        with pytest.raises(ScrapeError) as caught:
            await rspamd.collect(Tick(NOW))
        assert caught.value.error_type == error_type
        # And when it is well again, so is the receiver.
        stand_in.instead = lambda _path: None
        assert names(await rspamd.collect(Tick(NOW + 30_000_000_000)))


async def test_where_nobody_listens(tmp_path: Path) -> None:
    for password in (None, RIGHT):
        async with receiver(free_port(), tmp_path, password) as rspamd:
            with pytest.raises(ScrapeError) as caught:
                await rspamd.collect(Tick(NOW))
        assert caught.value.error_type == "connection"


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("/metrics", {"rspamd.memory.usage", "rspamd.statfile.message.count", "rspamd.statfile.user.count"}),
        ("/counters", {"rspamd.symbol.hits"}),
    ],
)
async def test_where_a_further_answer_fails_the_rest_stands(path: str, lost: set[str], tmp_path: Path) -> None:
    stand_in = StandIn(instead=lambda asked: sized(b"no", b"HTTP/1.1 500 Oh\r\n") if asked == path else None)
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as rspamd:
        batch = await rspamd.collect(Tick(NOW))
    assert names(batch) == {metric.name for metric in load_all()["rspamd"].metrics.values()} - lost
    (problem,) = batch.problems
    assert problem.error_type == "500"
    assert path in problem.message


async def hang(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def test_one_that_hangs_is_given_up_within_the_interval(tmp_path: Path) -> None:
    for password in (None, RIGHT):
        async with server(hang) as port, receiver(port, tmp_path, password, interval=1) as rspamd:
            began = time.monotonic()
            with pytest.raises(ScrapeError) as caught:
                await rspamd.collect(Tick(NOW))
            assert caught.value.error_type == "timeout"
            assert time.monotonic() - began < 0.9


async def test_where_a_further_answer_hangs_the_rest_stands_within_the_interval(tmp_path: Path) -> None:
    stand_in = StandIn()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"/metrics" in request:
            await asyncio.sleep(3600)
        writer.write(stand_in.answer(request))
        await writer.drain()

    async with server(answer, reads=False) as port, receiver(port, tmp_path, interval=1) as rspamd:
        began = time.monotonic()
        batch = await rspamd.collect(Tick(NOW))
        assert time.monotonic() - began < 0.9
    assert "rspamd.messages" in names(batch)
    assert {problem.error_type for problem in batch.problems} == {"timeout"}


async def test_before_3_0_there_is_no_page_and_nothing_wrong(tmp_path: Path) -> None:
    stand_in = StandIn(pages={path: body for path, body in PAGES.items() if path != "/metrics"})
    async with standing_in(stand_in) as port, receiver(port, tmp_path) as rspamd:
        batch = await rspamd.collect(Tick(NOW))
    assert batch.problems == ()
    assert "rspamd.messages" in names(batch)
