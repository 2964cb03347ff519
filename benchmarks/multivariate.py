"""Which change of the joint distribution is seen by what: correlations, PCA, a domain classifier.

Windows of 20 columns against a baseline of 10,000 rows, in which only what is named has changed.
Share of windows called changed at the level .01: unchanged ones are false alarms, the others the
power. Beside the correlation shift as it is shipped: the mean reconstruction error of a PCA (65 %
of the variance kept, z-test against the baseline's), and the area under the ROC curve with which
HistGradientBoosting tells the window's rows from as many of the baseline, in five folds
(Mann-Whitney test). PSI with its multiple testing shows what single columns tell.

    python -m benchmarks multivariate
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from benchmarks.table import Goal, Row, render
from mlmon_dagster.metrics.drift.distances import psi
from mlmon_dagster.metrics.drift.joint import (
    JOINT,
    folded_scores,
    joint_sums,
    multivariate_metrics,
    normal_scores,
    size_of,
)
from mlmon_dagster.metrics.drift.null_distribution import NullTables, gamma_tail
from mlmon_dagster.metrics.intervals import benjamini_hochberg
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics

Floats = NDArray[np.float64]
SEED, COLUMNS, BASELINE, WINDOWS, LEVEL = 20261124, 20, 10_000, 20, 0.01
KEPT, FOLDS, MOST_CALLED = 0.65, 5, 0.03
SIZES = (200, 1_000, 5_000)


def make(rng: np.random.Generator, n: int) -> Floats:
    """Draw n rows: three factors behind columns 0 to 9, the others independent; mixed margins."""
    x = rng.standard_normal((n, COLUMNS))
    factors = rng.standard_normal((n, 3))
    x[:, :10] = 0.8 * factors[:, np.arange(10) % 3] + 0.6 * x[:, :10]
    return _margins(x)


def _margins(x: Floats) -> Floats:
    found = x.copy()
    found[:, 4] = np.exp(1.5 * x[:, 4])  # skewed
    found[:, 5] = x[:, 5] > 1  # a flag
    found[:, 14] = np.floor(np.clip(x[:, 14] * 2, -4, 4))  # few values
    return found


def _broken(rng: np.random.Generator, x: Floats) -> Floats:
    return _with(x, 0, rng.permutation(x[:, 0]))


def _flipped(rng: np.random.Generator, x: Floats) -> Floats:
    return _with(x, 0, -x[:, 0])


def _swapped(rng: np.random.Generator, x: Floats) -> Floats:
    found = x.copy()
    found[:, :5] = x[rng.permutation(len(x)), :5]
    return found


def _some_swapped(rng: np.random.Generator, x: Floats) -> Floats:
    found, some = x.copy(), np.flatnonzero(rng.random(len(x)) < 0.2)
    found[some, :5] = x[rng.permutation(some), :5]
    return found


def _bent(rng: np.random.Generator, x: Floats) -> Floats:
    """Give column 10 the order of |column 11|: no correlation, no change of either."""
    size = np.abs(x[:, 11]) + 0.3 * rng.standard_normal(len(x))
    found = x.copy()
    found[np.argsort(size), 10] = np.sort(x[:, 10])
    return found


def _parity(rng: np.random.Generator, x: Floats) -> Floats:
    """Give column 10 the sign of column 11 times column 12: any two stay independent."""
    return _with(x, 10, np.abs(x[:, 10]) * np.sign(x[:, 11] * x[:, 12]))


def _shifted(rng: np.random.Generator, x: Floats) -> Floats:
    return _with(x, 10, x[:, 10] + 0.5)


def _with(x: Floats, column: int, values: Floats) -> Floats:
    found = x.copy()
    found[:, column] = values
    return found


CHANGES: dict[str, Callable[[np.random.Generator, Floats], Floats]] = {
    "no change": lambda rng, x: x,
    "correlation broken (.64 to 0)": _broken,
    "correlation's sign flipped": _flipped,
    "5 columns from other rows": _swapped,
    "5 columns from other rows, in 20 %": _some_swapped,
    "bent: order of |another column|": _bent,
    "parity of three columns (XOR)": _parity,
    "one column shifted by .5 sd": _shifted,
}


@dataclass
class Correlations:
    """The shipped one: scores from the baseline's bins, sums, the test of `multivariate`."""

    rows: Floats
    scores: list[tuple[str, int, Floats, NDArray[np.int8]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        folded = []
        for i, x in enumerate(self.rows.T):
            edges = edges_of(x)
            counts = np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1)
            self.scores.append((f"x{i}", i, edges, normal_scores(counts)))
            if len(counts) >= 5:
                folded.append((f"|x{i}|", i, edges, folded_scores(counts)))
        self.scores += folded
        self.baseline = self._statistics(np.split(self.rows, WINDOWS))

    def _statistics(self, windows: Sequence[Floats]) -> ColumnStatistics:
        sums = np.stack([joint_sums(self._scores(x)) for x in windows])
        size = len(sums)
        starts = pd.date_range("2026-01-01", periods=size, tz="UTC", unit="us")
        cells = pd.DataFrame({"window_start": starts})
        for key in ("dataset", "model_version", "slice_key", "slice_value"):
            cells[key] = "all"
        names, of = zip(*((name, f"x{i}") for name, i, _, _ in self.scores), strict=True)
        binning = Binning(JOINT, "joint", size_of(len(of)), "bench", categories=names, tail=of)
        none, nothing = np.zeros(size, np.int64), np.full(size, np.nan)
        return ColumnStatistics(
            binning, cells, sums, sums[:, 0], none, none, none, none, nothing, nothing,
            np.zeros(size), np.zeros(size),
        )  # fmt: skip

    def _scores(self, x: Floats) -> NDArray[np.int8]:
        return np.column_stack(
            [by_code[np.searchsorted(edges, x[:, i])] for _, i, edges, by_code in self.scores]
        )

    def p_value(self, x: Floats, rng: np.random.Generator) -> float:
        """Of the correlation shift of one window."""
        found = multivariate_metrics(self._statistics([x]), self.baseline)
        return float(found["p_value"].iloc[0])


@dataclass
class Reconstruction:
    """Mean squared error of a PCA's reconstruction against the baseline's, z-test."""

    rows: Floats

    def __post_init__(self) -> None:
        self.mean, self.scale = self.rows.mean(axis=0), self.rows.std(axis=0)
        z = (self.rows - self.mean) / self.scale
        values, vectors = np.linalg.eigh(np.cov(z.T))
        shares = np.cumsum(values[::-1]) / values.sum()
        self.kept = vectors[:, ::-1][:, : int(np.searchsorted(shares, KEPT)) + 1]
        errors = self._errors(self.rows)
        # As for any mean that one odd row must not decide.
        self.cap = float(np.quantile(errors, 0.99))
        self.usual = np.minimum(errors, self.cap)

    def _errors(self, x: Floats) -> Floats:
        z = (x - self.mean) / self.scale
        found: Floats = ((z - z @ self.kept @ self.kept.T) ** 2).sum(axis=1)
        return found

    def p_value(self, x: Floats, rng: np.random.Generator) -> float:
        """Of the mean error, two-sided."""
        errors = np.minimum(self._errors(x), self.cap)
        error = np.sqrt(self.usual.var() * (1 / len(x) + 1 / len(self.usual)))
        return float(2 * stats.norm.sf(abs(errors.mean() - self.usual.mean()) / error))


@dataclass
class Classifier:
    """Out-of-fold scores of a classifier that tells the window's rows from the baseline's."""

    rows: Floats

    def p_value(self, x: Floats, rng: np.random.Generator) -> float:
        """Of the out-of-fold area under the ROC curve."""
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.model_selection import StratifiedKFold, cross_val_predict

        n = min(len(x), len(self.rows))
        both = np.vstack([x, self.rows[rng.choice(len(self.rows), n, replace=False)]])
        is_window = np.arange(len(both)) < len(x)
        seed = int(rng.integers(2**31))
        model: Any = HistGradientBoostingClassifier(
            max_iter=60, max_leaf_nodes=15, random_state=seed
        )
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        score = cross_val_predict(model, both, is_window, cv=folds, method="predict_proba")[:, 1]
        tested = stats.mannwhitneyu(score[is_window], score[~is_window], alternative="greater")
        return float(tested.pvalue)


@dataclass
class Columns:
    """PSI of each column with its p-value, adjusted over the columns."""

    rows: Floats

    def __post_init__(self) -> None:
        edges = [edges_of(x) for x in self.rows.T]
        counts = [self._counts(x, e) for x, e in zip(self.rows.T, edges, strict=True)]
        self.null = NullTables(("psi",))
        numbers = [np.array(self.null.add(mine)) for mine in counts]
        self.columns = list(zip(edges, counts, numbers, strict=True))

    def _counts(self, x: Floats, edges: Floats) -> NDArray[np.int64]:
        return np.bincount(np.searchsorted(edges, x), minlength=len(edges) + 1)

    def p_value(self, x: Floats, rng: np.random.Generator) -> float:
        """The smallest of the columns', adjusted."""
        found = []
        for column, (edges, counts, number) in zip(x.T, self.columns, strict=True):
            raw = psi(self._counts(column, edges)[None], counts)
            moments = self.null.moments("psi", number, np.array([len(x)]))
            found.append(float(gamma_tail(raw, moments)[0]))
        return min(benjamini_hochberg(found))


def edges_of(x: Floats) -> Floats:
    """Return twentieths, or the middles between few values."""
    values = np.unique(x)
    if len(values) <= 32:
        return np.asarray((values[1:] + values[:-1]) / 2, dtype=np.float64)
    return np.unique(np.quantile(x, np.arange(1, 20) / 20, method="inverted_cdf"))


DETECTORS: dict[str, Callable[[Floats], Any]] = {
    "correlations": Correlations,
    "PCA error": Reconstruction,
    "classifier": Classifier,
    "PSI": Columns,
}


def run(n: int, repeats: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Return change -> share called, by detector, and detector -> processor's ms a window."""
    rng = np.random.default_rng([SEED, n])
    called = {name: np.zeros(len(DETECTORS)) for name in CHANGES}
    spent = dict.fromkeys(DETECTORS, 0.0)
    baselines = max(repeats // 10, 1)
    for _ in range(baselines):
        rows = make(rng, BASELINE)
        fitted = {name: fit(rows) for name, fit in DETECTORS.items()}
        for _ in range(repeats // baselines):
            for change, apply in CHANGES.items():
                window = apply(rng, make(rng, n))
                for i, (name, detector) in enumerate(fitted.items()):
                    begin = time.process_time()
                    called[change][i] += detector.p_value(window, rng) <= LEVEL
                    spent[name] += time.process_time() - begin
    done = repeats // baselines * baselines
    shares = {name: list(counts / done) for name, counts in called.items()}
    return shares, {name: 1e3 * s / done / len(CHANGES) for name, s in spent.items()}


def report(n: int, repeats: int) -> str:
    shares, spent = run(n, repeats)
    table = []
    for name, numbers in shares.items():
        goal = Goal(numbers[0], MOST_CALLED) if name == "no change" else None
        table.append(Row(name, tuple(f"{number:.2f}" for number in numbers), goal))
    table.append(Row("processor's ms a window", tuple(f"{ms:.1f}" for ms in spent.values())))
    title = f"Multivariate drift: windows of {n:,} rows, share called of {repeats} at {LEVEL}"
    return render(title, tuple(DETECTORS), table, seed=SEED)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), nargs="*")
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args(arguments)
    for n in options.rows or SIZES:
        sys.stdout.write(report(n, options.repeats) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
