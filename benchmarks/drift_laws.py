"""Columns of known laws as counts per bin, and rows that share values: what drift is tried on.

Counts are drawn straight into the bins, so that 100,000 rows cost little more than 30 do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.drift.columns import columns_drift
from mlmon_dagster.metrics.drift.references import DriftBaseline
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import (
    MAX_CATEGORIES,
    categorical_binning,
    discrete_binning,
    numeric_binning,
)
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Generator = np.random.Generator
LEVELS = (2, 20, 1_000)
_SAMPLE = 400_000
_ROWS_PER_USER = 3.0
_AT_ONCE = 4_000_000


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


@dataclass(frozen=True)
class Law:
    """A column: its bins, and the share of rows that each code gets."""

    binning: Binning
    shares: Floats


def laws(seed: int = 1) -> dict[str, Law]:
    """Return the columns of the grid, by name."""
    rng = np.random.default_rng(seed)
    found = {name: numeric_law(name, draw(rng, _SAMPLE)) for name, draw in NUMERIC.items()}
    for levels in LEVELS:
        shares = 1 / np.arange(1, levels + 1)
        found[f"{levels} levels"] = categorical_law(f"{levels} levels", shares / shares.sum())
    return found


def numeric_law(name: str, values: Floats) -> Law:
    """Return a column with the bins and the shares of these values."""
    distinct = np.unique(values)
    if len(distinct) <= 32:
        binning = discrete_binning(name, distinct.tolist())
    else:
        edges = np.quantile(values, np.arange(1, 20) / 20)
        low, high = float(distinct[0]), float(distinct[-1])
        binning = numeric_binning(name, edges.tolist(), low=low, high=high)
    codes = np.searchsorted(upper_edges(binning), values, side="left")
    return Law(binning, np.bincount(codes, minlength=binning.size) / len(values))


def categorical_law(name: str, shares: Floats) -> Law:
    """Return a column of categories with these shares, commonest first."""
    names = [f"c{i}" for i in range(min(len(shares), MAX_CATEGORIES))]
    binning = categorical_binning(name, names)
    return Law(binning, np.append(shares, np.zeros(binning.size - len(shares))))


def column_of(law: Law, counts: Ints, nulls: Ints | None = None) -> ColumnStatistics:
    """Return statistics of daily windows with these counts (C, codes) and nulls (C,)."""
    size = len(counts)
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
    missing = none if nulls is None else nulls
    return ColumnStatistics(
        law.binning, cells, counts, n=counts.sum(axis=1) + missing, n_null=missing, n_nan=none,
        n_inf=none, n_out_of_range=none, minimum=floats, maximum=floats, total=floats,
        total_sq=floats,
    )  # fmt: skip


# Who shares a value: rows of the windows in, (owner window, rows) of every value out.
Sharing = Callable[[Generator, Ints], tuple[Ints, Ints]]


def batches(size: int) -> Sharing:
    """`size` rows in turn share a value; the last batch of a window may be smaller."""

    def share(_: Generator, sizes: Ints) -> tuple[Ints, Ints]:
        n = -(-sizes // size)
        owner = np.repeat(np.arange(len(sizes)), n)
        rows = np.full(len(owner), size)
        rows[np.cumsum(n) - 1] -= n * size - sizes
        return owner, rows

    return share


def hours(rng: Generator, sizes: Ints) -> tuple[Ints, Ints]:
    """24 values a window; the busiest hour has some ten times the rows of the quietest."""
    weight = 0.2 + np.sin(np.pi * (np.arange(24) + 0.5) / 24) ** 2
    rows = rng.multinomial(sizes, weight / weight.sum())
    return np.repeat(np.arange(len(sizes)), 24), rows.ravel()


def users(rng: Generator, sizes: Ints) -> tuple[Ints, Ints]:
    """Geometric numbers of rows, whose means are lognormal: some users have a hundred rows."""
    width = int(sizes.max() / _ROWS_PER_USER) + 50
    mean = 1 + _ROWS_PER_USER * rng.lognormal(0, 1, (len(sizes), width))
    reached = np.minimum(np.cumsum(rng.geometric(1 / mean), axis=1), sizes[:, None])
    rows = np.diff(reached, axis=1, prepend=0)
    return np.repeat(np.arange(len(sizes)), width), rows.ravel()


def draw(
    rng: Generator, law: Law, sizes: Sequence[int] | Ints, sharing: Sharing | None = None
) -> Ints:
    """Draw counts per code of windows of these sizes, (C, codes)."""
    sizes = np.asarray(sizes, dtype=np.int64)
    if sharing is None:
        return rng.multinomial(sizes, law.shares).astype(np.int64)
    step = max(int(_AT_ONCE // sizes.max()), 1)
    parts = [_shared(rng, law, sizes[i : i + step], sharing) for i in range(0, len(sizes), step)]
    return np.concatenate(parts)


def _shared(rng: Generator, law: Law, sizes: Ints, sharing: Sharing) -> Ints:
    owner, rows = sharing(rng, sizes)
    owner, rows = owner[rows > 0], rows[rows > 0]
    steps = np.cumsum(law.shares)
    codes = np.searchsorted(steps, rng.random(len(owner)) * steps[-1], side="right")
    width = len(law.shares)
    flat = np.bincount(owner * width + codes, weights=rows, minlength=len(sizes) * width)
    return flat.reshape(len(sizes), width).astype(np.int64)


def drift_metrics(
    stats: ColumnStatistics,
    baseline: ColumnStatistics,
    *,
    seed: int,
    min_rows: int = 30,
    further: Sequence[str] = (),
) -> pd.DataFrame:
    """Distances of every window of one column from the baseline; see `columns_drift`.

    Args:
        stats: One column (numeric, categorical, score or confusion) over C cells.
        baseline: The same column; its cells are the baseline's windows.
        seed: As of `DriftBaseline`.
        min_rows: As of `DriftBaseline`.
        further: As of `columns_drift`.
    """
    name = stats.binning.column
    known = DriftBaseline({name: baseline}, seed=seed, min_rows=min_rows)
    return columns_drift({name: stats}, known, further=further)
