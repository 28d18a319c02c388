"""How series become curves: pure, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from dashboards.web.board import typical_distance
from dashboards.web.charts import CHARTS, Chart, Line, age, curves, latest, options, text, unit_of
from dashboards.web.names import names
from dashboards.web.subjects import SUBJECTS
from dashboards.web.tables import Field, Link, html
from postel.signals import load_all
from timescale_sink.api.series import Answer, Node, Query, Series

BY_KEY = {chart.key: chart for chart in CHARTS}
NODE = Node(
    "n1", "mx1.example.org", datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), 1, [], {}, demo=False
)


def answer(chart: Chart, *series: Series) -> Answer:
    query = Query(chart.table, tuple(line.column for line in chart.lines), 0, 90, 30)
    return Answer(query, {}, series)


def attempts(column: str, zone: str, *values: float | None, instance: str = "i") -> Series:
    return Series(f"{column}_total", "n1", instance, zone, "", values)


def test_outcomes_are_added_over_zones_and_told_per_minute() -> None:
    asked = answer(
        BY_KEY["attempts"], attempts("delivered", "a", 1, 2, None), attempts("delivered", "b", 0.5, None, None)
    )
    (curve,) = curves(BY_KEY["attempts"], asked, {})
    assert (curve.name, curve.values) == ("delivered", (90, 120, None))


def test_what_an_instance_says_as_a_whole_is_never_added_to_its_zones() -> None:
    asked = answer(
        BY_KEY["attempts"],
        attempts("delivered", "", 9, 9, 9),
        attempts("delivered", "a", 1, 1, 1),
        attempts("delivered", "", 2, 2, 2, instance="old"),
    )
    (curve,) = curves(BY_KEY["attempts"], asked, {})
    assert curve.values == (180, 180, 180)


def test_of_a_queue_the_whole_is_drawn_and_not_each_zone() -> None:
    whole = Series("queue_size", "n1", "", "", "shared", (9, 9, 9))
    zone = Series("queue_size", "n1", "", "bulk", "shared", (4, 4, 4))
    other = Series("queue_size", "n1", "", "bulk", "zones alone", (1, 1, 1))
    drawn = curves(BY_KEY["queue"], answer(BY_KEY["queue"], whole, zone, other), {})
    assert [(curve.name, curve.values) for curve in drawn] == [("queued", (9, 9, 9))]


def test_zones_have_a_curve_each() -> None:
    asked = answer(
        BY_KEY["zones"],
        attempts("delivered", "a", 1, 1, 1),
        attempts("rejected", "a", 1, 1, None),
        attempts("deferred", "b", 0, 1, 0),
    )
    drawn = {curve.name: curve.values for curve in curves(BY_KEY["zones"], asked, {})}
    assert drawn == {"a": (120, 120, 60), "b": (0, 60, 0)}


def test_a_gap_stays_a_gap_and_a_point_alone_is_a_dot() -> None:
    chart = BY_KEY["cpu"]
    asked = answer(chart, Series("cpu_load", "n1", "i", "", "", (None, 50.0, None)))
    data = options(chart, asked, curves(chart, asked, {}))["series"][0]["data"]
    assert data[0] == [0, None]
    assert data[1] == {"value": [30_000, 50.0], "symbol": "circle", "symbolSize": 5}
    assert data[2] == [60_000, None]


def test_shares_are_of_all_lines_or_of_the_whole_that_is_named() -> None:
    lines = (Line("rejected_total", "lost", "bad"), Line("unknown_total", "lost"), Line("delivered_total", ""))
    chart = Chart("shares", "Shares", "metrics_zonemta", lines, by="share")
    asked = answer(
        chart,
        attempts("rejected", "a", 1, 0, None),
        attempts("unknown", "a", 1, None, None),
        attempts("delivered", "b", 2, 0, None),
    )
    (curve,) = curves(chart, asked, {})
    # Where nothing was attempted there is no share.
    assert (curve.name, curve.values) == ("lost", (50, None, None))
    named = replace(chart, lines=lines[:1], whole="delivered_total")
    (curve,) = curves(named, asked, {})
    assert curve.values == (50, None, None)
    assert named.columns == ("rejected_total", "delivered_total")


def test_of_several_queues_the_oldest_message_is_the_oldest_of_all() -> None:
    chart = Chart("oldest", "Oldest", "metrics_zonemta", (Line("oldest_age", ""),), by="zone", merge="max")
    first = Series("oldest_age", "n1", "", "bulk", "one", (5, 5, None))
    (curve,) = curves(chart, answer(chart, first, replace(first, queue="other", values=(9, 1, 2))), {})
    assert (curve.name, curve.values) == ("bulk", (9, 5, 2))


def test_a_chart_has_the_unit_that_its_columns_are_declared_with() -> None:
    declared = load_all()
    said = {}
    for chart in (
        *CHARTS,
        *(chart for subject in SUBJECTS for section in subject.sections for chart in section.charts),
    ):
        columns = {column.name: column for column in declared.columns_of(chart.table)}
        units = {
            name: declared.metrics[columns[name].metric].unit + ("/s" if columns[name].counter else "")
            for name in chart.columns
        }
        assert len(set(units.values())) == 1, chart.key
        said[chart.key] = unit_of(chart, units)
    assert {said[key] for key in ("cpu", "memory", "disk", "shares", "spam-share", "inbound-share")} == {"%"}
    assert {said[key] for key in ("attempts", "zones", "actions", "inbound", "lmtp")} == {"/min"}
    assert {said[key] for key in ("queue", "queued", "deferred", "users", "quota", "messages", "processes")} == {"n"}
    assert [said[key] for key in ("network", "memory-used", "storage", "oldest", "scan", "load")] == [
        "By/s", "By", "By", "s", "s", "1",
    ]  # fmt: skip


def test_a_long_time_is_told_by_steps_of_minutes_and_hours() -> None:
    chart = Chart("oldest", "Oldest", "metrics_zonemta", (Line("oldest_age", ""),), unit="s")
    for most, axis in ((90, {}), (1400, {"max": 1500, "interval": 300}), (5e5, {"max": 518400, "interval": 172800})):
        asked = answer(chart, Series("oldest_age", "n1", "", "", "", (1.0, most, None)))
        made = options(chart, asked, curves(chart, asked, {}))["yAxis"]
        assert {key: made[key] for key in ("max", "interval") if key in made} == axis


def test_a_cell_is_text_whatever_it_says_and_a_column_of_nothing_is_left_out() -> None:
    evil = '"><img src=x onerror=1>'
    fields = (Field("Name"), Field("Empty", "n"), Field("Count", "n"), Field("When"))
    when = datetime(2026, 1, 1, tzinfo=UTC)
    made = html(fields, [(Link(evil, f"/trace?id={evil}"), None, 1234, when), (evil, None, None, None)])
    assert "<img" not in made
    assert "Empty" not in made
    assert '<td class=number data-label="Count">1,234</td>' in made
    assert '<postel-time at="2026-01-01T00:00:00.000+00:00">' in made
    assert made.count("<tr>") == 3


def test_demo_data_is_never_added_to_real_data() -> None:
    real, demo = attempts("delivered", "a", 1, 1, 1), replace(attempts("delivered", "b", 5, 5, 5), node="demo")
    chart = BY_KEY["attempts"]
    (curve,) = curves(chart, answer(chart, demo, real), {}, frozenset({"demo"}))
    assert curve.values == (60, 60, 60)
    (curve,) = curves(chart, answer(chart, demo), {}, frozenset({"demo"}))
    assert curve.values == (300, 300, 300)


def test_lines_are_named_after_their_node_only_where_there_are_several() -> None:
    chart = BY_KEY["network"]
    one = Series("network_in", "n1", "i", "", "", (1, 1, 1))
    two = replace(one, node="n2")
    hosts = {"n1": "mx1", "n2": "mx2"}
    assert [curve.name for curve in curves(chart, answer(chart, one), hosts)] == ["in"]
    assert [curve.name for curve in curves(chart, answer(chart, one, two), hosts)] == ["mx1 in", "mx2 in"]


def test_names_are_as_short_as_they_can_be() -> None:
    mx2 = replace(NODE, id="n2", host="mx2.example.org")
    assert names([NODE]) == {"n1": "mx1.example.org"}
    assert names([NODE, mx2]) == {"n1": "mx1", "n2": "mx2"}
    assert names([NODE, replace(mx2, host="mx2.example.net")]) == {"n1": "mx1.example.org", "n2": "mx2.example.net"}
    assert names([replace(NODE, demo=True)]) == {"n1": "mx1.example.org (demo)"}
    assert names([NODE, replace(NODE, id="0123456789ab")]) == {"n1": "mx1 (n1)", "0123456789ab": "mx1 (01234567)"}


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (12.34, "%", "12.3 %"),
        (7.0, "n", "7"),
        (1234.4, "n", "1,234"),
        (0, "By/s", "0 B/s"),
        (1_234_567, "By/s", "1.23 MB/s"),
        (5e18, "By", "5e+03 PB"),
        (0.25, "1", "0.2"),
        (18.5, "/min", "18.5/min"),
        (0.3914, "s", "0.391 s"),
        (840, "s", "14 min"),
        (200_000, "s", "2 d"),
    ],
)
def test_values_have_their_unit(value: float, unit: str, said: str) -> None:
    assert text(value, unit) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(-3, "0 s ago"), (59, "59 s ago"), (180, "3 min ago"), (7200, "2 h ago"), (1e6, "11 d ago")]
)
def test_ages_are_words(seconds: float, said: str) -> None:
    assert age(seconds) == said


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ((1, 1, 1, 1, 1), 1),
        ((1, None, None, None, 1), 1),
        ((1, 1, 1, None, None, None, None, None, 1, 1), 1),
        ((1, None, 1, None, 1, None, 1), 2),
        ((1, None, None, 1, None, None, None, 1, None, None, 1), 4),
        ((None, None), 1),
    ],
)
def test_a_longer_interval_than_expected_is_seen_and_an_outage_is_none(
    values: tuple[float | None, ...], steps: int
) -> None:
    asked = answer(BY_KEY["cpu"], Series("cpu_load", "n1", "i", "", "", values))
    assert typical_distance(asked) == steps


def test_what_is_now_is_not_told_from_long_ago() -> None:
    assert latest((5, None, None)) == 5
    assert latest((5, None, None, None, None)) is None
