"""From a column's value to its integer code, in SQL; what engines do differently is here.

All dialects give the same codes: `metrics.binnings` is the definition.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from mlmon_dagster.metrics import Positions
from mlmon_dagster.metrics.binnings import latency_step, upper_edges
from mlmon_dagster.metrics.late_truth.means_by_output import STATES, value_edges
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.store.state.sql import literal

NULL_CODE = -1
_BRANCHES = 4  # per CASE: fewer copies of the rows than a binary tree, fewer comparisons than one


@dataclass(frozen=True)
class Dialect:
    """What engines spell or do differently.

    Attributes:
        name: For messages.
        fence: Text that keeps the inner subquery from being flattened into the outer one.
        is_duckdb: Count numeric bins with ``histogram`` and look categories up in an enum, which
            is faster than the portable ``CASE`` and gives the same counts.
        whole: Type of whole numbers whose sums have room for a billion of them.
        most_chars: Of codes in one statement, so that the engine can plan and compile it.
    """

    name: str
    fence: str = ""
    is_duckdb: bool = False
    whole: str = "BIGINT"
    most_chars: int | None = 24_000


DUCKDB = Dialect("duckdb", is_duckdb=True, most_chars=None)  # a scan costs more than a long text
STANDARD = Dialect("standard")
POSTGRES = Dialect("postgres", fence=" OFFSET 0")
# Of DataFusion, Spark and Sail, whose sums of BIGINT are BIGINT, and wrap.
NARROW = Dialect("narrow", whole="DECIMAL(19,0)")

_SPARK_WORDS = {"VARCHAR": "STRING", "DOUBLE PRECISION": "DOUBLE", "TIMESTAMPTZ": "TIMESTAMP"}
_SPELLED = re.compile(
    r"""'(?:[^']|'')*' | EXTRACT\(EPOCH\ FROM\ ("(?:[^"]|"")*"|\w+)\) | "(?:[^"]|"")*"
    | \b(?:VARCHAR|DOUBLE\ PRECISION|TIMESTAMPTZ|UNNEST)\b""",
    re.VERBOSE,
)


def spelled_for_spark(sql: str) -> str:
    """Spell a statement as Spark and Sail read it: names, texts, types and times.

    Example:
        >>> spelled_for_spark('SELECT CAST("a b" AS VARCHAR)')
        'SELECT CAST(`a b` AS STRING)'
    """
    return _SPELLED.sub(_spelled_for_spark, sql)


def _spelled_for_spark(found: re.Match[str]) -> str:
    text = found[0]
    if text.startswith("'"):
        return "'" + text[1:-1].replace("\\", "\\\\").replace("''", "\\'") + "'"
    if text.startswith('"'):
        return "`" + text[1:-1].replace('""', '"').replace("`", "``") + "`"
    if text.startswith("EXTRACT"):
        return f"(UNIX_MICROS({spelled_for_spark(found[1])}) / 1e6)"
    return "EXPLODE" if text == "UNNEST" else _SPARK_WORDS[text]


@dataclass(frozen=True)
class Column:
    """One column to be profiled.

    Attributes:
        binning: The meaning of its codes.
        value: SQL expression of its value over the records.
        low: Declared minimum; smaller values are out of range.
        high: Declared maximum.
        is_personal: No value of it may be kept: neither a name, nor a smallest or largest.
        output: SQL expression of what rows are grouped by, of kind ``by_output``; NULL of rows that
            are not counted.
        is_known: SQL condition of rows whose ground truth has come, of the same kind.
    """

    binning: Binning
    value: str
    low: float | None = None
    high: float | None = None
    is_personal: bool = False
    output: str = ""
    is_known: str = ""

    @property
    def has_range(self) -> bool:
        """Say whether minimum and maximum tell more than the bins; of a score or a loss, hardly."""
        return self.binning.kind in ("numeric", "latency")

    @property
    def has_sums(self) -> bool:
        """Say whether sums mean something; a score's losses are columns of their own."""
        return self.binning.kind in ("numeric", "latency", "loss")


def number(value: float) -> str:
    """Spell a float so that every engine reads the very same double, not a decimal."""
    if math.isinf(value):
        return f"CAST('{'-' if value < 0 else ''}Infinity' AS DOUBLE PRECISION)"
    text = repr(float(value))
    return f"({text})" if "e" in text else f"({text}e0)"


def list_bins(binning: Binning, coarse: bool) -> tuple[list[float], Positions]:
    """Return what a numeric column is counted with: distinct inner edges, and the bins' codes.

    Returns:
        E ascending edges, and E + 1 codes.
    """
    inner = np.array(binning.edges) if coarse else upper_edges(binning)[:-1]
    # Of equal edges the first has the rows: the others' bins are empty by definition.
    edges, first = np.unique(inner, return_index=True)
    codes = np.append(first, len(inner)) * (binning.fine if coarse else 1)
    return edges.tolist(), codes


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
    if binning.kind == "classes":
        return _class_code(value, binning)
    if binning.kind == "by_output":
        return _code_by_output(column)
    ok = f"LOWER({value}) IN ('ok', 'success', '200')"
    return f"CASE WHEN {value} IS NULL THEN {NULL_CODE} WHEN {ok} THEN 0 ELSE 1 END"


_STATE = "(CASE actual WHEN 0 THEN 1 WHEN 1 THEN 2 ELSE 0 END)"


def _state(binning: Binning) -> str:
    """Unlabelled, negative or positive; of a multiclass score one class against the rest.

    Of the score of the class that was decided for, positive is that the decision was right.
    """
    if binning.column.startswith(":confidence"):
        return "(CASE WHEN actual IS NULL THEN 0 WHEN actual = prediction THEN 2 ELSE 1 END)"
    if not binning.categories:
        return _STATE
    positive = literal(binning.categories[0])
    return f"(CASE WHEN actual IS NULL THEN 0 WHEN actual = {positive} THEN 2 ELSE 1 END)"


def _class_code(value: str, binning: Binning) -> str:
    """Predicted class x state of the actual; see `metrics.binnings`."""
    classes, states = binning.categories, len(binning.categories) + 3
    predicted = " ".join(f"WHEN {literal(c)} THEN {i * states}" for i, c in enumerate(classes))
    actual = " ".join(f"WHEN {literal(c)} THEN {i + 1}" for i, c in enumerate(classes))
    unseen = f"CASE WHEN actual = {value} THEN {len(classes) + 1} ELSE {len(classes) + 2} END"
    return (
        f"CASE WHEN {value} IS NULL THEN {NULL_CODE} ELSE "
        f"CASE {value} {predicted} ELSE {len(classes) * states} END + "
        f"CASE WHEN actual IS NULL THEN 0 ELSE CASE actual {actual} ELSE {unseen} END END END"
    )


def _floor(value: str, most: int) -> str:
    return f"CAST(LEAST(FLOOR({value}), {most}) AS INTEGER)"


def _score_bin(value: str, binning: Binning) -> str:
    return f"{_logit_step(value, binning, binning.size // 3)} * 3 + {_state(binning)}"


def _logit_step(value: str, binning: Binning, steps: int) -> str:
    low, high = binning.low, binning.high
    least = 1 / (1 + np.exp(-low))
    logit = f"(LN({value} / (1 - {value})) - {number(low)}) * {number(steps / (high - low))}"
    return (
        f"(CASE WHEN {value} <= {number(least)} THEN 0 "
        f"WHEN {value} >= {number(1 - least)} THEN {steps - 1} "
        f"ELSE {_floor(logit, steps - 1)} END)"
    )


def order_code(value: str, binning: Binning, depth: int) -> str:
    """Return the code of a labelled score (`metrics.performance.roc`), at a depth of its tree."""
    return f"({2**depth} + {_logit_step(value, binning, 2**depth)}) * 2 + actual"


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


def _code_by_output(column: Column) -> str:
    """Group of the output x state of the row; see `metrics.late_truth.means_by_output`."""
    binning, states = column.binning, STATES + len(column.binning.values)
    edges = list(map(number, binning.edges))
    group = _tree(column.output, edges, [states * i for i in range(len(edges) + 1)])
    inner = list(map(number, value_edges(np.array(binning.values)).tolist()))
    place = _tree(column.value, inner, range(STATES, states))
    return (
        f"CASE WHEN {column.output} IS NULL THEN {NULL_CODE} ELSE {group} + "
        f"CASE WHEN {column.value} IS NOT NULL THEN {place} "
        f"WHEN {column.is_known} THEN 1 ELSE 0 END END"
    )


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
