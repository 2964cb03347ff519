"""Spelling names and values in SQL, in one place so that nothing is ever spliced unquoted."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable

Value = str | int | float | bool | dt.datetime | None


def quote_identifier(name: str) -> str:
    """Quote a column or table name, whatever characters it has.

    Raises:
        ValueError: If the name is empty or holds a NUL character, which no engine can store.
    """
    if not name or "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a column")
    return '"' + name.replace('"', '""') + '"'


def literal(value: Value) -> str:
    """Spell a value as a SQL literal; times become UTC ``TIMESTAMPTZ``, None becomes NULL.

    Raises:
        ValueError: If a time is naive, a number is not finite or a text holds a NUL character.
    """
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        return f"({value})"  # parentheses, since --1 would begin a comment
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value!r} has no SQL literal")
        return f"CAST('{value!r}' AS DOUBLE PRECISION)"
    if isinstance(value, dt.datetime):
        return f"TIMESTAMPTZ '{utc(value):%Y-%m-%d %H:%M:%S.%f}+00'"
    if "\0" in value:
        raise ValueError("a text with a NUL character has no SQL literal")
    return "'" + value.replace("'", "''") + "'"


def literals(values: Iterable[Value]) -> str:
    """Spell the inside of ``IN (...)``; no values at all become NULL, which matches nothing."""
    return ", ".join(literal(value) for value in values) or "NULL"


def utc(moment: dt.datetime) -> dt.datetime:
    """Return a time in UTC.

    Raises:
        ValueError: If it is naive.
    """
    if moment.tzinfo is None:
        raise ValueError(f"naive time {moment!r}; times in the store are UTC")
    return moment.astimezone(dt.UTC)
