"""One column of a baseline: its slices, and their rows per drift bin."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.bins import DriftBins, drift_bins, is_ordered, score_groups
from mlmon_dagster.metrics.slice_index import SlicePool
from mlmon_dagster.metrics.statistics import ALL, ColumnStatistics

Ints = NDArray[np.int64]
Positions = NDArray[np.intp]
WHOLE = f"{ALL}\0{ALL}"


class ColumnBaseline:
    """One column of a baseline.

    Attributes:
        stats: Its statistics, W cells.
        pool: Its slices.
        ordered: Whether its bins are intervals of numbers.
        bins: Rows per drift bin of its cells, (W, B).
        pooled: Rows per drift bin of each slice, (S + 1, B). total: their sums, (S + 1,).
        n_valued: Rows with a value of the whole, 0 for columns without an order.
    """

    def __init__(self, name: str, stats: ColumnStatistics, pool: SlicePool) -> None:
        self.name, self.stats, self.pool = name, stats, pool
        self.ordered = is_ordered(stats.binning)
        self.whole = int(pool.numbers([WHOLE])[0])
        self._groups: Ints | None = None
        if stats.binning.kind == "score":
            whole = label_counts(stats.counts[pool.rows(self.whole)])
            self._groups = score_groups(whole.sum(axis=(0, 2)))
        self.bins = self.drift_bins(stats)
        self.pooled = pool.pool(self.bins.counts)
        self.total = self.pooled.sum(axis=1)
        fine = self.bins.fine
        self.n_valued = 0 if fine is None else int(fine[pool.rows(self.whole)].sum())

    def starts(self, cells: Positions) -> pd.Series:
        """Return the starts of the windows of some of its cells."""
        return self.stats.cells["window_start"].iloc[cells]

    def drift_bins(self, stats: ColumnStatistics) -> DriftBins:
        """Collapse the codes of windows into the bins of this baseline."""
        return drift_bins(stats, self._groups)
