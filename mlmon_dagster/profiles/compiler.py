"""From columns and their bins to SQL: the only place where profile statements are written.

Every statement is one scan of the rows. An inner subquery computes one integer code per column,
an outer ``GROUP BY GROUPING SETS`` counts them for all columns, for the whole and for every
declared slice at once. What engines do differently is in `Dialect`; the codes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import latency_step, upper_edges
from mlmon_dagster.metrics.statistics import ALL, Binning
from mlmon_dagster.store.sql import literal, quote_identifier

NULL_SLICE = "<null>"
NO_VERSION = "none"
NULL_CODE = -1
KEYS = ("window_start", "dataset", "model_version")
UNSEEN_CANDIDATES = 50
UNSEEN_LENGTH = 120
_CLIP = 1e-15  # of a score, before its logarithm
_BRANCHES = 4  # per CASE: fewer copies of the rows than a binary tree, fewer comparisons than one


class Engine(Protocol):
    """Anything that runs SQL; ``Store`` is one, Spark and PostgreSQL take a few lines."""

    def query(self, sql: str, /) -> pa.Table:
        """Run one statement and return its rows."""


@dataclass(frozen=True)
class Dialect:
    """What engines spell or do differently.

    Attributes:
        name: For messages.
        fence: Text that keeps the inner subquery from being flattened into the outer one.
        is_duckdb: Count numeric bins with ``histogram`` and look categories up in an enum, which
            is faster than the portable ``CASE`` and gives the same counts.
    """

    name: str
    fence: str = ""
    is_duckdb: bool = False


DUCKDB = Dialect("duckdb", is_duckdb=True)
STANDARD = Dialect("standard")
POSTGRES = Dialect("postgres", fence=" OFFSET 0")


@dataclass(frozen=True)
class Column:
    """One column to be profiled.

    Attributes:
        binning: The meaning of its codes.
        value: SQL expression of its value over the records.
        low: Declared minimum; smaller values are out of range.
        high: Declared maximum.
        names_unseen: Whether unseen categories may be listed by name.
    """

    binning: Binning
    value: str
    low: float | None = None
    high: float | None = None
    names_unseen: bool = True

    @property
    def has_moments(self) -> bool:
        """Say whether sums, minimum and maximum mean something."""
        return self.binning.kind in ("numeric", "score", "latency")


def number(value: float) -> str:
    """Spell a finite float so that every engine reads the very same double, not a decimal."""
    text = repr(float(value))
    return f"({text})" if "e" in text else f"({text}e0)"


def slice_expression(columns: Sequence[str]) -> str:
    """Join the values of slice columns with commas; commas and backslashes in them escaped."""
    parts = []
    for column in columns:
        text = f"CAST({quote_identifier(column)} AS VARCHAR)"
        for char in ("\\", ","):
            text = f"REPLACE({text}, {literal(char)}, {literal(chr(92) + char)})"
        parts.append(f"COALESCE({text}, {literal(NULL_SLICE)})")
    return " || ',' || ".join(parts)


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
        self.dialect = dialect
        self._source = source
        self._keys = {
            "window_start": "window_start",
            "dataset": f"COALESCE(dataset, {literal(ALL)})",
            "model_version": f"COALESCE(model_version, {literal(NO_VERSION)})",
        }
        self._slices = {f"s{i}": slice_expression(names) for i, names in enumerate(slices)}

    def moments(self, *, sliced: bool) -> str:
        """Rows, nulls, range and sums per cell; on DuckDB also the numeric bins, as lists.

        Args:
            sliced: The declared slices with their coarse bins, or the whole with its fine ones.
        """
        inner = [f"{c.value} AS v{i}" for i, c in enumerate(self.columns)]
        if any(c.binning.kind == "score" for c in self.columns):
            inner.append("actual AS actual")
        outer = ["COUNT(*) AS n"]
        for i, column in enumerate(self.columns):
            outer += _moments(column, f"v{i}", i)
            if column.binning.kind == "numeric" and self.dialect.is_duckdb:
                edges = ", ".join(map(number, list_bins(column.binning, sliced)[0]))
                edges += ", " * bool(edges) + "CAST('Infinity' AS DOUBLE)"
                outer.append(f"map_values(histogram(v{i}, [{edges}])) AS bins{i}")
        return self._grouped(inner, outer, [[]], sliced, whole=not sliced)

    def codes(self) -> str:
        """Rows per cell, column (its position as ``item``) and code, for the whole and slices."""
        inner, whole, sliced = [], [], []
        for i, column in enumerate(self.columns):
            if column.binning.kind == "numeric" and self.dialect.is_duckdb:
                continue  # counted by the moments statement
            code, fine = code_expression(column, self.dialect), column.binning.fine
            inner.append(f"{code} AS b{i}")
            whole.append(f"b{i}")
            if fine > 1 and self._slices:
                inner.append(f"{code_expression(column, self.dialect, coarse=True)} AS c{i}")
            sliced.append(f"c{i}" if fine > 1 else f"b{i}")
        if not whole:
            return ""
        names = [*whole, *(name for name in sliced if name not in whole and self._slices)]
        items = " ".join(f"WHEN {name} IS NOT NULL THEN {name[1:]}" for name in names)
        outer = [f"CASE {items} END AS item", f"COALESCE({', '.join(names)}) AS code"]
        outer.append("COUNT(*) AS n")
        return self._grouped(inner, outer, [[n] for n in whole], True, True, [[n] for n in sliced])

    def nonfinite(self) -> str:
        """Rows per cell and entry of the list column ``nonfinite`` (``temp:nan``)."""
        inner, outer = ["UNNEST(nonfinite) AS entry"], ["entry", "COUNT(*) AS n"]
        return self._grouped(inner, outer, [["entry"]], True, True, where="nonfinite IS NOT NULL")

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
            f"SELECT {', '.join([*keys, *inner])} FROM {self._source} AS records "
            f"WHERE {where}{self.dialect.fence}) AS coded "
            f"GROUP BY GROUPING SETS ({', '.join(f'({s})' for s in sets)})"
        )


def list_bins(binning: Binning, coarse: bool) -> tuple[list[float], NDArray[np.intp]]:
    """Return what a numeric column is counted with: distinct inner edges, and the bins' codes.

    Returns:
        E ascending edges, and E + 1 codes.
    """
    inner = np.array(binning.edges) if coarse else upper_edges(binning)[:-1]
    # Of equal edges the first has the rows: the others' bins are empty by definition.
    edges, first = np.unique(inner, return_index=True)
    codes = np.append(first, len(inner)) * (binning.fine if coarse else 1)
    return edges.tolist(), codes


def _moments(column: Column, value: str, i: int) -> list[str]:
    if not column.has_moments:
        return []
    found = [f"MIN({value}) AS minimum{i}", f"MAX({value}) AS maximum{i}"]
    if column.binning.kind == "score":
        total, total_sq = _losses(value)
    else:
        total = f"{value} - {number(column.binning.centre)}"
        total_sq = f"({total}) * ({total})"
    found += [f"SUM({total}) AS total{i}", f"SUM({total_sq}) AS total_sq{i}"]
    limits = [f"{value} < {number(column.low)}"] if column.low is not None else []
    limits += [f"{value} > {number(column.high)}"] if column.high is not None else []
    if limits:
        found.append(f"COUNT(CASE WHEN {' OR '.join(limits)} THEN 1 END) AS outside{i}")
    return found


def _losses(score: str) -> tuple[str, str]:
    """Log loss and squared error of a row; NULL, so not summed, without ground truth."""
    right = f"CASE WHEN actual = 1 THEN {score} WHEN actual = 0 THEN 1 - {score} END"
    clipped = f"GREATEST({right}, {number(_CLIP)})"
    log_loss = f"CASE WHEN actual IS NOT NULL AND {score} IS NOT NULL THEN -LN({clipped}) END"
    return log_loss, f"(1 - ({right})) * (1 - ({right}))"


def _name(column: Column) -> str:
    return f"SUBSTR({column.value}, 1, {UNSEEN_LENGTH})"


def code_expression(column: Column, dialect: Dialect, *, coarse: bool = False) -> str:
    """Return the integer code of a column's value; -1 for NULL, so that it is never NULL.

    Args:
        column: What to code.
        dialect: Of the engine.
        coarse: Give a numeric value the first code of its coarse bin.
    """
    binning, value = column.binning, column.value
    if binning.kind == "numeric":
        return _numeric_code(value, binning, coarse)
    if binning.kind == "categorical":
        return _category_code(value, binning, dialect)
    if binning.kind == "score":
        return f"CASE WHEN {value} IS NULL THEN {NULL_CODE} ELSE {_score_bin(value, binning)} END"
    if binning.kind == "latency":
        scaled = f"LN({value} / {number(binning.low)}) * {number(1 / latency_step(binning))}"
        return (
            f"CASE WHEN {value} IS NULL THEN {NULL_CODE} "
            f"WHEN {value} <= {number(binning.low)} THEN 0 "
            f"WHEN {value} >= {number(binning.high)} THEN {binning.size - 1} "
            f"ELSE {_floor(scaled, binning.size - 1)} END"
        )
    if binning.kind == "confusion":
        return f"CASE {value} WHEN 0 THEN {_STATE} WHEN 1 THEN 3 + {_STATE} ELSE {NULL_CODE} END"
    ok = f"LOWER({value}) IN ('ok', 'success', '200')"
    return f"CASE WHEN {value} IS NULL THEN {NULL_CODE} WHEN {ok} THEN 0 ELSE 1 END"


_STATE = "(CASE actual WHEN 0 THEN 1 WHEN 1 THEN 2 ELSE 0 END)"


def _floor(value: str, most: int) -> str:
    return f"CAST(LEAST(FLOOR({value}), {most}) AS INTEGER)"


def _score_bin(value: str, binning: Binning) -> str:
    bins, low, high = binning.size // 3, binning.low, binning.high
    least = 1 / (1 + np.exp(-low))
    logit = f"(LN({value} / (1 - {value})) - {number(low)}) * {number(bins / (high - low))}"
    return (
        f"(CASE WHEN {value} <= {number(least)} THEN 0 "
        f"WHEN {value} >= {number(1 - least)} THEN {bins - 1} "
        f"ELSE {_floor(logit, bins - 1)} END) * 3 + {_STATE}"
    )


def _numeric_code(value: str, binning: Binning, coarse: bool) -> str:
    edges, codes = list_bins(binning, coarse)
    tree = _tree(value, list(map(number, edges)), codes.tolist())
    return f"CASE WHEN {value} IS NULL THEN {NULL_CODE} ELSE {tree} END"


def _tree(value: str, edges: Sequence[str], leaves: Sequence[int]) -> str:
    """Find the leaf by comparisons; leaf i is for ``edges[i-1] < value <= edges[i]``."""
    if len(leaves) == 1:
        return str(leaves[0])
    parts = min(_BRANCHES, len(leaves))
    cuts = [len(leaves) * part // parts for part in range(parts + 1)]
    branches = [_tree(value, edges[a : b - 1], leaves[a:b]) for a, b in pairwise(cuts)]
    whens = " ".join(
        f"WHEN {value} <= {edges[cut - 1]} THEN {branch}"
        for cut, branch in zip(cuts[1:-1], branches, strict=False)
    )
    return f"CASE {whens} ELSE {branches[-1]} END"


def _category_code(value: str, binning: Binning, dialect: Dialect) -> str:
    """Codes of the categories, then ``other`` and ``unseen``."""
    known = (*binning.categories, *binning.tail)
    other = len(binning.categories)
    missing = other if binning.is_open else other + 1
    if not known:
        found = str(missing)
    elif dialect.is_duckdb:
        names = ", ".join(map(literal, known))
        position = f"CAST(enum_code(TRY_CAST({value} AS ENUM({names}))) AS INTEGER)"
        found = f"COALESCE({position}, {missing})"
        if binning.tail:
            found = (
                f"CASE WHEN {position} < {other} THEN {position} "
                f"WHEN {position} IS NOT NULL THEN {other} ELSE {missing} END"
            )
    else:
        whens = " ".join(
            f"WHEN {literal(name)} THEN {min(code, other)}" for code, name in enumerate(known)
        )
        found = f"CASE {value} {whens} ELSE {missing} END"
    return f"CASE WHEN {value} IS NULL THEN {NULL_CODE} ELSE {found} END"
