from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn import metrics as sk

from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.performance.roc import roc_auc
from tests.metrics.samples import confusion_statistics, score_statistics

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


def test_losses_and_rates_are_sklearns():
    score, actual = scored(3000, -1, 1.5)
    found = measured(score, actual)
    assert found.loc["brier", "value"] == pytest.approx(
        sk.brier_score_loss(actual, score), rel=1e-12
    )
    assert found.loc["log_loss", "value"] == pytest.approx(sk.log_loss(actual, score), rel=1e-12)
    assert found.loc["actual_rate", "value"] == pytest.approx(actual.mean(), rel=1e-12)


def test_the_standard_error_of_a_loss_comes_from_the_bins_to_one_percent():
    score, actual = scored(20_000, -1, 1.5)
    row = measured(score, actual).loc["brier"]
    exact = 1.96 * ((score - actual) ** 2).std() / np.sqrt(len(score))
    assert (row["upper"] - row["lower"]) / 2 == pytest.approx(exact, rel=0.01)


def test_calibration_error_is_near_zero_for_a_calibrated_model_and_found_otherwise():
    score, actual = scored(20_000, -1, 1.5)
    good = measured(score, actual).loc["calibration_error"]
    wrong = measured(special.expit(special.logit(score) + 0.8), actual).loc["calibration_error"]
    assert good["value"] < 0.015
    assert good["lower"] == 0
    assert wrong["value"] > 0.1
    assert wrong["lower"] > 0.08


def test_calibration_error_equals_its_definition_over_ten_equal_groups():
    score = np.repeat(special.expit((np.arange(10) - 4.5) * 28 / BINS * 20 + 14 / BINS), 3000)
    actual = (np.arange(30_000) % 3 == 0).astype(int)
    by_group = [np.arange(30_000) // 3000 == g for g in range(10)]
    expected = np.mean([abs(score[g].mean() - actual[g].mean()) for g in by_group])
    assert measured(score, actual).loc["calibration_error", "value"] == pytest.approx(
        expected, abs=0.005
    )


def test_confusion_metrics_are_sklearns():
    actual, predicted = RNG.integers(0, 2, 400), RNG.integers(0, 2, 400)
    (tn, fp), (fn, tp) = sk.confusion_matrix(actual, predicted)
    found = performance_metrics(
        None, confusion_statistics(tn=tn, fp=fp, fn=fn, tp=tp, u0=4, u1=12)
    ).set_index("metric")
    oracles = {
        "f1": sk.f1_score, "precision": sk.precision_score,
        "recall": sk.recall_score, "accuracy": sk.accuracy_score,
    }  # fmt: skip
    for metric, oracle in oracles.items():
        row = found.loc[metric]
        assert row["value"] == pytest.approx(oracle(actual, predicted), rel=1e-12)
        assert row["lower"] < row["value"] < row["upper"]
        assert row["n"] == 400
    assert found.loc["predicted_rate", "value"] == pytest.approx((fp + tp + 12) / 416, rel=1e-12)
    assert found.loc["actual_rate", "value"] == pytest.approx((tp + fn) / 400, rel=1e-12)


@pytest.mark.parametrize(
    ("counts", "metric", "reason"),
    [
        ({"u0": 5, "u1": 5}, "accuracy", "no_actuals"),
        ({"u0": 5, "u1": 5}, "f1", "no_actuals"),
        ({"tn": 50, "fn": 5}, "precision", "no_predicted_positives"),
        ({"tn": 50, "fp": 5}, "recall", "no_actual_positives"),
        ({"tn": 50}, "f1", "no_positives"),
        ({}, "predicted_rate", "no_rows"),
    ],
)
def test_undefined_confusion_metrics_have_a_reason_and_no_value(counts, metric, reason):
    row = performance_metrics(None, confusion_statistics(**counts)).set_index("metric").loc[metric]
    assert np.isnan(row["value"])
    assert np.isnan(row["lower"])
    assert row["reason"] == reason


def test_f1_is_zero_not_undefined_when_positives_are_all_missed():
    found = performance_metrics(None, confusion_statistics(tn=50, fn=5)).set_index("metric")
    assert found.loc["f1", "value"] == 0


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


def test_no_cells_give_an_empty_frame():
    none = np.zeros((0, 8), dtype=np.int64)
    assert len(performance_metrics(score_statistics(none, none), None)) == 0
    assert len(performance_metrics(None, None)) == 0
