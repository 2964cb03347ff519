"""Profiles as rows: what is read is what was written, from the files of the windows asked for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import window
from mlmon_dagster.metrics.statistics import BaselineWindows, ColumnStatistics, concat, select
from mlmon_dagster.profiles import baseline_in_force
from mlmon_dagster.profiles.measures import columns_of, measure
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec import window_date
from mlmon_dagster.store import Store
from tests.metrics.samples import categorical_binning, cells, count, numeric_binning
from tests.profiles.comparing import assert_equal

RNG = np.random.default_rng(6)
NUMBERS = np.where(RNG.random((3, 50)) < 0.1, np.nan, RNG.normal(size=(3, 50)))
CODES = RNG.integers(0, 4, (3, 50))


def columns() -> dict[str, ColumnStatistics]:
    """Return two columns of five cells, the second with names of unseen categories."""
    numeric, categorical = numeric_binning(NUMBERS), categorical_binning(CODES)
    sliced = cells(2, key="origin", value="EWR")
    x, c = (
        concat([count(b, v), replace(count(b, v[:2]), cells=sliced)])
        for b, v in ((numeric, NUMBERS), (categorical, CODES))
    )
    return {"x": x, "c": replace(c, unseen=[{}, {"new": 2, "old": 1}, {}, {}, {"new": 1}])}


@pytest.mark.parametrize("seed", range(3))
def test_rows_in_any_order_are_the_statistics_that_were_written(seed: int) -> None:
    written = columns()
    rows = to_rows(written)
    order = np.random.default_rng(seed).permutation(rows.num_rows)
    found = from_rows(rows.take(order), {n: s.binning for n, s in written.items()})
    assert list(found) == list(written)
    for name, stats in written.items():
        by_cell = stats.cells.sort_values(list(stats.cells)).index.to_numpy()
        assert_equal(found[name], select(stats, by_cell))
    assert found["x"].cells is found["c"].cells


def test_columns_without_some_cells_have_frames_of_their_own() -> None:
    written = columns()
    written["c"] = select(written["c"], np.array([0, 2]))
    found = from_rows(to_rows(written), {n: s.binning for n, s in written.items()})
    assert len(found["x"]) == 5
    assert_equal(found["c"], written["c"])


def test_rows_of_other_columns_and_other_bins_are_left_out() -> None:
    written = columns()
    other = replace(written["c"].binning, binning_id="other")
    assert list(from_rows(to_rows(written), {"x": written["x"].binning, "c": other})) == ["x"]
    assert from_rows(to_rows(written), {"c": other}) == {}


def test_only_the_files_of_the_windows_asked_for_are_opened(store: Store, tmp_path: Path) -> None:
    """The files of all other days are gone, and nobody notices."""
    spec = window.make_spec()
    windows = window.prepare(store, spec, days=3, rows=40)
    last = windows[-1]
    asked = {"start": last.start, "end": last.end, "columns": columns_of(spec, "drift")}
    before = baseline_in_force(store, spec).profiles(**asked)
    folders = list((tmp_path / "store" / "profiles").rglob("window_date=*"))
    assert len(folders) == 3
    for folder in folders:
        if folder.name != f"window_date={window_date(spec.time, last)}":
            shutil.rmtree(folder)

    after = baseline_in_force(store, spec).profiles(**asked)

    assert list(after) == [*spec.features, "prediction"]
    for name, stats in before.items():
        assert_equal(after[name], stats)


def test_a_baseline_that_keeps_what_it_computed_gives_the_same_metrics(store: Store) -> None:
    spec = window.make_spec()
    windows = window.prepare(store, spec, days=16, rows=40)
    kept = window.load_baseline(store, spec).windows
    profiles = baseline_in_force(store, spec).profiles(
        start=windows[-2].start, dataset="production"
    )
    plain = measure(spec, "drift", profiles, dict(kept))
    assert isinstance(kept, BaselineWindows)
    for _ in range(2):
        pd.testing.assert_frame_equal(measure(spec, "drift", profiles, kept), plain)
    assert plain["method_version"].str.endswith(":windows").any()


def test_windows_that_baselines_share_are_measured_once_with_the_same_numbers(store: Store) -> None:
    spec = window.make_spec()
    window.prepare(store, spec, days=6, rows=40)
    whole = BaselineWindows(
        baseline_in_force(store, spec).profiles(columns=list(spec.features), dataset="production")
    )
    measured = []

    def rates(windows: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
        measured.append(windows)
        return measure(spec, "quality", windows, None)

    starts = sorted(whole[next(iter(spec.features))].cells["window_start"].unique())
    for first in range(4):
        kept = {
            name: select(stats, stats.cells["window_start"].isin(starts[first:]).to_numpy())
            for name, stats in whole.items()
        }
        found = BaselineWindows(kept, whole).each("rates", rates)
        alone = measure(spec, "quality", kept, None)
        order = ["window_start", "column_name", "metric", "slice_key", "slice_value"]
        pd.testing.assert_frame_equal(
            found.sort_values(order, ignore_index=True), alone.sort_values(order, ignore_index=True)
        )
        assert found["window_start"].nunique() == len(starts) - first
    assert measured == [whole]
