"""Healthy years of a model as rows: wandering days, a week, traffic, ids that are new by nature.

Thirty columns are functions of a latent normal value per row, to which each day adds an effect of
its own: what the week does, and a slow wandering of days (AR(1)). So numbers, counts with a heap at
0 and categories all wander by the same number of standard deviations. Rows are real ones, counted
into the bins that the baseline's rows give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, select
from mlmon_dagster.profiles.bin_shapes import (
    MAX_CATEGORIES,
    categorical_binning,
    discrete_binning,
    numeric_binning,
    role_binning,
)
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Generator = np.random.Generator

BASELINE, YEAR = 45, 365
WEEKDAY, WEEKEND = 2_500, 500  # rows: traffic x5
PHI, WANDER = 0.9, 0.15  # of the day means, in standard deviations of the rows
SEASON = 0.3  # how far a weekend lies from a working day, in the columns that have a week
SLICES = {"north": 0.5, "south": 0.3, "west": 0.2}
FIRST = pd.Timestamp("2024-01-01", tz="UTC")  # a Monday
_DISCRETE = 32


@dataclass(frozen=True)
class Kind:
    """A world: whether days wander, whether the week shows."""

    name: str
    wander: float = 0.0
    season: float = 0.0


KINDS = (
    Kind("independent rows"),
    Kind("weekly season", season=SEASON),
    Kind("living", wander=WANDER, season=SEASON),
)
Latent = Callable[[Floats], Floats]


def _zeros(latent: Floats) -> Floats:
    return np.where(latent < 0.3, 0.0, np.exp(latent))


def _levels(shares: Sequence[float]) -> Latent:
    cuts = special.ndtri(np.cumsum(shares)[:-1] / np.sum(shares))
    return lambda latent: np.searchsorted(cuts, latent).astype(np.float64)


NUMERIC: dict[str, Latent] = {
    **{f"normal_{i}": lambda latent: 50 + 10 * latent for i in range(1, 11)},
    **{f"skewed_{i}": lambda latent: np.exp(3 + 0.6 * latent) for i in range(1, 5)},
    **{f"zeros_{i}": _zeros for i in range(1, 4)},
    **{f"counts_{i}": lambda latent: np.maximum(np.floor(4 + 2 * latent), 0) for i in range(1, 4)},
}
CATEGORICAL: dict[str, Latent] = {
    **{f"flag_{i}": _levels([0.7, 0.3]) for i in range(1, 3)},
    **{f"few_{i}": _levels([0.25, 0.05, 0.6, 0.1]) for i in range(1, 4)},
    "many_1": _levels([0.2, *[0.04] * 15, 0.2]),
}
REGION = "region"  # a slice's column
# Ids: of a large population of which the rare ones turn up late, and one with one-off values.
IDS = ("agent", "tail_number", "company")
FEATURES = (*NUMERIC, *CATEGORICAL, REGION, *IDS)


class World:
    """Rows of a baseline and of a year.

    Args:
        kind: What days do.
        seed: Of all draws.
    """

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind, self.seed = kind, seed
        rng = np.random.default_rng([seed, 0])
        days = np.arange(BASELINE + YEAR)
        self.is_weekend = days % 7 >= 5
        usual = np.where(self.is_weekend, WEEKEND, WEEKDAY)
        sizes = (usual * np.exp(rng.normal(0, 0.05, len(days)))).astype(np.int64)
        self.day = np.repeat(days, sizes)
        shares = list(SLICES.values())
        self.part = rng.choice(len(shares), len(self.day), p=shares)

    def latent(self, number: int) -> Floats:
        """Return a column's latent values, one a row."""
        rng = np.random.default_rng([self.seed, 1, number])
        days = BASELINE + YEAR
        steps = rng.normal(0, self.kind.wander * np.sqrt(1 - PHI**2), days)
        steps[0] = rng.normal(0, self.kind.wander)
        effect = np.zeros(days)
        for i, step in enumerate(steps):
            effect[i] = PHI * effect[i - 1] * (i > 0) + step
        if number % 3 == 0:  # a third of the columns know the week
            effect += self.kind.season * self.is_weekend
        found: Floats = rng.standard_normal(len(self.day)) + effect[self.day]
        return found

    def ids(self, name: str) -> Ints:
        """Return ids that are new by nature: rare ones of many, and one-off ones."""
        rng = np.random.default_rng([self.seed, 2, IDS.index(name)])
        n = len(self.day)
        if name == "company":  # one of twenty rows names somebody who never comes again
            once = rng.random(n) < 0.05
            return np.where(once, 1_000_000 + np.arange(n), rng.integers(0, 300, n))
        population, steepness = {"agent": (5_000, 0.9), "tail_number": (30_000, 1.2)}[name]
        shares = 1 / np.arange(1, population + 1) ** steepness
        return np.searchsorted(np.cumsum(shares / shares.sum()), rng.random(n)).astype(np.int64)


class Counter:
    """Counts rows by day and slice.

    Args:
        world: Where the rows are.
        keep: Which rows there are, (N,).
    """

    def __init__(self, world: World, keep: NDArray[np.bool_] | None = None) -> None:
        self._keep = np.ones(len(world.day), dtype=bool) if keep is None else keep
        self._days, self._slices = BASELINE + YEAR, len(SLICES)
        self._cell = (world.day * self._slices + world.part)[self._keep]
        starts = FIRST + pd.to_timedelta(np.arange(self._days), unit="D")
        whole = pd.DataFrame({"window_start": starts, "slice_key": ALL, "slice_value": ALL})
        parts = pd.DataFrame(
            {
                "window_start": np.repeat(starts, self._slices),
                "slice_key": REGION,
                "slice_value": list(SLICES) * self._days,
            }
        )
        self.cells = pd.concat([whole, parts], ignore_index=True).assign(
            dataset="production", model_version=ALL
        )
        self._is_baseline = (self.cells["window_start"] < starts[BASELINE]).to_numpy()
        self.sizes = self._sums(np.ones(len(self._cell)))[: self._days].astype(np.int64)
        frames = (self.cells[self._is_baseline], self.cells[~self._is_baseline])
        self._frames = [frame.reset_index(drop=True) for frame in frames]

    def count(
        self, binning: Binning, codes: Ints, values: Floats | None = None
    ) -> tuple[ColumnStatistics, ColumnStatistics]:
        """Return a column's statistics of the baseline and of the year.

        Args:
            binning: Its bins.
            codes: Of the rows, (N,); -1 for null.
            values: Of the rows, for sums, smallest and largest, (N,).
        """
        codes, cell = codes[self._keep], self._cell
        known = codes >= 0
        n_cells = self._days * self._slices
        flat = np.bincount(
            cell[known] * binning.size + codes[known], minlength=n_cells * binning.size
        )
        counts = self._both(flat.reshape(n_cells, binning.size).astype(np.int64))
        n = self._sums(np.ones(len(cell))).astype(np.int64)
        none, nan = np.zeros(len(n), np.int64), np.full(len(n), np.nan)
        total, total_sq, low, high = np.zeros(len(n)), np.zeros(len(n)), nan, nan
        if values is not None:
            away = np.where(known, values[self._keep] - binning.centre, 0.0)
            total, total_sq = self._sums(away), self._sums(away**2)
            low, high = self._ends(values[self._keep], known)
        stats = ColumnStatistics(
            binning, self.cells, counts, n=n, n_null=n - counts.sum(axis=1), n_nan=none,
            n_inf=none, n_out_of_range=none, minimum=low, maximum=high, total=total,
            total_sq=total_sq,
        )  # fmt: skip
        then, now = select(stats, self._is_baseline), select(stats, ~self._is_baseline)
        return replace(then, cells=self._frames[0]), replace(now, cells=self._frames[1])

    def _sums(self, values: Floats) -> Floats:
        found = np.bincount(self._cell, values, minlength=self._days * self._slices)
        return self._both(found[:, None])[:, 0]

    def _both(self, parts: NDArray[np.generic]) -> NDArray[np.generic]:
        """Put the days before the slices of all days, (days * (1 + slices), B)."""
        whole = parts.reshape(self._days, self._slices, -1).sum(axis=1)
        return np.concatenate([whole, parts])

    def _ends(self, values: Floats, known: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return smallest and largest of the days; slices are not asked for theirs."""
        day = self._cell // self._slices
        starts = np.searchsorted(day, np.arange(self._days))
        low = np.minimum.reduceat(np.where(known, values, np.inf), starts)
        high = np.maximum.reduceat(np.where(known, values, -np.inf), starts)
        pad = np.full(self._days * self._slices, np.nan)
        return np.append(low, pad), np.append(high, pad)


def bins_of(name: str, values: Floats) -> Binning:
    """Return the bins that the baseline's values give a column."""
    distinct = np.unique(values)
    if len(distinct) <= _DISCRETE:
        return discrete_binning(name, distinct.tolist(), centre=float(np.median(values)))
    edges = np.quantile(values, np.arange(1, 20) / 20).tolist()
    low, high = float(distinct[0]), float(distinct[-1])
    return numeric_binning(name, edges, low=low, high=high, centre=float(np.median(values)))


def numeric_codes(binning: Binning, values: Floats) -> Ints:
    """Return the codes of numbers; NaN is null."""
    codes = np.searchsorted(upper_edges(binning), values, side="left")
    return np.where(np.isnan(values), -1, codes)


def categories(name: str, ids: Ints, day: Ints) -> tuple[Binning, Ints]:
    """Return the bins of a categorical column by its baseline's rows, and the codes of all rows."""
    known, place = np.unique(ids, return_inverse=True)
    then = day < BASELINE
    counts = np.bincount(place[then], minlength=len(known))
    order = np.argsort(-counts, kind="stable")
    order = order[: int((counts > 0).sum())]
    binning = categorical_binning(name, [str(known[i]) for i in order])
    own = len(binning.categories)
    missing = own if binning.is_open else own + 1
    code = np.full(len(known), missing)
    code[order] = np.minimum(np.arange(len(order)), MAX_CATEGORIES)
    codes = code[place].astype(np.int64)
    # Of the tail, a baseline counts as unseen what only one of its windows has.
    days_of = np.bincount(np.unique(place[then] * BASELINE + day[then]) // BASELINE)
    once = np.zeros(len(known), dtype=bool)
    once[: len(days_of)] = days_of == 1
    codes[then & (codes == own) & once[place]] = missing
    return binning, codes


def score_codes(logit: Floats, label: NDArray[np.bool_]) -> tuple[Binning, Ints]:
    """Return the bins of the score, and the codes of scores by their logit and label."""
    binning = role_binning("score", "score")
    bins = binning.size // 3
    share = (logit - binning.low) / (binning.high - binning.low)
    code = np.clip((share * bins).astype(np.int64), 0, bins - 1)
    return binning, code * 3 + np.where(label, 2, 1)


Profiles = Mapping[str, ColumnStatistics]
