"""What a listener gets that comes back, while another one takes slowly what it missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID

import orjson
import psycopg
import pytest

from postel.signals import load_all
from timescale_sink.api.access import Access
from timescale_sink.api.events import EventReader
from timescale_sink.api.feed import Feed
from timescale_sink.store.database import create_pool

EVENTS = 1300


@pytest.fixture
async def access(database: str) -> AsyncIterator[Access]:
    """By one connection."""
    access = Access()
    async with create_pool(database, 1) as access.pool:
        yield access


def insert(url: str) -> str:
    """Write events, a piece's end amid those of a transaction, as transactions from 95 on; the one behind them."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, attributes, xact)"
            " SELECT now(), id, 'x', 'x', 'm', '{}', (95 + number / 130)::text::xid8"
            " FROM unnest(%s) WITH ORDINALITY AS event (id, number)",
            [[UUID(int=number) for number in range(EVENTS)]],
        )
        connection.commit()
        ((behind,),) = connection.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text").fetchall()
    return str(behind)


def numbers(piece: str) -> list[int]:
    return [UUID(event["id"]).int for event in orjson.loads(f"[{piece}]")]


async def test_who_takes_slowly_what_it_missed_holds_no_other_one_and_no_transaction(
    database: str, access: Access
) -> None:
    until = insert(database)
    reader = EventReader(access, load_all())
    feed, wanted = Feed(access, reader), reader.filter("delivery_events")
    async with aclosing(feed.since(wanted, "0", until)) as slow:
        got = numbers(await anext(slow))
        assert len(got) < EVENTS
        with psycopg.connect(database) as connection:
            open_ = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state ~ '^idle in'"
            assert connection.execute(open_).fetchone() == (0,)
        async with asyncio.timeout(5):
            quick = [number async for piece in feed.since(wanted, "0", until) for number in numbers(piece)]
        got += [number async for piece in slow for number in numbers(piece)]
    assert got == quick == [*range(EVENTS)]
