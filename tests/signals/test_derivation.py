"""Metrics that are derived from events: what a declaration may say of them."""

from pathlib import Path

import pytest

from postel.errors import DeclarationError
from postel.signals import load, load_all, reference
from postel.signals.derivation import is_derived

SOURCE = """
type: fresh
scope: postel.fresh
service: fresh-server
description: A server.
attributes:
  fresh.outcome: {description: Outcome., type: string, enum: [done, failed]}
  fresh.zone: {description: Zone., type: string}
  fresh.names: {description: Names., type: "string[]"}
  fresh.number: {description: Number., type: int}
  fresh.duration: {description: Seconds., type: double}
metrics:
  fresh.work.duration:
    description: Duration.
    unit: s
    histogram: {value_type: double, bounds: [0.1, 1, 10]}
    attributes: [fresh.outcome, fresh.zone]
    source:
      events: {fresh.work.done: {fresh.outcome: done}, fresh.work.failed: {fresh.outcome: failed}}
      value: fresh.duration
      attributes: {fresh.zone: fresh.zone}
  fresh.work.items:
    description: Items.
    unit: "{item}"
    sum: {value_type: int, monotonic: true, aggregation_temporality: cumulative}
    source: {events: {fresh.work.done: {}}, value: fresh.number, when: {fresh.zone: [a, b]}}
events:
  fresh.work.done:
    description: Done.
    severity: info
    attributes: &all [fresh.zone, fresh.names, fresh.number, fresh.duration]
    source: {hook: work}
  fresh.work.failed: {description: Failed., severity: warn, attributes: *all, source: {hook: work}}
"""
COUNTS = SOURCE[SOURCE.index("sum: {value_type: int") : SOURCE.index("when:")]
DURATION, ITEMS = r"metrics\.fresh\.work\.duration", r"metrics\.fresh\.work\.items"


def write(folder: Path, text: str) -> Path:
    path = folder / "metadata.yaml"
    path.write_text(text, "utf-8")
    return path


def test_a_derivation_is_read_whole(tmp_path: Path) -> None:
    declaration = load([write(tmp_path, SOURCE)])["fresh"]
    duration, items = declaration.metric("fresh_work_duration"), declaration.metric("fresh_work_items")
    assert is_derived(duration)
    assert duration.bounds == (0.1, 1.0, 10.0)
    assert duration.source["events"] == {
        "fresh.work.done": {"fresh.outcome": "done"},
        "fresh.work.failed": {"fresh.outcome": "failed"},
    }
    assert (items.bounds, items.source["when"], items.source["attributes"]) == ((), {"fresh.zone": ["a", "b"]}, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[0.1, 1, 10]", "[0.1, 10, 1]", rf"{DURATION}\.histogram\.bounds: must ascend"),
        ("[0.1, 1, 10]", "[0.1, 0.1]", rf"{DURATION}\.histogram\.bounds: must ascend"),
        (", bounds: [0.1, 1, 10]", "", rf"{DURATION}\.histogram\.bounds: what is derived from events needs some"),
        ("[0.1, 1, 10]", "[low]", rf"{DURATION}\.histogram\.bounds\.0: Input should be a valid number"),
        (
            "{value_type: int, monotonic: true, aggregation_temporality: cumulative}",
            "{value_type: int, monotonic: false, aggregation_temporality: cumulative}",
            rf"{ITEMS}: what is derived from events is a histogram or a monotonic sum",
        ),
        (
            "sum: {value_type: int, monotonic: true, aggregation_temporality: cumulative}",
            "gauge: {value_type: int}",
            rf"{ITEMS}: what is derived from events is a histogram or a monotonic sum",
        ),
        ("events: {fresh.work.done: {}}", "events: {}", rf"{ITEMS}\.source\.events: names none"),
        (
            "events: {fresh.work.done: {}}",
            "events: {fresh.work.over: {}}",
            rf"{ITEMS}\.source\.events\.fresh\.work\.over: this file declares no such event",
        ),
        (
            "{fresh.outcome: failed}",
            "{fresh.outcome: undone}",
            rf"{DURATION}\.source\.events\.fresh\.work\.failed\.fresh\.outcome: 'undone' is no value of fresh\.outcome",
        ),
        (
            "{fresh.outcome: failed}",
            "{fresh.outcome: 3}",
            r"fresh\.work\.failed\.fresh\.outcome: 3 is not of type string",
        ),
        ("{fresh.outcome: failed}", "{}", r"events\.fresh\.work\.failed: says nothing of fresh\.outcome"),
        (
            "{fresh.outcome: failed}",
            "{fresh.outcome: failed, fresh.number: 1}",
            r"fresh\.work\.failed: 'fresh\.number' is no attribute of fresh\.work\.duration",
        ),
        (
            "{fresh.outcome: failed}",
            "{fresh.outcome: failed, fresh.zone: a}",
            r"fresh\.work\.failed: 'fresh\.zone' is what the events say under `attributes`",
        ),
        (
            "{fresh.zone: fresh.zone}",
            "{fresh.outcome: fresh.zone}",
            rf"{DURATION}\.source\.attributes\.fresh\.outcome: fresh\.work\.done has no such attribute",
        ),
        (
            "{fresh.zone: fresh.zone}",
            "{fresh.number: fresh.zone}",
            r"attributes\.fresh\.number: is int, and fresh\.zone is string",
        ),
        (
            "{fresh.zone: fresh.zone}",
            "{fresh.zone: fresh.number}",
            r"attributes\.fresh\.zone: 'fresh\.number' is no attribute of fresh\.work\.duration",
        ),
        ("      value: fresh.duration\n", "", rf"{DURATION}\.source\.value: a histogram needs one"),
        ("value: fresh.number, ", "value: fresh.duration, ", r"value: fresh\.duration is double, and .* is int"),
        ("value: fresh.number, ", "value: fresh.zone, ", r"value: fresh\.zone is string, which is no number"),
        ("value: fresh.number, ", "value: fresh.outcome, ", r"value: fresh\.work\.done has no such attribute"),
        (
            COUNTS,
            COUNTS.replace("int", "double").replace("value: fresh.number, ", ""),
            rf"{ITEMS}\.source\.value: without one it counts events, and a count is int",
        ),
        ("when: {fresh.zone: [a, b]}", "when: {fresh.zone: [a, 1]}", r"when\.fresh\.zone: 1 is not of type string"),
        ("when: {fresh.zone: [a, b]}", "when: {fresh.outcome: [done]}", r"when\.fresh\.outcome: .* no such attribute"),
        ("when: {fresh.zone: [a, b]}", "when: {fresh.zone: a}", r"source\.when\.fresh\.zone: Input should be a valid"),
        ("when: {fresh.zone: [a, b]}", "wenn: {}", rf"{ITEMS}\.source\.wenn: Extra inputs"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SOURCE
    path = write(tmp_path, SOURCE.replace(old, new, 1))
    with pytest.raises(DeclarationError, match=message) as caught:
        load([path])
    assert str(caught.value).startswith(str(path))


def test_lists_tell_no_series_apart(tmp_path: Path) -> None:
    text = SOURCE.replace("attributes: [fresh.outcome, fresh.zone]", "attributes: [fresh.outcome, fresh.names]")
    text = text.replace("{fresh.zone: fresh.zone}", "{fresh.names: fresh.names}")
    with pytest.raises(DeclarationError, match=r"attributes\.fresh\.names: a string\[\] tells no series apart"):
        load([write(tmp_path, text)])


def test_only_what_is_made_here_is_put_into_buckets(tmp_path: Path) -> None:
    derived = SOURCE[SOURCE.index("    source:\n      events") : SOURCE.index("  fresh.work.items")]
    text = SOURCE.replace(derived, "    source: {reader: work}\n")
    with pytest.raises(DeclarationError, match=r"bounds: only what is derived from events is put into buckets here"):
        load([write(tmp_path, text)])


def test_no_shipped_metric_tells_series_apart_by_an_address_a_domain_or_an_id() -> None:
    derived = [metric for metric in load_all().metrics.values() if is_derived(metric)]
    names = {name for metric in derived for name in metric.attributes}
    assert names == {
        *("zonemta.outcome", "zonemta.zone"),
        *("haraka.outcome", "haraka.delivery.outcome", "haraka.plugin", "haraka.hook"),
    }


def test_the_reference_says_of_what_a_metric_is_derived(tmp_path: Path) -> None:
    page = reference.render(load([write(tmp_path, SOURCE)]))["fresh.md"]
    assert (
        "- derived from the events `fresh.work.done` (`fresh.outcome` = `done`), `fresh.work.failed`"
        " (`fresh.outcome` = `failed`); value `fresh.duration`\n"
    ) in page
    assert "the events `fresh.work.done`; where `fresh.zone` is `a` or `b`; value `fresh.number`\n" in page
    assert "- buckets up to 0.1, 1, 10, and beyond\n" in page
