"""From events to measurements: by the declarations, and nothing of what an event merely claims."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_receivers.derived import UID_BYTES, Derivation, Measurement, Occurrence
from postel.signals import load_all
from support.mail_events import HARAKA, ZONE_MTA, attempt, event, request, requests, uid

DERIVATION = Derivation(load_all())
MESSAGE = {"email.direction": "inbound", "haraka.data.size": 2000}


def measured(*records: Any, **more: Any) -> list[tuple[str, dict[str, Any], float]]:
    return [
        (m.series.metric, dict(m.series.attributes), m.value)
        for occurrence in DERIVATION.occurrences(request(*records, **more))
        for m in occurrence.measurements
    ]


def haraka(name: str, **attributes: Any) -> list[tuple[str, dict[str, Any], float]]:
    given = {key.replace("__", "."): value for key, value in attributes.items()}
    return measured(event(name, given, uid=uid(1)), resource=HARAKA, scope="postel.haraka")


def test_an_attempt_is_a_duration_and_with_its_final_fate_the_time_in_the_queue() -> None:
    both = {"zonemta.outcome": "delivered", "zonemta.zone": "bulk"}
    assert measured(attempt(1, zone="bulk", duration=0.5)) == [
        ("zonemta.delivery.duration", both, 0.5),
        ("zonemta.message.queue.duration", both, 5.0),
    ]
    assert measured(attempt(1, outcome="deferred")) == [
        ("zonemta.delivery.duration", {"zonemta.outcome": "deferred", "zonemta.zone": "default"}, 0.2)
    ]
    assert measured(event("zonemta.message.queued", {"zonemta.message.id": "x"}, uid=uid(1))) == []


def test_a_message_counts_by_its_outcome_direction_and_size_and_as_spam_where_rspamd_thinks_so() -> None:
    accepted = haraka("haraka.message.accepted", **MESSAGE, **{"rspamd.action": "no action"})
    assert accepted == [
        ("haraka.messages", {"haraka.outcome": "accepted"}, 1),
        ("haraka.inbound.messages", {}, 1),
        ("haraka.message.size", {}, 2000),
    ]
    spam = haraka("haraka.message.rejected", **MESSAGE, **{"rspamd.action": "reject"})
    assert ("haraka.spam.messages", {}, 1) in spam
    out = haraka("haraka.message.deferred", **{"email.direction": "outbound"})
    assert out == [("haraka.messages", {"haraka.outcome": "deferred"}, 1)]


@pytest.mark.parametrize(
    "name",
    ["haraka.message.rejected", "haraka.message.deferred", "haraka.recipient.rejected", "haraka.connection.denied"],
)
def test_a_denial_is_a_plugins_and_is_counted_by_plugin_and_hook(name: str) -> None:
    denial = {"haraka.plugin": "dnsbl", "haraka.hook": "rcpt", "haraka.denial": "deny"}
    found = [each for each in haraka(name, **denial) if each[0] == "haraka.denials"]
    assert found == [("haraka.denials", {"haraka.plugin": "dnsbl", "haraka.hook": "rcpt"}, 1)]
    # Haraka itself says no to recipients that no plugin takes.
    assert "haraka.denials" not in {each[0] for each in haraka(name, **{"haraka.hook": "rcpt"})}


def test_every_derived_metric_is_led_to_by_an_event() -> None:
    names = {metric.name for metric in load_all().metrics.values() if "events" in metric.source}
    seen = {each[0] for each in measured(attempt(1))}
    message = {**MESSAGE, "rspamd.action": "reject", "haraka.plugin": "rspamd", "haraka.denial": "deny"}
    seen |= {each[0] for each in haraka("haraka.message.rejected", **message)}
    seen |= {each[0] for each in haraka("haraka.connection.closed", **{"haraka.session.duration": 1.5})}
    seen |= {each[0] for each in haraka("haraka.delivery.accepted")}
    assert seen == names


@pytest.mark.parametrize(
    ("zone", "duration"),
    [("default", -1.0), ("default", float("nan")), ("default", float("inf")), ("default", 1e300), ("default", "3")],
)
def test_a_value_that_cannot_be_meant_is_not_recorded(zone: str, duration: Any) -> None:
    given = {"zonemta.zone": zone, "zonemta.attempt.duration": duration}
    assert measured(event("zonemta.delivery.accepted", given, uid=uid(1))) == []


@pytest.mark.parametrize("zone", [3, True, ["a"], "x" * 257, 0.5])
def test_what_does_not_fit_an_attribute_is_as_if_it_were_not_there(zone: Any) -> None:
    given = {"zonemta.zone": zone, "zonemta.attempt.duration": 1}
    assert measured(event("zonemta.delivery.accepted", given, uid=uid(1))) == [
        ("zonemta.delivery.duration", {"zonemta.outcome": "delivered"}, 1)
    ]


def one(*records: Any, **more: Any) -> Occurrence:
    (occurrence,) = DERIVATION.occurrences(request(*records, **more))
    return occurrence


def test_the_sender_is_who_the_resource_says() -> None:
    instance = one(attempt(1)).instance
    assert (instance.source, instance.service) == ("zone_mta", "zone-mta")
    assert (instance.host_id, instance.id) == ("node-1", "node-1:12080")
    bare = one(attempt(1), resource={})
    assert (bare.instance.service, bare.instance.host_id, bare.instance.id) == ("zone-mta", "", "")
    # Another process of the same instance is the same sender.
    assert one(attempt(1), resource={**ZONE_MTA, "process.pid": 9}).instance == instance


def test_a_heartbeat_tells_that_its_sender_lives_and_is_measured_nowhere() -> None:
    heartbeat = event("postel.plugin.heartbeat", {"postel.plugin.process.kind": "main"}, uid=uid(1))
    alive = one(heartbeat, resource=HARAKA, scope="postel.haraka")
    assert (alive.instance.source, alive.measurements) == ("haraka", ())
    assert DERIVATION.occurrences(request(heartbeat, scope="someone.else")) == []


def test_the_id_is_the_records_own_else_made_of_what_stays_when_it_comes_again() -> None:
    assert one(attempt(7)).uid == bytes(15) + b"\7"
    foreign = [event("zonemta.delivery.accepted", {"zonemta.attempt.duration": 1}, uid=name) for name in ("a", "b")]
    bare = event("zonemta.delivery.accepted", {"zonemta.attempt.duration": 1})
    ids = [one(each).uid for each in [*foreign, bare]]
    assert {len(each) for each in ids} == {UID_BYTES}
    assert len(set(ids)) == 3
    assert ids == [one(each).uid for each in [*foreign, bare]]
    # An id that is no UUID may be a sender's own number, told anew by another one, or at another time.
    later = event("zonemta.delivery.accepted", {"zonemta.attempt.duration": 1}, uid="a", time_unix_nano=1)
    others = [one(later), one(foreign[0], resource={**ZONE_MTA, "service.instance.id": "b"})]
    assert not {each.uid for each in others} & set(ids)


def test_senders_of_one_request_stay_apart() -> None:
    parts = [(resource, "postel.zone_mta", [attempt(n)]) for n, resource in enumerate((ZONE_MTA, HARAKA, {}))]
    found = DERIVATION.occurrences(requests(parts))
    assert [occurrence.instance.id for occurrence in found] == ["node-1:12080", "node-1:25", ""]


VALUES = st.one_of(
    st.text(max_size=20), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(), st.lists(st.text(max_size=3))
)
NAMES = sorted({name for d in load_all() for event in d.events.values() for name in event.attributes})


@given(
    st.sampled_from(sorted(load_all().events)),
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=12),
    st.none() | st.text(max_size=40),
)
def test_whatever_an_event_claims_its_measurements_are_as_declared(
    name: str, attributes: dict[str, Any], uid: str | None
) -> None:
    declared = load_all()
    for occurrence in DERIVATION.occurrences(request(event(name, attributes, uid=uid))):
        assert len(occurrence.uid) == (UID_BYTES if occurrence.measurements else 0)
        for measurement in occurrence.measurements:
            _check(measurement, declared.metrics[measurement.series.metric], declared[occurrence.instance.source])


def _check(measurement: Measurement, metric: Any, declaration: Any) -> None:
    assert 0 <= measurement.value <= 2**53
    for name, value in measurement.series.attributes:
        assert name in metric.attributes
        attribute = declaration.attributes[name]
        assert isinstance(value, str)
        assert attribute.type == "string"
        assert not attribute.enum or value in attribute.enum
