"""From columns and their bins to SQL: the only place where profile statements are written.

The cells of a profile are here as well: where the rows of a statement's result belong.

A binary model's score and decision are counted together: one way of grouping instead of three.
Where a row has both, the score's bin all but tells the decision, so pairs are hardly more than
bins; and the bins of the rows that were decided positive are those of the pairs with that
decision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics import Ints
from mlmon_dagster.metrics.binnings import LABEL_STATES
from mlmon_dagster.metrics.performance.weighted_back import DECIDED
from mlmon_dagster.metrics.statistics import CELL_KEYS, Binning
from mlmon_dagster.profiles.bin_codes import (
    DUCKDB,
    NULL_CODE,
    Column,
    Dialect,
    code_expression,
    list_bins,
    number,
    order_code,
)
from mlmon_dagster.profiles.loss_columns import bound_of
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.sql import literal, quote_identifier

NULL_SLICE = "<null>"
NO_VERSION = "none"
KEYS = ("window_start", "dataset", "model_version")
CELL = "cell"  # a hash of those, which is quicker to hand over
WINDOW = "__window"  # its start as a number
UNSEEN_CANDIDATES = 50
UNSEEN_LENGTH = 120
_LONG_VALUE = 20  # characters; names are hardly longer
_DECISIONS = 2 * LABEL_STATES + 1  # codes of a confusion, and none
MAX_CELLS = 100_000  # dense score bins of so many cells are 2.4 GB
# Ways of grouping in one statement: DuckDB keeps megabytes for each, of few rows as of many. Few
# rows are quickly read once more.
_SETS_AT_ONCE, _SETS_OF_FEW = 48, 12
_FEW_ROWS = 200_000
_USUAL_CODES = 10_000  # a model of a few dozen columns has so many; more allow fewer cells


class Engine(Protocol):
    """Anything that runs SQL; ``Store`` is one, Spark and PostgreSQL take a few lines."""

    @property
    def threads(self) -> int:
        """How many are at work in this process at a time, on batches and beside them, as asked."""

    def query(self, sql: str, /) -> pa.Table:
        """Run one statement and return its rows."""

    def batches(self, sql: str, rows: int, /) -> Iterator[pa.Table]:
        """Run one statement and yield its rows, at most so many at a time; DuckDB only is asked."""


def slice_expression(columns: Sequence[str]) -> str:
    """Join the values of slice columns with commas; commas and backslashes in them escaped."""
    parts = []
    for column in columns:
        text = f"CAST({quote_identifier(column)} AS VARCHAR)"
        for char in ("\\", ","):
            text = f"REPLACE({text}, {literal(char)}, {literal(chr(92) + char)})"
        parts.append(f"COALESCE({text}, {literal(NULL_SLICE)})")
    return " || ',' || ".join(parts)


class _Coded(NamedTuple):
    """A column's codes in SQL, and what they are called in the whole and in slices.

    The value comes first, where its text is long and would stand at each of hundreds of edges. No
    name in the whole: it is counted elsewhere.
    """

    value: str
    inner: str
    whole: str
    sliced: str


class Statements:
    """The statements of one source.

    Args:
        source: What stands after FROM: a table, a function call or a subquery in parentheses.
        columns: What to profile.
        slices: Tuples of column names; each is one more way of grouping.
        dialect: Of the engine that will run them.
    """

    def __init__(
        self,
        source: str,
        columns: Sequence[Column],
        slices: Sequence[Sequence[str]],
        dialect: Dialect = DUCKDB,
    ) -> None:
        self.columns = tuple(columns)
        self.paired = paired_outputs(self.columns)
        self.dialect = dialect
        self.numeric = tuple(
            i
            for i, column in enumerate(self.columns)
            if column.binning.kind == "numeric" and dialect.is_duckdb
        )
        self.categorical = tuple(
            i
            for i, column in enumerate(self.columns)
            if column.binning.kind == "categorical" and dialect.is_duckdb
        )
        self._source = source
        self._keys = {
            "window_start": "window_start",
            "dataset": f"COALESCE(dataset, {literal(ALL)})",
            "model_version": f"COALESCE(model_version, {literal(NO_VERSION)})",
        }
        self._slices = {f"s{i}": slice_expression(names) for i, names in enumerate(slices)}

    def moments(self, *, sliced: bool, count_nonfinite: bool = False) -> str:
        """Rows, nulls, range and sums per cell.

        On DuckDB those of slices have the numeric bins too, as lists, and the whole has nothing of
        numeric columns: see `values`.

        Args:
            sliced: The declared slices, with coarse bins, or the whole.
            count_nonfinite: Count the rows that `nonfinite` may tell something of, ``n_nonfinite``.
        """
        inner = [f"{c.value} AS v{i}" for i, c in enumerate(self.columns)]
        outer = ["COUNT(*) AS n"]
        is_duckdb = self.dialect.is_duckdb
        if count_nonfinite:
            inner.append("nonfinite")
            # Lists are empty, not null, where every number of a row is finite.
            test = "CASE WHEN len(nonfinite) > 0 THEN 1 END" if is_duckdb else "nonfinite"
            outer.append(f"COUNT({test}) AS n_nonfinite")
        if (self.numeric or self.categorical) and not sliced:
            outer.append(f"hash({', '.join(KEYS)}) AS {CELL}")
        for i, column in enumerate(self.columns):
            if i in self.numeric and not sliced:
                continue
            outer += _moments(column, f"v{i}", i, self.dialect.whole)
            if column.binning.kind == "loss":
                outer.append(f"COUNT(v{i}) AS bins{i}")
            if i in self.numeric:
                # As one text: thousands of numbers take the optimizer longer than a cast.
                edges = [*map(repr, list_bins(column.binning, coarse=True)[0]), "Infinity"]
                bins = f"CAST('[{', '.join(edges)}]' AS DOUBLE[])"
                outer.append(f"map_values(histogram(v{i}, {bins})) AS bins{i}")
        return self._grouped(inner, outer, [[]], sliced, whole=not sliced)

    def values(self, places: Sequence[int], *, by_cell: bool) -> str:
        """Windows, and numbers or codes of the columns at these places; the columns last.

        Windows are microseconds since 1970.

        Args:
            places: Among `numeric` and `categorical`.
            by_cell: Add the hash of all keys, which is dearer to read: windows have several cells.
        """
        window, cell = "epoch_us(window_start)", f"hash({', '.join(self._keys.values())})"
        names = [f"{window} AS {WINDOW}", *([f"{cell} AS {CELL}"] if by_cell else [])]
        columns = [f"{value_to_code(self.columns[i], self.dialect)} AS v{i}" for i in places]
        return f"SELECT {', '.join(names + columns)} FROM {self._source} AS records"

    def codes(self, rows: int) -> list[str]:
        """Rows per cell, column (its position as ``item``) and code, for the whole and slices.

        Of outputs that are counted together there are the pairs only, as the score's, and of
        categories on DuckDB only those of slices: see `values`. Several statements where one would
        be too long for the engine or need too much memory, none where there is no such column.

        Args:
            rows: How many rows there are, about.
        """
        together, statements, length = list[_Coded](), list[str](), 0
        most = self.dialect.most_chars
        sets = _SETS_OF_FEW if rows < _FEW_ROWS else _SETS_AT_ONCE
        for coded in self._coded():
            is_full = (len(together) + 1) * (1 + len(self._slices)) > sets
            is_full |= most is not None and length + len(coded.inner) > most
            if together and is_full:
                statements.append(self._counted(together))
                together, length = [], 0
            together.append(coded)
            length += len(coded.inner)
        return [*statements, self._counted(together)] if together else statements

    def _coded(self) -> Iterator[_Coded]:
        paired = self.paired
        for i, column in enumerate(self.columns):
            if i in self.numeric or column.binning.kind in ("loss", "order"):
                continue  # counted elsewhere
            if paired is not None and i in paired[1:]:
                continue
            is_read = i in self.categorical
            if is_read and not self._slices:
                continue
            value, fine = "", column.binning.fine
            if column.binning.kind == "numeric" and len(column.value) > _LONG_VALUE:
                value = f"{column.value} AS __v{i}"
                column = replace(column, value=f"__v{i}")
            elif column.binning.kind == "by_output":
                value = f"{column.value} AS __v{i}, {column.output} AS __o{i}"
                column = replace(column, value=f"__v{i}", output=f"__o{i}")
            code = code_expression(column, self.dialect)
            if paired is not None and i == paired.score:
                code = paired.expression(self.columns, self.dialect)
            inner = f"{code} AS b{i}"
            if fine > 1 and self._slices:
                inner += f", {code_expression(column, self.dialect, coarse=True)} AS c{i}"
            whole = "" if is_read else f"b{i}"
            yield _Coded(value, inner, whole, f"c{i}" if fine > 1 else f"b{i}")

    def _counted(self, columns: Sequence[_Coded]) -> str:
        whole, sliced = [c.whole for c in columns if c.whole], [c.sliced for c in columns]
        names = [*whole, *(name for name in sliced if name not in whole and self._slices)]
        items = " ".join(f"WHEN {name} IS NOT NULL THEN {name[1:]}" for name in names)
        outer = [f"CASE {items} END AS item", f"COALESCE({', '.join(names)}) AS code"]
        outer.append("COUNT(*) AS n")
        values = "".join(f", {c.value}" for c in columns if c.value)
        source = f"(SELECT records.*{values} FROM {self._source} AS records{self.dialect.fence})"
        return self._grouped(
            [c.inner for c in columns],
            outer,
            [[n] for n in whole],
            True,
            True,
            [[n] for n in sliced],
            source=source if values else "",
        )

    def score_order(self, column: Column, depth: int) -> str:
        """Labelled rows per cell of the whole and code of a score, at a depth of the tree."""
        inner = [f"{order_code(column.value, column.binning, depth)} AS code"]
        where = f"{column.value} IS NOT NULL AND actual IN (0, 1)"
        outer = ["code", "COUNT(*) AS n"]
        return self._grouped(inner, outer, [["code"]], False, True, where=where)

    def nonfinite(self) -> str:
        """Rows per cell and entry of the list column ``nonfinite`` (``temp:nan``)."""
        source = (
            f"(SELECT records.*, UNNEST(nonfinite) AS entry FROM {self._source} AS records "
            "WHERE nonfinite IS NOT NULL)"
        )
        outer = ["entry", "COUNT(*) AS n"]
        return self._grouped(["entry"], outer, [["entry"]], True, True, source=source)

    def unseen(self, column: Column) -> str:
        """Candidates for the commonest unseen categories, per cell of the whole.

        DuckDB keeps a bounded summary per cell, so that a million different values do not have
        to be held; the exact count of each candidate is `unseen_counts`.
        """
        inner = [f"{_name(column)} AS name"]
        if self.dialect.is_duckdb:
            outer = [f"approx_top_k(name, {UNSEEN_CANDIDATES}) AS names"]
            return self._grouped(inner, outer, [[]], False, True, where=self._is_unseen(column))
        return self.unseen_counts(column, None)

    def unseen_counts(self, column: Column, names: Sequence[str] | None) -> str:
        """Rows per cell of the whole and unseen category, for these names or all of them."""
        where = self._is_unseen(column)
        if names is not None:
            where += f" AND {_name(column)} IN ({', '.join(map(literal, names)) or 'NULL'})"
        inner, outer = [f"{_name(column)} AS name"], ["name", "COUNT(*) AS n"]
        return self._grouped(inner, outer, [["name"]], False, True, where=where)

    def _is_unseen(self, column: Column) -> str:
        return f"{code_expression(column, self.dialect)} = {column.binning.size - 1}"

    def _grouped(
        self,
        inner: Sequence[str],
        outer: Sequence[str],
        groups: Sequence[Sequence[str]],
        sliced: bool,
        whole: bool,
        slice_groups: Sequence[Sequence[str]] | None = None,
        where: str = "TRUE",
        source: str = "",
    ) -> str:
        """Group the rows by cell and by each of ``groups``, for the whole, slices or both."""
        slices = self._slices if sliced else {}
        keys = [f"{sql} AS {alias}" for alias, sql in chain(self._keys.items(), slices.items())]
        sets = [", ".join([*KEYS, *group]) for group in groups if whole]
        for alias in slices:
            sets += [", ".join([*KEYS, alias, *group]) for group in slice_groups or groups]
        which = " ".join(f"WHEN {alias} IS NOT NULL THEN {alias[1:]}" for alias in slices)
        slice_columns = [
            f"CASE {which} ELSE -1 END AS slice" if slices else "-1 AS slice",
            f"COALESCE({', '.join([*slices, literal(ALL)])}) AS slice_value",
        ]
        return (
            f"SELECT {', '.join([*KEYS, *slice_columns, *outer])} FROM ("
            f"SELECT {', '.join([*keys, *inner])} FROM {source or self._source} AS records "
            f"WHERE {where}{self.dialect.fence}) AS coded "
            f"GROUP BY GROUPING SETS ({', '.join(f'({s})' for s in sets)})"
        )


def _moments(column: Column, value: str, i: int, whole: str) -> list[str]:
    found = []
    if column.has_range:
        found += [f"MIN({value}) AS minimum{i}", f"MAX({value}) AS maximum{i}"]
    if not column.has_sums:
        return found
    total = f"({value} - {number(column.binning.centre)})"
    if column.binning.kind == "loss":
        high = column.binning.high
        # A mean to 1e-9 of what is typical, and less of its error, which has the longer tail.
        units = high * 2.0**-60, high * high * 2.0**-44
        square, bounded = f"{total} * {total}", bound_of(column.binning.column) is not None
        sums = (
            _exact_sum(total, units[0], bounded, whole),
            _exact_sum(square, units[1], bounded, whole),
        )
    else:
        sums = f"SUM({total})", f"SUM({total} * {total})"
    found += [f"{sql} AS {name}{i}" for name, sql in zip(("total", "total_sq"), sums, strict=True)]
    limits = [f"{value} < {number(column.low)}"] if column.low is not None else []
    limits += [f"{value} > {number(column.high)}"] if column.high is not None else []
    if limits:
        found.append(f"COUNT(CASE WHEN {' OR '.join(limits)} THEN 1 END) AS outside{i}")
    return found


def _exact_sum(value: str, unit: float, bounded: bool, whole: str) -> str:
    """Add values in whole multiples of a unit: equal whatever the order of the rows.

    A sum of floats depends on how the engine splits the rows among its threads. Values from 2**62
    units on are counted in units 2**32 times as large, so that one of them takes no digits from
    the others; only those of 2**94 units are added as floats. Bounded values never reach that.
    """
    if bounded:
        counted = f"SUM(CAST(FLOOR({value} * {number(1 / unit)} + 0.5e0) AS {whole}))"
        return f"CAST(COALESCE({counted}, 0) AS DOUBLE PRECISION) * {number(unit)}"
    size, ends = f"ABS({value})", (unit * 2.0**62, unit * 2.0**94)
    small, large = (
        f"CAST(COALESCE(SUM(CASE WHEN {test} THEN "
        f"CAST(FLOOR({value} * {number(1 / each)} + 0.5e0) AS {whole}) END), 0) "
        f"AS DOUBLE PRECISION) * {number(each)}"
        for test, each in (
            (f"{size} < {number(ends[0])}", unit),
            (f"{size} >= {number(ends[0])} AND {size} < {number(ends[1])}", unit * 2.0**32),
        )
    )
    rest = f"COALESCE(SUM(CASE WHEN {size} >= {number(ends[1])} THEN {value} END), 0e0)"
    return f"{small} + {large} + {rest}"


def _name(column: Column) -> str:
    return f"SUBSTR({column.value}, 1, {UNSEEN_LENGTH})"


class Codes(NamedTuple):
    """Rows per cell and code; a pair of both may stand in several places."""

    cells: Ints
    codes: Ints
    n: Ints


class PairedOutputs(NamedTuple):
    """Positions among the columns of the score, the prediction and the score of the decided."""

    score: int
    prediction: int
    decided: int | None

    def expression(self, columns: Sequence[Column], dialect: Dialect) -> str:
        """Return the pair's code, ``(score code + 1) * 7 + prediction code + 1``; never NULL."""
        score, prediction = (
            code_expression(columns[i], dialect) for i in (self.score, self.prediction)
        )
        return f"({score} - {NULL_CODE}) * {_DECISIONS} + {prediction} - {NULL_CODE}"

    def split(self, pairs: Codes) -> dict[int, Codes]:
        """Return the codes of each of the columns, by position."""
        score, prediction = (part + NULL_CODE for part in np.divmod(pairs.codes, _DECISIONS))
        found = {
            self.score: pairs._replace(codes=score),
            self.prediction: pairs._replace(codes=prediction),
        }
        if self.decided is not None:
            positive = prediction >= LABEL_STATES
            found[self.decided] = Codes(pairs.cells[positive], score[positive], pairs.n[positive])
        return found


def paired_outputs(columns: Sequence[Column]) -> PairedOutputs | None:
    """Return where the outputs of a binary classifier are; None without both of them."""
    places = {column.binning.column: i for i, column in enumerate(columns)}
    kinds = {column.binning.column: column.binning.kind for column in columns}
    if kinds.get("score") != "score" or kinds.get("prediction") != "confusion":
        return None
    return PairedOutputs(places["score"], places["prediction"], places.get(DECIDED))


class Cells:
    """The cells of one source, and where a statement's rows belong among them."""

    def __init__(self, parts: Sequence[pa.Table], spec: ModelSpec, size: int) -> None:
        self._labels = pa.array([ALL, *(",".join(names) for names in spec.slices)])
        found = sum(part.num_rows for part in parts)
        most = MAX_CELLS * _USUAL_CODES // max(size, _USUAL_CODES)
        if found > most:
            raise StoreError(
                f"Model {spec.model!r}: {found:,} combinations of window, version and slice to "
                f"profile, at most {most:,} at once. A slice of {spec.slices} has too many "
                "values; remove it from the spec, or profile fewer windows at a time."
            )
        keys = pa.concat_tables([self._keys(part) for part in parts], promote_options="permissive")
        order = pc.sort_indices(keys, [(key, "ascending") for key in CELL_KEYS])
        self._order = order.to_numpy()
        keys = keys.take(order)
        self.frame = keys.to_pandas()
        self.frame["window_start"] = self.frame["window_start"].astype("datetime64[us, UTC]")
        self._values = [pc.unique(keys.column(key)) for key in CELL_KEYS]
        codes = self._mixed(keys)
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
            mixed = mixed * len(values) + as_numpy(pc.index_in(column, value_set=values))
        return mixed

    def of(self, table: pa.Table) -> Ints:
        """Return the cell of every row of a statement's result."""
        codes = self._mixed(self._keys(table))
        cells: Ints = self._by_code[np.searchsorted(self._sorted_codes, codes)]
        return cells

    def arrange(self, parts: Sequence[pa.Table], name: str, default: float) -> np.ndarray:
        """Return one column of the moments statements, one value per cell."""
        column = np.concatenate([as_numpy(part.column(name), default) for part in parts])
        arranged: np.ndarray = column[self._order]
        return arranged

    def counts(self, parts: Sequence[pa.Table], name: str, binning: Binning) -> Ints:
        """Return the bins of a moments column, from lists to (cells, codes); 0 without any."""
        counts = np.zeros((len(self), binning.size), np.int64)
        start = 0
        for part, coarse in zip(parts, (False, True), strict=False):
            if part.schema.get_field_index(name) >= 0:
                mine = counts[start : start + part.num_rows]
                _fill(mine, part.column(name), binning, coarse=coarse)
            start += part.num_rows
        arranged: Ints = counts[self._order]
        return arranged


def _fill(counts: Ints, column: pa.ChunkedArray, binning: Binning, *, coarse: bool) -> None:
    if binning.kind == "loss":
        counts[:, 0] = as_numpy(column)
        return
    is_numeric = binning.kind == "numeric"
    codes = list_bins(binning, coarse)[1] if is_numeric else np.arange(binning.size)
    lists = column.combine_chunks()
    filled = np.flatnonzero(as_numpy(pc.is_valid(lists)))
    counts[np.ix_(filled, codes)] = as_numpy(pc.list_flatten(lists)).reshape(-1, len(codes))


def as_numpy(column: pa.Array | pa.ChunkedArray, default: float | bool = 0) -> np.ndarray:
    """Return a column of Arrow as an array, nulls replaced."""
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(default).cast(column.type))
    values: np.ndarray = (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
    return values


def value_to_code(column: Column, dialect: Dialect) -> str:
    """Read a number as it is, which is cheaper than finding its bin in SQL; else the code."""
    if column.binning.kind == "numeric":
        return f"CAST({column.value} AS DOUBLE PRECISION)"
    return f"CAST({code_expression(column, dialect)} AS INTEGER)"


def codes_of(values: pa.ChunkedArray, binning: Binning) -> Ints:
    """Return the codes of what `value_to_code` reads; as `code_expression` gives them."""
    if binning.kind != "numeric":
        return as_numpy(values).astype(np.int64)
    edges, codes = list_bins(binning, coarse=False)
    numbers = as_numpy(values, float("nan")).astype(np.float64)
    found = codes[np.searchsorted(np.array(edges), numbers, side="left")]
    return np.where(np.isnan(numbers), NULL_CODE, found).astype(np.int64)
