"""Counting a window's rows by a hash of all their features: the column of `metrics.repeats`.

The hash is DuckDB's, which is quick, and may be another one in another version of it: windows of
before and after an upgrade are then as alike as lots make them, which alerts nobody. Of a row 11
bits are kept.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mlmon_dagster.metrics.repeats import CELLS, ROWS
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    count_whole,
    empty,
)
from mlmon_dagster.profiles.bin_codes import Dialect
from mlmon_dagster.profiles.bin_shapes import row_binning
from mlmon_dagster.profiles.compiler import NO_VERSION, Engine
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.sql import literal, quote_identifier


def fit_rows(spec: ModelSpec, dialect: Dialect) -> dict[str, Binning]:
    """Return the cells of rows; none without features, or on another engine than DuckDB."""
    if not spec.features or not dialect.is_duckdb:
        return {}
    return {ROWS: row_binning(ROWS, CELLS, list(spec.features))}


def profile_rows(
    engine: Engine, from_sql: str, binnings: Mapping[str, Binning], dialect: Dialect
) -> dict[str, ColumnStatistics]:
    """Count rows by cell, of the whole and not of slices; nothing where `fit_rows` has no bins.

    Args:
        engine: Runs SQL.
        from_sql: The inference records, to stand after FROM.
        binnings: The bins of the profile.
        dialect: Of the engine.
    """
    if (binning := binnings.get(ROWS)) is None or not dialect.is_duckdb:
        return {}
    features = ", ".join(map(quote_identifier, binning.categories))
    found = engine.query(
        f"SELECT window_start, COALESCE(dataset, {literal(ALL)}) AS dataset, "
        f"COALESCE(model_version, {literal(NO_VERSION)}) AS model_version, "
        f"CAST(hash({features}) % {binning.size} AS INTEGER) AS code, COUNT(*) AS n "
        f"FROM {from_sql} AS records GROUP BY ALL"
    )
    if not found.num_rows:
        return {ROWS: empty(binning)}
    keys = found.select(list(CELL_KEYS[:3])).to_pandas()
    cell = keys.groupby(list(CELL_KEYS[:3]), observed=True).ngroup().to_numpy()
    frame = keys.drop_duplicates().sort_values(list(CELL_KEYS[:3]), ignore_index=True)
    counts = np.zeros((len(frame), binning.size), np.int64)
    counts[cell, found.column("code").to_numpy()] = found.column("n").to_numpy()
    return {ROWS: count_whole(binning, frame, counts, counts.sum(axis=1))}
