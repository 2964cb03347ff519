"""Do 95 % intervals hold the truth 95 % of the time? By simulation, also of every task."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import calibrate
from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.performance.roc import roc_auc
from tests.metrics.samples import confusion_statistics

RUNS = 4000
BINS = 3000
pytestmark = pytest.mark.slow


def roc_coverage(shift: float, n_pos: int, n_neg: int) -> float:
    """Share of simulated intervals that hold the area of two normals `shift` apart."""
    rng = np.random.default_rng(n_pos)
    edges = np.linspace(-5, 5 + shift, BINS - 1)
    inside = []
    for _ in range(RUNS // 500):
        negatives = np.searchsorted(edges, rng.normal(0, 1, (500, n_neg)))
        positives = np.searchsorted(edges, rng.normal(shift, 1, (500, n_pos)))
        start = BINS * np.arange(500)[:, None]
        counts = [
            np.bincount((place + start).ravel(), minlength=500 * BINS).reshape(500, BINS)
            for place in (negatives, positives)
        ]
        result = roc_auc(*counts)
        truth = stats.norm.cdf(shift / np.sqrt(2))
        # without the binning bound, which covers the worst case of ties
        lower, upper = result.lower + result.bound, result.upper - result.bound
        inside.append((lower <= truth) & (truth <= upper))
    return float(np.mean(inside))


@pytest.mark.parametrize(
    ("shift", "n_pos", "n_neg"),
    [(0.0, 50, 150), (0.9, 40, 160), (0.9, 100, 400), (1.6, 60, 240), (1.6, 150, 150)],
)
def test_roc_auc_intervals_cover_93_to_97_percent(shift, n_pos, n_neg):
    assert 0.93 <= roc_coverage(shift, n_pos, n_neg) <= 0.97


@pytest.mark.parametrize(
    ("shift", "n_pos", "n_neg"),
    [(0.0, 10, 190), (0.9, 10, 190), (1.6, 15, 485), (0.9, 19, 31), (2.3, 12, 88)],
)
def test_roc_auc_intervals_of_a_small_class_are_wide_enough(shift, n_pos, n_neg):
    assert roc_coverage(shift, n_pos, n_neg) >= 0.93


@pytest.mark.parametrize("shares", [(0.5, 0.2, 0.1, 0.2), (0.8, 0.07, 0.08, 0.05)])
@pytest.mark.parametrize("n", [200, 1000])
def test_confusion_intervals_cover_93_to_97_percent(shares, n):
    tn, fp, fn, tp = np.random.default_rng(n).multinomial(n, shares, size=20_000).T
    frame = performance_metrics(None, confusion_statistics(tn=tn, fp=fp, fn=fn, tp=tp))
    t_tn, t_fp, t_fn, t_tp = shares
    truths = {
        "precision": t_tp / (t_tp + t_fp), "recall": t_tp / (t_tp + t_fn),
        "accuracy": t_tn + t_tp, "f1": 2 * t_tp / (2 * t_tp + t_fp + t_fn),
        "actual_rate": t_tp + t_fn, "predicted_rate": t_tp + t_fp,
    }  # fmt: skip
    for metric, truth in truths.items():
        rows = frame[(frame["metric"] == metric) & frame["value"].notna()]
        inside = (rows["lower"] <= truth) & (truth <= rows["upper"])
        assert 0.93 <= inside.mean() <= 0.97, metric


FEWER = 1000
# Three binomial standard errors of .93 and .97 at so many windows.
LOW, HIGH = 0.93 - 0.024, 0.97 + 0.017
CASES = {
    "areas": lambda: calibrate.areas(0.2, 400, FEWER),
    "decisions": lambda: calibrate.decisions((0.5, 0.2, 0.1, 0.2), 400, FEWER),
    "classes": lambda: calibrate.classes(400, FEWER),
    "labels": lambda: calibrate.labels(400, FEWER),
    "probabilities": lambda: calibrate.probabilities(400, FEWER),
    "errors": lambda: calibrate.errors(400, FEWER),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_intervals_hold_the_truth_about_95_times_in_100(case):
    for found in CASES[case]():
        assert LOW <= found.share <= HIGH, found
