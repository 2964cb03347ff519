"""Estimates and residuals: which windows fail, and what is said of them."""

from __future__ import annotations

import datetime as dt
import math

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.errors import ConfigError
from tests.conftest import make_spec
from tests.monitors.cases import DAY, FEATURES, frame, metric, only, spec, verdicts, window

FAMILY = "estimated_performance"
MODEL = spec(estimated_performance={"metric": "roc_auc"})
LOSSES = spec(estimated_performance={"metric": "brier"})
BASELINE = frame([metric("estimated_roc_auc", 0.72, lower=0.715, upper=0.725)])


def judged(monitor, rows, windows=None, model=MODEL, baseline=BASELINE):
    found = verdicts(FAMILY, rows, windows, model=model, baseline=baseline)
    return only(found, f"{FAMILY}/{monitor}")


@pytest.mark.parametrize(
    ("value", "half", "status"),
    [(0.66, 0.03, "WARN"), (0.66, 0.08, "OK"), (0.70, 0.005, "OK"), (0.8, 0.01, "OK")],
)
def test_an_estimate_fails_when_its_fall_is_large_and_more_than_chance(value, half, status):
    row = metric("estimated_roc_auc", value, lower=value - half, upper=value + half)
    assert judged("roc_auc", [row])["status"] == status


@pytest.mark.parametrize(
    ("value", "half", "windows"),
    [(0.6, 0.03, (1, 1)), (0.63, 0.03, (2, 3)), (0.6, 0.07, (2, 3)), (0.71, 0.01, (2, 3))],
)
def test_an_estimate_that_falls_by_twice_the_limit_beyond_chance_is_told_at_once(
    value, half, windows
):
    row = metric("estimated_roc_auc", value, lower=value - half, upper=value + half)
    found = judged("roc_auc", [row])
    assert (found["k"], found["of_n"]) == windows


@pytest.mark.parametrize(
    ("value", "half", "status"),
    [(0.07, 0.04, "WARN"), (0.07, 0.09, "OK"), (0.02, 0.01, "OK"), (-0.2, 0.01, "OK")],
)
def test_a_truth_worse_than_estimated_fails_and_a_better_one_passes(value, half, status):
    row = metric("roc_auc_residual", value, lower=value - half, upper=value + half)
    assert judged("roc_auc_residual", [row])["status"] == status


def test_the_message_says_estimate_truth_and_what_it_means():
    rows = [
        metric("estimated_roc_auc", 0.72, lower=0.69, upper=0.75),
        metric("roc_auc_residual", 0.07, lower=0.03, upper=0.11, n=900),
    ]
    assert judged("roc_auc_residual", rows)["message"] == (
        "ROC AUC turned out 0.07 worse than estimated.\n95 % interval of the difference 0.03 "
        "to 0.11 (n 900); the limit is 0.03. The scores no longer mean what they meant in the "
        "baseline."
    )


def test_an_estimate_says_that_the_truth_is_still_coming():
    """Estimates speak while a window waits, and say that they are what there is."""
    row = metric("estimated_roc_auc", 0.66, lower=0.64, upper=0.68)
    waiting = judged("roc_auc", [row], [window(maturity="provisional")])
    assert waiting["message"].endswith(". Ground truth is still coming.")
    assert "still coming" not in judged("roc_auc", [row])["message"]


def test_few_actuals_or_no_baseline_give_no_verdict():
    row = metric("roc_auc_residual", 0.2, lower=0.1, upper=0.3)
    early = [window(maturity="provisional")]
    assert judged("roc_auc_residual", [row], early)["reason"] == "labels_still_coming"
    estimate = metric("estimated_roc_auc", 0.6, lower=0.59, upper=0.61)
    assert judged("roc_auc", [estimate], baseline=None)["reason"] == "no_baseline"
    assert judged("roc_auc", [], [window(learning=True)])["reason"] == "learning"


def test_a_baseline_of_earlier_windows_teaches_no_estimate_and_the_reason_says_so():
    moving = {"moving": "28d"}
    monitors = {"estimated_performance": {"metric": "roc_auc"}}
    declared = make_spec(features=FEATURES, baseline=moving, monitors=monitors)
    for name in ("roc_auc", "roc_auc_residual"):
        assert judged(name, [], model=declared, baseline=None)["reason"] == "moving_baseline"
    assert make_spec(features=FEATURES, baseline=moving).monitors.estimated_performance == ()
    assert [m.metric for m in spec().monitors.estimated_performance] == ["roc_auc"]


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        ({"metric": "lift"}, "lift cannot be estimated"),
        ([{"metric": "f1"}, {"metric": "f1"}], "f1 is monitored twice"),
    ],
)
def test_a_spec_cannot_watch_what_is_not_estimated(monitor, said):
    with pytest.raises(ConfigError, match=said):
        spec(estimated_performance=monitor)


def test_windows_before_are_averaged_so_that_small_differences_add_up():
    days = [DAY - pd.Timedelta(days=i) for i in range(9)]
    half = 0.06
    rows = [
        metric("roc_auc_residual", 0.04, lower=0.04 - half, upper=0.04 + half, window_start=day)
        for day in days
    ]
    assert judged("roc_auc_residual", rows[:1])["status"] == "OK"
    row = judged("roc_auc_residual", rows)
    assert row["status"] == "WARN"
    assert row["n"] == 7000
    assert row["message"].startswith("ROC AUC over 7 days turned out 0.04 worse")
    # Half of one window's interval, over the root of seven, beside the baseline's own .005.
    assert row["value"] - row["lower"] == pytest.approx(math.hypot(half / 7**0.5, 0.005))


@pytest.mark.parametrize(
    ("newest", "status"),
    [
        ((0.4,), "WARN"),
        ((0.0, 0.0), "WARN"),
        ((0.0, 0.0, 0.0), "OK"),
        ((0.019, 0.019, 0.019), "OK"),
        ((0.021, 0.021, 0.021), "WARN"),
        ((-1.0,), "OK"),
    ],
)
def test_a_large_fault_is_forgotten_when_it_is_over(newest, status):
    worse = [*newest, 0.4, 0.4, 0.4]
    rows = [
        metric("roc_auc_residual", v, lower=v - 0.06, upper=v + 0.06, window_start=day)
        for v, day in zip(worse, (DAY - pd.Timedelta(days=i) for i in range(9)), strict=False)
    ]
    row = judged("roc_auc_residual", rows)
    assert row["status"] == status
    assert row["message"].endswith("it is over: the newest days are within it.") == (status == "OK")


def earlier(values, half=0.05):
    """Residuals of the days before the judged one, the newest first, and its estimate."""
    rows = [
        metric("roc_auc_residual", v, lower=v - half, upper=v + half,
               window_start=DAY - pd.Timedelta(days=i + 1))
        for i, v in enumerate(values)
    ]  # fmt: skip
    return [*rows, metric("estimated_roc_auc", 0.66, lower=0.63, upper=0.69)]


@pytest.mark.parametrize(
    ("values", "status", "factor"),
    [
        ((), "WARN", 1),
        ((0.05,) * 9, "WARN", 1),
        ((0.1,) + (0.0,) * 29, "OK", 2.4),
        ((0.0,) * 30 + (0.1,), "WARN", 1),
    ],
)
def test_a_band_is_a_fifth_wider_than_the_farthest_of_the_last_30_that_missed(
    values, status, factor
):
    row = judged("roc_auc", earlier(values))
    assert row["status"] == status
    assert row["upper"] - row["value"] == pytest.approx(0.03 * factor)
    said = f"2.4 times as wide as from the baseline alone, learnt from {len(values)} days"
    assert (said in row["message"]) == (factor > 1)


def test_truth_that_was_not_due_when_the_window_was_estimated_teaches_nothing():
    due = MODEL.actuals.model_copy(update={"expected_within": dt.timedelta(days=3)})
    late = MODEL.model_copy(update={"actuals": due})
    rows = earlier((0.2, 0.2, 0.1, 0.0))
    assert judged("roc_auc", rows)["upper"] == pytest.approx(0.66 + 0.03 * 4.8)
    assert judged("roc_auc", rows, model=late)["upper"] == pytest.approx(0.66 + 0.03 * 2.4)


def missed(mean: float, seed: int, days: int, first: pd.Timestamp = DAY, spread: float = 0.02):  # type: ignore[no-untyped-def]
    """Residuals of days that wander about a mean by more than their rows explain."""
    rng = np.random.default_rng(seed)
    values = mean + rng.normal(0, spread, days) + rng.normal(0, 0.02, days)
    return [
        metric("roc_auc_residual", v, lower=v - 0.04, upper=v + 0.04,
               window_start=first + pd.Timedelta(days=i))
        for i, v in enumerate(values)
    ]  # fmt: skip


def beside(rows, habit, model=MODEL):  # type: ignore[no-untyped-def]
    """Judge windows with a baseline whose own windows turned out worse by habit."""
    own = frame(missed(habit, 99, 60, DAY - pd.Timedelta(days=90)))
    windows = [window(row["window_start"]) for row in rows]
    found = verdicts(FAMILY, rows, windows, model=model, baseline=BASELINE, baseline_windows=own)
    return [row for row in found if row["monitor"] == f"{FAMILY}/roc_auc_residual"]


def test_what_estimates_are_off_by_in_the_baseline_is_no_fault_and_is_said():
    usual = beside(missed(0.04, 1, 40), habit=0.04)
    assert {row["status"] for row in usual} == {"OK"}
    (*_, worse) = beside(missed(0.1, 1, 7), habit=0.04)
    assert worse["status"] == "WARN"
    first, _, rest = worse["message"].partition("\n")
    assert first == "ROC AUC over 7 days turned out 0.11 worse than estimated, usually 0.04 worse."
    assert rest.startswith("95 % interval of the difference 0.0")
    assert worse["baseline_value"] == pytest.approx(0.04, abs=0.01)


def test_healthy_windows_that_stray_by_more_than_their_rows_are_left_alone_for_years():
    """Ten years of 120 days each, judged as a backfill does: at most one of them fails at all."""
    failing = [
        any(row["status"] == "WARN" for row in beside(missed(0.0, seed, 120), habit=0.0))
        for seed in range(10)
    ]
    assert sum(failing) <= 1
