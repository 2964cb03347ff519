"""What of drift depends on the baseline alone: computed once, and used for every window.

How many rows share a value, the merging of bins, moments without change, and the distances of the
baseline's own windows are kept as they are asked for. They are functions of the baseline: a result
does not depend on what was asked before.
"""

from __future__ import annotations

from collections.abc import Mapping

from mlmon_dagster.metrics.drift.null_distribution import DISTANCES
from mlmon_dagster.metrics.drift.references import ColumnBaseline, FineReferences, References
from mlmon_dagster.metrics.drift.slice_index import SliceIndex, SlicePool
from mlmon_dagster.metrics.statistics import ColumnStatistics


class DriftBaseline:
    """The columns of a baseline, as drift compares windows with them.

    Args:
        columns: Column -> statistics, whose cells are the baseline's windows; not to be changed.
        seed: Seed of the draws behind the mean of ks; the other distances draw nothing.
        min_rows: Fewest rows of a window, and of the baseline, for a value.
    """

    def __init__(
        self, columns: Mapping[str, ColumnStatistics], *, seed: int, min_rows: int = 30
    ) -> None:
        self.seed, self.min_rows = seed, min_rows
        self.fine = FineReferences(seed, min_rows)
        self.whole = References(tuple(DISTANCES), min_rows, self.fine)
        self.tested = References(("psi",), min_rows)
        self.untested = References(("psi",), None)
        self._stats = dict(columns)
        self._columns: dict[str, ColumnBaseline] = {}
        self._pools: dict[int, SlicePool] = {}

    def column(self, name: str) -> ColumnBaseline:
        """Return one column."""
        if name not in self._columns:
            stats = self._stats[name]
            key = id(stats.cells)  # of a frame that is held
            if key not in self._pools:
                self._pools[key] = SlicePool(SliceIndex(stats.cells))
            self._columns[name] = ColumnBaseline(name, stats, self._pools[key])
        return self._columns[name]
