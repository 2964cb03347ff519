"""Running the profile statements and turning their rows into statistics, all cells at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics.statistics import (
    ALL,
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    commonest,
    empty,
)
from mlmon_dagster.profiles.binning import value_expressions
from mlmon_dagster.profiles.codes import DUCKDB, NULL_CODE, Column, Dialect, list_bins
from mlmon_dagster.profiles.compiler import Engine, Statements
from mlmon_dagster.spec.model import ModelSpec

Ints = NDArray[np.int64]
MAX_CELLS = 100_000  # dense score bins of so many cells are 2.4 GB


def build_profiles(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    binnings: Mapping[str, Binning],
    dialect: Dialect = DUCKDB,
) -> dict[str, ColumnStatistics]:
    """Profile all windows of a source: per window, dataset, model version and slice.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model; its slices are profiled with coarse numeric bins beside the whole.
        from_sql: The inference records, to stand after FROM.
        binnings: Column -> bins; columns without any are left out.
        dialect: How the engine wants its SQL.

    Returns:
        Column -> statistics; all columns have the same cells, sorted by `CELL_KEYS`. A slice's
        key is ``origin,carrier``, its value ``EWR,UA``; a null is ``<null>``, a version that is
        not logged ``none``. No rows give no cells.

    Raises:
        StoreError: If a slice has so many values that profiles would not be small any more.
    """
    columns = profiled_columns(spec, binnings)
    statements = Statements(from_sql, columns, spec.slices, dialect)
    parts = [engine.query(statements.moments(sliced=False))]
    if parts[0].num_rows == 0:
        return {column.binning.column: empty(column.binning) for column in columns}
    if spec.slices:
        parts.append(engine.query(statements.moments(sliced=True)))
    cells = _Cells(parts, spec)
    codes = _codes(engine, statements, cells)
    nonfinite = _nonfinite(engine, statements, cells)
    found = {}
    for i, column in enumerate(columns):
        stats = _statistics(column, i, cells, parts, codes.get(i))
        stats = _count_nonfinite(stats, nonfinite)
        found[column.binning.column] = _name_unseen(stats, column, cells, engine, statements)
    return found


def profiled_columns(spec: ModelSpec, binnings: Mapping[str, Binning]) -> list[Column]:
    """Say what to profile and how: the model's columns that have bins."""
    columns = []
    for name, (_, value) in value_expressions(spec).items():
        if name not in binnings:
            continue
        feature = spec.features.get(name)
        ranged = feature is not None and feature.type == "numeric"
        columns.append(
            Column(
                binnings[name],
                value,
                low=feature.min if feature and ranged else None,
                high=feature.max if feature and ranged else None,
                names_unseen=not (feature is not None and feature.pii),
            )
        )
    return columns


class _Cells:
    """The cells of one source, and where a statement's rows belong among them."""

    def __init__(self, parts: Sequence[pa.Table], spec: ModelSpec) -> None:
        self._labels = pa.array([ALL, *(",".join(names) for names in spec.slices)])
        size = sum(part.num_rows for part in parts)
        if size > MAX_CELLS:
            raise StoreError(
                f"Model {spec.model!r}: {size:,} combinations of window, version and slice to "
                f"profile, at most {MAX_CELLS:,} at once. A slice of {spec.slices} has too many "
                "values; remove it from the spec, or profile fewer windows at a time."
            )
        frame = pa.concat_tables([self._keys(part) for part in parts]).to_pandas()
        frame["window_start"] = frame["window_start"].astype("datetime64[us, UTC]")
        self._order = frame.sort_values(list(CELL_KEYS), kind="stable").index.to_numpy()
        self.frame = frame.iloc[self._order].reset_index(drop=True)
        self._values = [pc.unique(pa.array(self.frame[key])) for key in CELL_KEYS]
        codes = self._mixed(pa.table({key: pa.array(self.frame[key]) for key in CELL_KEYS}))
        self._by_code = np.argsort(codes)
        self._sorted_codes = codes[self._by_code]

    def __len__(self) -> int:
        return len(self.frame)

    def _keys(self, table: pa.Table) -> pa.Table:
        slices = pc.take(self._labels, pc.add(table.column("slice"), 1))
        keys = table.select(["window_start", "dataset", "model_version", "slice_value"])
        return keys.append_column("slice_key", slices).select(CELL_KEYS)

    def _mixed(self, keys: pa.Table) -> Ints:
        """One integer per row that is equal for equal keys."""
        mixed = np.zeros(keys.num_rows, np.int64)
        for name, values in zip(CELL_KEYS, self._values, strict=True):
            column = keys.column(name).cast(values.type)
            mixed = mixed * len(values) + _numpy(pc.index_in(column, value_set=values))
        return mixed

    def of(self, table: pa.Table) -> Ints:
        """Return the cell of every row of a statement's result."""
        codes = self._mixed(self._keys(table))
        cells: Ints = self._by_code[np.searchsorted(self._sorted_codes, codes)]
        return cells

    def arrange(self, parts: Sequence[pa.Table], name: str, default: float) -> NDArray[Any]:
        """Return one column of the moments statements, one value per cell."""
        column = np.concatenate([_numpy(part.column(name), default) for part in parts])
        arranged: NDArray[Any] = column[self._order]
        return arranged

    def counts(self, parts: Sequence[pa.Table], name: str, binning: Binning) -> Ints:
        """Return the bins of a moments column, from lists to (cells, codes)."""
        counts = np.zeros((len(self), binning.size), np.int64)
        start = 0
        for part, coarse in zip(parts, (False, True), strict=False):
            lists = part.column(name).combine_chunks()
            edges, codes = list_bins(binning, coarse)
            filled = start + np.flatnonzero(_numpy(pc.is_valid(lists)))
            flat = _numpy(pc.list_flatten(lists)).reshape(-1, len(edges) + 1)
            counts[np.ix_(filled, codes)] = flat
            start += part.num_rows
        arranged: Ints = counts[self._order]
        return arranged


_Codes = tuple[Ints, Ints, Ints]


def _numpy(column: Any, default: float | bool = 0) -> NDArray[Any]:
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(default).cast(column.type))
    values: NDArray[Any] = (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
    return values


def _codes(engine: Engine, statements: Statements, cells: _Cells) -> dict[int, _Codes]:
    """Count codes: position of the column -> cells, codes and counts, one entry per code."""
    sql = statements.codes()
    if not sql:
        return {}
    table = engine.query(sql)
    items = _numpy(table.column("item"))
    order = np.argsort(items, kind="stable")
    columns = [cells.of(table), _numpy(table.column("code")), _numpy(table.column("n"))]
    values, starts = np.unique(items[order], return_index=True)
    parts = [np.split(column[order].astype(np.int64), starts[1:]) for column in columns]
    return {int(item): (a, b, c) for item, a, b, c in zip(values, *parts, strict=True)}


def _nonfinite(
    engine: Engine, statements: Statements, cells: _Cells
) -> dict[tuple[str, str], Ints]:
    """Count values that were not finite: (column, nan or inf) -> one count per cell."""
    table = engine.query(statements.nonfinite())
    counts: dict[tuple[str, str], Ints] = {}
    entries = table.column("entry").to_pylist()
    for entry, cell, n in zip(entries, cells.of(table), _numpy(table.column("n")), strict=True):
        column, _, kind = entry.rpartition(":")
        key = (column, "nan" if kind == "nan" else "inf")
        counts.setdefault(key, np.zeros(len(cells), np.int64))[cell] += n
    return counts


def _statistics(
    column: Column,
    i: int,
    cells: _Cells,
    parts: Sequence[pa.Table],
    codes: _Codes | None,
) -> ColumnStatistics:
    binning, names = column.binning, parts[0].column_names

    def ints(name: str) -> Ints:
        if name not in names:
            return np.zeros(len(cells), np.int64)
        return cells.arrange(parts, name, 0).astype(np.int64)

    def floats(name: str, default: float) -> NDArray[np.float64]:
        if name not in names:
            return np.full(len(cells), default)
        return cells.arrange(parts, name, default).astype(np.float64)

    counts = (
        cells.counts(parts, f"bins{i}", binning)
        if f"bins{i}" in names
        else _dense(codes, len(cells), binning.size)
    )
    n = ints("n")
    return ColumnStatistics(
        binning,
        cells.frame,
        counts,
        n=n,
        n_null=n - counts.sum(axis=1),
        n_nan=np.zeros(len(cells), np.int64),
        n_inf=np.zeros(len(cells), np.int64),
        n_out_of_range=ints(f"outside{i}"),
        minimum=floats(f"minimum{i}", np.nan),
        maximum=floats(f"maximum{i}", np.nan),
        total=floats(f"total{i}", 0.0),
        total_sq=floats(f"total_sq{i}", 0.0),
    )


def _dense(codes: _Codes | None, cells: int, size: int) -> Ints:
    counts = np.zeros((cells, size), np.int64)
    if codes is not None:
        cell, code, n = codes
        known = code != NULL_CODE
        counts[cell[known], code[known]] = n[known]
    return counts


def _count_nonfinite(
    stats: ColumnStatistics, nonfinite: Mapping[tuple[str, str], Ints]
) -> ColumnStatistics:
    """Tell values that were not a number, stored as NULL, from values that were missing."""
    column = stats.binning.column
    n_nan = nonfinite.get((column, "nan"), stats.n_nan)
    n_inf = nonfinite.get((column, "inf"), stats.n_inf)
    return replace(stats, n_nan=n_nan, n_inf=n_inf, n_null=stats.n_null - n_nan - n_inf)


def _name_unseen(
    stats: ColumnStatistics,
    column: Column,
    cells: _Cells,
    engine: Engine,
    statements: Statements,
) -> ColumnStatistics:
    """Add the names of the commonest unseen categories; asks the engine only if there are any."""
    if column.binning.kind != "categorical":
        return stats
    counts: list[dict[str, int]] = [{} for _ in range(len(cells))]
    if column.names_unseen and stats.counts[:, -1].any():
        table = _unseen_counts(column, engine, statements)
        columns = (cells.of(table), table.column("name").to_pylist(), _numpy(table.column("n")))
        for cell, name, n in zip(*columns, strict=True):
            counts[cell][name] = int(n)
    return replace(stats, unseen=[commonest(names) for names in counts])


def _unseen_counts(column: Column, engine: Engine, statements: Statements) -> pa.Table:
    if not statements.dialect.is_duckdb:
        return engine.query(statements.unseen_counts(column, None))
    candidates = engine.query(statements.unseen(column)).column("names")
    names = sorted(set(pc.list_flatten(candidates.combine_chunks()).to_pylist()))
    return engine.query(statements.unseen_counts(column, names))
