"""Rankings where only what somebody looked at can be clicked: corrected by the chance of that."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.statistics import all_over_versions, of_all
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.tables.periods import by_windows, coarsen
from tests.metrics.rows import make_spec, measured, profiled

K, SIZE, GROUPS, DAYS = 3, 8, 80, 300
EXAMINED = 1 / np.arange(1, SIZE + 1)  # the further down, the less is looked at
RELEVANT = np.array([0.5, 0.3, 0.25, 0.2, 0.2, 0.15, 0.15, 0.1])
DISCOUNT = np.where(np.arange(SIZE) < K, 1 / np.log2(np.arange(2, SIZE + 2)), 0)
TRUTH = {
    "ipw_precision_at_k": RELEVANT[:K].mean(),
    "ipw_recall_at_k": RELEVANT[:K].sum() / RELEVANT.sum(),
    "ipw_mrr": (RELEVANT / np.arange(1, SIZE + 1)).sum() / RELEVANT.sum(),
    "ipw_dcg": (RELEVANT * DISCOUNT).sum() / RELEVANT.sum(),
}


SPEC = make_spec("ranking", {"group": "g", "rank": "r", "examined": "e"}, top_k=K, max_weight=100.0)


def frame_of(actual: np.ndarray, examined: Any, day: Any = 0) -> pd.DataFrame:
    """Return the rows of groups, (G, rows), that were shown in order."""
    n, size = actual.shape
    return pd.DataFrame(
        {
            "group": np.repeat([f"g{i}" for i in range(n)], size),
            "rank": np.tile(np.arange(1.0, size + 1), n),
            "actual": actual.ravel().astype(float),
            "examined": np.tile(examined, n),
            "day": np.repeat(np.broadcast_to(day, n), size),
            "site": "n",
        }
    )


def clicks(seed: int, shared: float, examined: np.ndarray = EXAMINED) -> pd.DataFrame:
    """Return clicks of days of groups; how good a group's rows are they share in part."""
    rng = np.random.default_rng(seed)
    n = DAYS * GROUPS
    quality = 1 + shared * rng.choice([-1, 1], (n, 1))
    is_relevant = rng.random((n, SIZE)) < RELEVANT * quality
    is_seen = rng.random((n, SIZE)) < examined
    return frame_of(is_relevant & is_seen, examined, np.arange(n) // GROUPS)


@cache
def windows(shared: float) -> pd.DataFrame:
    rows = clicks(3, shared)
    frame = measured(SPEC, rows, rows[rows["day"] < 10])
    return frame[frame["slice_key"] == "all"]


@pytest.mark.slow
@pytest.mark.parametrize("shared", [pytest.param(0.0, marks=pytest.mark.proof), 0.8])
@pytest.mark.parametrize("metric", TRUTH)
def test_weighted_metrics_are_unbiased_and_their_intervals_hold_the_truth(
    metric: str, shared: float
) -> None:
    """Groups are the units, so it holds, too, where rows of a group are good or bad together."""
    found = windows(shared)
    found = found[found["metric"] == metric]
    truth = TRUTH[metric]

    held = found["lower"].le(truth) & found["upper"].ge(truth)

    error = found["value"].std() / np.sqrt(len(found))
    assert len(found) == DAYS
    assert abs(found["value"].mean() - truth) < 4 * error + 0.005  # a ratio's own bias
    assert 0.91 <= held.mean() <= 0.985


@pytest.mark.slow
def test_without_weights_what_is_far_down_counts_for_too_little() -> None:
    found = windows(0.0)
    naive = found.loc[found["metric"] == "recall_at_k", "value"].mean()
    weighted = found.loc[found["metric"] == "ipw_recall_at_k", "value"].mean()
    clicked = (RELEVANT * EXAMINED)[:K].sum() / (RELEVANT * EXAMINED).sum()

    assert clicked > TRUTH["ipw_recall_at_k"] + 0.2
    assert naive < clicked  # groups without a click count as 0
    assert weighted == pytest.approx(TRUTH["ipw_recall_at_k"], abs=0.01)


@pytest.mark.slow
def test_where_rows_share_days_a_months_interval_counts_days_and_not_groups() -> None:
    """Days on which the first rows are good, or bad: groups of a day are not independent."""
    months, groups = 48, 10
    days = pd.date_range("2026-03-01", periods=months, freq="MS")[-1] - pd.Timestamp("2026-03-01")
    rng = np.random.default_rng(9)
    n = days.days * groups
    day = np.arange(n) // groups
    boost = np.where(rng.random(days.days) < 0.5, 0.4, 1.6)[day, None]
    chance = RELEVANT * np.where(np.arange(SIZE) < K, boost, 1.0)
    is_clicked = (rng.random((n, SIZE)) < chance) & (rng.random((n, SIZE)) < EXAMINED)
    rows = frame_of(is_clicked, EXAMINED, day)
    of_days, _ = profiled(SPEC, rows, rows[rows["day"] < 10])
    of_days = all_over_versions(of_all(of_days))
    by_month = {name: coarsen(SPEC, stats, "month") for name, stats in of_days.items()}
    by_groups = measure(SPEC, "performance", by_month, None)
    by_days = by_windows(SPEC, "performance", of_days, "month", by_groups)

    def held(frame: pd.DataFrame) -> float:
        mine = frame[frame["metric"] == "ipw_recall_at_k"]
        truth = TRUTH["ipw_recall_at_k"]
        return float((mine["lower"].le(truth) & mine["upper"].ge(truth)).mean())

    assert set(by_days["method_version"]) >= {"ipw-1:windows"}
    assert held(by_groups) < 0.9
    assert held(by_days) >= 0.87  # 42 of 47


def of_rows(actual: list[float | None], examined: list[float | None]) -> pd.DataFrame:
    """Measure twenty equal groups."""
    spec = SPEC.model_copy(update={"top_k": 2, "max_weight": 4.0})
    rows = frame_of(np.array([actual] * 20), np.array(examined, float))
    frame = measured(spec, rows, rows)
    return frame[frame["slice_key"] == "all"].set_index("metric")


def test_weights_are_clipped() -> None:
    found = of_rows([1.0, 0.0, 1.0], [1.0, 0.5, 0.01])

    assert found.loc["ipw_recall_at_k", "value"] == pytest.approx(1 / (1 + 4))
    assert found.loc["ipw_precision_at_k", "value"] == pytest.approx(1 / 2)
    assert found.loc["ipw_mrr", "value"] == pytest.approx((1 + 4 / 3) / 5)


def test_a_row_that_was_not_seen_is_left_out() -> None:
    found = of_rows([1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, None])

    assert found.loc["ipw_precision_at_k", "value"] == 1.0  # of the first two one was seen
    assert found.loc["precision_at_k", "value"] == 0.5
    assert found.loc["ipw_recall_at_k", "value"] == 0.5


def test_without_anything_relevant_a_mean_over_relevant_rows_has_no_value() -> None:
    found = of_rows([0.0, 0.0], [1.0, 0.5])

    assert found.loc["ipw_recall_at_k", "reason"] == "few_rows"
    assert found.loc["ipw_precision_at_k", "value"] == 0.0
