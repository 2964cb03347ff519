"""Numeric columns by sorting: the same numbers in any order of the rows, however they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import build, build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from tests.profiles.comparing import assert_all_equal
from tests.profiles.records import DuckEngine, make_records, make_spec

NUMERIC = ("temp", "hour", "booked_at", "note")
SPEC = make_spec(slices=[])


def numeric(records: pa.Table, baseline: pa.Table) -> dict[str, ColumnStatistics]:
    engine = DuckEngine(records=records, baseline=baseline)
    binnings = fit_binnings(engine, SPEC, "baseline")
    return build_profiles(engine, SPEC, "records", {name: binnings[name] for name in NUMERIC})


@settings(max_examples=20)
@given(seed=st.integers(0, 1000))
def test_the_order_of_the_rows_changes_no_bit(seed: int) -> None:
    records = make_records(400, seed)
    order = np.random.default_rng(seed).permutation(len(records))
    assert_all_equal(numeric(records, records), numeric(records.take(order), records))


@pytest.mark.parametrize(("rows", "values"), [(1_000, 1), (150, 1), (120, 10_000), (10_000, 500)])
@pytest.mark.parametrize("versions", [("1",), ("1", "2")])
def test_reading_in_parts_changes_no_bit_of_windows_that_fit(
    monkeypatch: Any, rows: int, values: int, versions: tuple[str, ...]
) -> None:
    records = make_records(
        500, days=6, model_version=[versions[i % len(versions)] for i in range(500)]
    ).sort_by("window_start")
    whole = numeric(records, records)
    read_in_parts(monkeypatch, rows, values)
    assert_all_equal(whole, numeric(records, records))


@settings(max_examples=12)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 300), values=st.integers(1, 3_000))
def test_windows_cut_or_mixed_have_the_same_counts_and_range_and_sums_but_for_rounding(
    seed: int, rows: int, values: int
) -> None:
    records = make_records(300, seed, days=4)
    whole = numeric(records, records)
    with pytest.MonkeyPatch.context() as patch:
        read_in_parts(patch, rows, values)
        found = numeric(records, records)
    assert_all_equal(found, whole, 1e-9)


def read_in_parts(patch: pytest.MonkeyPatch, rows: int, values: int) -> None:
    patch.setattr(build, "_ROWS_AT_ONCE", rows)
    patch.setattr(build, "_VALUES_AT_ONCE", values)
