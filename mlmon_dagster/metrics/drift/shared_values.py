"""How many rows of a window count as one, where rows share values.

All flights of an hour share one weather, all requests of a user one country. A window of n such
rows strays from the baseline like one of n / d independent rows; d is the design effect of survey
statistics, and dividing all counts by it the first-order correction of Rao and Scott (1981).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.distances import chi_square
from mlmon_dagster.metrics.drift.drift_bins import merge_bins, merge_plan
from mlmon_dagster.metrics.drift.null_distribution import grid_floor, grid_size
from mlmon_dagster.metrics.intervals import biweight

_Z99 = 2.3263478740408408
_BINS_FOR = (1.0, 4.0)  # times the usual rows: few values hide in few bins, many in fine ones
_COARSE = 3.0
_PRECISE = 0.1
_CATEGORIES = 4  # grid steps, so four times the rows: five expected become one and a quarter
_RESOLVED = 20.0  # independent rows that the bins of a small window are made for: four bins
FEWEST_VALUES = 8.0  # independent rows, in a window of under half the baseline's usual rows


@dataclass(frozen=True)
class Independence:
    """How many independent rows windows hold; depends on the baseline alone.

    Of one baseline, or of one for each of P windows, (P,), as `stack` gives it.

    Attributes:
        rows_per_value: Design effect d, at least 1; 1 without windows.
        usual: Median rows of the baseline's windows; infinite without windows.
        is_shared: Whether rows share values: d is above that of 99 of 100 sets of independent rows.
        is_precise: Whether d is known within a tenth or so.
    """

    rows_per_value: float | Floats = 1.0
    usual: float | Floats = np.inf
    is_shared: bool | NDArray[np.bool_] = False
    is_precise: bool | NDArray[np.bool_] = False

    @classmethod
    def fit(cls, windows: Ints, *, ordered: bool) -> Independence:
        """Estimate it from how far the baseline's windows lie from each other.

        A window's chi-square statistic against the rest is about d times a chi-square variable, and
        the cube root of that nearly normal (Wilson and Hilferty, 1931), so that a robust centre of
        the roots gives d whatever the number of bins, and a bad day of the baseline does not count.

        Args:
            windows: Rows per drift bin of the baseline's windows, (W, B), nulls last.
            ordered: Whether the bins are intervals of numbers.
        """
        if not len(windows):
            return cls()
        sizes = windows.sum(axis=1)
        usual = float(np.median(sizes))
        found = [_design_effect(windows, size * usual, ordered) for size in _BINS_FOR]
        shared = [d for d, error in found if d > 1 + _Z99 * error]
        if shared:
            return cls(max(shared), usual, is_shared=True)
        return cls(max(found[0][0], 1.0), usual, is_precise=found[0][1] < _PRECISE)

    @classmethod
    def stack(cls, some: Sequence[Independence], place: Ints) -> Independence:
        """Put those of K baselines side by side, in the order of `place`, (P,)."""
        parts = ([getattr(one, field.name) for one in some] for field in fields(cls))
        return cls(*(np.array(part)[place] for part in parts))

    def take(self, windows: NDArray[np.intp]) -> Independence:
        """Return those of some of P windows."""
        return Independence(
            *(np.asarray(getattr(self, field.name))[windows] for field in fields(self))
        )

    def rows(self, n: Floats | Ints) -> Floats:
        """Independent rows of windows of n rows, (...): at most those of a usual window, if shared.

        Twice the rows may be twice the users, or the same 24 hours with twice the flights; nothing
        in the baseline says which.
        """
        size = np.asarray(n, dtype=np.float64)
        most = np.where(self.is_shared, np.minimum(size, self.usual), size)
        return np.asarray(most / self.rows_per_value, dtype=np.float64)

    def growth(self, n: Floats | Ints) -> Floats:
        """How much more windows of n rows stray than the baseline's, where rows share values.

        The fewer the rows, the fewer their values; but not the more values, the more rows.
        """
        with np.errstate(invalid="ignore"):
            fewer = np.asarray(self.usual) / np.maximum(n, 1)
        return np.where(self.is_shared, np.maximum(fewer, 1.0), 1.0)

    def too_few(self, n: Ints) -> NDArray[np.bool_]:
        """Say where windows of n rows hold too few independent rows to tell a change from chance.

        Windows as large as the baseline's can be compared with those, however alike their rows are;
        smaller ones have to be reasoned about, which fails for fewer than eight values.
        """
        rows = self.rows(n)
        small = (rows < FEWEST_VALUES) & (n < self.usual / 2)
        return np.asarray(small & self.is_shared, dtype=np.bool_)

    def needs_windows(self, n: Floats | Ints) -> NDArray[np.bool_]:
        """Say where only the baseline's windows tell how far windows of n rows stray.

        Not of windows as small as those, once d is known: more rows can show an effect of the day
        that fewer hide, fewer cannot.
        """
        unknown = self.is_shared | np.logical_not(self.is_precise)
        return np.asarray((n > self.usual) | unknown, dtype=np.bool_)

    def plan_node(self, node: int, ordered: bool) -> int:
        """Grid number of the rows by which bins are merged to test windows of grid number `node`.

        Categories are tested with fewer expected rows in each than intervals, whose neighbours know
        of their change.
        """
        if self.is_shared:
            size = float(grid_size(node))
            rows = max(float(self.rows(np.asarray(size))), min(size, _RESOLVED))
            node = int(grid_floor(rows))
        return node if ordered else node + _CATEGORIES

    @property
    def is_coarse(self) -> NDArray[np.bool_]:
        """Whether a usual window holds fewer than three values, so that distances are few, too."""
        few = np.asarray(self.usual) / self.rows_per_value < _COARSE
        return np.asarray(few & self.is_shared, dtype=np.bool_)


def _design_effect(windows: Ints, size: float, ordered: bool) -> tuple[float, float]:
    """Return d by the bins for windows of `size` rows, and its standard error if d is 1."""
    merged = merge_bins(windows, merge_plan(windows.sum(axis=0), size, ordered=ordered))
    pooled, sizes = merged.sum(axis=0), windows.sum(axis=1)
    freedom = int((pooled > 0).sum()) - 1
    rest = int(pooled.sum()) - sizes
    if freedom < 1 or not rest.all():
        return 1.0, np.inf
    statistic = chi_square(merged, pooled - merged) / (1 / sizes + 1 / rest)
    centre = float(biweight(np.cbrt(statistic / freedom))[0])
    found = (centre / (1 - 2 / (9 * freedom))) ** 3
    return found, float(np.sqrt(2 / (freedom * len(windows))))
