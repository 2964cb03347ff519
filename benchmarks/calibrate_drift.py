"""How often drift cries wolf, and how often it sleeps: `python -m benchmarks calibrate drift`.

Windows are drawn from known laws as counts per bin, so that 100,000 rows cost what 30 do. A column
alarms if its change is both larger than 0.1 and significant after Benjamini-Hochberg at q = 0.01,
in a single window: the defaults without `windows: 2 of 3`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as tests

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.drift import drift_metrics
from mlmon_dagster.metrics.statistics import ALL, Binning, ColumnStatistics
from mlmon_dagster.monitors.adjust import benjamini_hochberg
from mlmon_dagster.profiles.bin_shapes import (
    MAX_CATEGORIES,
    categorical_binning,
    discrete_binning,
    numeric_binning,
)
from mlmon_dagster.spec import DriftMonitor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Generator = np.random.Generator
MONITOR = DriftMonitor()
SIZES = (30, 50, 100, 200, 500, 5_000, 100_000)
COLUMNS = 20
_SAMPLE = 400_000


def _normal(rng: Generator, size: int) -> Floats:
    return rng.normal(size=size)


def _lognormal(rng: Generator, size: int) -> Floats:
    return rng.lognormal(0, 2.5, size)


def _zero_inflated(rng: Generator, size: int) -> Floats:
    return np.where(rng.random(size) < 0.8, 0.0, rng.exponential(size=size))


def _discrete(rng: Generator, size: int) -> Floats:
    return rng.poisson(4, size).astype(np.float64)


NUMERIC: dict[str, Callable[[Generator, int], Floats]] = {
    "normal": _normal,
    "lognormal 2.5": _lognormal,
    "zero-inflated": _zero_inflated,
    "discrete": _discrete,
}
LEVELS = (2, 20, 1_000)


@dataclass(frozen=True)
class Law:
    """A column: its bins, and the share of rows that each code gets."""

    binning: Binning
    shares: Floats


def laws(seed: int = 1) -> dict[str, Law]:
    """Return the columns of the grid, by name."""
    rng = np.random.default_rng(seed)
    found: dict[str, Law] = {}
    for name, draw in NUMERIC.items():
        values = draw(rng, _SAMPLE)
        distinct = np.unique(values)
        if len(distinct) <= 32:
            binning = discrete_binning(name, distinct.tolist())
        else:
            edges = np.quantile(values, np.arange(1, 20) / 20)
            low, high = float(distinct[0]), float(distinct[-1])
            binning = numeric_binning(name, edges.tolist(), low=low, high=high)
        codes = np.searchsorted(upper_edges(binning), values, side="left")
        found[name] = Law(binning, np.bincount(codes, minlength=binning.size) / _SAMPLE)
    for levels in LEVELS:
        shares = 1 / np.arange(1, levels + 1)
        names = [f"c{i}" for i in range(min(levels, MAX_CATEGORIES))]
        binning = categorical_binning(f"{levels} levels", names)
        padded = np.zeros(binning.size)
        padded[:levels] = shares / shares.sum()
        found[f"{levels} levels"] = Law(binning, padded)
    return found


def column_of(law: Law, counts: Ints, name: str) -> ColumnStatistics:
    """Return statistics of windows with these counts."""
    size, n = len(counts), counts.sum(axis=1)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=size, freq="D", tz="UTC"),
            "dataset": "production",
            "model_version": ALL,
            "slice_key": ALL,
            "slice_value": ALL,
        }
    )
    none, floats = np.zeros(size, np.int64), np.zeros(size)
    return ColumnStatistics(
        law.binning, cells, counts, n=n, n_null=none, n_nan=none, n_inf=none,
        n_out_of_range=none, minimum=floats, maximum=floats, total=floats, total_sq=floats,
    )  # fmt: skip


def draw(rng: Generator, law: Law, sizes: Sequence[int] | Ints, cluster: int = 1) -> Ints:
    """Draw windows of these sizes; `cluster` rows share one value."""
    groups = np.maximum(np.asarray(sizes) // cluster, 1)
    counts: Ints = rng.multinomial(groups, law.shares) * cluster
    return counts


@dataclass(frozen=True)
class Setting:
    """A kind of traffic: how large baseline windows are, and how many rows share a value."""

    name: str
    baseline: Callable[[Generator], Ints]
    cluster: int = 1


def _same(windows: int, rows: int) -> Callable[[Generator], Ints]:
    return lambda rng: np.full(windows, rows)


def _uneven(rng: Generator) -> Ints:
    return np.exp(rng.uniform(np.log(100), np.log(10_000), 60)).astype(np.int64)


SETTINGS = (
    Setting("60 windows of 1,000", _same(60, 1_000)),
    Setting("one of 60,000", _same(1, 60_000)),
    Setting("28 windows of 50", _same(28, 50)),
    Setting("traffic x100", _uneven),
    Setting("40 rows share a value", _same(60, 2_000), cluster=40),
    Setting("5 rows share a value", _same(60, 1_000), cluster=5),
)


def verdicts(
    setting: Setting, rows: int, windows: int, columns: Mapping[str, Law], seed: int = 7
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Judge unchanged windows of `COLUMNS` columns.

    Returns:
        Alarms as the only column, and in the family of all: both (windows, columns).
    """
    rng = np.random.default_rng([seed, rows])
    chosen = [list(columns.values())[i % len(columns)] for i in range(COLUMNS)]
    p, effect = np.ones((windows, COLUMNS)), np.zeros((windows, COLUMNS))
    for i, law in enumerate(chosen):
        baseline = column_of(law, draw(rng, law, setting.baseline(rng), setting.cluster), "b")
        current = column_of(law, draw(rng, law, np.full(windows, rows), setting.cluster), "c")
        frame = drift_metrics(current, baseline, seed=1, min_rows=MONITOR.min_rows)
        mine = frame[frame["metric"] == MONITOR.method]
        p[:, i], effect[:, i] = mine["p_value"], mine["value"]
    large = effect > float(MONITOR.above)
    adjusted = np.array([benjamini_hochberg(row.tolist()) for row in p])
    return (p <= MONITOR.q) & large, (adjusted <= MONITOR.q) & large


def null_grid(windows: int) -> Iterator[str]:
    """Yield the lines of the table of false alarms."""
    columns = laws()
    yield f"{'false alarms':24}{'n':>8}  worst column   any of {COLUMNS}"
    for setting in SETTINGS:
        for rows in SIZES:
            if rows < setting.cluster:
                continue
            alone, family = verdicts(setting, rows, windows, columns)
            by_law = [alone[:, i :: len(columns)].mean() for i in range(len(columns))]
            worst = int(np.argmax(by_law))
            name = list(columns)[worst] if by_law[worst] else "-"
            yield (
                f"{setting.name:24}{rows:>8}  {by_law[worst]:.4f} {name:14}"
                f"{family.any(axis=1).mean():.4f}"
            )


def power_grid(windows: int) -> Iterator[str]:
    """Yield the lines of the table of power: a shift of a normal column, at p <= q."""
    law, rng = laws()["normal"], np.random.default_rng(3)
    codes = upper_edges(law.binning)
    yield f"{'power at p <= .01':24}{'n':>8}  shift   psi    ks     chi2   scipy ks"
    for name, baseline_sizes in (
        ("60 windows of 1,000", [1_000] * 60),
        ("28 windows of 50", [50] * 28),
        ("one of 60,000", [60_000]),
    ):
        reference = rng.normal(size=sum(baseline_sizes))
        for rows, shift in ((50, 1.0), (200, 0.5), (1_000, 0.2), (1_000, 0.5), (5_000, 0.1)):
            owner = np.repeat(np.arange(len(baseline_sizes)), baseline_sizes)
            base = _counted(reference, owner, len(baseline_sizes), codes)
            values = rng.normal(shift, 1, (windows, rows))
            current = _counted(values.ravel(), np.repeat(np.arange(windows), rows), windows, codes)
            frame = drift_metrics(column_of(law, current, "c"), column_of(law, base, "b"), seed=1)
            found = {
                m: (part["p_value"] <= MONITOR.q).mean() for m, part in frame.groupby("metric")
            }
            exact = np.mean(
                [tests.ks_2samp(v, reference).pvalue <= MONITOR.q for v in values[:100]]
            )
            yield (
                f"{name:24}{rows:>8}  {shift:<6}  {found['psi']:.3f}  {found['ks']:.3f}  "
                f"{found['chi_square']:.3f}  {exact:.3f}"
            )


def _counted(values: Floats, owner: Ints, windows: int, edges: Floats) -> Ints:
    codes = np.searchsorted(edges, values, side="left")
    flat = np.bincount(owner * len(edges) + codes, minlength=windows * len(edges))
    return flat.reshape(windows, len(edges)).astype(np.int64)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=400, help="Unchanged windows per cell.")
    windows = parser.parse_args().windows
    for line in chain(power_grid(min(windows, 200)), null_grid(windows)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
