"""The WebSocket of a running `postel serve`: what is stored comes, to whom it was asked for, and nothing is missed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from psycopg import sql
from websockets.exceptions import ConnectionClosed

from support.listener import Listener, listening
from support.page import Rows, name_of, serving
from support.running_postel import until

NOW = float(int(time.time()))
ATTEMPT = "zonemta.delivery.accepted"


@pytest.fixture
def listener(page: str) -> Iterator[Listener]:
    with listening(page) as one:
        yield one


def test_what_is_stored_comes_as_the_search_tells_it_to_whom_it_was_asked_for(listener: Listener, rows: Rows) -> None:
    rows.event("delivery_events", NOW, 1, ATTEMPT, status="delivered")
    listener.subscribe("all")
    listener.subscribe("deferred", filter=["status=deferred", "smtp_code>=450"])
    listener.subscribe("someone", "email_events", address="x@there.test")
    rows.event("delivery_events", NOW, 2, ATTEMPT, status="delivered")
    rows.event("delivery_events", NOW, 3, "zonemta.delivery.deferred", status="deferred", smtp_code=451)
    rows.event("delivery_events", NOW, 4, "zonemta.delivery.deferred", status="deferred", smtp_code=421)
    for number, address in ((5, "x@there.test"), (6, "y@there.test")):
        rows.event("email_events", NOW, number, "m", attributes={"email.to.address": [address]})
    assert listener.numbers(3, "all") == [2, 3, 4]
    assert listener.numbers(1, "someone") == [5]
    assert listener.numbers(1, "deferred") == [3]
    (event,) = next(told for told in listener.got if told.get("id") == "someone" and "events" in told)["events"]
    assert event["attributes"] == {"email.to.address": ["x@there.test"]}
    assert (event["table"], event["name"], event["node"]) == ("email_events", "m", "mx1")


def test_a_transaction_that_commits_after_a_later_one_is_not_passed_over(
    database: str, listener: Listener, rows: Rows
) -> None:
    listener.subscribe()
    with psycopg.connect(database) as slow:
        Rows(slow).event("delivery_events", NOW, 1, ATTEMPT)
        rows.event("delivery_events", NOW, 2, ATTEMPT)
        # Time for windows to pass over the first, if they did.
        time.sleep(1)
        slow.commit()
    assert sorted(listener.numbers(2)) == [1, 2]


def test_who_comes_back_misses_nothing(page: str, rows: Rows) -> None:
    with listening(page) as first:
        at = first.subscribe(filter=["status=delivered"])
        rows.event("delivery_events", NOW, 1, ATTEMPT, status="delivered")
        first.numbers(1)
    for number in range(2, 1203):
        rows.event("delivery_events", NOW, number, ATTEMPT, status="delivered" if number % 2 else "deferred")
    with listening(page) as second:
        second.subscribe(filter=["status=delivered"], after=at)
        rows.event("delivery_events", NOW, 1203, ATTEMPT, status="delivered")
        assert sorted(second.numbers(602)) == [number for number in range(1, 1204) if number % 2]


def test_many_processes_show_everything_and_one_goes_on_where_another_was(
    database: str, page: str, tmp_path_factory: pytest.TempPathFactory, rows: Rows
) -> None:
    with serving(tmp_path_factory.mktemp("second"), database) as other:
        with listening(page) as one, listening(other) as two:
            at = one.subscribe()
            two.subscribe()
            rows.event("delivery_events", NOW, 1, ATTEMPT)
            assert one.numbers(1) == two.numbers(1) == [1]
        rows.event("delivery_events", NOW, 2, ATTEMPT)
        with listening(other) as again:
            again.subscribe(after=at)
            assert sorted(again.numbers(2)) == [1, 2]


def test_while_the_database_is_away_it_is_said_and_nothing_is_missed(
    server: str, database: str, listener: Listener
) -> None:
    listener.subscribe()
    name = sql.Identifier(name_of(database))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name_of(database)])
        assert listener.next("away")["reason"]
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    with psycopg.connect(database, autocommit=True) as connection:
        Rows(connection).event("delivery_events", NOW, 1, ATTEMPT)
    assert listener.numbers(1, seconds=20) == [1]
    listener.next("back")


def test_new_values_of_columns_come_each_once(listener: Listener, rows: Rows) -> None:
    tick = int(time.time()) // 15 * 15
    rows.system(tick - 30, "mx1", cpu_load=1)
    listener.ask(type="values", id="load", table="metrics_system", column=["cpu_load", "load_1m"], node="mx1")
    first = listener.next("values")
    assert [(value["column"], value["value"]) for value in first["values"]] == [("cpu_load", 1)]
    rows.system(tick - 15, "mx1", cpu_load=2)
    rows.system(tick - 15, "mx2", cpu_load=9)
    assert [value["value"] for value in listener.next("values", 15)["values"]] == [2]


def test_what_cannot_be_asked_is_said_and_the_connection_lives(listener: Listener, rows: Rows) -> None:
    requests: list[Any] = [
        "no JSON",
        {},
        {"type": "events", "id": "a", "table": "metrics_system"},
        {"type": "events", "id": "a", "table": "email_events", "filter": ["x=1"]},
        {"type": "events", "id": "a", "table": "email_events", "after": "yesterday"},
        {"type": "values", "id": "a", "table": "metrics_system", "column": ["colour"]},
        {"type": "events", "id": "a", "table": "email_events", "filter": ["outcome=\0"], "after": "0"},
    ]
    for request in requests:
        listener.socket.send(orjson.dumps(request), text=True)
        assert listener.next("error")["reason"]
    listener.subscribe()
    listener.ask(type="events", id="a", table="email_events")
    assert "subscribed already" in listener.next("error")["reason"]
    rows.event("delivery_events", NOW, 1, ATTEMPT)
    assert listener.numbers(1) == [1]
    listener.ask(type="unsubscribe", id="a")
    listener.subscribe("b", filter=["status=x"])
    rows.event("delivery_events", NOW, 2, ATTEMPT, status="x")
    assert listener.numbers(1, "b") == [2]
    assert listener.numbers(1) == [1]


def test_one_that_does_not_read_is_sent_away_and_harms_nobody(
    page: str, tmp_path: Path, database: str, listener: Listener
) -> None:
    listener.subscribe()
    # Its client takes no more than a message by itself.
    options = {"compression": None, "max_queue": 1}
    with listening(page, **options) as frozen, psycopg.connect(database, autocommit=True) as connection:
        frozen.subscribe()
        insert = (
            "INSERT INTO delivery_events (time, event_id, node_id, instance, event_name, response, attributes)"
            " SELECT now(), gen_random_uuid(), 'x', 'x', %s, string_agg(md5(random()::text), ''), '{}'"
            " FROM generate_series(1, 1000) AS row, generate_series(1, 50) GROUP BY row"
        )

        def write() -> None:
            for _ in range(20):
                connection.execute(insert, [ATTEMPT])
                time.sleep(0.1)

        log = tmp_path / "serve.log"
        with ThreadPoolExecutor() as threads:
            writing, reading = threads.submit(write), threads.submit(listener.numbers, 20_000, seconds=60)
            until(lambda: "a listener was sent away" in log.read_text("utf-8"), 60, "it is sent away")
            # The reason waits to be read as long as a message does.
            with pytest.raises(ConnectionClosed) as closed:
                frozen.numbers(20_000, seconds=60)
            writing.result(60)
            assert len(reading.result(60)) == 20_000
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, "to be read" in closed.value.rcvd.reason) == (1013, True)
