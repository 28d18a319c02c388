"""Events by the API of a running `postel serve`: found, paged, exported, and joined to a message's life."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
from psycopg.types.json import Jsonb

from support.page import Rows, serving
from support.postgres import fresh_database
from support.running_postel import until

NOW = float(int(time.time()))


@pytest.fixture
def api(page: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{page}/api/v1", timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def mail(server: str, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The API over three attempts and three messages of two hosts; for tests that only read."""
    with fresh_database(server, template) as url:
        with psycopg.connect(url, autocommit=True) as connection:
            _insert_mail(Rows(connection))
        with (
            serving(tmp_path_factory.mktemp("serve"), url) as address,
            httpx.Client(base_url=f"{address}/api/v1", timeout=20, trust_env=False) as client,
        ):
            yield client


def _insert_mail(rows: Rows) -> None:
    rows.node("mx1", "mx1.example.org", seen=NOW)
    rows.node("out1", "out1.example.org", seen=NOW)
    attempt = {"email.from.address": "a@here.test"}
    rows.event(
        "delivery_events", NOW - 50, 1, "zonemta.delivery.deferred", node="out1", status="deferred", queue_id="18c.001",
        message_id="<one@here.test>", smtp_code=451, response="451 4.7.1 Greylisted, 100% sure", to_domain="there.test",
        attributes={**attempt, "email.to.address": ["x@there.test"], "zonemta.message.seq": "001"},
    )  # fmt: skip
    rows.event(
        "delivery_events", NOW - 20, 2, "zonemta.delivery.accepted", node="out1", status="delivered",
        queue_id="18c.001", message_id="<one@here.test>", smtp_code=250, response="250 2.0.0 Ok",
        to_domain="there.test",
        attributes={**attempt, "email.to.address": ["x@there.test"], "zonemta.message.seq": "001"},
    )  # fmt: skip
    rows.event(
        "delivery_events", NOW - 40, 3, "zonemta.delivery.rejected", node="out1", status="rejected", queue_id="18d.001",
        message_id="<two@here.test>", smtp_code=550, response="550 5.1.1 No such user", to_domain="gone.test",
        attributes={"email.from.address": "b@here.test", "email.to.address": ["y@gone.test"]},
    )  # fmt: skip
    rows.event(
        "email_events", NOW - 60, 4, "haraka.message.accepted", outcome="accepted", storage_status="queued",
        queue_id="4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2", message_id="<one@here.test>", direction="outbound",
        from_user="a", from_domain="here.test", to_domains=["there.test", "other.test"], spam_score=1.5,
        symbols=Jsonb({"BAYES_HAM": -3}),
        attributes={
            "email.to.address": ["x@there.test", "z@other.test"],
            "haraka.recipient.refused.address": ["q@no.test"],
        },
    )  # fmt: skip
    rows.event(
        "email_events", NOW - 55, 5, "zonemta.message.queued", node="out1", outcome="queued", queue_id="18c.001",
        message_id="<one@here.test>", direction="outbound", from_user="a", from_domain="here.test",
        attributes={"email.to.address": ["x@there.test", "z@other.test"]},
    )  # fmt: skip
    rows.event(
        "email_events", NOW - 35, 6, "zonemta.message.queued", node="out1", outcome="queued", queue_id="18e.001",
        direction="outbound",
        attributes={"email.to.address": ["b@here.test"], "zonemta.bounce.message.id": "18d.001"},
    )  # fmt: skip
    # Haraka gives up a delivery that it has read from its queue, so that it no longer knows the Message-ID.
    given_up, bounce = "5C1B9A2A-2C9C-4F3E-8D0E-222222222222.1", "6D1B9A2A-2C9C-4F3E-8D0E-333333333333"
    rows.event(
        "email_events", NOW - 130, 12, "haraka.message.accepted", outcome="accepted", storage_status="queued",
        queue_id=given_up, message_id="<three@here.test>",
        attributes={"email.from.address": "c@here.test", "email.to.address": ["w@gone.test"]},
    )  # fmt: skip
    rows.event(
        "delivery_events", NOW - 120, 13, "haraka.delivery.rejected", status="rejected", queue_id=given_up,
        response="550 5.1.1 No such user", attributes={"email.to.address": ["w@gone.test"]},
    )  # fmt: skip
    rows.event(
        "email_events", NOW - 119, 14, "haraka.bounce.queued", outcome="queued", direction="outbound", queue_id=bounce,
        message_id="<fail@mx.test>",
        attributes={"email.to.address": ["c@here.test"], "haraka.bounce.message_id": "<three@here.test>"},
    )  # fmt: skip
    rows.event(
        "delivery_events", NOW - 118, 15, "haraka.delivery.accepted", status="delivered", queue_id=bounce,
        message_id="<fail@mx.test>", attributes={"email.to.address": ["c@here.test"]},
    )  # fmt: skip
    # Who wrote it was to have it too; the bounce about that comes in the same way.
    given_up, bounce = "7E1B9A2A-2C9C-4F3E-8D0E-444444444444.1", "8F1B9A2A-2C9C-4F3E-8D0E-555555555555"
    for ago, number, queue_id, status in (90_240, 16, given_up, "rejected"), (90_238, 18, bounce, "delivered"):
        rows.event(
            "delivery_events", NOW - ago, number, f"haraka.delivery.{status}", status=status, queue_id=queue_id,
            message_id="<four@here.test>" if queue_id == given_up else "<fail.four@mx.test>",
            attributes={"email.from.address": "d@here.test", "email.to.address": ["d@here.test"]},
        )  # fmt: skip
    rows.event(
        "email_events", NOW - 90_239, 17, "haraka.bounce.queued", outcome="queued", direction="outbound",
        queue_id=bounce, message_id="<fail.four@mx.test>",
        attributes={"email.to.address": ["d@here.test"], "haraka.bounce.message_id": "<four@here.test>"},
    )  # fmt: skip
    # Tried once, then deleted.
    rows.event(
        "delivery_events", NOW - 90_000, 10, "zonemta.delivery.deferred", node="out1", status="deferred",
        queue_id="18f", attributes={"email.to.address": ["x@there.test"], "zonemta.message.seq": "002"},
    )  # fmt: skip
    rows.event(
        "email_events", NOW - 89_000, 11, "zonemta.message.deleted", node="out1", outcome="deleted", queue_id="18f",
        attributes={"zonemta.message.seq": "002"},
    )  # fmt: skip


def found(api: httpx.Client, table: str, **parameters: Any) -> list[int]:
    """The numbers of the events of one page, in its order."""
    answer = api.get("/events", params={"table": table, **parameters})
    assert answer.status_code == 200, answer.text
    return [UUID(event["id"]).int for event in answer.json()["events"]]


def test_an_event_comes_as_it_was_stored(mail: httpx.Client) -> None:
    (event,) = mail.get("/events", params={"table": "delivery_events", "filter": "smtp_code=550"}).json()["events"]
    assert datetime.fromisoformat(event.pop("time")).timestamp() == NOW - 40
    assert event == {
        "table": "delivery_events",
        "id": str(UUID(int=3)),
        "node": "out1",
        "instance": "out1",
        "name": "zonemta.delivery.rejected",
        "values": {
            "status": "rejected",
            "message_id": "<two@here.test>",
            "queue_id": "18d.001",
            "smtp_code": 550,
            "response": "550 5.1.1 No such user",
            "to_domain": "gone.test",
        },
        "attributes": {"email.from.address": "b@here.test", "email.to.address": ["y@gone.test"]},
    }


@pytest.mark.parametrize(
    ("table", "parameters", "numbers"),
    [
        ("delivery_events", {}, [2, 3, 1, 15, 13]),
        ("delivery_events", {"filter": ["status=deferred", "status=rejected"]}, [3, 1, 13]),
        ("delivery_events", {"filter": ["status=deferred", "to_domain=gone.test"]}, []),
        ("delivery_events", {"filter": "smtp_code>=500"}, [3]),
        ("delivery_events", {"filter": ["smtp_code<=451", "status!=delivered"]}, [1]),
        ("delivery_events", {"filter": "response~greylisted, 100%"}, [1]),
        ("delivery_events", {"filter": "response~1_0%"}, []),
        ("delivery_events", {"filter": "node_id=mx1"}, [15, 13]),
        ("delivery_events", {"filter": f"event_id={UUID(int=2)}"}, [2]),
        ("delivery_events", {"filter": "mx!=x"}, [2, 3, 1, 15, 13]),
        ("delivery_events", {"address": "x@there.test"}, [2, 1]),
        ("delivery_events", {"address": "b@here.test"}, [3]),
        ("email_events", {"address": "a@here.test"}, [5, 4]),
        ("email_events", {"address": "z@other.test"}, [5, 4]),
        ("email_events", {"filter": "to_domains=other.test"}, [4]),
        ("email_events", {"filter": "symbols=BAYES_HAM"}, [4]),
        ("email_events", {"filter": "spam_score>=1.5"}, [4]),
        ("email_events", {"from": NOW - 55, "to": NOW - 35}, [5]),
    ],
)
def test_events_are_found_by_columns_address_and_time(
    mail: httpx.Client, table: str, parameters: dict[str, Any], numbers: list[int]
) -> None:
    assert found(mail, table, **parameters) == numbers


def test_pages_neither_repeat_nor_leave_out_an_event_while_others_come_in(api: httpx.Client, rows: Rows) -> None:
    # Many of one moment: the id decides.
    for number in range(20):
        rows.event("delivery_events", NOW - 10 - number // 7, number, "zonemta.delivery.accepted", status="delivered")
    read: list[int] = []
    parameters: dict[str, Any] = {"table": "delivery_events", "limit": 6}
    while True:
        page = api.get("/events", params=parameters).json()
        read += [UUID(event["id"]).int for event in page["events"]]
        rows.event("delivery_events", NOW, 1000 + len(read), "zonemta.delivery.accepted", status="delivered")
        if page["next"] is None:
            break
        parameters["before"] = page["next"]
    assert sorted(read) == list(range(20))
    assert len(read) == len(set(read))


def test_an_export_holds_every_event_of_the_search(api: httpx.Client, rows: Rows) -> None:
    for number in range(2500):
        rows.event("delivery_events", NOW - 10, number, "zonemta.delivery.accepted", status="delivered", mx='a,"b"\n')
    asked = {"table": "delivery_events", "filter": "status=delivered"}
    lines = api.get("/events/export", params=asked).text.splitlines()
    assert {UUID(orjson.loads(line)["id"]).int for line in lines} == set(range(2500))
    answer = api.get("/events/export", params={**asked, "format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert {UUID(row["event_id"]).int for row in read} == set(range(2500))
    assert {row["mx"] for row in read} == {'a,"b"\n'}


def test_a_cell_is_no_formula(api: httpx.Client, rows: Rows) -> None:
    rows.event("delivery_events", NOW - 1, 1, "zonemta.delivery.accepted", response="=1+1", duration=-0.5)
    text = api.get("/events/export", params={"table": "delivery_events", "format": "csv"}).text
    (row,) = csv.DictReader(io.StringIO(text))
    assert (row["response"], row["duration"]) == ("'=1+1", "-0.5")


@pytest.mark.parametrize(
    "id_",
    [
        "<one@here.test>",
        "one@here.test",
        "18c.001",
        "4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2",
        "4b0b9a2a-2c9c-4f3e-8d0e-111111111111",
        str(UUID(int=2)),
        # As the servers' answers and logs have them.
        "4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2.1",
        "250 Message Queued (4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2)",
        "ACCEPTED from=a@here.test message-id=<one@here.test> (250 2.0.0 Ok)",
    ],
)
def test_a_message_is_followed_from_server_to_server_by_any_of_its_ids(mail: httpx.Client, id_: str) -> None:
    told = mail.get(f"/trace/{id_}").json()
    assert [(UUID(event["id"]).int, event["node"]) for event in told["events"]] == [
        (4, "mx1"), (5, "out1"), (1, "out1"), (2, "out1"),
    ]  # fmt: skip
    assert told["hosts"] == {"mx1": "mx1.example.org", "out1": "out1.example.org"}
    assert {fate["recipient"]: fate["state"] for fate in told["fates"]} == {
        "x@there.test": "delivered",
        "z@other.test": "queued",
        "q@no.test": "rejected",
    }
    assert {"18c.001", "<one@here.test>", "4B0B9A2A-2C9C-4F3E-8D0E-111111111111.2"} <= set(told["ids"])
    assert not told["cut"]


@pytest.mark.parametrize(
    ("id_", "numbers"),
    [
        ("18e.001", [3, 6]),
        ("18d.001", [3, 6]),
        ("<two@here.test>", [3, 6]),
        ("<three@here.test>", [12, 13, 14, 15]),
        ("5C1B9A2A-2C9C-4F3E-8D0E-222222222222.1", [12, 13, 14, 15]),
        ("fail@mx.test", [12, 13, 14, 15]),
        ("6D1B9A2A-2C9C-4F3E-8D0E-333333333333", [12, 13, 14, 15]),
        # As Haraka's log names the delivery of a bounce.
        ("6D1B9A2A-2C9C-4F3E-8D0E-333333333333.1", [12, 13, 14, 15]),
    ],
)
def test_a_bounce_and_the_message_that_it_is_about_lead_to_each_other(
    mail: httpx.Client, id_: str, numbers: list[int]
) -> None:
    told = mail.get(f"/trace/{id_}").json()
    assert [UUID(event["id"]).int for event in told["events"]] == numbers


def test_a_bounce_to_the_recipient_itself_leaves_what_became_of_the_message(mail: httpx.Client) -> None:
    told = mail.get("/trace/<four@here.test>").json()
    assert [UUID(event["id"]).int for event in told["events"]] == [16, 17, 18]
    fates = [(fate["recipient"], fate["state"], fate["bounce"]) for fate in told["fates"]]
    assert fates == [("d@here.test", "rejected", False), ("d@here.test", "delivered", True)]


def test_what_was_deleted_after_an_attempt_has_that_fate(mail: httpx.Client) -> None:
    (fate,) = mail.get("/trace/18f").json()["fates"]
    assert (fate["recipient"], fate["state"], UUID(fate["event"]).int) == ("x@there.test", "deleted", 11)


def test_an_id_that_nothing_has_gives_nothing_and_one_that_much_has_is_cut(api: httpx.Client, rows: Rows) -> None:
    for number in range(501):
        rows.event("email_events", NOW - number, number, "zonemta.message.queued", message_id="<bulk@here.test>")
    assert api.get("/trace/nothing").json() == {
        "ids": ["nothing"],
        "events": [],
        "hosts": {},
        "fates": [],
        "cut": False,
    }
    told = api.get("/trace/bulk@here.test").json()
    assert (len(told["events"]), told["cut"]) == (500, True)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"table": "metrics_system"}, "no table of events; there are delivery_events, email_events"),
        ({"table": "email_events", "filter": "colour=red"}, "no column 'colour'"),
        ({"table": "email_events", "filter": "outcome"}, "is not a column"),
        ({"table": "email_events", "filter": "size_bytes=much"}, "is bigint, which 'much' is not"),
        ({"table": "email_events", "filter": "size_bytes=99999999999999999999"}, "bigint"),
        ({"table": "email_events", "filter": "outcome>=a"}, "is not compared by >="),
        ({"table": "email_events", "filter": "symbols~a"}, "is not compared by ~"),
        ({"table": "email_events", "filter": "outcome=a\0b"}, "cannot be"),
        ({"table": "email_events", "before": "x"}, "is not the `next` of a page"),
        ({"table": "email_events", "before": f"{10**30}-{UUID(int=1).hex}"}, "is not the `next` of a page"),
        ({"table": "email_events", "from": 10, "to": 10}, "must be before"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(
    mail: httpx.Client, parameters: dict[str, Any], reason: str
) -> None:
    for path in ("/events", "/events/export"):
        if path == "/events/export" and "before" in parameters:
            continue
        answer = mail.get(path, params=parameters)
        assert answer.status_code == 400
        assert reason in answer.json()["detail"]


def test_a_search_by_id_reads_an_index(database: str, api: httpx.Client) -> None:
    """Of what is traced; 20,000 rows would be read else."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO delivery_events"
            " (time, event_id, node_id, instance, event_name, queue_id, message_id, attributes)"
            " SELECT now() - n * interval '1 s', gen_random_uuid(), 'x', 'x', 'zonemta.delivery.accepted', 'q' || n,"
            " '<' || n || '@x.test>', '{}' FROM generate_series(1, 20000) AS n"
        )
        connection.execute("ANALYZE delivery_events")
        connection.execute("SELECT pg_stat_reset()")
        told = api.get("/trace/17@x.test").json()
        assert len(told["events"]) == 1

        def read() -> tuple[int, int]:
            (row,) = connection.execute(
                "SELECT coalesce(sum(seq_tup_read), 0), coalesce(sum(idx_scan), 0) FROM pg_stat_user_tables"
                " WHERE relname LIKE 'delivery_events%'"
            ).fetchall()
            return row

        # The server tells its statistics a while later.
        until(lambda: read()[1] > 0, 10, "an index is used")
        assert read()[0] < 1000
