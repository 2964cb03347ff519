"""Areas are those of the rows: ROC AUC and PR AUC from profiles against scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.metrics import average_precision_score, roc_auc_score

from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.performance.roc import SCORE_ORDER, ScoreOrder, add_up, by_node, depth_of
from mlmon_dagster.metrics.statistics import ColumnStatistics, concat, merge
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.bin_codes import DUCKDB, STANDARD, Dialect
from mlmon_dagster.profiles.bin_shapes import role_binning
from mlmon_dagster.profiles.storage import from_rows, to_rows
from tests.profiles.records import START, DuckEngine, make_spec

ROC_TOLERANCE, PR_TOLERANCE = 1e-5, 1e-4
SPEC = make_spec(features={"origin": {"type": "categorical"}}, slices=["origin"])
BINNINGS = {
    "score": role_binning("score", "score"),
    SCORE_ORDER: role_binning(SCORE_ORDER, "order"),
}
Floats = NDArray[np.float64]


def leaves(scores: Floats, k: int) -> Floats:
    cuts = np.quantile(scores, np.linspace(0, 1, k + 1)[1:-1])
    leaf = np.searchsorted(cuts, scores)
    return np.bincount(leaf, scores)[leaf] / np.bincount(leaf)[leaf]


SHAPES: dict[str, Callable[[Floats], Floats]] = {
    "continuous": lambda s: s,
    "three decimals": lambda s: np.round(s, 3),
    "one decimal": lambda s: np.round(s, 1),
    "64 leaves": lambda s: leaves(s, 64),
}


def profiles_of(
    score: Floats, actual: NDArray[np.bool_], dialect: Dialect = DUCKDB
) -> dict[str, ColumnStatistics]:
    n = len(score)
    records = pa.table(
        {
            "window_start": pa.array([START] * n, pa.timestamp("us", "UTC")),
            "dataset": ["production"] * n,
            "model_version": pa.nulls(n, pa.string()),
            "score": pa.array(score),
            "actual": pa.array(actual.astype(np.int64)),
            "origin": pa.array(np.where(np.arange(n) % 2, "EWR", "JFK")),
        }
    )
    return build_profiles(DuckEngine(records=records), SPEC, "records", BINNINGS, dialect)


def drawn(
    n: int, base_rate: float, separation: float, seed: int
) -> tuple[Floats, NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    actual = rng.random(n) < base_rate
    drift = logit(base_rate) - separation**2 / 2
    return expit(rng.normal(drift, separation, n) + actual * separation**2), actual


SMALL = [(5_000, 0.003, 1.0), (5_000, 0.5, 0.3), (50_000, 0.05, 1.0), (50_000, 0.3, 3.0)]
# Seconds each, so every shape and every law once; scores without ties are the hardest.
LARGE = [
    ("continuous", 1_000_000, 0.01, 1.0),
    ("three decimals", 1_000_000, 0.3, 0.3),
    ("64 leaves", 1_000_000, 0.5, 3.0),
    ("one decimal", 200_000, 0.3, 0.3),
]


@pytest.mark.parametrize(
    ("shape", "n", "base_rate", "separation"),
    [(shape, *drawn) for shape in SHAPES for drawn in SMALL]
    + [pytest.param(*drawn, marks=pytest.mark.proof) for drawn in LARGE],
)
def test_areas_are_scikit_learns(shape: str, n: int, base_rate: float, separation: float) -> None:
    score, actual = drawn(n, base_rate, separation, seed=n)
    score = SHAPES[shape](score)
    profiles = profiles_of(score, actual)
    found = performance_metrics(profiles["score"], None, profiles)
    whole = found[found["slice_key"] == "all"].set_index("metric")["value"]
    assert whole["roc_auc"] == pytest.approx(roc_auc_score(actual, score), abs=ROC_TOLERANCE)
    precision = average_precision_score(actual, score)
    assert whole["pr_auc"] == pytest.approx(precision, abs=PR_TOLERANCE)


def test_the_portable_statement_gives_the_same_order() -> None:
    score, actual = drawn(3_000, 0.2, 1.0, seed=1)
    here, there = (profiles_of(score, actual, dialect) for dialect in (DUCKDB, STANDARD))
    np.testing.assert_array_equal(here[SCORE_ORDER].order[0], there[SCORE_ORDER].order[0])


def test_what_is_read_is_the_order_that_was_written() -> None:
    written = profiles_of(*drawn(20_000, 0.2, 1.0, seed=2))
    read = from_rows(to_rows(written), BINNINGS)[SCORE_ORDER]
    np.testing.assert_array_equal(read.order[0], written[SCORE_ORDER].order[0])
    np.testing.assert_array_equal(read.counts, written[SCORE_ORDER].counts)


@pytest.mark.parametrize("sizes", [(100, 200), (8_000, 500, 30), (20_000, 9_000, 1)])
def test_parts_of_any_size_in_any_order_add_up_to_the_whole(sizes: tuple[int, ...]) -> None:
    """The depth follows from the rows of the sum, however they were cut into parts."""
    score, actual = drawn(sum(sizes), 0.3, 1.0, seed=3)
    whole = profiles_of(score, actual)[SCORE_ORDER]
    ends = np.cumsum(sizes)[:-1]
    parts = [
        profiles_of(s, a)[SCORE_ORDER]
        for s, a in zip(np.split(score, ends), np.split(actual, ends), strict=True)
    ]
    for some in (parts, parts[::-1], [merge(concat(parts[1:]), ()), parts[0]]):
        merged = merge(concat([*some]), ())
        np.testing.assert_array_equal(merged.order[0], whole.order[0])
        np.testing.assert_array_equal(merged.counts, whole.counts)


def test_tied_scores_stay_tied_and_rows_are_kept() -> None:
    order = ScoreOrder(np.array([2 * 2**22, 2 * 2**22 + 1, 2 * 2**22 + 4]), np.array([3, 2, 1]))
    negatives, positives = by_node(add_up([order]))
    assert negatives.tolist() == [3, 1]
    assert positives.tolist() == [2, 0]


def test_a_cell_of_more_rows_is_never_deeper() -> None:
    depths = [depth_of(n) for n in range(0, 2_000_000, 4_093)]
    assert depths == sorted(depths, reverse=True)
