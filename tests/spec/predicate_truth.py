"""What a predicate says of a row, in Python: what its SQL is compared with."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mlmon_dagster.spec.predicate import (
    Comparison,
    Every,
    Membership,
    Not,
    NullTest,
    Operator,
    Predicate,
    Some,
)

Row: TypeAlias = Mapping[str, object]

_COMPARE: dict[Operator, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def to_callable(predicate: Predicate) -> Callable[[Row], bool]:
    """Make a function that tells whether a row, a mapping of column to value, is picked.

    A missing column, None and not-a-number count as null, as they do in the store. Times must be
    timezone-aware.
    """
    return lambda row: _truth(predicate, row) is True


def _truth(predicate: Predicate, row: Row) -> bool | None:
    match predicate:
        case NullTest(column, negated):
            return (_value(row, column) is None) != negated
        case Comparison(column, sign, value):
            found = _value(row, column)
            return None if found is None else _COMPARE[sign](found, value)
        case Membership(column, values, negated):
            found = _value(row, column)
            return None if found is None else (found in values) != negated
        case Not(part):
            truth = _truth(part, row)
            return None if truth is None else not truth
        case Every(parts):
            return _all([_truth(part, row) for part in parts])
        case Some(parts):
            opposite = _all([None if t is None else not t for t in _truths(parts, row)])
            return None if opposite is None else not opposite


def _truths(parts: tuple[Predicate, ...], row: Row) -> list[bool | None]:
    return [_truth(part, row) for part in parts]


def _all(truths: list[bool | None]) -> bool | None:
    if False in truths:
        return False
    return None if None in truths else True


def _value(row: Row, column: str) -> object:
    value = row.get(column)
    return None if isinstance(value, float) and value != value else value
