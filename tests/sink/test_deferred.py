"""The deferred queue as its events tell it: who still waits, for where, and since when."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from contract.wires import Answer, http_wire

from postel.otlp import codec
from postel.signals import load_all
from support.sink import ingesting

NOW = datetime.now(UTC).replace(microsecond=0)
RESOURCE = {"host.id": "n1", "service.name": "zone-mta", "service.instance.id": "n1:12080"}
SQL = files("timescale_sink.store").joinpath("sql", "views", "0006_deferred.sql").read_text("utf-8")
Event = dict[str, Any]


def attributes(values: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", int: "intValue"}
    lists = {k: {"arrayValue": {"values": [{"stringValue": v}]}} for k, v in values.items() if k == "email.to.address"}
    plain = {k: {kinds[type(v)]: v} for k, v in values.items() if k not in lists}
    return [{"key": key, "value": value} for key, value in {**plain, **lists}.items()]


def event(name: str, minutes: float, message: str, seq: str | None = "001", **more: Any) -> Event:
    """An event of so many minutes ago."""
    at = NOW - timedelta(minutes=minutes)
    said = {"log.record.uid": str(uuid.uuid4()), "zonemta.message.id": message, **more}
    if seq:
        said["zonemta.message.seq"] = seq
    return {
        "timeUnixNano": str(int(at.timestamp()) * 10**9),
        "eventName": name,
        "attributes": attributes({key.replace("__", "."): value for key, value in said.items()}),
    }


def deferred(minutes: float, message: str, seq: str = "001", to: str = "a@slow.test", **more: Any) -> Event:
    return event(
        "zonemta.delivery.deferred",
        minutes,
        message,
        seq,
        email__to__address=to,
        server__address=more.pop("mx", "mx.slow.test"),
        zonemta__category=more.pop("category", "greylist"),
        smtp__response__text=more.pop("response", "451 later"),
        **more,
    )


@pytest.fixture
def url(migrated_on_any_server: str) -> str:
    return migrated_on_any_server


async def stored(url: str, *events: Event) -> None:
    body = {
        "resourceLogs": [
            {"resource": {"attributes": attributes(RESOURCE)}, "scopeLogs": [{"logRecords": list(events)}]}
        ]
    }
    await taken(url, body["resourceLogs"])


async def taken(url: str, logs: list[dict[str, Any]]) -> None:
    async with ingesting(url) as ingest, http_wire(ingest, codec.JSON) as wire:
        assert await wire({"logs": logs}) == Answer(200)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def waiting(url: str) -> list[tuple[str, str]]:
    return rows(url, "SELECT queue_id, recipient FROM deferred_recipient ORDER BY queue_id, recipient")


async def test_destinations_are_told_with_their_counts_and_since_when(url: str) -> None:
    await stored(
        url,
        deferred(50, "m1"),
        deferred(20, "m1", response="451 still later"),
        deferred(40, "m1", "002", to="b@slow.test"),
        deferred(30, "m2"),
        deferred(10, "m3", to="c@full.test", mx="mx.full.test", category="capacity", response="452 full"),
    )
    found = rows(url, "SELECT * FROM deferred_destination ORDER BY recipients DESC")

    def ago(minutes: float) -> datetime:
        return NOW - timedelta(minutes=minutes)

    assert found == [
        ("slow.test", "mx.slow.test", "greylist", 3, 2, ago(50), ago(20), "451 still later"),
        ("full.test", "mx.full.test", "capacity", 1, 1, ago(10), ago(10), "452 full"),
    ]


@pytest.mark.parametrize("name", ["accepted", "rejected"])
async def test_what_had_its_final_fate_waits_no_more(url: str, name: str) -> None:
    await stored(
        url,
        deferred(50, "m1"),
        deferred(40, "m1", "002"),
        deferred(30, "m1"),
        event(f"zonemta.delivery.{name}", 20, "m1", "001", email__to__address="a@slow.test"),
    )
    assert waiting(url) == [("m1", "002")]


async def test_deferred_by_another_instance_and_accepted_here_it_waits_no_more(url: str) -> None:
    await stored(url, deferred(50, "m1"))
    other = {**RESOURCE, "host.id": "n2", "service.instance.id": "n2:12080"}
    accepted = event("zonemta.delivery.accepted", 20, "m1")
    await taken(url, [{"resource": {"attributes": attributes(other)}, "scopeLogs": [{"logRecords": [accepted]}]}])
    assert waiting(url) == []


@pytest.mark.parametrize("name", ["deleted", "dropped"])
async def test_what_was_taken_out_of_the_queue_waits_no_more(url: str, name: str) -> None:
    await stored(
        url,
        deferred(50, "one"),
        deferred(50, "one", "002"),
        event(f"zonemta.message.{name}", 40, "one", "002"),
        deferred(50, "whole"),
        deferred(50, "whole", "002"),
        event(f"zonemta.message.{name}", 40, "whole", None),
        # Not of what came after it: Zone-MTA said so of an earlier message, or of another instance's.
        event(f"zonemta.message.{name}", 60, "later"),
        deferred(50, "later"),
    )
    assert waiting(url) == [("later", "001"), ("one", "001")]


async def test_an_event_that_is_late_changes_nothing(url: str) -> None:
    await stored(url, event("zonemta.delivery.accepted", 10, "m1"))
    await stored(url, deferred(30, "m1"))
    assert waiting(url) == []


async def test_what_was_silent_for_three_days_is_gone(url: str) -> None:
    day = 24 * 60
    await stored(url, deferred(3 * day + 5, "old"), deferred(3 * day + 5, "both"), deferred(2 * day, "both"))
    assert waiting(url) == [("both", "001")]
    assert rows(url, "SELECT since = time FROM deferred_recipient") == [(True,)]


async def test_without_zone_mtas_number_a_recipient_is_told_by_its_address(url: str) -> None:
    def bare(minutes: float, name: str, to: str) -> Event:
        return event(f"zonemta.delivery.{name}", minutes, "m1", None, email__to__address=to)

    await stored(
        url,
        bare(30, "deferred", "a@slow.test"),
        bare(30, "deferred", "b@slow.test"),
        bare(20, "accepted", "b@slow.test"),
    )
    assert [recipient for _, recipient in waiting(url)] == ['["a@slow.test"]']


def test_its_names_are_declared() -> None:
    declarations = load_all()
    known = {name for source in declarations for name in source.attributes}
    named = set(re.findall(r"->> '([^']+)'", SQL))
    assert named == {"zonemta.message.seq", "zonemta.next_attempt.time", "email.to.address"}
    assert named <= known
    outcomes = {event.row.values.get("outcome") for event in declarations.events.values() if event.row}
    assert {"deleted", "dropped"} <= outcomes
    statuses = {event.row.values.get("status") for event in declarations.events.values() if event.row}
    assert "deferred" in statuses


def test_it_costs_what_three_days_hold(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, status, queue_id, to_domain,"
            " mx, category, attributes)"
            " SELECT now() - make_interval(hours => i % 60, secs => i % 3600), gen_random_uuid(), 'n1', 'n1:12080',"
            " 'x', CASE WHEN i % 3 = 0 THEN 'deferred' ELSE 'delivered' END, 'm' || (i / 3), 'd' || (i % 7), 'mx', 'c',"
            " jsonb_build_object('zonemta.message.seq', '001') FROM generate_series(1, 60000) AS i"
        )
        connection.execute("ANALYZE delivery_events")
        connection.execute("SET statement_timeout = '20s'")
        row = connection.execute("SELECT sum(recipients), count(*) FROM deferred_destination").fetchone()
        expected = connection.execute(
            "SELECT count(*) FROM (SELECT DISTINCT ON (queue_id) status FROM delivery_events"
            " ORDER BY queue_id, time DESC, event_id DESC) AS last WHERE status = 'deferred'"
        ).fetchone()
    assert row
    assert expected
    assert (row[0], row[1]) == (expected[0], 7)
