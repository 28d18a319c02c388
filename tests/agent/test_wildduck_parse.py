"""Recorded answers of WildDuck become exactly what they say; a damaged one never becomes a wrong number."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.answers import AnswerError
from otel_receivers.prometheus import PageError
from otel_receivers.wildduck import parse
from otel_receivers.wildduck.parse import Mailboxes, User, UsersPage
from postel.signals import load_all
from support.wildduck_answers import (
    EMPTY_MAILBOXES,
    INVALID_TOKEN,
    MAILBOXES,
    METRICS,
    NO_USER,
    OLD_LAST_USERS,
    OLD_MAILBOXES,
    OLD_USERS,
    TWO_WORKERS,
    USERS,
    USERS_2,
    mailboxes,
    user,
    users_page,
)

DECLARATION = load_all()["wildduck"]
# What WildDuck's page has beside what is declared: how long things took, and what nobody has asked for yet.
NOT_TAKEN = {
    "wildduck_info",
    "wildduck_api_errors_total",
    "wildduck_mcp_requests_total",
    "wildduck_mcp_tool_calls_total",
    "wildduck_journal_entries_total",
    "wildduck_notifications_published_total",
    "wildduck_imap_notification_users",
    "wildduck_imap_notification_listeners",
    "wildduck_events_published_total",
    "wildduck_tasks_processed_total",
    "wildduck_bullmq_jobs_processed_total",
    "wildduck_search_indexer_lock_owner",
    "wildduck_search_indexer_changes_total",
}


def encoded(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode() + b"\n"


def figures(body: bytes) -> dict[tuple[str, str], int | float]:
    return {
        (point.metric.name, " ".join(str(value) for value in point.attributes.values())): point.value
        for point in parse.own_page(body, DECLARATION).points
    }


def test_a_page_of_users() -> None:
    assert parse.users_page(USERS) == UsersPage(
        12,
        "WyJ7XCIkb2lkXCI6XCI2YjA1YjAxNzVhOTE5ZmEyYzI4ZmUwOGVcIn0iLDJd",
        (
            User("6b05b0175a919fa2c28fe07c", "user00", 1000000, 10146),
            User("6b05b0175a919fa2c28fe085", "user01", 2000000, 121),
            User("6b05b0175a919fa2c28fe08e", "user02", 3000000, 121),
        ),
    )
    second = parse.users_page(USERS_2)
    assert [each.name for each in second.users] == ["user05", "user06", "user07", "user08", "user09"]
    assert second.next


def test_the_last_page_and_those_of_a_server_without_prometheus() -> None:
    assert parse.users_page(OLD_USERS).next
    last = parse.users_page(OLD_LAST_USERS)
    assert (last.total, last.next, len(last.users)) == (4, "", 4)
    # One holds more than its quota; one has the server's own.
    assert [(each.allowed, each.used) for each in last.users][1:3] == [(2000, 1217), (4000, 3038)]
    assert last.users[0].allowed == 1 << 30


def test_mailboxes() -> None:
    assert parse.mailboxes(EMPTY_MAILBOXES) == Mailboxes(5, 0, 0, 0)
    for body in (MAILBOXES, OLD_MAILBOXES):
        found = parse.mailboxes(body)
        assert (found.mailboxes, found.messages, found.unseen) == (5, 4, 3)
        assert found.size == sum(each.get("size", 0) for each in json.loads(body)["results"]) > 2450


def test_the_codes_of_refusals() -> None:
    assert parse.error_code(INVALID_TOKEN) == "InvalidToken"
    assert parse.error_code(NO_USER) == "UserNotFound"
    for other in (b"", b"<html>", b"[]", b"1", b'{"code": 5}', b'{"code": "a b"}', b'{"code": "' + b"x" * 999 + b'"}'):
        assert parse.error_code(other) == ""


def without(key: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.pop(key)


def changed(**values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.update(values)


@pytest.mark.parametrize(
    ("change", "error_type"),
    [
        (without("success"), "unexpected_page"),
        (changed(success=False, error="x", code="InputValidationError"), "unexpected_page"),
        (without("results"), "unexpected_page"),
        (changed(results={}), "unexpected_page"),
        (without("total"), "malformed"),
        (changed(total=-1), "malformed"),
        (changed(total=True), "malformed"),
        (changed(total="2"), "malformed"),
        # Without a cursor a page would pass for the last.
        (without("nextCursor"), "malformed"),
        (changed(nextCursor=None), "malformed"),
        (changed(nextCursor=True), "malformed"),
        (changed(nextCursor=""), "malformed"),
        (changed(nextCursor="x" * 5000), "malformed"),
        (changed(results=[1]), "malformed"),
        (changed(results=[{}]), "malformed"),
        (changed(results=[user(1) | {"id": "1"}]), "malformed"),
        (changed(results=[user(1) | {"id": "A" * 24}]), "malformed"),
        (changed(results=[user(1) | {"id": 5}]), "malformed"),
    ],
)
def test_a_page_of_users_that_is_none_is_refused(change: Callable[[dict[str, Any]], None], error_type: str) -> None:
    content = users_page([user(1), user(2)], total=2)
    change(content)
    with pytest.raises(AnswerError) as caught:
        parse.users_page(encoded(content))
    assert caught.value.error_type == error_type
    assert "x" * 50 not in str(caught.value)


@pytest.mark.parametrize(
    "quota",
    [
        None,
        {},
        {"allowed": 5},
        {"used": 5},
        {"allowed": "5", "used": 1},
        {"allowed": 5, "used": None},
        {"allowed": -5, "used": 1},
        {"allowed": True, "used": 1},
        {"allowed": 5, "used": 1e300},
        {"allowed": 2**70, "used": 1},
        [5, 1],
    ],
)
def test_a_quota_that_is_none_is_unknown_and_not_zero(quota: Any) -> None:
    page = parse.users_page(encoded(users_page([user(1) | {"quota": quota}], total=1)))
    assert page.users == (User("0" * 23 + "1", "user1", None, None),)
    missing = {key: value for key, value in user(1).items() if key not in ("quota", "username")}
    assert parse.users_page(encoded(users_page([missing], total=1))).users[0] == User("0" * 23 + "1", "", None, None)


def test_amounts_as_javascript_may_write_them() -> None:
    page = users_page([user(1) | {"quota": {"allowed": 1e9, "used": 2.9}}], total=1)
    assert parse.users_page(encoded(page)).users[0] == User("0" * 23 + "1", "user1", 1_000_000_000, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda inbox: inbox.pop("total"),
        lambda inbox: inbox.pop("unseen"),
        lambda inbox: inbox.pop("size"),
        lambda inbox: inbox.update(total=None),
        lambda inbox: inbox.update(unseen=-1),
        lambda inbox: inbox.update(size="5"),
    ],
)
def test_a_mailbox_whose_figures_wildduck_could_not_find_out_is_refused(change: Callable[[Any], None]) -> None:
    content = mailboxes(3, 1, 500)
    assert parse.mailboxes(encoded(content)) == Mailboxes(2, 3, 1, 500)
    change(content["results"][0])
    with pytest.raises(AnswerError):
        parse.mailboxes(encoded(content))
    with pytest.raises(AnswerError):
        parse.mailboxes(encoded({"success": True, "results": [7]}))


@pytest.mark.parametrize("read", [parse.users_page, parse.mailboxes])
@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html></html>", "html"),
        (b"[]", "unexpected_page"),
        (b"null", "unexpected_page"),
        (b'"text"', "unexpected_page"),
        (b"{", "malformed"),
        (b"pong", "malformed"),
        (METRICS, "malformed"),
        (USERS[:900], "malformed"),
        (USERS.decode().encode("utf-16"), "malformed"),
        (b'{"success": true, "results": [NaN]}', "malformed"),
    ],
)
def test_what_is_no_answer_is_refused(read: Callable[[bytes], object], body: bytes, error_type: str) -> None:
    with pytest.raises(AnswerError) as caught:
        read(body)
    assert caught.value.error_type == error_type


@pytest.mark.parametrize(("read", "body"), [(parse.users_page, USERS_2), (parse.mailboxes, MAILBOXES)])
def test_cut_at_any_byte_it_is_refused(read: Callable[[bytes], object], body: bytes) -> None:
    whole = body.rstrip()
    for length in range(len(whole)):
        with pytest.raises(AnswerError):
            read(whole[:length])
    read(whole)


@given(st.integers(0, len(USERS) - 1), st.integers(0, 255))
def test_with_any_byte_changed_a_page_gives_users_in_form_or_nothing(place: int, byte: int) -> None:
    page = bytearray(USERS)
    page[place] = byte
    try:
        found = parse.users_page(bytes(page))
    except AnswerError:
        return
    assert len(found.users) == 3
    for each in found.users:
        assert re.fullmatch("[0-9a-f]{24}", each.id)
        assert (each.used is None) == (each.allowed is None)
        assert (each.used or 0) >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["success", "results", "total", "nextCursor", "id", "quota"]), inner)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_json_is_refused_or_read_without_a_crash(content: Any) -> None:
    for read in (parse.users_page, parse.mailboxes):
        for body in (content, {"success": True, "total": 1, "nextCursor": False, "results": content}):
            try:
                read(json.dumps(body).encode())
            except AnswerError as error:
                assert error.error_type in {"unexpected_page", "malformed"}  # noqa: PT017 - both ways are right


def test_its_own_page() -> None:
    found = figures(METRICS)
    assert found["wildduck.service.up", "imap"] == 1
    assert found["wildduck.service.up", "mcp"] == 0
    assert found["wildduck.api.requests", "GET /users 200"] == 7
    assert found["wildduck.api.requests", "GET /users 400"] == 3
    assert found["wildduck.auth.attempts", "api master fail"] == 1
    assert found["wildduck.connection.count", "lmtp"] == 0
    assert found["wildduck.accepted.connections", "lmtp no"] == 2
    assert found["wildduck.imap.commands", "login bad"] == 1
    assert found["wildduck.lmtp.recipients", "accepted"] == 3
    assert found["wildduck.lmtp.recipients", "rejected"] == 1
    assert found["wildduck.lmtp.messages", "success"] == 2
    assert found["wildduck.message.operations", "add lmtp success"] == 3
    assert found["wildduck.task.count", "run-migrations waiting"] == 1
    assert found["wildduck.job.count", "webhooks waiting-children"] == 0
    assert found["wildduck.webhook.posts", "user.created success 2xx"] == 12
    assert len(found) == sum(
        METRICS.count(b"\n" + metric.source["prometheus"].encode() + b"{")
        for metric in DECLARATION.metrics.values()
        if "prometheus" in metric.source
    )
    page = parse.own_page(METRICS, DECLARATION)
    assert (page.process_start_unix_nano, page.problems) == (1795534837 * 10**9, ())
    statuses = {
        p.attributes["http.response.status_code"] for p in page.points if p.metric.name == "wildduck.api.requests"
    }
    assert statuses == {200, 400, 403}


def test_the_page_of_two_workers_tells_of_no_start() -> None:
    page = parse.own_page(TWO_WORKERS, DECLARATION)
    assert (page.process_start_unix_nano, page.problems) == (None, ())
    assert figures(TWO_WORKERS)["wildduck.pop3.commands", "stat ok"] == 1


def test_every_declared_metric_of_its_page_is_in_the_recordings() -> None:
    seen = {name for name, _ in figures(METRICS)} | {name for name, _ in figures(TWO_WORKERS)}
    assert seen == {metric.name for metric in DECLARATION.metrics.values() if "prometheus" in metric.source}


def test_every_family_of_its_page_is_declared_or_left_out_on_purpose() -> None:
    families = dict(re.findall(r"^# TYPE (wildduck_\w+) (\w+)", METRICS.decode(), re.MULTILINE))
    declared = {m.source["prometheus"] for m in DECLARATION.metrics.values() if "prometheus" in m.source}
    assert {name for name, kind in families.items() if kind != "histogram"} == declared | NOT_TAKEN
    assert not declared & NOT_TAKEN


def test_its_page_cut_at_any_line_is_refused_or_right() -> None:
    whole = figures(METRICS)
    lines = METRICS.splitlines(keepends=True)
    for count in range(0, len(lines), 3):
        try:
            found = figures(b"".join(lines[:count]))
        except PageError:
            continue
        # Behind what is required there are families of which a cut page says less, and never another number.
        assert found.items() <= whole.items()


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"up 1\n", USERS, METRICS[:5000], METRICS.replace(b"wildduck_", b"x_")]
)
def test_what_is_not_its_page_is_refused(body: bytes) -> None:
    with pytest.raises(PageError):
        parse.own_page(body, DECLARATION)


@given(st.integers(0, len(METRICS) - 1), st.integers(0, 255))
def test_its_page_with_any_byte_changed_gives_declared_points_or_nothing(place: int, byte: int) -> None:
    page = bytearray(METRICS)
    page[place] = byte
    try:
        found = parse.own_page(bytes(page), DECLARATION)
    except PageError:
        return
    for point in found.points:
        assert set(point.attributes) <= set(point.metric.attributes)
        assert point.value >= 0


def test_a_status_that_is_no_number_leaves_that_sample_out() -> None:
    page = METRICS.replace(
        b'wildduck_api_requests_total{method="PUT",route="/users/:user",status="200"}',
        b'wildduck_api_requests_total{method="PUT",route="/users/:user",status="2x"}',
    )
    found = parse.own_page(page, DECLARATION)
    assert [problem.error_type for problem in found.problems] == ["undeclared_value"]
    assert len(found.points) == len(parse.own_page(METRICS, DECLARATION).points) - 1
