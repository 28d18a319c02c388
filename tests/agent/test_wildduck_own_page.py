"""WildDuck's own page, scraped: counters over restarts of one process, and of a cluster's workers."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_receivers.epochs import Epochs
from otel_receivers.node import identify
from otel_receivers.receiver import ScrapeError, Target, Tick
from otel_receivers.wildduck.own_page import MetricsReceiver
from postel.signals import load_all
from support.batches import Increase, points_of, values
from support.raw_http_server import OK, Answer, server, sized
from support.wildduck_answers import METRICS, TWO_WORKERS, USERS

SECOND = 1_000_000_000
NOW = 1_795_600_000 * SECOND
RECIPIENTS = "wildduck.lmtp.recipients"


@asynccontextmanager
async def receiver(
    port: int, tmp_path: Path, api: Target | None = None, epochs: Epochs | None = None
) -> AsyncIterator[MetricsReceiver]:
    made = MetricsReceiver(
        load_all()["wildduck"],
        identify(tmp_path, setting="node-1"),
        epochs or Epochs(),
        interval=30,
        target=Target("127.0.0.1", port),
        api=lambda: api,
        timeout=1,
        page_bytes=1 << 20,
    )
    try:
        yield made
    finally:
        await made.close()


def counted(page: bytes, accepted: int, rejected: int | None, start: int | None = None) -> bytes:
    page = re.sub(rb'(?m)^(wildduck_lmtp_recipients_total\{result="accepted"\}) \d+$', rb"\1 %d" % accepted, page)
    line = b"" if rejected is None else b'wildduck_lmtp_recipients_total{result="rejected"} %d\n' % rejected
    page = re.sub(rb'wildduck_lmtp_recipients_total\{result="rejected"\} \d+\n', line, page)
    return page if start is None else re.sub(rb"(?m)^(process_start_time_seconds) .*$", rb"\1 %d" % start, page)


async def test_its_points_are_the_page_under_the_name_of_the_api(tmp_path: Path) -> None:
    api = Target("127.0.0.1", 8080)
    async with server(sized(METRICS)) as port, receiver(port, tmp_path, api) as wildduck:
        batch = await wildduck.collect(Tick(NOW))
    assert {key: value for key, value in values(batch).items() if key[0] == RECIPIENTS} == {
        (RECIPIENTS, "accepted"): 3,
        (RECIPIENTS, "rejected"): 1,
    }
    assert batch.metrics[0].resource.attributes["service.instance.id"] == "node-1:8080"
    assert batch.metrics[0].resource.attributes["service.name"] == "wildduck"


async def test_where_no_api_is_known_its_own_port_names_it(tmp_path: Path) -> None:
    async with server(sized(METRICS)) as port, receiver(port, tmp_path) as wildduck:
        batch = await wildduck.collect(Tick(NOW))
    assert batch.metrics[0].resource.attributes["service.instance.id"] == f"node-1:{port}"


async def test_under_another_name_a_counter_is_met_anew(tmp_path: Path) -> None:
    """The name is what readers know it by: going on in full under a new one would count all of it twice."""
    epochs = Epochs()
    async with server(sized(METRICS)) as port:
        for number, api in enumerate((None, Target("127.0.0.1", 3000))):
            async with receiver(port, tmp_path, api, epochs) as wildduck:
                found = points_of(await wildduck.collect(Tick(NOW + number * 30 * SECOND)), RECIPIENTS)
            assert {point.start_time_unix_nano for point in found} == {NOW + number * 30 * SECOND}


PAGES_OF_ONE = [
    # (accepted, rejected, process start, what happened since the page before as far as it can be known)
    (100, 10, 1000, 0),
    (130, 12, 1000, 32),
    (130, 12, 1000, 0),
    (200, 30, 90_000, 230),
    (201, None, 190_000, 201),
    (201, 4, 190_000, 4),
]


async def test_one_process_that_restarts_is_counted_in_full(tmp_path: Path) -> None:
    page, happened = b"", 0
    increase = Increase(RECIPIENTS)

    async def answer(_: object, writer: Any) -> None:
        writer.write(sized(page))

    async with server(answer) as port, receiver(port, tmp_path) as wildduck:
        for number, (accepted, rejected, start, new) in enumerate(PAGES_OF_ONE):
            page = counted(METRICS, accepted, rejected, 1_795_000_000 + start)
            increase.add(await wildduck.collect(Tick(NOW + number * 30 * SECOND)))
            happened += new
            assert increase.total == happened


PAGES_OF_A_CLUSTER = [
    (100, 10, 0),
    (130, 12, 32),
    # A worker that had counted most of it has ended: what is left counted before.
    (40, 12, 32),
    (45, 13, 38),
    # The other one too, and it alone had counted the rejected.
    (5, None, 38),
    (9, 2, 44),
]


async def test_of_a_cluster_whose_workers_end_nothing_is_counted_twice(tmp_path: Path) -> None:
    page = b""
    increase = Increase(RECIPIENTS)

    async def answer(_: object, writer: Any) -> None:
        writer.write(sized(page))

    async with server(answer) as port, receiver(port, tmp_path) as wildduck:
        for number, (accepted, rejected, happened) in enumerate(PAGES_OF_A_CLUSTER):
            page = counted(TWO_WORKERS, accepted, rejected)
            increase.add(await wildduck.collect(Tick(NOW + number * 30 * SECOND)))
            assert increase.total == happened


@pytest.mark.parametrize(
    ("answer", "error_type"),
    [
        pytest.param(sized(b"no", b"HTTP/1.1 500 Oh\r\n"), "500", id="500"),
        pytest.param(sized(b"", b"HTTP/1.1 302 Found\r\nLocation: /\r\n"), "302", id="redirect"),
        pytest.param(sized(b"error: metrics collection failed\n", b"HTTP/1.1 500 Oh\r\n"), "500", id="its own 500"),
        pytest.param(sized(USERS), "malformed", id="JSON"),
        pytest.param(sized(b"<html>"), "html", id="html"),
        pytest.param(sized(b"up 1\n"), "unexpected_page", id="another server's metrics"),
        pytest.param(sized(METRICS[:20_000], length=len(METRICS)), "incomplete", id="cut"),
        pytest.param(
            OK + b"\r\n" + METRICS[: METRICS.index(b"# HELP wildduck_bullmq")], "unexpected_page", id="cut early"
        ),
        pytest.param(sized(METRICS * 30), "too_large", id="too large"),
    ],
)
async def test_misbehaviour_is_an_error_of_its_kind(answer: bytes | Answer, error_type: str, tmp_path: Path) -> None:
    async with server(answer) as port, receiver(port, tmp_path) as wildduck:
        with pytest.raises(ScrapeError) as caught:
            await wildduck.collect(Tick(NOW))
    assert caught.value.error_type == error_type
