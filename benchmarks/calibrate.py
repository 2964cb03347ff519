"""How often 95 % intervals hold the truth, by simulation: `python -m benchmarks calibrate`.

Every case draws whole windows from a known law, all at once, and counts the windows whose interval
holds the law's own value.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from mlmon_dagster.metrics.means import mean_rows, ratio_rows
from mlmon_dagster.metrics.performance.binary import average_precision, performance_metrics
from mlmon_dagster.metrics.performance.class_tables import (
    averaged,
    balanced_accuracy,
    estimate,
    mcc,
)
from mlmon_dagster.metrics.performance.regression import regression_metrics
from mlmon_dagster.metrics.performance.roc import MIN_RARER, roc_auc
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BINS = 1500
BATCH = 250


class Coverage(NamedTuple):
    """Share of windows whose interval holds the truth."""

    metric: str
    case: str
    share: float
    runs: int


def loss(values: Floats) -> ColumnStatistics:
    """Profile of a loss column from its values (windows, rows)."""
    runs, rows = values.shape
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=runs, freq="h", tz="UTC"),
            "dataset": "production", "model_version": ALL, "slice_key": ALL, "slice_value": ALL,
        }
    )  # fmt: skip
    zero = np.zeros(runs, np.int64)
    return ColumnStatistics(
        Binning(":loss", "loss", 1, "loss"), cells, np.full((runs, 1), rows), zero + rows, zero,
        zero, zero, zero, values.min(axis=1), values.max(axis=1), values.sum(axis=1),
        (values**2).sum(axis=1),
    )  # fmt: skip


def _held(lower: Floats, upper: Floats, truth: float) -> float:
    return float(np.mean((lower <= truth) & (truth <= upper)))


def areas(base: float, n: int, runs: int, shift: float = 1.2) -> Iterator[Coverage]:
    """ROC AUC and PR AUC of two normals ``shift`` apart; n rows with a share of positives."""
    rng = np.random.default_rng([int(base * 100), n])
    edges = np.linspace(-4, 4 + shift, BINS - 1)
    truths = float(stats.norm.cdf(shift / np.sqrt(2))), _true_ap(base, shift)
    batch = min(BATCH, runs)
    held: list[list[NDArray[np.bool_]]] = [[], []]
    for _ in range(runs // batch):
        is_positive = rng.random((batch, n)) < base
        place = np.searchsorted(edges, rng.normal(0, 1, (batch, n)) + shift * is_positive)
        flat = place + BINS * np.arange(batch)[:, None]
        counts = [
            np.bincount(flat[chosen], minlength=batch * BINS).reshape(batch, BINS)
            for chosen in (~is_positive, is_positive)
        ]
        rarer = np.minimum(counts[0].sum(axis=1), counts[1].sum(axis=1))
        areas_found = roc_auc(*counts), average_precision(*counts)
        for inside, area, truth in zip(held, areas_found, truths, strict=True):
            # Without what the bins could hide, which covers the worst case of ties.
            lower, upper = area.lower + area.bound, area.upper - area.bound
            inside.append(((lower <= truth) & (truth <= upper))[rarer >= MIN_RARER])
    for metric, parts in zip(("roc_auc", "pr_auc"), held, strict=True):
        inside = np.concatenate(parts)
        case = f"base rate {base:g}, n {n:,}"
        yield Coverage(metric, case, float(inside.mean()), len(inside))


def _true_ap(base: float, shift: float) -> float:
    at = np.linspace(-9, 9 + shift, 200_001)
    hit, false = stats.norm.sf(at - shift), stats.norm.sf(at)
    precision = base * hit / (base * hit + (1 - base) * false)
    return float(np.trapezoid(precision * stats.norm.pdf(at - shift), at))


def decisions(shares: tuple[float, float, float, float], n: int, runs: int) -> Iterator[Coverage]:
    """Binary rates from counts drawn with the shares of tn, fp, fn, tp."""
    counts = np.random.default_rng(n).multinomial(n, shares, size=runs)
    tn, fp, fn, tp = counts.T
    cells = loss(np.ones((runs, 1))).cells
    codes = np.stack([0 * tn, tn, fn, 0 * tn, fp, tp], axis=1)
    confusion = ColumnStatistics(
        Binning("prediction", "confusion", 6, "c"), cells, codes,
        *(np.full(runs, n) * (i == 0) for i in range(5)), *(np.zeros(runs),) * 4,
    )  # fmt: skip
    frame = performance_metrics(None, confusion)
    t_tn, t_fp, t_fn, t_tp = shares
    a, b, c, d = (t_tp + t_fp), (t_tp + t_fn), (t_tn + t_fp), (t_tn + t_fn)
    truths = {
        "precision": t_tp / a, "recall": t_tp / b, "specificity": t_tn / c,
        "accuracy": t_tn + t_tp, "f1": 2 * t_tp / (a + b),
        "balanced_accuracy": (t_tp / b + t_tn / c) / 2,
        "mcc": (t_tp * t_tn - t_fp * t_fn) / np.sqrt(a * b * c * d),
    }  # fmt: skip
    for metric, truth in truths.items():
        rows = frame[(frame["metric"] == metric) & frame["value"].notna()]
        share = _held(rows["lower"].to_numpy(), rows["upper"].to_numpy(), truth)
        yield Coverage(metric, f"base rate {b:g}, n {n:,}", share, len(rows))


def classes(n: int, runs: int) -> Iterator[Coverage]:
    """Metrics of three classes of unequal size."""
    law = np.array([[0.36, 0.05, 0.03], [0.06, 0.22, 0.03], [0.04, 0.04, 0.17]])
    table = np.random.default_rng(n).multinomial(n, law.ravel(), size=runs).reshape(runs, 3, 3)
    for name, metric, scale in (
        ("macro_f1", averaged("f1", "macro"), "logit"),
        ("macro_precision", averaged("precision", "macro"), "logit"),
        ("weighted_f1", averaged("f1", "weighted"), "logit"),
        ("balanced_accuracy (3)", balanced_accuracy, "logit"),
        ("mcc (3)", mcc, "fisher"),
    ):
        found = estimate(table, metric, "fisher" if scale == "fisher" else "logit")
        truth = float(metric(law[None]).value[0])
        yield Coverage(name, f"n {n:,}", _held(found.lower, found.upper, truth), runs)


def labels(n: int, runs: int) -> Iterator[Coverage]:
    """Micro averages of eight labels of unequal share, whose errors come together in some rows."""
    shares, rng = np.geomspace(0.02, 0.5, 8), np.random.default_rng(n)

    def draw(*rows: int) -> tuple[Floats, Floats, Floats]:
        has, wrong = rng.random((*rows, 8)) < shares, rng.beta(0.4, 4, rows)[..., None]
        given = has ^ (rng.random((*rows, 8)) < wrong)
        right, predicted, actual = (
            np.asarray(found.sum(axis=-1), np.float64) for found in (has & given, given, has)
        )
        return right, predicted, actual

    big = [found.sum() for found in draw(1, 1_000_000)]
    right, predicted, actual = draw(runs, n)
    sizes = {
        "micro_precision": (predicted, big[0] / big[1]),
        "micro_recall": (actual, big[0] / big[2]),
        "micro_f1": ((predicted + actual) / 2, 2 * big[0] / (big[1] + big[2])),
    }
    for metric, (size, truth) in sizes.items():
        found = ratio_rows(metric, loss(right), loss(size), loss(right * size), "ratio-1")
        held = _held(np.asarray(found.lower), np.asarray(found.upper), float(truth))
        yield Coverage(f"{metric} (8)", f"n {n:,}", held, runs)


def probabilities(n: int, runs: int) -> Iterator[Coverage]:
    """Brier score and log loss of a calibrated model whose scores are beta(1, 4)."""
    rng = np.random.default_rng(n)
    big = rng.beta(1, 4, 2_000_000)
    truths = {
        "brier": float((big * (1 - big)).mean()),
        "log_loss": float(-(big * np.log(big) + (1 - big) * np.log1p(-big)).mean()),
    }
    score = rng.beta(1, 4, (runs, n))
    actual = rng.random((runs, n)) < score
    right = np.where(actual, score, 1 - score)
    for metric, values in (("brier", (1 - right) ** 2), ("log_loss", -np.log(right))):
        found = mean_rows(metric, loss(values), high=1.0 if metric == "brier" else np.inf)
        held = _held(np.asarray(found.lower), np.asarray(found.upper), truths[metric])
        yield Coverage(metric, f"n {n:,}", held, runs)


def errors(n: int, runs: int) -> Iterator[Coverage]:
    """Regression with normal errors of 1 on normal actuals of 2 about 5."""
    rng = np.random.default_rng(n)
    error, actual = rng.normal(0, 1, (runs, n)), rng.normal(5, 2, (runs, n))
    away = actual - 5.3  # the baseline's mean is not the window's
    size = np.abs(actual)
    profiles = {
        ":error": error, ":absolute_error": np.abs(error), ":squared_error": error**2,
        ":percentage_error": np.abs(error) / size, ":symmetric_error": 0 * error,
        ":quantile_loss": np.abs(error) / 2, ":actual_size": size,
        ":error_by_size": np.abs(error) * size, ":away": away, ":away_squared": away**2,
        ":away_cubed": away**3, ":error_away": error**2 * away,
        ":error_away_squared": error**2 * away**2,
    }  # fmt: skip
    found = {name: loss(values) for name, values in profiles.items()}
    size_bins = Binning(":error_size", "latency", 1, "size", low=1e-3, high=10.0)
    found[":error_size"] = replace(found[":error"], binning=size_bins)
    frame = regression_metrics(found)
    big = np.abs(rng.normal(5, 2, 4_000_000)).mean()
    half = np.sqrt(2 / np.pi)
    truths = {"me": 0.0, "mae": half, "rmse": 1.0, "r2": 0.75, "wape": half / big,
              "quantile_loss": half / 2}  # fmt: skip
    for metric, truth in truths.items():
        rows = frame[frame["metric"] == metric]
        held = _held(rows["lower"].to_numpy(), rows["upper"].to_numpy(), truth)
        yield Coverage(metric, f"n {n:,}", held, runs)


def every(runs: int) -> Iterator[Coverage]:
    """All cases; those of 10,000 rows with a fifth of the runs."""
    for base in (0.05, 0.2, 0.5):
        for n in (200, 1_000, 10_000):
            yield from areas(base, n, max(runs // 5, BATCH) if n == 10_000 else runs)
    for n in (200, 1_000, 10_000):
        for shares in ((0.5, 0.2, 0.1, 0.2), (0.8, 0.07, 0.08, 0.05)):
            yield from decisions(shares, n, runs)
        few = max(runs // 5, BATCH) if n == 10_000 else runs
        yield from classes(n, runs)
        yield from labels(n, runs)
        yield from probabilities(n, few)
        yield from errors(n, few)


def main() -> int:
    """Print the table; 1 if an interval is too often wrong, or far too wide."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5_000)
    runs = parser.parse_args().runs
    print("| metric | case | held | windows | |\n|---|---|---|---|---|")
    missed = 0
    for found in every(runs):
        few = found.case == "base rate 0.05, n 200"  # 10 of the rarer class: wider
        fine = found.share >= 0.93 and (few or found.share <= 0.97)
        missed += not fine
        verdict = "" if fine else "outside .93 to .97"
        print(f"| {found.metric} | {found.case} | {found.share:.3f} | {found.runs:,} | {verdict} |")
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
