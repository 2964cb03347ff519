"""When predictions are, by the hashes of their ids, as a dictionary of the same rows says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.warehouse.by_day import NO_DAY, Hashes, Moments, Places, Quarters

SPAN = Moments(dt.datetime(2026, 3, 1, tzinfo=dt.UTC), dt.datetime(2026, 3, 5, tzinfo=dt.UTC))
QUARTERS = Quarters.around([SPAN])
ROWS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 7 * 96)), max_size=60)


def gather(rows: Sequence[tuple[int, int]]) -> Places:
    places = [hash_ << QUARTERS.bits | quarter for hash_, quarter in rows]
    halves = places[::2], places[1::2]
    tables = [pa.table({"place": pa.array(half, pa.uint64())}) for half in halves]
    return Places.gather(tables, QUARTERS)


def as_hashes(values: Sequence[int]) -> Hashes:
    return np.array(values, np.uint64)


@given(rows=ROWS, asked=st.lists(st.integers(0, 40), max_size=60))
def test_each_id_is_found_on_the_first_of_its_days(
    rows: list[tuple[int, int]], asked: list[int]
) -> None:
    first = {h: min(q for other, q in rows if other == h) for h, _ in rows}
    wanted = [(first[h] + QUARTERS.first) // 96 if h in first else NO_DAY for h in asked]
    assert gather(rows).find_days(as_hashes(asked)).tolist() == wanted


@given(rows=ROWS)
def test_an_id_is_repeated_if_it_comes_in_two_quarters_not_if_it_comes_twice_in_one(
    rows: list[tuple[int, int]],
) -> None:
    several = {h for h, q in rows for other, at in rows if other == h and at != q}
    assert gather(rows).find_repeated().tolist() == sorted(several)


@given(rows=ROWS, asked=st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=4))
def test_ids_without_a_prediction_are_counted_once(
    rows: list[tuple[int, int]], asked: list[list[int]]
) -> None:
    others = {h for some in asked for h in some} - {h for h, _ in rows}
    assert gather(rows).count_others(map(as_hashes, asked)) == len(others)


def test_the_quarters_of_a_span_have_room_for_its_times_in_any_zone() -> None:
    day = dt.timedelta(days=1)
    for moment in (SPAN.start - day, SPAN.end + day):
        quarter = int(moment.timestamp() // 900) - QUARTERS.first
        assert 0 <= quarter < 1 << QUARTERS.bits
