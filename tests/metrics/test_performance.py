"""What binary models have: areas, separation, calibration, gaps of rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from mlmon_dagster.metrics.performance.binary import (
    average_precision,
    ks_separation,
    lift,
    performance_metrics,
)
from mlmon_dagster.metrics.performance.fairness import fairness_metrics
from mlmon_dagster.metrics.performance.roc import roc_auc
from mlmon_dagster.metrics.statistics import concat
from tests.metrics.samples import cells, confusion_statistics, score_statistics

BINS = 1024
RNG = np.random.default_rng(3)


def binned(score: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Counts of negatives and positives per logit bin, shape (1, BINS) each."""
    place = np.floor((special.logit(score) + 14) / 28 * BINS).clip(0, BINS - 1).astype(int)
    return tuple(np.bincount(place[actual == k], minlength=BINS)[None] for k in (0, 1))


def scored(n: int, base: float, sharp: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and actuals of a calibrated model."""
    score = special.expit(RNG.normal(base, sharp, n))
    return score, (RNG.random(n) < score).astype(int)


def measured(score: np.ndarray, actual: np.ndarray) -> pd.DataFrame:
    clipped = np.where(actual == 1, score, 1 - score)
    stats = score_statistics(
        *binned(score, actual),
        total=np.array([-np.log(clipped).sum()]),
        total_sq=np.array([((score - actual) ** 2).sum()]),
    )
    return performance_metrics(stats, None).set_index("metric")


@pytest.mark.parametrize(("base", "sharp"), [(0.0, 1.0), (-2.0, 2.0), (-6.0, 1.5), (1.0, 4.0)])
def test_roc_auc_is_sklearns_within_the_stated_bound(base, sharp):
    score, actual = scored(60_000, base, sharp)
    result = roc_auc(*binned(score, actual))
    error = abs(result.value[0] - sk.roc_auc_score(actual, score))
    assert error <= result.bound[0] + 1e-12
    assert error < 2e-4
    assert result.bound[0] < 0.01


def test_roc_auc_of_tied_scores_is_exactly_sklearns():
    score = RNG.choice([0.1, 0.3, 0.35, 0.8], 500)
    actual = (RNG.random(500) < score).astype(int)
    result = roc_auc(*binned(score, actual))
    assert result.value[0] == pytest.approx(sk.roc_auc_score(actual, score), abs=1e-12)


def test_delongs_variance_equals_its_definition_by_pairs():
    score = RNG.choice(np.linspace(0.05, 0.95, 19), 300)
    actual = (RNG.random(300) < score).astype(int)
    pos, neg = score[actual == 1], score[actual == 0]
    wins = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
    variance = wins.mean(1).var(ddof=1) / len(pos) + wins.mean(0).var(ddof=1) / len(neg)
    result = roc_auc(*binned(score, actual))
    area = result.value[0]
    slope = area * (1 - area)
    # the interval without its binning bound, back on the logit scale
    half = (
        special.logit(result.upper[0] - result.bound[0])
        - special.logit(result.lower[0] + result.bound[0])
    ) / 2
    t = special.stdtrit(min(len(pos), len(neg)) - 1, 0.975)
    assert half * slope / t == pytest.approx(np.sqrt(variance), rel=1e-3)


def test_calibration_error_is_near_zero_for_a_calibrated_model_and_found_otherwise():
    score, actual = scored(20_000, -1, 1.5)
    good = measured(score, actual).loc["calibration_error"]
    wrong = measured(special.expit(special.logit(score) + 0.8), actual).loc["calibration_error"]
    assert good["value"] < 0.015
    assert good["lower"] == 0
    assert wrong["value"] > 0.1
    assert wrong["lower"] > 0.08


@pytest.mark.parametrize(
    ("n_neg", "n_pos", "reason"),
    [
        (0, 0, "no_actuals"),
        (100, 0, "single_class"),
        (0, 100, "single_class"),
        (100, 9, "few_of_rarer_class"),
        (100, 10, ""),
    ],
)
def test_roc_auc_needs_ten_of_the_rarer_class(n_neg, n_pos, reason):
    counts = [np.array([[n, 0]]) + 0 * np.arange(2) for n in (n_neg, n_pos)]
    frame = performance_metrics(score_statistics(*counts), None).set_index("metric")
    row = frame.loc["roc_auc"]
    assert row["reason"] == reason
    assert np.isnan(row["value"]) == bool(reason)
    if not reason:
        assert row["value"] == 0.5


def test_a_perfect_ranking_still_has_an_interval():
    result = roc_auc(np.array([[30, 0]]), np.array([[0, 30]]))
    assert result.value[0] == 1
    assert 0.7 < result.lower[0] < 0.99
    assert result.upper[0] == 1


def test_cells_do_not_influence_each_other():
    negatives, positives = (RNG.poisson(2, (300, 40)) for _ in range(2))
    together = performance_metrics(score_statistics(negatives, positives), None)
    alone = performance_metrics(score_statistics(negatives[200:201], positives[200:201]), None)
    for metric in ("roc_auc", "calibration_error"):
        mine = together[together["metric"] == metric].iloc[200]
        assert mine["value"] == alone[alone["metric"] == metric].iloc[0]["value"]


@pytest.mark.parametrize(
    "asked", [["roc_auc"], ["lift", "f1"], ["calibration_error", "actual_rate"], ["mcc"]]
)
def test_metrics_asked_for_are_those_of_all_and_no_others(asked):
    score = score_statistics(*(RNG.poisson(2, (30, 40)) for _ in range(2)))
    tn, fn, fp, tp = RNG.integers(1, 40, (4, 30))
    confusion = confusion_statistics(tn=tn, fn=fn, fp=fp, tp=tp)
    everything = performance_metrics(score, confusion)

    found = performance_metrics(score, confusion, metrics=asked)

    expected = everything[everything["metric"].isin(asked)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_no_cells_give_an_empty_frame():
    none = np.zeros((0, 8), dtype=np.int64)
    assert len(performance_metrics(score_statistics(none, none), None)) == 0
    assert len(performance_metrics(None, None)) == 0


@pytest.mark.parametrize(("base", "sharp"), [(0.0, 1.0), (-4.0, 1.5), (1.0, 4.0)])
def test_separation_metrics_are_scipys_and_scikit_learns_within_the_stated_bound(base, sharp):
    score = special.expit(RNG.normal(base, sharp, 20_000))
    actual = (RNG.random(20_000) < score).astype(int)
    counts = binned(score, actual)
    ap = average_precision(*counts)
    assert abs(ap.value[0] - sk.average_precision_score(actual, score)) <= ap.bound[0] + 1e-12
    ks = ks_separation(*counts)
    exact = stats.ks_2samp(score[actual == 1], score[actual == 0]).statistic
    assert ks.value[0] - 1e-12 <= exact <= ks.value[0] + ks.bound[0] + 1e-12
    top = lift(*counts, 0.1)
    best = np.argsort(-score)[:2000]
    assert abs(top.value[0] - actual[best].mean() / actual.mean()) <= top.bound[0] + 1e-9


def test_counts_beyond_32_bits_do_not_overflow():
    big = 3_000_000_000
    found = performance_metrics(None, confusion_statistics(tp=big, tn=big, fp=big, fn=big))
    values = found.set_index("metric")["value"]
    assert values["accuracy"] == pytest.approx(0.5)
    assert values["mcc"] == pytest.approx(0, abs=1e-12)


def groups(**counts: dict[str, int]) -> pd.DataFrame:
    parts = []
    for name, group in counts.items():
        part = confusion_statistics(**group)
        parts.append(type(part)(**{**part.__dict__, "cells": cells(1, key="sex", value=name)}))
    whole = concat(parts)
    return fairness_metrics(whole, {"sex": "f"})


def test_gaps_of_rates_are_differences_and_ratios_to_the_reference():
    frame = groups(
        f={"tp": 40, "fn": 10, "fp": 10, "tn": 40}, m={"tp": 20, "fn": 20, "fp": 10, "tn": 50}
    )
    found = frame.set_index(["slice_value", "metric"])["value"]
    assert found["m", "demographic_parity_difference"] == pytest.approx(0.3 - 0.5)
    assert found["m", "equal_opportunity_ratio"] == pytest.approx(0.5 / 0.8)
    assert found["m", "predictive_parity_difference"] == pytest.approx(20 / 30 - 40 / 50)
    assert found["all", "demographic_parity_difference"] == pytest.approx(-0.2)
    row = frame[(frame["metric"] == "demographic_parity_difference")].iloc[0]
    assert row["lower"] == pytest.approx(-0.3248, abs=2e-3)  # Newcombe's, of 30 and 50 in 100
    assert row["upper"] == pytest.approx(-0.0648, abs=2e-3)
