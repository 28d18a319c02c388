"""A Prometheus page is read as a whole or not at all, and as prometheus_client's own parser reads it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from otel_receivers import prometheus
from otel_receivers.prometheus import PageError
from support.zone_mta_pages import AFTER_TRAFFIC, JUST_STARTED, large_page

Values = dict[tuple[str, frozenset[tuple[str, str]]], list[str]]


def by_the_library(text: str) -> Values:
    return _values(
        # The library writes counters as OpenMetrics does, with _total; without it the names of both are the same.
        (sample.name.removesuffix("_total"), sample)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def by_us(text: str) -> Values:
    return _values(
        (sample.name.removesuffix("_total"), sample)
        for family in prometheus.parse(text.encode()).values()
        for sample in family.samples
    )


def _values(samples: Iterable[tuple[str, Sample]]) -> Values:
    values: Values = {}
    for name, sample in samples:
        values.setdefault((name, frozenset(sample.labels.items())), []).append(repr(float(sample.value)))
    return {key: sorted(found) for key, found in values.items()}


names = st.sampled_from(["a", "zonemta_x", "b:c", "_d", "x_total", "1bad", "ü", ""])
label_values = st.text(st.sampled_from('ab="\\,{}# \n\tü\u2028'), max_size=5)
numbers = st.one_of(
    st.integers(-5, 10**20).map(str),
    st.floats().map(repr),
    st.sampled_from(["NaN", "+Inf", "-Inf", "1_0", "١٢", "0x1", "", "1e3", "12 1700000000000", " 7", "7 ", "007"]),
)


@st.composite
def lines(draw: st.DrawFn) -> str:
    kind = draw(st.integers(0, 5))
    name = draw(names)
    if kind == 0:
        return f"# TYPE {name} {draw(st.sampled_from(['counter', 'gauge', 'untyped', 'nonsense']))}"
    if kind == 1:
        return f"# HELP {name} {draw(label_values)}"
    if kind == 2:
        return draw(st.text(max_size=12))
    labels = draw(st.lists(st.tuples(st.sampled_from(["l", "zone", "a_b", "1", "__x", "ü"]), label_values), max_size=3))
    escaped = [f'{k}="{v}"' if draw(st.booleans()) else f'{k}="{_escape(v)}"' for k, v in labels]
    braces: bool = draw(st.booleans())
    inside = "{" + ",".join(escaped) + "}" if escaped or braces else ""
    return name + inside + draw(st.sampled_from([" ", "  ", "\t"])) + draw(numbers)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@given(st.lists(lines(), min_size=1, max_size=8))
@example(['a{l="x=y",zone="b"} 1'])
@example(['a{l="1",l="2"} 1'])
@example(["a{} 1"])
@example(['a{__x=""} 0'])
@example(["# TYPE a counter", "a 1", "a_total 2"])
@example(["# TYPE x_total counter", "x_total 1", 'x_total{l="\\\\"} 2'])
@settings(max_examples=400)
def test_plain_lines_are_read_as_the_library_reads_them(page: list[str]) -> None:
    text = "\n".join(page) + "\n"
    try:
        expected = by_the_library(text)
    except (ValueError, IndexError):
        with pytest.raises(PageError):
            prometheus.parse(text.encode())
        return
    try:
        ours = by_us(text)
    except PageError as error:
        assert error.error_type in {"empty", "html"}  # noqa: PT017 - only one of both ways raises
        return
    unclear = {n.removesuffix("_total") for n, f in prometheus.parse(text.encode()).items() if f.type == "ambiguous"}
    assert {k: v for k, v in expected.items() if k[0] not in unclear} == {
        k: v for k, v in ours.items() if k[0] not in unclear
    }


@pytest.mark.parametrize("page", [JUST_STARTED, AFTER_TRAFFIC])
def test_a_recorded_page_is_read_as_the_library_reads_it(page: bytes) -> None:
    assert by_us(page.decode()) == by_the_library(page.decode())


def test_a_large_page_takes_the_short_way() -> None:
    page = large_page()
    families = prometheus.parse(page)
    assert len(families["zonemta_delivery_status"].samples) > 15_000


@pytest.mark.parametrize(
    ("body", "error_type"),
    [
        (b"", "empty"),
        (b" \n\n", "empty"),
        (b"<!DOCTYPE html><html>Bad gateway</html>\n", "html"),
        (b"\n  <html>\n", "html"),
        (b"a 1", "incomplete"),
        (b"a 1\nb{", "incomplete"),
        (b"a\xff 1\n", "encoding"),
        ("a 1\n".encode("utf-16"), "encoding"),
        (b"a{b 1\n", "malformed"),
        (b"a{b=c} 1\n", "malformed"),
        (b"a one\n", "malformed"),
        (b'{"message": "not metrics"}\n', "malformed"),
        (b"upstream connect error\n", "malformed"),
        (b"a 1\n", "unexpected_page"),
    ],
)
def test_what_is_no_whole_page_is_refused_by_kind(body: bytes, error_type: str) -> None:
    with pytest.raises(PageError) as caught:
        prometheus.parse(body, ["process_start_time_seconds"])
    assert caught.value.error_type == error_type


def test_without_type_lines_samples_of_a_name_are_one_family() -> None:
    families = prometheus.parse(b'a{l="1"} 1\na{l="2"} 2e0\na{l="3"} 3\n')
    assert families["a"].type == "unknown"
    assert [sample.value for sample in families["a"].samples] == [2.0, 1, 3]


def test_a_family_keeps_the_name_that_the_page_gives_it() -> None:
    families = prometheus.parse(b'# TYPE x_total counter\nx_total{l="a\\\\"} 1\nx_total 2\n# TYPE y counter\ny 3\n')
    assert {name: (f.type, [s.value for s in f.samples]) for name, f in families.items()} == {
        "x_total": ("counter", [1, 2]),
        "y": ("counter", [3]),
    }


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("value", ["2", "2e0"])
def test_a_gauge_is_told_from_a_counter_whose_name_is_longer_by_total(value: str, *, turned: bool) -> None:
    """WildDuck has wildduck_connections and wildduck_connections_total; the parser gives both the short name."""
    parts = [f"# TYPE a gauge\na {value}\n", f"# TYPE a_total counter\na_total {value}\n"]
    families = prometheus.parse("".join(reversed(parts) if turned else parts).encode())
    assert {name: (f.type, [s.value for s in f.samples]) for name, f in families.items()} == {
        "a": ("gauge", [2]),
        "a_total": ("counter", [2]),
    }


def test_a_name_under_two_types_says_nothing() -> None:
    assert prometheus.parse(b"# TYPE a counter\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 2\n")["a"].samples == ()
