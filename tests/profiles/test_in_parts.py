"""Profiles of rows divided anyhow are those of all rows at once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles import ProfileRows, build_profiles, profile_in_parts
from mlmon_dagster.profiles import build as in_parts
from mlmon_dagster.profiles.build import added_up, held
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.storage import to_rows
from mlmon_dagster.spec.declaration import Feature
from mlmon_dagster.store import Store
from tests.profiles.comparing import assert_all_equal
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


@settings(max_examples=3, deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=ROWS, max_size=ROWS),
    st.permutations(range(5)),
)
@example([0] + [1] * (ROWS - 1), [0, 1, 2, 3, 4])
@example([int(date[-2:]) for date in RECORDS["window_date"].to_pylist()], [4, 3, 2, 1, 0])
def test_any_division_in_any_order_gives_the_same_profiles(
    whole: dict[str, ColumnStatistics], parts: list[int], order: list[int]
) -> None:
    assert_all_equal(divided(np.array(parts), order), whole, 1e-9)


def test_parts_are_the_same_added_up_together_or_one_by_one(
    whole: dict[str, ColumnStatistics], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "_MOST_WAITING", 0)

    assert_all_equal(divided(np.arange(ROWS) % 3, [2, 0, 1]), whole, 1e-9)


def test_a_part_without_rows_adds_nothing(whole: dict[str, ColumnStatistics]) -> None:
    engine = DuckEngine(records=RECORDS.slice(0, 0), baseline=BASELINE)
    binnings = fit_binnings(engine, SPEC, "baseline")
    nothing = build_profiles(engine, SPEC, "records", binnings)

    assert_all_equal(added_up(nothing, [to_rows(whole)], binnings), whole, 1e-9)


def test_hundreds_of_columns_are_read_once_and_counted_within_the_engines_memory(
    store: Store,
) -> None:
    names = [f"region_{i:03}" for i in range(120)]
    wide = {name: Feature(type="categorical", nullable=True) for name in names}
    spec = SPEC.model_copy(update={"features": {**SPEC.features, **wide}})
    rows = RECORDS
    for name in names:
        rows = rows.append_column(name, RECORDS["carrier"])
    seen = DuckEngine(records=rows)
    whole = build_profiles(seen, spec, "records", fit_binnings(seen, spec, "records"))

    engine, source = held(store.queries, spec, _on_disk(store, rows))

    assert source == "held_records"
    assert_all_equal(
        build_profiles(engine, spec, source, fit_binnings(engine, spec, source)), whole, 1e-9
    )
    assert held(store.queries, SPEC, "anything").from_sql == "anything"


def _on_disk(store: Store, rows: pa.Table) -> str:
    store.table("wide", "model").replace(rows.drop_columns(["window_date"]), None)
    snapshot = store.table("wide", "model").snapshot()
    assert snapshot is not None
    return snapshot.from_sql()
