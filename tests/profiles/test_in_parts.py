"""Profiles of rows divided anyhow are those of all rows at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import ProfileRows, build_profiles, fit_binnings, profile_in_parts
from mlmon_dagster.profiles.in_parts import added_up
from mlmon_dagster.profiles.storage import to_rows
from tests.profiles.comparing import assert_equal
from tests.profiles.records import DuckEngine, make_records, make_spec

SPEC = make_spec()
RECORDS = make_records(600, seed=5)
BASELINE = make_records(800, seed=1)
ROWS = RECORDS.num_rows


@pytest.fixture(scope="module")
def whole() -> dict[str, ColumnStatistics]:
    engine = DuckEngine(records=RECORDS, baseline=BASELINE)
    return build_profiles(engine, SPEC, "records", fit_binnings(engine, SPEC, "baseline"))


def divided(part_of_row: np.ndarray, order: list[int]) -> dict[str, ColumnStatistics]:
    """Profile rows whose part is given, the parts in some order."""
    records = RECORDS.append_column("part", pa.array(part_of_row))
    engine = DuckEngine(records=records, baseline=BASELINE)
    present = [part for part in order if (part_of_row == part).any()]
    sources = [f"(SELECT * EXCLUDE (part) FROM records WHERE part = {p})" for p in present]
    work = ProfileRows(lambda: engine, SPEC, fit_binnings(engine, SPEC, "baseline"))
    return profile_in_parts(work, sources, "records")


def assert_same(found: dict[str, ColumnStatistics], expected: dict[str, ColumnStatistics]) -> None:
    assert found.keys() == expected.keys()
    for name, stats in expected.items():
        assert_equal(found[name], stats, sums=1e-9)


@settings(max_examples=3, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=ROWS, max_size=ROWS),
    st.permutations(range(5)),
)
def test_any_division_in_any_order_gives_the_same_profiles(
    whole: dict[str, ColumnStatistics], parts: list[int], order: list[int]
) -> None:
    assert_same(divided(np.array(parts), order), whole)


def test_a_part_of_one_row_or_of_one_window_is_no_exception(
    whole: dict[str, ColumnStatistics],
) -> None:
    first_alone = (np.arange(ROWS) > 0).astype(int)
    dates = RECORDS["window_date"].to_pylist()
    by_window = np.array([int(date[-2:]) for date in dates])

    for parts in (first_alone, by_window):
        assert_same(divided(parts, sorted(set(parts.tolist()))), whole)


def test_a_part_without_rows_adds_nothing(whole: dict[str, ColumnStatistics]) -> None:
    engine = DuckEngine(records=RECORDS.slice(0, 0), baseline=BASELINE)
    binnings = fit_binnings(engine, SPEC, "baseline")
    nothing = build_profiles(engine, SPEC, "records", binnings)

    assert_same(added_up(nothing, to_rows(whole), binnings), whole)
