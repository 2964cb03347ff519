"""Counting a window's rows by a hash of their features: the column of `metrics.windows.repeats`.

They are hashed from what is read for the bins of the columns anyway, eight features at most: those
with the most different values, which tell rows apart best. A time is left out, as it is counted by
its age, and a text, by its length. Of a row 11 bits are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mlmon_dagster.metrics.statistics import CELL_KEYS, Binning, ColumnStatistics, count_whole
from mlmon_dagster.metrics.windows.repeats import CELLS
from mlmon_dagster.profiles.bin_codes import Dialect
from mlmon_dagster.profiles.bin_shapes import row_binning
from mlmon_dagster.profiles.compiler import as_numpy
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ROWS

MOST = 8  # features
ROW_CELLS = "row_cells"  # the column of a table of cells that has lists of their rows' cells
_TYPES = ("numeric", "categorical", "boolean")


def fit_rows(
    spec: ModelSpec, binnings: Mapping[str, Binning], dialect: Dialect
) -> dict[str, Binning]:
    """Return the cells of rows; none without features, or on another engine than DuckDB."""
    known = [
        name for name, f in spec.logged_features.items() if f.type in _TYPES and name in binnings
    ]
    if not known or not dialect.is_duckdb:
        return {}
    richest = sorted(known, key=lambda name: -_count_values(binnings[name]))
    return {ROWS: row_binning(ROWS, CELLS, richest[:MOST])}


def _count_values(binning: Binning) -> float:
    if binning.kind == "numeric":
        return len(binning.values) or (np.inf if binning.edges else 1.0)
    return np.inf if binning.is_open else len(binning.categories) + len(binning.tail)


def read_rows(moments: pa.Table, binning: Binning) -> ColumnStatistics:
    """Return the statistics of a table of cells that has `ROW_CELLS`."""
    counts = as_numpy(moments.column(ROW_CELLS).combine_chunks().flatten())
    keys = moments.select(list(CELL_KEYS[:3])).to_pandas()
    n = as_numpy(moments.column("n")).astype(np.int64)
    return count_whole(binning, keys, counts.reshape(-1, binning.size).astype(np.int64), n)
