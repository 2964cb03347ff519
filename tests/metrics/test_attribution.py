"""Shares of the attributions: against scipy, and simulated where there is no closed form."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats as tests

from mlmon_dagster.metrics.drift.attribution import attribution_metrics, attribution_references
from mlmon_dagster.metrics.intervals import biweight
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import loss_binning
from mlmon_dagster.profiles.loss_columns import share_of
from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT
from tests.metrics.samples import statistics

ALPHA = 0.01


def column(values: np.ndarray, feature: str = "age") -> ColumnStatistics:
    """Windows of shares (C, rows); NaN is a row without SHAP values."""
    known = ~np.isnan(values)
    n, filled = known.sum(axis=1), np.nan_to_num(values)
    return statistics(
        loss_binning(share_of(feature), 1.0), n[:, None], n=np.full_like(n, values.shape[1]),
        n_null=values.shape[1] - n, total=filled.sum(axis=1), total_sq=(filled**2).sum(axis=1),
    )  # fmt: skip


def compared(
    values: np.ndarray, baseline: np.ndarray | None, metric: str = ATTRIBUTION_SHIFT
) -> pd.DataFrame:
    known = None if baseline is None else attribution_references({"age": column(baseline)})
    frame = attribution_metrics({"age": column(values)}, known)
    return frame[frame["metric"] == metric].reset_index(drop=True)


def test_an_attribution_is_the_mean_share_with_students_interval() -> None:
    values = np.random.default_rng(0).beta(2, 5, (3, 200))
    found = compared(values, None, ATTRIBUTION)
    for row, mine in zip(found.itertuples(), values, strict=True):
        low, high = tests.t.interval(0.95, 199, mine.mean(), tests.sem(mine))
        assert (row.value, row.lower, row.upper) == pytest.approx(
            (mine.mean(), low, high), abs=1e-9
        )
        assert row.n == 200


def test_a_shift_is_the_difference_with_welchs_test_and_interval() -> None:
    rng = np.random.default_rng(1)
    values, baseline = rng.beta(2, 5, (4, 150)), rng.beta(2, 7, (5, 300))
    found = compared(values, baseline)
    for row, mine in zip(found.itertuples(), values, strict=True):
        test = tests.ttest_ind(mine, baseline.ravel(), equal_var=False)
        ends = test.confidence_interval()
        assert row.value == pytest.approx(mine.mean() - baseline.mean(), abs=1e-9)
        spread = baseline.std(ddof=1) * np.sqrt(1 / 150 + 1 / 1500)
        known = 2 * tests.t.sf(abs(row.value) / spread, 1499)
        assert row.p_value == pytest.approx(max(test.pvalue, known), abs=1e-9)
        assert (row.lower, row.upper) == pytest.approx((ends.low, ends.high), abs=1e-9)
        assert row.method_version == "row-shares-1:rows"


def test_windows_that_differ_by_themselves_must_be_beaten_too() -> None:
    rng = np.random.default_rng(2)
    centres = rng.normal(0.4, 0.05, (30, 1))
    baseline = np.clip(rng.normal(centres, 0.02, (30, 400)), 0, 1)
    values = np.clip(rng.normal(0.45, 0.02, (1, 400)), 0, 1)
    row = compared(values, baseline).iloc[0]
    spread = float(biweight(baseline.mean(axis=1))[1]) * np.sqrt(1 + 1 / 30)
    more = max(values.var(ddof=1) / 400 - (baseline.var(axis=1, ddof=1) / 400).mean(), 0)
    t = abs(values.mean() - baseline.mean()) / np.sqrt(spread**2 + more)
    assert row["p_value"] == pytest.approx(2 * tests.t.sf(t, 0.8 * 29), abs=1e-9)
    assert row["p_value"] > 0.1
    assert row["method_version"].endswith(":windows")


@pytest.mark.proof
@pytest.mark.parametrize("n", [30, 200, 2_000])
@pytest.mark.parametrize("days", [1, 20])
def test_unchanged_windows_are_called_changed_as_often_as_alpha_says(n: int, days: int) -> None:
    rng = np.random.default_rng([n, days])
    found = [
        compared(rng.beta(0.5, 3, (50, n)), rng.beta(0.5, 3, (days, 2_000)))["p_value"]
        for _ in range(60)
    ]
    rate = float((np.concatenate(found) <= ALPHA).mean())
    assert rate <= 0.014  # .01 and twice the scatter of 3,000 windows


def test_days_that_differ_do_not_alarm_and_a_real_change_does() -> None:
    rng = np.random.default_rng(5)

    def days(size: int, centre: float) -> np.ndarray:
        return np.clip(rng.normal(rng.normal(centre, 0.03, (size, 1)), 0.1, (size, 500)), 0, 1)

    alarms = [
        (compared(days(100, 0.4), days(30, 0.4))["p_value"] <= ALPHA).mean() for _ in range(30)
    ]
    assert np.mean(alarms) <= 0.015
    seen = [
        (compared(days(100, 0.55), days(30, 0.4))["p_value"] <= ALPHA).mean() for _ in range(10)
    ]
    assert np.mean(seen) >= 0.9


def test_changed_days_in_a_moving_baseline_do_not_hide_the_next_one() -> None:
    rng = np.random.default_rng(8)
    usual, changed = rng.beta(4, 4, (20, 400)), rng.beta(1, 6, (4, 400))
    for known in range(4):
        row = compared(changed[3:], np.concatenate([usual, changed[:known]])).iloc[0]
        assert row["p_value"] < 1e-6, known


def test_intervals_of_a_shift_hold_the_truth() -> None:
    rng = np.random.default_rng(6)
    held = []
    for _ in range(10):
        found = compared(rng.beta(2, 5, (500, 200)), rng.beta(2, 8, (3, 400)))
        truth = 2 / 7 - 2 / 10
        held.append((found["lower"] <= truth) & (truth <= found["upper"]))
    assert 0.93 <= float(np.mean(held)) <= 0.97


@pytest.mark.parametrize(
    ("values", "baseline", "reason"),
    [
        (np.full((1, 50), np.nan), np.full((1, 50), 0.3), "no_attributions"),
        (np.full((1, 29), 0.3), np.full((1, 50), 0.3), "few_rows"),
        (np.full((1, 50), 0.3), np.full((1, 50), np.nan), "no_baseline"),
        (np.full((1, 50), 0.3), np.full((1, 20), 0.3), "few_baseline_rows"),
        (np.full((1, 0), 0.3), np.full((1, 50), 0.3), "no_attributions"),
    ],
)
def test_what_cannot_be_compared_says_why(values, baseline, reason) -> None:
    row = compared(values, baseline).iloc[0]
    assert row["reason"] == reason
    assert np.isnan(row["value"])
    assert np.isnan(row["p_value"])


def test_without_a_baseline_there_is_no_shift_but_an_attribution() -> None:
    assert len(compared(np.full((2, 50), 0.3), None)) == 0
    assert len(compared(np.full((2, 50), 0.3), None, ATTRIBUTION)) == 2
    frame = attribution_metrics({"age": column(np.full((1, 50), 0.3))}, {})
    assert set(frame["reason"]) == {"", "no_baseline"}
