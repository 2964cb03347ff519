"""Bins, range and sums of numeric columns by sorting each cell's values, for an engine in here.

DuckDB hands over some columns at a time, numpy sorts the values of every cell: where they pass the
edges of the bins are the counts. That takes a quarter of the time of DuckDB's ``histogram``, which
finds the bin of every value, and sums do not depend on the order in which rows come.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.profiles.sql.bin_codes import Column, list_bins
from mlmon_dagster.profiles.sql.compiler import CELL, Engine, Statements

_ROWS_AT_ONCE = 2_000_000  # of windows read together, unless one window has more
_VALUES_AT_ONCE = 4_000_000
_FEWEST_COLUMNS = 2  # read together
_THREADS = 2


def with_numeric(engine: Engine, statements: Statements, moments: pa.Table) -> pa.Table:
    """Add to the moments of the whole those of the numeric columns, and their bins.

    Args:
        engine: Runs SQL in this process.
        statements: Of the source.
        moments: What the statement `moments` of the whole found, one row per cell, without its
            numeric columns.

    Returns:
        The same with the columns that `moments` of slices has: of column i ``bins{i}`` (lists),
        ``minimum{i}``, ``maximum{i}``, ``total{i}``, ``total_sq{i}`` and, where a range is
        declared, ``outside{i}``.
    """
    parts: dict[int, list[_Sums]] = {i: [] for i in statements.numeric}
    if not parts:
        return moments
    with ThreadPoolExecutor(_THREADS) as threads:
        for cells in _windows_together(moments):
            for i, sums in _of_windows(engine, statements, cells, threads):
                parts[i].append(sums)
    for i, found in parts.items():
        for name, values in _joined(found, statements.columns[i]).items():
            moments = moments.append_column(f"{name}{i}", values)
    pa.default_memory_pool().release_unused()
    return moments


def _of_windows(
    engine: Engine, statements: Statements, cells: pa.Table, threads: ThreadPoolExecutor
) -> Iterator[tuple[int, _Sums]]:
    """Read the values of some cells, a few columns at a time, and add them up by column."""
    places, rows = statements.numeric, int(pc.sum(cells.column("n")).as_py())
    starts, names = cells.column("window_start"), cells.column(CELL).to_numpy()
    ends = starts[0].as_py(), starts[-1].as_py()
    step = max(_VALUES_AT_ONCE // max(rows, 1), _FEWEST_COLUMNS)
    grouped: _Cells | None = None
    for begin in range(0, len(places), step):
        some = places[begin : begin + step]
        table = engine.query(statements.values(some, *ends))
        found = table.column(CELL).to_numpy()
        if grouped is None or not np.array_equal(grouped.of_row, found):
            grouped = _Cells.of(found, names)
        columns = [statements.columns[i] for i in some]
        sums = threads.map(partial(_sums, grouped), columns, table.columns[1:])
        yield from zip(some, sums, strict=True)
        del table  # before the next is read


def _windows_together(moments: pa.Table) -> Iterator[pa.Table]:
    """Cut the cells, sorted by window, into runs of whole windows of so many rows together."""
    starts = moments.column("window_start").to_numpy()
    n = np.cumsum(moments.column("n").to_numpy())
    begin, taken = 0, 0
    for end in [*(np.flatnonzero(starts[1:] != starts[:-1]) + 1).tolist(), len(starts)]:
        last = end == len(starts)
        if last or n[_next_end(starts, end) - 1] - taken > _ROWS_AT_ONCE:
            yield moments.slice(begin, end - begin)
            begin, taken = end, int(n[end - 1])


def _next_end(starts: NDArray[Any], begin: int) -> int:
    return int(np.searchsorted(starts, starts[begin], side="right"))


class _Cells(NamedTuple):
    """Which rows belong to which cell.

    Attributes:
        of_row: What names the cell of every row, as read.
        order: Positions of the rows, cell by cell; None if they are read in that order.
        ends: Where the rows of each of C cells begin and end among those, (C + 1,).
    """

    of_row: NDArray[np.uint64]
    order: NDArray[np.intp] | None
    ends: Ints

    @classmethod
    def of(cls, of_row: NDArray[np.uint64], cells: NDArray[np.uint64]) -> _Cells:
        codes = pd.Index(cells).get_indexer(pd.Index(of_row))
        codes = codes.astype(np.int16 if len(cells) < 2**15 else np.int32)  # sorted by radix
        order = None
        if (codes[1:] < codes[:-1]).any():
            order = np.argsort(codes, kind="stable")
            codes = codes[order]
        return cls(of_row, order, np.searchsorted(codes, np.arange(len(cells) + 1)))


class _Sums(NamedTuple):
    """Of a column in C cells: rows per bin (C, E + 1), range (NaN without values) and sums."""

    bins: Ints
    minimum: Floats
    maximum: Floats
    total: Floats
    total_sq: Floats
    outside: Ints


def _joined(parts: list[_Sums], column: Column) -> dict[str, pa.Array]:
    bins, *others = (np.concatenate(values) for values in zip(*parts, strict=True))
    lists = pa.FixedSizeListArray.from_arrays(pa.array(bins.ravel()), bins.shape[1])
    found = dict(zip(_Sums._fields[1:], map(pa.array, others), strict=True))
    if column.low is None and column.high is None:
        del found["outside"]  # as in what is counted by slice
    return {"bins": lists} | found


def _sums(cells: _Cells, column: Column, values: pa.ChunkedArray) -> _Sums:
    edges = np.array(list_bins(column.binning, coarse=False)[0])
    ordered = values.to_numpy()
    ordered = ordered.copy() if cells.order is None else ordered[cells.order]
    size = len(cells.ends) - 1
    found = _Sums(
        np.zeros((size, len(edges) + 1), np.int64),
        np.full(size, np.nan), np.full(size, np.nan), np.zeros(size), np.zeros(size),
        np.zeros(size, np.int64),
    )  # fmt: skip
    for cell in range(size):
        mine = ordered[cells.ends[cell] : cells.ends[cell + 1]]
        mine.sort()  # nulls, which are NaN here, last
        mine = mine[: np.searchsorted(mine, np.inf, side="right")]
        if not len(mine):
            continue
        passed = np.searchsorted(mine, edges, side="right")
        found.bins[cell] = np.diff(passed, prepend=0, append=len(mine))
        found.minimum[cell], found.maximum[cell] = mine[0], mine[-1]
        if column.low is not None:
            found.outside[cell] += np.searchsorted(mine, column.low, side="left")
        if column.high is not None:
            found.outside[cell] += len(mine) - np.searchsorted(mine, column.high, side="right")
        with np.errstate(over="ignore", invalid="ignore"):
            mine -= column.binning.centre
            found.total[cell] = mine.sum()
            found.total_sq[cell] = np.square(mine, out=mine).sum()
    return found
