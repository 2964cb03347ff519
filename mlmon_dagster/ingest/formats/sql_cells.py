"""Cells of a database column as one Arrow array, whatever mixture the driver returned."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mlmon_dagster.ingest.formats.read_jsonl import NESTED
from mlmon_dagster.ingest.raw import text_array

_PLAIN = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    dt.date: pa.date32(),
}


def cells_of(values: Sequence[Any]) -> pa.Array:
    """Return the values of one column as an array of one type.

    Whole numbers, floats, text, booleans, dates and times keep their type if all values have it;
    anything else becomes text, with all its digits. What is no value of a table, such as a JSON
    object, becomes text that no type accepts, so that its row is refused.
    """
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) == 1:
        (kind,) = kinds
        array = _uniform(list(values), kind)
        if array is not None:
            return array
    return text_array([_text(value) for value in values])


def _uniform(values: list[Any], kind: type) -> pa.Array | None:
    try:
        if kind is dt.datetime:
            return _times(values)
        return pa.array(values, _PLAIN[kind]) if kind in _PLAIN else None
    except (pa.ArrowException, OverflowError, UnicodeError, ValueError):
        return None


def _times(values: list[dt.datetime | None]) -> pa.Array | None:
    aware = {value.tzinfo is not None for value in values if value is not None}
    if aware == {True}:
        in_utc = [None if v is None else v.astimezone(dt.UTC) for v in values]
        return pa.array(in_utc, pa.timestamp("us", "UTC"))
    return pa.array(values, pa.timestamp("us")) if aware == {False} else None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, decimal.Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, int | float | uuid.UUID):
        return str(value)
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return _decoded(bytes(value))
    return NESTED


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return NESTED
