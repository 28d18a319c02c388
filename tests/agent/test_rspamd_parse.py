"""Recorded answers of Rspamd become exactly the declared points; a damaged one never becomes a wrong number."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.resources import Resource

from otel_receivers import page_points
from otel_receivers.answers import AnswerError
from otel_receivers.epochs import Epochs
from otel_receivers.points import INT64_MAX, Recorder
from otel_receivers.prometheus import PageError
from otel_receivers.receiver import Batch, Tick
from otel_receivers.rspamd import parse, record
from otel_receivers.rspamd.parse import Counter
from otel_receivers.rspamd.symbols import OwnHits
from postel.signals import load_all
from support.batches import Increase, data_points, values
from support.rspamd_answers import COUNTERS, FIRST_METRICS, JUST_STARTED, METRICS, NO_COUNTERS, STAT

DECLARATION = load_all()["rspamd"]
SECOND = 1_000_000_000
NOW = 1_795_600_000 * SECOND
Points = dict[tuple[str, str], Any]
OF_STAT: Points = {
    ("rspamd.scanned.messages", ""): 15,
    ("rspamd.learned.messages", ""): 3,
    ("rspamd.messages", "reject"): 2,
    ("rspamd.messages", "soft reject"): 0,
    ("rspamd.messages", "rewrite subject"): 0,
    ("rspamd.messages", "add header"): 0,
    ("rspamd.messages", "greylist"): 3,
    ("rspamd.messages", "no action"): 10,
}


def recorded(body: bytes, epochs: Epochs | None = None, now: int = NOW) -> Batch:
    recorder = Recorder(DECLARATION, Resource({"service.name": "rspamd"}), Tick(now))
    said = parse.stat(body)
    record.stat(said, recorder, DECLARATION, epochs or Epochs(), source="rspamd/a", tick=Tick(now))
    return recorder.batch()


def told(bodies: list[bytes], epochs: Epochs | None = None) -> list[Batch]:
    """What several answers to `/counters` lead to, 30 s apart."""
    epochs, own, batches = epochs or Epochs(), OwnHits(), []
    for number, body in enumerate(bodies):
        tick = Tick(NOW + number * 30 * SECOND)
        recorder = Recorder(DECLARATION, Resource({"service.name": "rspamd"}), tick)
        record.symbols(own.tell(parse.counters(body)), recorder, epochs, source="rspamd/a", tick=tick)
        batches.append(recorder.batch())
    return batches


def changed(body: bytes = STAT, **values: Any) -> bytes:
    return json.dumps({**json.loads(body), **values}).encode()


def listed(**hits: int) -> bytes:
    return json.dumps([{"symbol": s, "hits": n, "frequency": 0.0, "time": 0.0} for s, n in hits.items()]).encode()


def test_statistics_after_traffic() -> None:
    batch = recorded(STAT)
    found = values(batch)
    assert {key: found[key] for key in OF_STAT} == OF_STAT
    content = json.loads(STAT)
    assert found["rspamd.accepted.connections", ""] == content["connections"] == 16
    assert found["rspamd.uptime", ""] == content["uptime"]
    durations = [each for each in content["scan_times"] if each is not None]
    assert len(durations) == 15
    assert found["rspamd.scan.duration", ""] == pytest.approx(sum(durations) / 15)
    assert batch.problems == ()


def test_before_the_first_scan_nothing_took_any_time() -> None:
    found = values(recorded(JUST_STARTED))
    assert ("rspamd.scan.duration", "") not in found
    assert found["rspamd.scanned.messages", ""] == 0


def test_each_declared_metric_is_in_a_recording() -> None:
    page = parse.page(METRICS, DECLARATION)
    names = {name for name, _ in values(recorded(STAT))} | {point.metric.name for point in page.points}
    names |= {name for batch in told([COUNTERS]) for name, _ in values(batch)}
    assert names == {metric.name for metric in DECLARATION.metrics.values()}


def test_the_page_tells_what_each_class_has_learned() -> None:
    recorder = Recorder(DECLARATION, Resource({}), Tick(NOW))
    page = parse.page(METRICS, DECLARATION)
    page_points.record(page.points, page.problems, recorder, {})
    found = values(recorder.batch())
    assert found["rspamd.statfile.message.count", "BAYES_SPAM redis"] == 2
    assert found["rspamd.statfile.message.count", "BAYES_HAM redis"] == 1
    assert found["rspamd.memory.usage", ""] > 1 << 20
    assert recorder.batch().problems == ()
    assert {point.metric.name for point in parse.page(FIRST_METRICS, DECLARATION).points} == {"rspamd.memory.usage"}


def test_an_action_that_is_not_declared_is_left_out_and_named() -> None:
    batch = recorded(changed(actions={"reject": 4, "quarantine": 3}))
    assert {key: value for key, value in values(batch).items() if key[0] == "rspamd.messages"} == {
        ("rspamd.messages", "reject"): 4
    }
    (problem,) = batch.problems
    assert problem.error_type == "undeclared_value"
    assert "quarantine" in problem.message


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"<html></html>", "html", id="html"),
        pytest.param(STAT[:-2], "malformed", id="cut"),
        pytest.param(b"[]", "unexpected_page", id="list"),
        pytest.param(b'{"error":"Unauthorized"}', "unexpected_page", id="an error"),
        pytest.param(changed(scanned=-1), "malformed", id="negative"),
        pytest.param(changed(scanned="12"), "malformed", id="text"),
        pytest.param(changed(scanned=True), "malformed", id="truth"),
        pytest.param(changed(scanned=2**63), "malformed", id="too large"),
        pytest.param(changed(learned=None), "malformed", id="null"),
        pytest.param(changed(actions=[1]), "malformed", id="actions"),
        pytest.param(changed(actions={"reject": None}), "malformed", id="no count of an action"),
    ],
)
def test_statistics_that_are_not_whole_are_not_used(body: bytes, error_type: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse.stat(body)
    assert caught.value.error_type == error_type


@pytest.mark.parametrize("times", [None, [], [None], ["x", -1, True, {}], "no"])
def test_times_that_are_none_are_none(times: Any) -> None:
    assert parse.stat(changed(scan_times=times)).durations == ()


@given(st.integers(0, len(STAT) - 1))
def test_cut_anywhere_nothing_is_used(end: int) -> None:
    with pytest.raises(AnswerError):
        parse.stat(STAT[:end])


@given(st.integers(0, len(METRICS.rstrip()) - 1))
def test_a_page_cut_anywhere_is_not_used(end: int) -> None:
    with pytest.raises(PageError):
        parse.page(METRICS[:end], DECLARATION)


@given(st.binary(max_size=300), st.integers(0, len(COUNTERS) - 300))
def test_nonsense_is_an_error_of_the_answer(noise: bytes, at: int) -> None:
    for read, body in ((parse.stat, STAT), (parse.counters, COUNTERS)):
        for nonsense in (noise, body[:at] + noise + body[at + len(noise) :]):
            try:
                read(nonsense)
            except AnswerError:
                continue


@given(st.integers(0, INT64_MAX), st.integers(0, INT64_MAX))
def test_counts_of_any_size_stand(scanned: int, rejected: int) -> None:
    # Beyond 2**53 a JSON number is still whole here.
    found = values(recorded(changed(scanned=scanned, actions={"reject": rejected})))
    assert found["rspamd.scanned.messages", ""] == scanned
    assert found["rspamd.messages", "reject"] == rejected


LIVES = [
    # (scanned, connections, increase of scanned so far, of connections)
    (1000, 50, 0, 0),
    (1010, 60, 10, 10),
    # An orderly restart: connections begin anew, and what was scanned goes on.
    (1015, 3, 15, 10),
    (1020, 9, 20, 16),
    # Killed: it has forgotten the last minute. What it scanned since cannot be told from that.
    (990, 4, 20, 16),
    (1000, 14, 30, 26),
    # Set back to 0 by an operator.
    (2, 16, 30, 28),
    (9, 18, 37, 30),
]


def test_over_restarts_kills_and_resets_the_increase_is_never_more_than_what_was_scanned() -> None:
    epochs, scanned, connections = (
        Epochs(),
        Increase("rspamd.scanned.messages"),
        Increase("rspamd.accepted.connections"),
    )
    for number, (count, opened, expected, accepted) in enumerate(LIVES):
        body = changed(scanned=count, connections=opened, actions={"no action": count})
        batch = recorded(body, epochs, NOW + number * 30 * SECOND)
        scanned.add(batch)
        connections.add(batch)
        assert (scanned.total, connections.total) == (expected, accepted)
        # A row of the table has one start for all its counters.
        starts = {
            point.start_time_unix_nano
            for name, point in data_points(batch)
            if name in {"rspamd.scanned.messages", "rspamd.messages", "rspamd.learned.messages"}
        }
        assert len(starts) == 1


def test_symbols_of_the_recording() -> None:
    assert {key[1]: value for key, value in values(told([COUNTERS])[0]).items()} == {
        "MISSING_TO": 4,
        "MISSING_MID": 3,
        "MISSING_SUBJECT": 1,
    }
    assert values(told([NO_COUNTERS])[0]) == {}


def test_a_symbol_that_another_rule_sets_is_never_told_with_that_rules_hits() -> None:
    """ONCE_RECEIVED sets RDNS_NONE: `/counters` gives both the first one's hits."""
    batches = told(
        [
            listed(ONCE_RECEIVED=0, RDNS_NONE=0, MISSING_TO=0, MISSING_MID=0),
            listed(ONCE_RECEIVED=3, RDNS_NONE=3, MISSING_TO=3, MISSING_MID=1),
            listed(ONCE_RECEIVED=5, RDNS_NONE=5, MISSING_TO=4, MISSING_MID=1),
            listed(ONCE_RECEIVED=6, RDNS_NONE=6, MISSING_TO=6, MISSING_MID=1),
        ]
    )
    assert [{key[1]: value for key, value in values(batch).items()} for batch in batches] == [
        {},
        {"MISSING_MID": 1},
        {"MISSING_TO": 4, "MISSING_MID": 1},
        # Once it was another's figure it is its own for good.
        {"MISSING_TO": 6, "MISSING_MID": 1},
    ]
    increase = Increase("rspamd.symbol.hits")
    for batch in batches:
        increase.add(batch)
    # Both were met without hits, so that all of theirs count, also those that were told later.
    assert increase.total == 6 + 1


def test_hits_from_before_a_symbol_was_told_apart_are_nobodys() -> None:
    increase = Increase("rspamd.symbol.hits")
    for batch in told([listed(A=100, B=100, C=7), listed(A=101, B=100, C=8), listed(A=103, B=100, C=8)]):
        increase.add(batch)
    assert increase.total == 2 + 1


def test_rules_that_are_set_up_anew_are_told_apart_anew() -> None:
    own = OwnHits()
    one, other = Counter(1, 0.0, 0.0), Counter(2, 0.0, 0.0)
    assert own.tell({"A": one, "B": other}) == {"A": 1, "B": 2}
    assert own.tell({"A": other, "B": other}) == {"A": 2, "B": 2}
    assert own.tell({"A": other, "B": other, "C": one}) == {"C": 1}


@given(st.randoms(use_true_random=False), st.integers(2, 20))
def test_of_any_rules_the_hits_that_are_told_are_their_own(rng: random.Random, answers: int) -> None:
    """Each symbol has its true hits; a virtual one is shown with those of its rule."""
    symbols = [f"S{number}" for number in range(8)]
    rule = {symbol: rng.choice([symbol, symbol, *symbols]) for symbol in symbols}
    real = {symbol for symbol in symbols if rule[symbol] == symbol}
    rule = {symbol: of if of in real else symbol for symbol, of in rule.items()}
    real = {symbol for symbol in symbols if rule[symbol] == symbol}
    virtual = set(symbols) - real
    hits = dict.fromkeys(real, 0)
    own = OwnHits()
    for _ in range(answers):
        for symbol in real:
            hits[symbol] += rng.choice([0, 0, 1, 5])
        answer = {symbol: Counter(hits[rule[symbol]], 0.0, 0.0) for symbol in symbols}
        for symbol, value in own.tell(answer).items():
            assert value == 0 or symbol not in virtual
            assert value == hits[rule[symbol]]


def test_of_too_many_symbols_the_most_hit_are_told() -> None:
    many = {f"S{number}": number for number in range(1, record.SYMBOLS + 11)}
    (batch,) = told([listed(**many)])
    hits = sorted(values(batch).values())
    assert (hits[0], len(hits)) == (11, record.SYMBOLS)
    assert [problem.error_type for problem in batch.problems] == ["too_many_symbols"]


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        pytest.param(COUNTERS[:-3], "malformed", id="cut"),
        pytest.param(STAT, "unexpected_page", id="no list"),
        pytest.param(b'[{"symbol":"A","hits":1},{"symbol":"A","hits":2}]', "malformed", id="twice"),
        pytest.param(b'[{"symbol":7,"hits":1}]', "malformed", id="a name that is none"),
        pytest.param(b'[{"symbol":"%s","hits":1}]' % (b"A" * 300), "malformed", id="a name without end"),
        pytest.param(b'[{"symbol":"A","hits":"many"}]', "malformed", id="hits that are none"),
        pytest.param(b'[{"symbol":"A","hits":1,"time":"long"}]', "malformed", id="a time that is none"),
    ],
)
def test_symbols_that_are_not_whole_are_not_used(body: bytes, error_type: str) -> None:
    with pytest.raises(AnswerError) as caught:
        parse.counters(body)
    assert caught.value.error_type == error_type
