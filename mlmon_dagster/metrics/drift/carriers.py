"""Which slices carry a change of a column: more of it than their part of the rows.

The bins that have more rows than usual are those of the change. The share of rows there has grown
by an amount that splits exactly over the slices of a key: how much more of a slice's own rows are
there than of its rows in the baseline (within), and how many more rows the slice has (mix; see
Kitagawa, 1955). Nearly every slice of a change that all have in common carries a part of it, so a
slice is named only for far more than its part, and only beyond chance: the baseline's own windows
say how far a slice strays from the others without a change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import drift_bins, label_counts, score_groups
from mlmon_dagster.metrics.statistics import ColumnStatistics, over_versions

Names: TypeAlias = "pd.Index[Any]"
MIN_ROWS = 30  # of a slice, in the window and in the baseline
FEWEST_WINDOWS = 8  # of the baseline, with rows of a slice
_MOST_BY_CHANCE = 0.01  # probability, of all slices together
_MOST_NAMED = 3
_HALF = 0.5  # of the change
_TIMES_PART = 1.5  # its part of the rows is carried by each slice that is named, at least
_BEYOND_PART = 0.25  # of the change, more than the slices' part of the rows


@dataclass(frozen=True)
class Carriers:
    """Slices of one key that carry half of a change or more.

    Attributes:
        key: The slice key, such as ``origin,carrier``.
        values: Its values, the one that carries most first.
        share: Of the change, above 1 where the others moved the other way.
        rows: Share of the window's rows that they have.
        usual_rows: Share of the baseline's rows that they have.
        is_mix: It is that they have more rows, not that their rows have changed.
    """

    key: str
    values: tuple[str, ...]
    share: float
    rows: float
    usual_rows: float
    is_mix: bool


class SlicedBaseline:
    """Rows of a baseline by slice and bin, as windows are compared with them.

    Args:
        stats: One column; the cells of slices of its windows.
    """

    def __init__(self, stats: ColumnStatistics) -> None:
        whole = over_versions(stats)
        self._groups: Ints | None = None
        if whole.binning.kind == "score":
            self._groups = score_groups(label_counts(whole.counts).sum(axis=(0, 2)))
        self._cells, self._counts = whole.cells, self.count(whole)
        self.keys = list(dict.fromkeys(self._cells["slice_key"]))

    def count(self, stats: ColumnStatistics) -> Ints:
        """Return rows per cell and drift bin, nulls the last, (C, B)."""
        return drift_bins(stats, self._groups).counts

    def windows(self, key: str, values: Names) -> Ints:
        """Return rows per window, slice of a key and bin, (W, S, B)."""
        mine = (self._cells["slice_key"] == key).to_numpy()
        cells = self._cells[mine]
        number, starts = pd.factorize(cells["window_start"])
        found = np.zeros((len(starts), len(values), self._counts.shape[1]), np.int64)
        found[number, values.get_indexer(list_names(cells))] = self._counts[mine]
        return found

    def values(self, key: str) -> Names:
        """Return the values of a key."""
        return list_names(
            self._cells[self._cells["slice_key"] == key].drop_duplicates("slice_value")
        )


def list_names(cells: pd.DataFrame) -> Names:
    """Return the slice values of cells."""
    found: Names = pd.Index(cells["slice_value"].astype(object))
    return found


def find_carriers(now: ColumnStatistics, baseline: SlicedBaseline) -> Carriers | None:
    """Return the slices that carry a change, of the key whose slices carry most of it.

    Args:
        now: One column; the cells of slices of one window, with the baseline's bins.
        baseline: The same column in the baseline.

    Returns:
        None where no few slices carry far more than their part, beyond chance: it is spread over
        all of them, the baseline has too few windows, or there is no change.
    """
    whole = over_versions(now)
    keys = [key for key in baseline.keys if (whole.cells["slice_key"] == key).any()]
    found = list(_candidates(whole, baseline, keys))
    return max(found, key=lambda one: one.share - one.rows * (not one.is_mix), default=None)


def _candidates(
    now: ColumnStatistics, baseline: SlicedBaseline, keys: list[str]
) -> Iterator[Carriers]:
    every = baseline.count(now)
    tests = 2 * sum(int((now.cells["slice_key"] == key).sum()) for key in keys)
    for key in keys:
        mine = (now.cells["slice_key"] == key).to_numpy()
        own = list_names(now.cells[mine])
        values = baseline.values(key).union(own)
        counts = np.zeros((len(values), every.shape[1]), np.int64)
        counts[values.get_indexer(own)] = every[mine]
        split = _Split(counts, baseline.windows(key, values))
        for is_mix in (False, True):
            named = split.pick(is_mix, _MOST_BY_CHANCE / tests)
            if len(named):
                yield Carriers(
                    key,
                    tuple(str(value) for value in values[named]),
                    float((split.mix if is_mix else split.within)[named].sum() / split.change),
                    float(split.part[named].sum()),
                    float(split.usual_part[named].sum()),
                    is_mix,
                )


class _Split:
    """A change, split over the slices of one key.

    Args:
        now: Rows per slice and bin, (S, B).
        then: Rows per window, slice and bin of the baseline, (W, S, B).
    """

    def __init__(self, now: Ints, then: Ints) -> None:
        pooled = then.sum(axis=0)
        self.n, self.usual_n = now.sum(axis=1), pooled.sum(axis=1)
        self.part = self.n / max(int(self.n.sum()), 1)
        self.usual_part = self.usual_n / max(int(self.usual_n.sum()), 1)
        more = now.sum(axis=0) / max(int(self.n.sum()), 1) > (
            pooled.sum(axis=0) / max(int(self.usual_n.sum()), 1)
        )
        self._there, usual = now[:, more].sum(axis=1), pooled[:, more].sum(axis=1)
        self._in_windows, self._of_windows = then[:, :, more].sum(axis=2), then.sum(axis=2)
        rate = self._there / np.maximum(self.n, 1)
        # A slice that the baseline has not has no rate of its own there: all of it is mix.
        self._usual_rate = np.where(self.usual_n > 0, usual / np.maximum(self.usual_n, 1), rate)
        overall = float(usual.sum() / max(int(self.usual_n.sum()), 1))
        own = np.where(self.n > 0, rate - self._usual_rate, 0.0)
        self.within: Floats = self.part * own
        self.mix: Floats = (self.part - self.usual_part) * (self._usual_rate - overall)
        self.change = float(self.within.sum() + self.mix.sum())

    def pick(self, is_mix: bool, level: float) -> Ints:
        """Return the slices to name, none where they do not carry enough together."""
        none: Ints = np.zeros(0, np.int64)
        if self.change <= 0 or len(self.n) < 2:
            return none
        carried = (self.mix if is_mix else self.within) / self.change
        p = self._p_mix() if is_mix else self._p_within()
        part = np.zeros(len(carried)) if is_mix else self.part
        sure = np.flatnonzero((p <= level) & (carried > _TIMES_PART * part) & (carried > 0))
        # Where one slice has more rows, all others have fewer: that is told once.
        most = 1 if is_mix else _MOST_NAMED
        named = sure[np.argsort(-carried[sure], kind="stable")][:most]
        is_most = carried[named].sum() >= max(_HALF, part[named].sum() + _BEYOND_PART)
        return named if is_most else none

    def _p_within(self) -> Floats:
        """Return how likely each slice is so much more there than the others, by chance."""
        from scipy.special import ndtr

        z = self._stray(self._there[None], self.n[None])[0]
        windows = self._stray(self._in_windows, self._of_windows)
        is_large = np.minimum(self.n, self.usual_n) >= MIN_ROWS
        return np.where(is_large, ndtr(-z / _spread(windows)), 1.0)

    def _stray(self, there: Ints, n: Ints) -> Floats:
        """Return how far slices are from the others, beyond usual, in binomial errors, (W, S)."""
        rest, rest_n = there.sum(axis=1, keepdims=True) - there, n.sum(axis=1, keepdims=True) - n
        expected = n * self._usual_rate
        expected_rest = expected.sum(axis=1, keepdims=True) - expected
        with np.errstate(invalid="ignore", divide="ignore"):
            apart = (there - expected) / n - (rest - expected_rest) / rest_n
            own, others = np.maximum(there, expected) / n, np.maximum(rest, expected_rest) / rest_n
            usual = self._usual_rate * (1 - self._usual_rate) / self.usual_n
            error = own * (1 - own) / n + others * (1 - others) / rest_n + usual
            z: Floats = apart / np.sqrt(np.maximum(error, 1e-12))
        return np.where((n >= MIN_ROWS) & (rest_n >= MIN_ROWS), z, np.nan)

    def _p_mix(self) -> Floats:
        """Return how likely each slice has so many more rows, by chance."""
        from scipy.special import ndtr

        total = self._of_windows.sum(axis=1, keepdims=True)
        share = self.usual_part

        def stray(n: Ints, whole: Ints) -> Floats:
            with np.errstate(invalid="ignore", divide="ignore"):
                error = np.sqrt(np.maximum(share * (1 - share), 1e-12) / whole)
                return np.asarray((n / whole - share) / error)

        z = np.abs(stray(self.n, np.array(max(int(self.n.sum()), 1))))
        windows = np.where(total >= MIN_ROWS, stray(self._of_windows, total), np.nan)
        is_large = np.maximum(self.n, self.usual_n) >= MIN_ROWS  # also a new one, and one that went
        return np.where(is_large, ndtr(-z / _spread(windows)), 1.0)


def _spread(z: Floats) -> Floats:
    """Return the spread of the baseline's windows, at least that of independent rows, (S,).

    Infinite where too few windows have rows of a slice.
    """
    known = np.isfinite(z)
    n = known.sum(axis=0)
    squares = np.where(known, np.square(z), 0.0).sum(axis=0) / np.maximum(n, 1)
    return np.where(n >= FEWEST_WINDOWS, np.sqrt(np.maximum(squares, 1.0)), np.inf)
