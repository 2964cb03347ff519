"""A small language to pick rows: ``origin = 'JFK' and (temp is null or hour in (6, 7))``.

Comparisons, ``in``, ``is null``, ``and``, ``or``, ``not`` and parentheses over declared columns;
nothing else can be said, so nothing else can be run. It means what SQL means: a comparison with
a null is neither true nor false, and only rows for which the whole is true are picked.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Literal, TypeAlias

Operator = Literal["=", "!=", "<", "<=", ">", ">="]
Literal_: TypeAlias = str | float | bool | dt.datetime


@dataclass(frozen=True)
class Comparison:
    """``column operator value``."""

    column: str
    operator: Operator
    value: Literal_


@dataclass(frozen=True)
class Membership:
    """``column in (values)``, or not in them."""

    column: str
    values: tuple[Literal_, ...]
    negated: bool = False


@dataclass(frozen=True)
class NullTest:
    """``column is null``, or is not."""

    column: str
    negated: bool = False


@dataclass(frozen=True)
class Not:
    """The opposite; of neither true nor false, neither."""

    part: Predicate


@dataclass(frozen=True)
class Every:
    """``a and b and ...``."""

    parts: tuple[Predicate, ...]


@dataclass(frozen=True)
class Some:
    """``a or b or ...``."""

    parts: tuple[Predicate, ...]


Predicate: TypeAlias = Comparison | Membership | NullTest | Not | Every | Some


def columns_of(predicate: Predicate) -> frozenset[str]:
    """Return the columns that a predicate reads."""
    match predicate:
        case Not(part):
            return columns_of(part)
        case Every(parts) | Some(parts):
            return frozenset().union(*map(columns_of, parts))
        case Comparison() | Membership() | NullTest():
            return frozenset({predicate.column})


def to_sql(predicate: Predicate) -> str:
    """Write a predicate as one SQL expression in parentheses.

    Identifiers are quoted and literals escaped by the standard's rules; numbers are doubles and
    times are in UTC, so the text means the same on DuckDB, PostgreSQL and Spark.
    """
    match predicate:
        case Comparison(column, sign, value):
            sign_sql = "<>" if sign == "!=" else sign
            return f"({_identifier(column)} {sign_sql} {_literal(value)})"
        case Membership(column, values, negated):
            word = "NOT IN" if negated else "IN"
            return f"({_identifier(column)} {word} ({', '.join(map(_literal, values))}))"
        case NullTest(column, negated):
            return f"({_identifier(column)} IS {'NOT ' if negated else ''}NULL)"
        case Not(part):
            return f"(NOT {to_sql(part)})"
        case Every(parts):
            return "(" + " AND ".join(map(to_sql, parts)) + ")"
        case Some(parts):
            return "(" + " OR ".join(map(to_sql, parts)) + ")"


def to_text(predicate: Predicate) -> str:
    """Write a predicate in its own language; reading that again gives an equal predicate."""
    match predicate:
        case Comparison(column, sign, value):
            return f"{column} {sign} {_written(value)}"
        case Membership(column, values, negated):
            return f"{column} {'not in' if negated else 'in'} ({', '.join(map(_written, values))})"
        case NullTest(column, negated):
            return f"{column} is {'not ' if negated else ''}null"
        case Not(part):
            return f"not ({to_text(part)})"
        case Every(parts):
            return " and ".join(f"({to_text(part)})" for part in parts)
        case Some(parts):
            return " or ".join(f"({to_text(part)})" for part in parts)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: Literal_) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, dt.datetime):
        return f"TIMESTAMP WITH TIME ZONE '{value.astimezone(dt.UTC):%Y-%m-%d %H:%M:%S.%f}+00:00'"
    if isinstance(value, float):
        # An exponent makes it a double; a plain 0.1 would be a decimal and rounded twice.
        text = repr(value)
        return text if "e" in text else f"{text}e0"
    return "'" + value.replace("'", "''") + "'"


def _written(value: Literal_) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.datetime):
        return f"'{value.isoformat()}'"
    return repr(value) if isinstance(value, float) else "'" + value.replace("'", "''") + "'"
