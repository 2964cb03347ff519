"""Distances of the rows that are not on a heap, a value that most rows share.

Whatever happens to the few other rows moves a distance of all rows by little: where 93 % are 0,
three times the others is a PSI of .07. Those rows are a column of their own, as in the two-part
models of Duan et al. (1983).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import MIN_WINDOWS, Flags
from mlmon_dagster.metrics.binnings import just_below
from mlmon_dagster.metrics.drift.columns import columns_drift
from mlmon_dagster.metrics.drift.references import DriftBaseline
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, select_whole
from mlmon_dagster.spec.metric_registry import OFF_HEAP

_MOST = 0.5  # of the rows
_FEWEST = 3  # other values


@dataclass(frozen=True)
class OffHeap:
    """The rows of a baseline that are on no heap.

    Attributes:
        heaps: Which codes of a column are heaps, of the columns that have such.
        baseline: The other rows of these columns.
    """

    heaps: Mapping[str, Flags]
    baseline: DriftBaseline


def off_heap_baseline(
    columns: Mapping[str, ColumnStatistics], *, seed: int, min_rows: int = 30
) -> OffHeap:
    """Find the columns with heaps and rows enough beside them; arguments as of `DriftBaseline`."""
    whole = {
        name: select_whole(stats)
        for name, stats in columns.items()
        if stats.binning.kind == "numeric"
    }
    heaps = {name: _heaps(stats) for name, stats in whole.items()}
    rest = {name: _without(whole[name], codes) for name, codes in heaps.items() if codes.any()}
    # By rows alone a rainy day is unlike all others: its rows share the rain.
    rest = {name: s for name, s in rest.items() if (s.n >= min_rows).sum() >= MIN_WINDOWS}
    heaps = {name: heaps[name] for name in rest}
    return OffHeap(heaps, DriftBaseline(rest, seed=seed, min_rows=min_rows))


def off_heap_drift(columns: Mapping[str, ColumnStatistics], then: OffHeap) -> pd.DataFrame:
    """Return the distances of the rows on no heap, at slice `all`.

    Args:
        columns: Columns over C cells; the baseline has their heaps.
        then: The baseline's.

    Returns:
        MetricFrame of `psi_off_heap`, which is `psi` as `columns_drift` has it.
    """
    rest = {
        name: _without(select_whole(columns[name]), codes)
        for name, codes in then.heaps.items()
        if name in columns
    }
    if not rest:
        return concat_frames([])
    found = columns_drift(rest, then.baseline)
    return found[found["metric"] == "psi"].assign(metric=OFF_HEAP)


def _heaps(stats: ColumnStatistics) -> Flags:
    """Return which codes are heaps; none where these hold few rows, or nearly all values."""
    pooled = stats.counts.sum(axis=0)
    heaps = _holds_one_value(stats.binning)
    if stats.binning.values:
        heaps = pooled > _MOST * pooled.sum()
    is_most = pooled[heaps].sum() > _MOST * pooled.sum()
    has_others = np.count_nonzero(pooled[~heaps]) >= _FEWEST
    return heaps if is_most and has_others else np.zeros_like(heaps)


def _holds_one_value(binning: Binning) -> Flags:
    """Return which codes are of a coarse bin that is one value wide."""
    pairs = pairwise(binning.edges)
    is_one = np.array([False, *(low == just_below(high) for low, high in pairs), False])
    return np.repeat(is_one, binning.fine)


def _without(stats: ColumnStatistics, codes: Flags) -> ColumnStatistics:
    counts = np.where(codes, 0, stats.counts)
    return replace(stats, counts=counts, n=counts.sum(axis=1))
