"""Running the profile statements and turning their rows into statistics, all cells at once.

What no sum can tell, ranks and areas, comes from columns that are sorted on the way. Every
statistic is a sum, a smallest or a largest value, so however rows are divided into parts, in
whatever order, the counts are the same and the sums differ by rounding alone.

`profile_in_parts` does so part by part, here or on the workers of an engine. What travels to a
worker is this work and the text of a part; what comes back are rows of profiles. A worker reads the
tables with its own credentials.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.metrics import Floats, Ints, Positions
from mlmon_dagster.metrics.binnings import label_counts, representatives, upper_edges
from mlmon_dagster.metrics.performance.roc import DEEPEST, ScoreOrder, add_up, depth_of
from mlmon_dagster.metrics.statistics import (
    CELL_KEYS,
    Binning,
    ColumnStatistics,
    commonest,
    count_whole,
    empty,
    merge_columns,
    select,
)
from mlmon_dagster.metrics.windows.repeats import hash_rows
from mlmon_dagster.profiles.bin_codes import DUCKDB, NULL_CODE, Column, Dialect, list_bins
from mlmon_dagster.profiles.compiler import (
    CELL,
    WINDOW,
    Cells,
    Codes,
    Engine,
    Statements,
    as_numpy,
)
from mlmon_dagster.profiles.fit import is_personal, sampled_source, value_expressions
from mlmon_dagster.profiles.loss_columns import (
    Values,
    attribution_columns,
    attribution_source,
    group_columns,
    group_source,
    output_expression,
    resolve,
    row_source,
    with_offsets,
)
from mlmon_dagster.profiles.storage import from_rows, to_rows
from mlmon_dagster.spec.declaration import sampled_features
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL, ROWS
from mlmon_dagster.store.tables.engine import HELD, HeldRows, QueryEngine


def build_profiles(
    engine: Engine,
    spec: ModelSpec,
    from_sql: str,
    binnings: Mapping[str, Binning],
    dialect: Dialect = DUCKDB,
    key: str = "",
) -> dict[str, ColumnStatistics]:
    """Profile all windows of a source: per window, dataset, model version and slice.

    Args:
        engine: Runs SQL, such as a ``Store``.
        spec: The model; its slices are profiled with coarse numeric bins beside the whole.
        from_sql: The inference records, to stand after FROM.
        binnings: Column -> bins; columns without any are left out.
        dialect: How the engine wants its SQL.
        key: Of personal values, see `value_expressions`.

    Returns:
        Column -> statistics; all columns have the same cells, sorted by `CELL_KEYS`; only
        `:score_order` and `:rows` have none of slices. A slice's key is ``origin,carrier``, its
        value ``EWR,UA``; a null is ``<null>``, a version that is not logged ``none``. No rows give
        no cells.

    Raises:
        StoreError: If a slice has so many values that profiles would not be small any more.
    """
    if spec.embeddings:
        from mlmon_dagster.profiles.embedded import with_fits

        from_sql = with_fits(spec, from_sql, binnings)
    source = row_source(spec, from_sql)
    values = value_expressions(spec, key)
    sampled = sampled_features(spec)
    every_row = {name: value for name, value in values.items() if name not in sampled}
    profile = partial(_profile, engine, spec, binnings, dialect)
    found = profile(source, every_row, rows=binnings.get(ROWS))
    for most in sorted({most for name, most in sampled.items() if name in binnings}):
        mine = {name: values[name] for name, n in sampled.items() if n == most}
        found |= profile(sampled_source(engine, source, most), mine, of_rows=False)
    for name, feature in spec.derived_features.items():
        if name in found and feature.prices is None:
            found[name] = _without_nulls(found[name])
    if ":log_loss" in found and "score" in found:
        log_loss, brier = found[":log_loss"].total, found[":brier"].total
        found["score"] = replace(found["score"], total=log_loss, total_sq=brier)
    apart = ((attribution_columns(spec), attribution_source), (group_columns(spec), group_source))
    for mine, source_of in apart:
        if mine.keys() & binnings.keys():
            found |= profile(source_of(spec, from_sql), mine, of_rows=False)
    return found


def _profile(
    engine: Engine,
    spec: ModelSpec,
    binnings: Mapping[str, Binning],
    dialect: Dialect,
    source: str,
    values: Values,
    *,
    of_rows: bool = True,
    rows: Binning | None = None,
) -> dict[str, ColumnStatistics]:
    """Profile the columns that have bins; `of_rows` says that the rows are those of the records."""
    columns = _list_columns(binnings, values, spec)
    statements = Statements(source, columns, spec.slices, dialect)
    profiled = {column.binning.column for column in columns}
    if rows is not None and (set(rows.categories) - profiled or not dialect.is_duckdb):
        rows = None
    # What is not finite is stored as null; of a score it is refused.
    can_be = of_rows and any(c.binning.kind in ("numeric", "latency") for c in columns)
    moments = engine.query(statements.moments(sliced=False, count_nonfinite=can_be))
    if moments.num_rows == 0:
        known = [*(column.binning for column in columns), *([rows] if rows else [])]
        return {binning.column: empty(binning) for binning in known}
    has_nonfinite = can_be and pc.any(pc.greater(moments.column("n_nonfinite"), 0)).as_py()
    parts = [with_values(engine, statements, moments.sort_by("window_start"), rows)]
    if spec.slices:
        parts.append(engine.query(statements.moments(sliced=True)))
    cells = Cells(parts, spec, sum(column.binning.size for column in columns))
    codes = _codes(engine, statements, cells, int(pc.sum(moments.column("n")).as_py()))
    nonfinite = _nonfinite(engine, statements, cells) if has_nonfinite else {}
    found: dict[str, ColumnStatistics] = {}
    for i, column in enumerate(columns):
        if column.binning.kind == "order":
            found[column.binning.column] = _score_order(engine, statements, column, cells, found)
            continue
        stats = _statistics(column, i, cells, parts, codes.get(i))
        if column.is_personal and column.binning.kind == "numeric":
            stats = _coarsened(stats)
        stats = _count_nonfinite(stats, nonfinite)
        found[column.binning.column] = _name_unseen(stats, column, cells, engine, statements)
    return found if rows is None else found | {ROWS: _read_rows(parts[0], rows)}


def _read_rows(moments: pa.Table, binning: Binning) -> ColumnStatistics:
    """Return the statistics of a table of cells that has `ROW_CELLS`."""
    counts = as_numpy(moments.column(ROW_CELLS).combine_chunks().flatten())
    keys = moments.select(list(CELL_KEYS[:3])).to_pandas()
    n = as_numpy(moments.column("n")).astype(np.int64)
    return count_whole(binning, keys, counts.reshape(-1, binning.size).astype(np.int64), n)


def _without_nulls(stats: ColumnStatistics) -> ColumnStatistics:
    """Count the rows that have a value alone: that there is no text, the text's column says."""
    none = np.zeros(len(stats), np.int64)
    return replace(stats, n=stats.counts.sum(axis=1), n_null=none)


def _score_order(
    engine: Engine,
    statements: Statements,
    column: Column,
    cells: Cells,
    found: Mapping[str, ColumnStatistics],
) -> ColumnStatistics:
    """Read the order of the labelled scores, of the cells of the whole."""
    score = found["score"]
    whole = np.flatnonzero(score.cells["slice_key"] == ALL)
    counts = label_counts(score.counts[whole]).sum(axis=1)[:, 1:]
    n, none = counts.sum(axis=1), np.zeros(len(whole), np.int64)
    depth = max(map(depth_of, n.tolist()))
    table = engine.query(statements.score_order(column, depth))
    cell, codes, rows = (
        part.astype(np.int64)
        for part in (cells.of(table), as_numpy(table.column("code")), as_numpy(table.column("n")))
    )
    order = np.argsort(cell * 2 ** (DEEPEST + 2) + codes)
    ends = np.append(np.searchsorted(cell[order], whole), len(order)).tolist()
    ordered = [add_up([ScoreOrder(codes[order[a:b]], rows[order[a:b]])]) for a, b in pairwise(ends)]
    return replace(
        select(score, whole), binning=column.binning, counts=counts, n=n, n_null=none, order=ordered
    )


def _list_columns(binnings: Mapping[str, Binning], values: Values, spec: ModelSpec) -> list[Column]:
    """Say what to profile and how: the given columns, as far as they have bins."""
    columns = []
    for name, (_, value) in values.items():
        if name not in binnings:
            continue
        feature = spec.features.get(name)
        ranged = feature is not None and feature.type == "numeric"
        columns.append(
            Column(
                binnings[name],
                with_offsets(resolve(value, binnings), binnings),
                low=feature.min if feature and ranged else None,
                high=feature.max if feature and ranged else None,
                is_personal=is_personal(spec, name),
                output=output_expression(spec) or "",
                is_known="actual IS NOT NULL" if spec.columns.actual is not None else "FALSE",
            )
        )
    return columns


def _codes(engine: Engine, statements: Statements, cells: Cells, rows: int) -> dict[int, Codes]:
    """Count codes, by the position of the column."""
    tables = [engine.query(sql) for sql in statements.codes(rows)]
    if not tables:
        return {}
    table = pa.concat_tables(tables, promote_options="permissive")
    items = as_numpy(table.column("item"))
    order = np.argsort(items, kind="stable")
    columns = [cells.of(table), as_numpy(table.column("code")), as_numpy(table.column("n"))]
    values, starts = np.unique(items[order], return_index=True)
    parts = [np.split(column[order].astype(np.int64), starts[1:]) for column in columns]
    found = {int(item): Codes(*mine) for item, *mine in zip(values, *parts, strict=True)}
    paired = statements.paired
    return found if paired is None else found | paired.split(found[paired.score])


def _nonfinite(engine: Engine, statements: Statements, cells: Cells) -> dict[tuple[str, str], Ints]:
    """Count values that were not finite: (column, nan or inf) -> one count per cell."""
    table = engine.query(statements.nonfinite())
    counts: dict[tuple[str, str], Ints] = {}
    entries = table.column("entry").to_pylist()
    for entry, cell, n in zip(entries, cells.of(table), as_numpy(table.column("n")), strict=True):
        column, _, kind = entry.rpartition(":")
        key = (column, "nan" if kind == "nan" else "inf")
        counts.setdefault(key, np.zeros(len(cells), np.int64))[cell] += n
    return counts


def _statistics(
    column: Column,
    i: int,
    cells: Cells,
    parts: Sequence[pa.Table],
    codes: Codes | None,
) -> ColumnStatistics:
    binning, fields = column.binning, parts[0].schema

    def ints(name: str) -> Ints:
        if fields.get_field_index(name) < 0:
            return np.zeros(len(cells), np.int64)
        return cells.arrange(parts, name, 0).astype(np.int64)

    def floats(name: str, default: float) -> Floats:
        if fields.get_field_index(name) < 0:
            return np.full(len(cells), default)
        return cells.arrange(parts, name, default).astype(np.float64)

    counts = cells.counts(parts, f"bins{i}", binning)
    if codes is not None:
        known = codes.codes != NULL_CODE
        np.add.at(counts, (codes.cells[known], codes.codes[known]), codes.n[known])
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


def _coarsened(stats: ColumnStatistics) -> ColumnStatistics:
    """Take range and sums from the bins: of one row they would be somebody's value."""
    binning, counts = stats.binning, stats.counts
    typical = representatives(binning) - binning.centre
    upper = upper_edges(binning)
    upper[-1] = max(binning.high, binning.low)
    lower = np.concatenate([[binning.low], upper[:-1]])
    is_filled = counts > 0
    some = is_filled.any(axis=1)
    last = counts.shape[1] - 1 - is_filled[:, ::-1].argmax(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        rows = counts.astype(np.float64)
        total, total_sq = rows @ typical, rows @ np.square(typical)
    return replace(
        stats,
        minimum=np.where(some, lower[is_filled.argmax(axis=1)], np.nan),
        maximum=np.where(some, upper[last], np.nan),
        total=total,
        total_sq=total_sq,
    )


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
    cells: Cells,
    engine: Engine,
    statements: Statements,
) -> ColumnStatistics:
    """Add the names of the commonest unseen categories; asks the engine only if there are any."""
    if column.binning.kind != "categorical":
        return stats
    counts: list[dict[str, int]] = [{} for _ in range(len(cells))]
    if not column.is_personal and stats.counts[:, -1].any():
        table = _unseen_counts(column, engine, statements)
        columns = (cells.of(table), table.column("name").to_pylist(), as_numpy(table.column("n")))
        for cell, name, n in zip(*columns, strict=True):
            counts[cell][name] = int(n)
    return replace(stats, unseen=[commonest(names) for names in counts])


def _unseen_counts(column: Column, engine: Engine, statements: Statements) -> pa.Table:
    if not statements.dialect.is_duckdb:
        return engine.query(statements.unseen_counts(column, None))
    candidates = engine.query(statements.unseen(column)).column("names")
    names = sorted(set(pc.list_flatten(candidates.combine_chunks()).to_pylist()))
    return engine.query(statements.unseen_counts(column, names))


_ROWS_AT_ONCE = 250_000  # that are counted together, while as many are read
_VALUES_AT_ONCE = 2_000_000  # of them
ROW_CELLS = "row_cells"  # the column of a table of cells that has lists of their rows' cells


def with_values(
    engine: Engine, statements: Statements, moments: pa.Table, hashed: Binning | None = None
) -> pa.Table:
    """Add to the moments of the whole what is counted in this process: numbers and categories.

    Args:
        engine: Runs SQL in this process.
        statements: Of the source.
        moments: What the statement `moments` of the whole found, one row per cell, without its
            numeric columns.
        hashed: Of the rows by a hash of some of the columns, which are then counted as well.

    Returns:
        The same with ``bins{i}`` (lists) of column i and, of numbers, the other columns that
        `moments` of slices has: ``minimum{i}``, ``maximum{i}``, ``total{i}``, ``total_sq{i}`` and,
        where a range is declared, ``outside{i}``; and `ROW_CELLS`.
    """
    names_hashed = () if hashed is None else hashed.categories
    named = {statements.columns[i].binning.column: i for i in statements.numeric}
    named |= {statements.columns[i].binning.column: i for i in statements.categorical}
    first = [named[name] for name in names_hashed]  # they are few enough to be read together
    places = [*first, *(i for i in named.values() if i not in first)]
    if not places:
        return moments
    starts = moments.column("window_start")
    key, names = CELL, moments.column(CELL).to_numpy()
    if pc.count_distinct(starts).as_py() == len(starts):  # no window has two cells
        key, names = WINDOW, starts.to_numpy().astype("datetime64[us]").astype(np.int64)
    rows = int(pc.sum(moments.column("n")).as_py())
    step = max(_VALUES_AT_ONCE // min(rows, _ROWS_AT_ONCE), 1)
    columns = {i: statements.columns[i] for i in places}
    sums = {i: _Sums.of_none(len(names), column) for i, column in columns.items()}
    by_hash = np.zeros((len(names), hashed.size if hashed else 0), np.int64)

    def read() -> Iterator[tuple[_Cells, Sequence[int], list[pa.ChunkedArray]]]:
        for begin in range(0, len(places), step):
            some = places[begin : begin + step]
            sql = statements.values(some, by_cell=key == CELL)
            for rows in _whole_windows(engine.batches(sql, _ROWS_AT_ONCE)):
                cells = _Cells.of(rows.column(key).to_numpy(), names)
                yield cells, some, rows.columns[-len(some) :]

    with ThreadPoolExecutor(engine.threads) as threads:
        counting: Iterator[None] = iter(())
        for cells, some, values in read():
            list(counting)
            mine = [sums[i] for i in some], [columns[i] for i in some]
            counting = threads.map(partial(_count, cells), *mine, values)
            if first and some[0] == first[0]:
                _count_hashed(cells, by_hash, values[: len(first)])
            del values  # before the next are read
        list(counting)
    added: dict[str, pa.Array] = {}
    for i, column in columns.items():
        added |= {f"{name}{i}": found for name, found in _arrays(sums[i], column).items()}
    if first:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(by_hash.ravel()), by_hash.shape[1])
        added[ROW_CELLS] = lists
    pa.default_memory_pool().release_unused()
    # All at once: a table that grows is copied with each column.
    names_added = [*moments.column_names, *added]
    return pa.table([*moments.columns, *added.values()], names=names_added)


def _whole_windows(read: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Cut rows anew, behind the last window that ends among so many: at most the newest is cut.

    Windows whose rows follow each other and are not too many are then added up as if they were
    alone, to the last bit.
    """
    held: list[pa.Table] = []
    for batch in read:
        held.append(batch)
        while sum(map(len, held)) >= _ROWS_AT_ONCE:
            rows = pa.concat_tables(held)
            starts = rows.column(WINDOW).slice(0, _ROWS_AT_ONCE).to_numpy()
            changes = np.flatnonzero(starts[1:] != starts[:-1])
            end = int(changes[-1]) + 1 if len(changes) else _ROWS_AT_ONCE
            yield rows.slice(0, end)
            held = [rows.slice(end)]
            del rows
    if any(map(len, held)):
        yield pa.concat_tables(held)


_Names = Ints | NDArray[np.uint64]


class _Cells(NamedTuple):
    """Which rows belong to which cell.

    Attributes:
        order: Positions of the rows, cell by cell; None if they are read in that order.
        places: The cells that have rows, in that order.
        ends: Where the rows of each of them begin and end among those, one more than there are.
    """

    order: Positions | None
    places: list[int]
    ends: list[int]

    @classmethod
    def of(cls, of_row: _Names, cells: _Names) -> _Cells:
        codes = pd.Index(cells).get_indexer(pd.Index(of_row))
        codes = codes.astype(np.int16 if len(cells) < 2**15 else np.int32)  # sorted by radix
        order = None
        if (codes[1:] < codes[:-1]).any():
            order = np.argsort(codes, kind="stable")
            codes = codes[order]
        starts = np.flatnonzero(np.append(True, codes[1:] != codes[:-1]))
        return cls(order, codes[starts].tolist(), [*starts.tolist(), len(codes)])


class _Sums(NamedTuple):
    """Of a column in C cells: rows per bin (C, bins), range (NaN without values) and sums.

    A number's bins are those between the ``edges``, which are distinct.
    """

    edges: Floats
    bins: Ints
    minimum: Floats
    maximum: Floats
    total: Floats
    total_sq: Floats
    outside: Ints

    @classmethod
    def of_none(cls, size: int, column: Column) -> _Sums:
        """Return those of cells without rows."""
        is_numeric = column.binning.kind == "numeric"
        edges = np.array(list_bins(column.binning, coarse=False)[0] if is_numeric else ())
        bins = np.zeros((size, len(edges) + 1 if is_numeric else column.binning.size), np.int64)
        none, zeros = np.full(size, np.nan), np.zeros(size)
        return cls(edges, bins, none, none.copy(), zeros, zeros.copy(), np.zeros(size, np.int64))


def _arrays(found: _Sums, column: Column) -> dict[str, pa.Array]:
    _, bins, *others = found
    lists = pa.FixedSizeListArray.from_arrays(pa.array(bins.ravel()), bins.shape[1])
    if column.binning.kind == "categorical":
        return {"bins": lists}
    named = dict(zip(_Sums._fields[2:], map(pa.array, others), strict=True))
    if column.low is None and column.high is None:
        del named["outside"]  # as in what is counted by slice
    return {"bins": lists} | named


def _count_hashed(cells: _Cells, found: Ints, values: Sequence[pa.ChunkedArray]) -> None:
    """Add some rows by the hash of their values."""
    hashed = hash_rows((column.to_numpy() for column in values), found.shape[1])
    if cells.order is not None:
        hashed = hashed[cells.order]
    for cell, (begin, end) in zip(cells.places, pairwise(cells.ends), strict=True):
        found[cell] += np.bincount(hashed[begin:end], minlength=found.shape[1])


def _count(cells: _Cells, found: _Sums, column: Column, values: pa.ChunkedArray) -> None:
    """Add some rows' values of a column to what was found so far."""
    ordered = values.to_numpy()
    if cells.order is not None:
        ordered = ordered[cells.order]
    if not ordered.flags.writeable:  # Arrow's own
        ordered = ordered.copy()
    rows_of = [ordered[begin:end] for begin, end in pairwise(cells.ends)]
    if column.binning.kind == "categorical":
        for cell, mine in zip(cells.places, rows_of, strict=True):
            found.bins[cell] += np.bincount(mine - NULL_CODE, minlength=column.binning.size + 1)[1:]
        return
    for cell, mine in zip(cells.places, rows_of, strict=True):
        mine.sort()  # nulls, which are NaN here, last
        mine = mine[: np.searchsorted(mine, np.inf, side="right")]
        if not len(mine):
            continue
        passed = np.searchsorted(mine, found.edges, side="right")
        found.bins[cell] += np.diff(passed, prepend=0, append=len(mine))
        found.minimum[cell] = np.fmin(found.minimum[cell], mine[0])
        found.maximum[cell] = np.fmax(found.maximum[cell], mine[-1])
        if column.low is not None:
            found.outside[cell] += np.searchsorted(mine, column.low, side="left")
        if column.high is not None:
            found.outside[cell] += len(mine) - np.searchsorted(mine, column.high, side="right")
        with np.errstate(over="ignore", invalid="ignore"):
            mine -= column.binning.centre
            found.total[cell] += mine.sum()
            found.total_sq[cell] += np.square(mine, out=mine).sum()


# Does work on every part, as the builtin ``map``; ``map`` of an engine, which does it elsewhere.
Spread = Callable[[Callable[[str], pa.Table], Sequence[str]], Iterable[pa.Table]]


_WIDE = 100  # columns; fewer are a handful of statements
_MOST_VALUES = 4_000_000
_MOST_WAITING = 64 * 2**20  # bytes of parts that are added up at once, which costs as much as one


class Rows(NamedTuple):
    """Rows to stand after FROM, and what reads them."""

    engine: Engine
    from_sql: str


def held(queries: QueryEngine, spec: ModelSpec, from_sql: str) -> Rows:
    """Read the few rows of a wide model once, for all the statements about them.

    To plan a statement, the engine opens every file and looks at every column, whatever the
    statement asks for: of hundreds of columns that takes longer than to read them.

    Args:
        queries: Over the store's tables.
        spec: The model; of fewer than 100 features, rows stay in their files.
        from_sql: The rows, which stay in their files as well if they have more than four million
            values.
    """
    if len(spec.features) >= _WIDE:
        n = queries.query(f"SELECT COUNT(*) AS n FROM {from_sql} AS records")["n"][0].as_py()
        if n * len(spec.features) <= _MOST_VALUES:
            return Rows(HeldRows(queries, f"SELECT * FROM {from_sql} AS records"), HELD)
    return Rows(queries, from_sql)


@dataclass(frozen=True)
class ProfileRows:
    """The work on a part of the inference records: ``work(part)`` are the rows of its profiles.

    Attributes:
        opened: Opens the tables, wherever it is called.
        spec: The model.
        binnings: Column -> bins.
        key: Of personal values, see `value_expressions`.
    """

    opened: Callable[[], QueryEngine]
    spec: ModelSpec
    binnings: Mapping[str, Binning]
    key: str = ""

    def profiles(self, source: str) -> dict[str, ColumnStatistics]:
        """Profile the records of a subquery, as `build_profiles` does."""
        engine, source = held(self.opened(), self.spec, source)
        return build_profiles(engine, self.spec, source, self.binnings, key=self.key)

    def __call__(self, source: str) -> pa.Table:
        """Return them as rows."""
        return to_rows(self.profiles(source))


def profile_in_parts(
    work: ProfileRows, sources: Sequence[str], whole: str, spread: Spread = map
) -> dict[str, ColumnStatistics]:
    """Do what `build_profiles` does, holding one part's rows at a time.

    Args:
        work: What is done with a part.
        sources: Parts of the inference records, to stand after FROM; every row is in one of them,
            and of a ranking whole groups are.
        whole: All of them, of which samples are read here for what has to see one sample.
        spread: Does the work, in whatever order; by default here, one part after the other.
    """
    of_samples = sampled_features(work.spec)
    apart = {name: b for name, b in work.binnings.items() if name not in of_samples}
    found: dict[str, ColumnStatistics] = {}
    waiting: list[pa.Table] = []
    for rows in spread(replace(work, binnings=apart), sources):
        waiting.append(rows)
        if sum(part.nbytes for part in waiting) > _MOST_WAITING:
            found, waiting = added_up(found, waiting, apart), []
    found = added_up(found, waiting, apart)
    found |= {name: empty(binning) for name, binning in apart.items() if name not in found}
    sampled = {n: work.binnings[n] for n in of_samples if n in work.binnings}
    sampled |= {n: b for n, b in work.binnings.items() if b.kind == "vectors"}
    return found | build_profiles(work.opened(), work.spec, whole, sampled) if sampled else found


def added_up(
    profiles: Mapping[str, ColumnStatistics],
    parts: Sequence[pa.Table],
    binnings: Mapping[str, Binning],
) -> dict[str, ColumnStatistics]:
    """Add the rows of parts to profiles, cell by cell; each may lack cells that others have."""
    together = from_rows(pa.concat_tables([to_rows(profiles), *parts]), binnings)
    return {**profiles, **merge_columns(together, CELL_KEYS)}
