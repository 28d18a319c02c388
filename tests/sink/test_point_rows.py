"""The points of a transaction by key: against a dictionary, which takes the first of each key."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from operator import itemgetter
from uuid import UUID

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from timescale_sink.ingest.point_rows import PointRow, PointRows, Repeated, differ
from timescale_sink.ingest.values import from_microseconds, microseconds

DAY = datetime(2026, 1, 15, tzinfo=UTC)
# Few, so that keys come again; ids that differ in their first eight bytes, in their last, and in one bit.
IDS = [UUID(int=number) for number in (0, 1, 2**64, 2**64 + 1, 2**127, 2**128 - 1)]

points = st.tuples(
    st.sampled_from(IDS),
    st.integers(0, 3).map(lambda hours: DAY.replace(hour=hours)),
    st.none(),
    st.just(0),
    st.sampled_from([1.0, 2.0, float("nan")]),
).map(lambda values: PointRow(*values))


@given(
    st.lists(st.tuples(st.booleans(), st.lists(points, max_size=6)), max_size=5), st.integers(0, 999).map(random.Random)
)
def test_the_first_of_each_key_stays_in_the_order_of_the_index(
    batches: list[tuple[bool, list[PointRow]]], chance: random.Random
) -> None:
    rows = PointRows()
    wanted: dict[tuple[bytes, int], PointRow] = {}
    repeated = []
    additions: list[Callable[[], None]] = []
    for together, batch in batches:
        first = rows.reserve(len(batch))
        times = [microseconds(point.time) for point in batch]
        if together:
            places = np.arange(first, first + len(batch))
            ids = b"".join(point.series_id.bytes for point in batch)
            additions.append(
                partial(rows.extend, places, ids, np.array(times, np.int64), [point.encode() for point in batch])
            )
        else:
            additions += [partial(rows.add, point, place) for place, point in enumerate(batch, first)]
        for point, time in zip(batch, times, strict=True):
            stands = wanted.setdefault((point.series_id.bytes, time), point)
            if stands is not point:
                repeated.append(Repeated(time, differ(stands.encode(), point.encode())))
    # What came first is told by its place, in whatever order it is added.
    chance.shuffle(additions)
    for add in additions:
        add()
    keyed, left_out = rows.ordered()
    assert list(zip(keyed.times, map(repr, map(PointRow.decode, keyed.rows)), strict=True)) == [
        (time, repr(point)) for (_, time), point in sorted(wanted.items(), key=itemgetter(0))
    ]
    assert sorted(left_out) == sorted(repeated)


@given(
    st.tuples(
        st.uuids(),
        st.integers(0, 2**64 // 1000).map(from_microseconds),
        st.none() | st.integers(0, 2**64 // 1000).map(from_microseconds),
        st.integers(0, 2**32 - 1),
        st.none() | st.floats(),
        st.none() | st.integers(-(2**63), 2**63 - 1),
        st.none() | st.integers(0, 2**64 - 1) | st.sampled_from([0, 9999, 10_000, 10**8, 2**64 - 1]),
        *[st.none() | st.floats()] * 3,
        st.none() | st.lists(st.floats()),
        st.none() | st.lists(st.integers(0, 2**64 - 1)),
        *[st.none() | st.sampled_from([b"{}", b'{"a":[1,"NaN"]}'])] * 2,
    ).map(lambda values: PointRow(*values))
)
def test_a_row_is_what_copy_gives_back(row: PointRow) -> None:
    assert repr(PointRow.decode(row.encode())) == repr(row)
