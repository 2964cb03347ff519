"""Columns compared together have the results of each alone, whatever was compared before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.drift import columns
from mlmon_dagster.metrics.drift.columns import columns_drift
from mlmon_dagster.metrics.drift.references import DriftBaseline
from mlmon_dagster.metrics.statistics import ColumnStatistics, concat, select
from tests.metrics.samples import (
    CATEGORICAL_LAWS,
    NUMERIC_LAWS,
    Law,
    categorical_binning,
    cells,
    count,
    numeric_binning,
    score_statistics,
)

SEED = 3
ROUNDING = 1e-12


def sharing(law: Law, rows: int) -> Law:
    """So many rows in turn have the same value."""
    return lambda rng, size: np.repeat(law(rng, size), rows, axis=1)[:, : size[1]]


NUMERIC = NUMERIC_LAWS | {
    "five_share": sharing(NUMERIC_LAWS["normal"], 5),
    "hundreds_share": sharing(NUMERIC_LAWS["normal"], 180),
}
CATEGORICAL = CATEGORICAL_LAWS | {"ten_share": sharing(CATEGORICAL_LAWS["hundred"], 10)}
LAWS = NUMERIC | CATEGORICAL
WINDOWS = {"whole": (20, 400), "a": (20, 60), "b": (20, 8), "few": (5, 200)}
KEYS = ["column_name", "metric", "slice_value", "window_start"]


def sides() -> tuple[dict[str, ColumnStatistics], dict[str, ColumnStatistics]]:
    """Windows of 3, 100, 400, and 3,000 rows of every law, with slices, and their baselines."""
    rng = np.random.default_rng(11)
    now, then = {}, {}
    for name, law in LAWS.items():
        drawn = {part: law(rng, size) for part, size in WINDOWS.items()}
        make = numeric_binning if name in NUMERIC else categorical_binning
        binning = make(drawn["whole"], name)
        then[name] = concat([part_of(count(binning, v), part) for part, v in drawn.items()])
        fresh = [("whole", law(rng, (1, n))) for n in (3, 100, 400, 3000)]
        fresh += [(part, law(rng, (2, 70))) for part in ("a", "b", "few", "new")]
        now[name] = concat([part_of(count(binning, v), part) for part, v in fresh])
    return shared(now), shared(then)


def part_of(stats: ColumnStatistics, part: str) -> ColumnStatistics:
    if part == "whole":
        return stats
    return replace(stats, cells=cells(len(stats), key="group", value=part))


def shared(columns: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Give all columns the same frame of cells, with a start of its own for every cell."""
    frame = next(iter(columns.values())).cells
    frame = frame.assign(window_start=cells(len(frame))["window_start"])
    return {name: replace(stats, cells=frame) for name, stats in columns.items()}


NOW, THEN = sides()


def assert_same(left: pd.DataFrame, right: pd.DataFrame, rtol: float = ROUNDING) -> None:
    left, right = (frame.set_index(KEYS).sort_index() for frame in (left, right))
    pd.testing.assert_frame_equal(left, right, rtol=rtol, atol=rtol)


def test_columns_together_have_the_results_of_each_alone() -> None:
    further = ("hellinger", "mean_shift")
    together = columns_drift(NOW, DriftBaseline(THEN, seed=SEED), further=further)
    alone = [drift_metrics(NOW[name], THEN[name], seed=SEED, further=further) for name in NOW]
    assert_same(together, pd.concat(alone))
    assert list(dict.fromkeys(together["column_name"])) == list(NOW)
    few = together["reason"] == "few_independent_rows"
    assert set(together.loc[few, "column_name"]) == {"hundreds_share"}


def test_columns_in_small_batches_have_the_same_results(monkeypatch: pytest.MonkeyPatch) -> None:
    known = DriftBaseline(THEN, seed=SEED)
    before = columns_drift(NOW, known)
    monkeypatch.setattr(columns, "_AT_ONCE", 1)
    assert_same(columns_drift(NOW, known), before)


def test_a_baseline_asked_before_answers_as_one_that_was_not() -> None:
    used = DriftBaseline(THEN, seed=SEED)
    others = {name: select(stats, np.arange(1, len(stats), 2)) for name, stats in NOW.items()}
    columns_drift(others, used)
    first = columns_drift(NOW, used)
    fresh = columns_drift(NOW, DriftBaseline(THEN, seed=SEED))
    pd.testing.assert_frame_equal(first, columns_drift(NOW, used))
    pd.testing.assert_frame_equal(first, fresh, check_exact=True)


def test_a_window_has_its_method_whichever_windows_are_asked_for() -> None:
    known = DriftBaseline(THEN, seed=SEED)
    together = columns_drift(NOW, known)
    size = len(next(iter(NOW.values())))
    alone = [
        columns_drift({name: select(s, np.array([i])) for name, s in NOW.items()}, known)
        for i in range(size)
    ]
    assert_same(together, pd.concat(alone))


def test_columns_may_have_cells_of_their_own() -> None:
    some = dict(list(NOW.items())[:3])
    first = next(iter(some))
    shorter = some | {first: select(some[first], np.arange(2))}
    known = DriftBaseline(THEN, seed=SEED)
    frame = columns_drift(shorter, known)
    whole = columns_drift(some, known)
    expected = [whole[whole["column_name"] != first], columns_drift({first: shorter[first]}, known)]
    assert_same(frame, pd.concat(expected))


def test_scores_beside_other_columns_keep_their_groups() -> None:
    rng = np.random.default_rng(2)
    shares = np.exp(-(((np.arange(200) - 100) / 20) ** 2))
    rows = rng.multinomial(400, shares / shares.sum(), size=20)
    score = score_statistics(rows, np.zeros_like(rows))
    now, then = {"score": select(score, np.arange(2))}, {"score": score}
    together = columns_drift(NOW | now, DriftBaseline(THEN | then, seed=SEED))
    alone = drift_metrics(now["score"], score, seed=SEED)
    assert_same(together[together["column_name"] == "score"], alone)


def test_no_columns_and_no_cells_give_no_rows() -> None:
    known = DriftBaseline(THEN, seed=SEED)
    nothing = {name: select(stats, np.zeros(0, np.intp)) for name, stats in NOW.items()}
    assert columns_drift({}, known).empty
    assert columns_drift(nothing, known).empty
