"""How alike the rows of two windows are, so that a feed that is sent twice under new ids is seen.

A row falls into one of 2,048 cells by a hash of its features, and a window is counted by these
cells. The cells of windows with different rows are independent of each other: their ranks correlate
by chance alone, by 1 / sqrt(2048) = .022. Where a window holds a share of another's rows, they
correlate by about that share. They are ranks, so that a few rows that always come often do not
count for more than one cell each. What is usual is asked of other windows: few different rows are
alike every day, and customers who are scored each Monday every Monday.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.statistics import ColumnStatistics, over_versions, seconds_of
from mlmon_dagster.metrics.windows.law import Law, fit, to_scale

CELLS = 2_048
BACK = 7  # windows that a window is compared with
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_NOISE = 1 / CELLS  # variance of a correlation by chance
_FEWEST_ROWS = 100
_LONGEST = 56  # windows that are usual, the newest


@dataclass(frozen=True)
class Repeats:
    """How far the rows of a window repeat those of a window before.

    Attributes:
        likeness: Correlation with the window before that they repeat most beyond the usual, -1 to
            1. usual: Mean of windows that lie as far apart.
        start: Of the window before, in seconds.
        n: Rows of the window.
        p_value: Chance of as much in any of the windows that are compared; 1 where none is far
            enough beyond the usual to be looked at.
    """

    likeness: float
    usual: float
    start: int
    n: int
    p_value: float


class RowCells:
    """Windows by the cells of their rows, the oldest first.

    Args:
        found: Statistics of kind ``rows``, of the whole. Windows of fewer than 100 rows are left
            out: equal rows are then too much of them.
    """

    def __init__(self, found: ColumnStatistics) -> None:
        windows = over_versions(found)
        starts = seconds_of(windows.cells["window_start"])
        kept = np.flatnonzero(windows.n >= _FEWEST_ROWS)
        order = kept[np.argsort(starts[kept], kind="stable")]
        self.starts, self.rows = starts[order], windows.n[order]
        self.ranks = rank_cells(windows.counts[order])

    def find_first(self, since: int) -> int:
        """Return the place of the oldest window that starts at a moment or later, in seconds."""
        return int(np.searchsorted(self.starts, since))

    def find(self, start: int) -> int | None:
        """Return the place of the window that starts then; None if it has too few rows."""
        place = self.find_first(start)
        return place if place < len(self.starts) and self.starts[place] == start else None


def hash_rows(columns: Iterable[Floats], size: int) -> Ints:
    """Return the cell of every row: of numbers, or of codes of categories.

    The same values give the same cell on every machine; -0 is 0, and all nulls are alike.

    Args:
        columns: Values of the features, in one order.
        size: Number of cells.
    """
    found: NDArray[np.uint64] | None = None
    for column in columns:
        values = np.asarray(column, np.float64) + 0.0
        values[np.isnan(values)] = np.nan
        bits = values.view(np.uint64)
        found = bits if found is None else found ^ bits
        found = found * _FACTOR
        found ^= found >> np.uint64(32)
    assert found is not None
    return np.asarray(found * _FACTOR >> np.uint64(64 - int(size).bit_length() + 1), np.int64)


def rank_cells(counts: Ints) -> Floats:
    """Return the cells of windows by rank, so that the product of two windows is a correlation.

    Args:
        counts: Rows in each cell, (W, cells).

    Returns:
        (W, cells), each of mean 0 and length 1; 0 where all cells have as many rows.
    """
    if not len(counts):
        return np.zeros(counts.shape)
    ranks: Floats = pd.DataFrame(counts).rank(axis=1).to_numpy(np.float64)
    ranks = ranks - ranks.mean(axis=1, keepdims=True)
    length = np.sqrt(np.square(ranks).sum(axis=1, keepdims=True))
    return ranks / np.where(length > 0, length, 1.0)


class UsualRepeats:
    """How alike windows usually are that lie 1, 2, ... 7 apart.

    Args:
        ranks: Of usual windows, the oldest first, see `rank_cells`. Nine of them are enough to be
            compared with the window before, 15 with all seven.
    """

    def __init__(self, ranks: Floats) -> None:
        self.most_back = max(min(BACK, len(ranks) - FEWEST_WINDOWS), 0)
        ranks = ranks[-_LONGEST - self.most_back :]
        pairs = [
            (ranks[self.most_back :] * ranks[self.most_back - back : -back]).sum(axis=1)
            for back in range(1, self.most_back + 1)
        ]
        self._series = np.array(pairs)

    @cached_property
    def _scaled(self) -> Floats:
        return _to_fisher(self._series)

    @cached_property
    def _law(self) -> Law:
        """The law of all pairs, each less the mean of those that lie as far apart."""
        away = self._scaled - self._scaled.mean(axis=1, keepdims=True)
        return fit(away.T.ravel(), _NOISE)

    def judge(self, windows: RowCells, place: int, above: float, oldest: int = 0) -> Repeats | None:
        """Say which window before another its rows repeat more than usual, if any.

        Args:
            windows: The window, and those before it.
            place: Which one it is.
            above: By how much it must be more than usual; no law is fitted to anything less.
            oldest: Place of the oldest window before that it is compared with.

        Returns:
            None if there is no window before, or too little is known of what is usual.
        """
        size = min(self.most_back, place - oldest)
        if not size:
            return None
        before = slice(place - size, place)
        likeness = (windows.ranks[before] @ windows.ranks[place])[::-1]
        usual = self._series[:size].mean(axis=1)
        beyond = likeness - usual
        p, most = np.ones(size), int(np.argmax(beyond))
        if beyond[most] >= above:
            away = _to_fisher(likeness) - self._scaled[:size].mean(axis=1)
            judged = self._law.judge(away, _NOISE, len(self._law.at) + np.arange(size))
            rows = windows.rows[before][::-1].astype(np.float64) * int(windows.rows[place])
            by_chance = _chance_of_pairs(likeness, usual, rows)
            p = np.where(beyond >= above, np.maximum(judged.above[0], by_chance), 1.0)
            most = int(np.argmin(p))
        return Repeats(
            likeness=float(likeness[most]),
            usual=float(usual[most]),
            start=int(windows.starts[place - most - 1]),
            n=int(windows.rows[place]),
            p_value=min(float(p[most]) * size, 1.0),
        )


def _to_fisher(likeness: Floats) -> Floats:
    return to_scale(likeness, 0.0, 0, "fisher")[0]


def _chance_of_pairs(likeness: Floats, usual: Floats, pairs: Floats) -> Floats:
    """Return the chance of so many pairs that share a cell, which is no normal law's of few rows.

    Args:
        likeness: Of a window to some others.
        usual: What is expected of it.
        pairs: How many their rows make.
    """
    expected = pairs / CELLS + np.maximum(usual, 0.0) * np.sqrt(pairs)
    found = np.ceil(pairs / CELLS + likeness * np.sqrt(pairs))
    # Not by scipy.stats, which takes longer to import than the rest of a run's metrics.
    chance: Floats = np.where(found > 0, special.gammainc(np.maximum(found, 1), expected), 1.0)
    return chance
