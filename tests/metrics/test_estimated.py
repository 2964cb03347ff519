"""Performance without ground truth: against brute force, simulation and degenerate inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scored_worlds import counted, halved, middles, world
from mlmon_dagster.metrics.estimated.binary import estimated_performance, residuals
from mlmon_dagster.metrics.estimated.calibration import (
    Table,
    calibrate,
    expected_table,
    isotonic_curve,
    sampling_variances,
    values_of,
)

METRICS = (
    "roc_auc", "pr_auc", "brier", "log_loss", "actual_rate",
    "accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1",
)  # fmt: skip

RNG = np.random.default_rng(8)
SEED = 3


@pytest.fixture(scope="module")
def learnt():
    score, actual = world(np.random.default_rng(1), 40, 400)
    whole = counted(score, actual)
    return calibrate(whole, halved(score, actual, 0.5), SEED)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 40), st.sampled_from([1, 3, 1000]))
def test_curves_of_ties_gaps_and_weights_are_scipys_one_by_one(seed, curves, size, most):
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(seed)
    pos, neg = rng.integers(0, most, (2, curves, size)) * rng.choice([1.0, 0.3])
    found = isotonic_curve(pos, neg)
    for curve, p, n in zip(found, pos, neg, strict=True):
        rows = p + n
        if not rows.any():
            assert np.isnan(curve).all()
            continue
        filled = np.flatnonzero(rows)
        known = isotonic_regression(p[filled] / rows[filled], weights=rows[filled]).x
        least = 0.5 / (rows.sum() + 1)
        known = np.clip(np.interp(np.arange(size), filled, known), least, 1 - least)
        np.testing.assert_allclose(curve, known, rtol=0, atol=1e-12)


def test_expected_values_and_variances_are_those_of_drawn_actuals():
    """3,000 draws of the actuals of one window; the mean within 4 %, the spread within 12 %."""
    score, _ = world(RNG, 1, 800)
    rows = counted(score, np.full_like(score, np.nan))
    curve = np.clip(middles(), 0.02, 0.98)
    all_rows, decided = rows.rows.sum(axis=2), rows.decided.sum(axis=2)
    value = values_of(expected_table(all_rows, decided, curve), middles())
    noise = curve * (1 - curve)
    table = expected_table(all_rows, decided, curve)
    variance = sampling_variances(table, all_rows * noise, decided * noise, middles())
    draws = 3000
    yes = RNG.binomial(decided[0].astype(int), curve, (draws, len(curve))).astype(float)
    no = RNG.binomial((all_rows - decided)[0].astype(int), curve, (draws, len(curve)))
    drawn = values_of(Table(yes + no, all_rows - yes - no, yes, decided - yes), middles())
    for metric in METRICS:
        assert value[metric][0] == pytest.approx(drawn[metric].mean(), rel=0.04), metric
        assert variance[metric][0] ** 0.5 == pytest.approx(drawn[metric].std(), rel=0.12), metric


def test_bands_hold_the_truth_and_a_new_meaning_of_the_score_leaves_them(learnt):
    """300 windows of 300 rows; nominal .95, and three binomial standard errors below it."""
    for shift, concept, expected in ((0.0, 0.0, True), (0.4, 0.0, True), (0.0, 0.7, False)):
        counts = counted(*world(np.random.default_rng(5), 300, 300, shift=shift, concept=concept))
        frame = residuals(counts, learnt)
        auc = frame[(frame["metric"] == "roc_auc_residual") & frame["value"].notna()]
        held = ((auc["lower"] <= 0) & (auc["upper"] >= 0)).mean()
        assert (held >= 0.95 - 0.038) == expected


def test_actuals_do_not_change_an_estimate(learnt):
    score, actual = world(RNG, 3, 200)
    with_them, without = (
        estimated_performance(counted(score, known), learnt)
        for known in (actual, np.full_like(actual, np.nan))
    )
    assert with_them.equals(without)


def test_degenerate_windows_have_reasons(learnt):
    empty, few = np.zeros((1, 0)), np.full((1, 5), 0.4)
    sure = np.full((1, 100), 1e-4)
    for score, metric, reason in (
        (empty, "estimated_roc_auc", "no_rows"),
        (few, "estimated_f1", "few_rows"),
        (sure, "estimated_roc_auc", "few_of_rarer_class"),
        (sure, "estimated_precision", "no_predicted_positives"),
    ):
        frame = estimated_performance(counted(score, np.full_like(score, np.nan)), learnt)
        row = frame[frame["metric"] == metric].iloc[0]
        assert np.isnan(row["value"])
        assert row["reason"] == reason
    gap = residuals(counted(few, np.full_like(few, np.nan)), learnt)
    assert set(gap["reason"]) == {"no_actuals"}
    flat = estimated_performance(counted(np.full((1, 400), 0.4), np.full((1, 400), np.nan)), learnt)
    auc = flat[flat["metric"] == "estimated_roc_auc"].iloc[0]
    assert auc["value"] == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize(
    ("actual", "reason"),
    [(0.0, "baseline_single_class"), (np.nan, "baseline_no_actuals")],
)
def test_a_baseline_that_teaches_nothing_says_why(actual, reason):
    score, _ = world(RNG, 3, 100)
    truth = np.full_like(score, actual)
    calibration = calibrate(counted(score, truth), counted(score[:1], truth[:1]), SEED)
    frame = estimated_performance(counted(score, truth), calibration)
    assert set(frame["reason"]) == {reason}
