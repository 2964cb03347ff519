"""Values for Dagster's metadata: finite, plain, and never a surprise to its serializer."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence

import dagster as dg

MAX_TABLE_ROWS = 50
SHOWN_DIGITS = 4


Safe = bool | int | float | str


def safe_value(value: object) -> Safe:
    """Return a metadata value Dagster accepts.

    numpy scalars become Python's own; a number that is not finite becomes the text ``n/a``, since
    Dagster shows it as an empty cell; times become ISO 8601 text. Numbers are rounded for people:
    the metric table keeps every digit.
    """
    if hasattr(value, "item") and not isinstance(value, str | bytes):
        value = value.item()
    if value is None:
        return "n/a"
    if isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(f"{value:.{SHOWN_DIGITS}g}") if math.isfinite(value) else "n/a"
    if isinstance(value, dt.datetime | dt.date):
        return value.isoformat()
    return str(value)


def safe_metadata(values: Mapping[str, object]) -> dict[str, dg.MetadataValue | Safe]:
    """Return metadata with every value safe; metadata values proper pass through."""
    return {
        key: value if isinstance(value, dg.MetadataValue) else safe_value(value)
        for key, value in values.items()
    }


def numbers_only(values: Mapping[str, object]) -> dict[str, float]:
    """Return only the finite numbers, so that a plot has a gap rather than a text."""
    safe = {key: safe_value(value) for key, value in values.items()}
    return {k: v for k, v in safe.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def table(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> dg.MetadataValue:
    """Return a table of at most `MAX_TABLE_ROWS` rows; values are plain text or numbers."""
    records = [
        dg.TableRecord({c: safe_value(row.get(c)) for c in columns})
        for row in rows[:MAX_TABLE_ROWS]
    ]
    schema = dg.TableSchema(columns=[dg.TableColumn(c, _column_type(records, c)) for c in columns])
    return dg.MetadataValue.table(records, schema=schema)


def _column_type(records: Sequence[dg.TableRecord], column: str) -> str:
    values = [record.data[column] for record in records]
    if values and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        return "int"
    numeric = values and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return "float" if numeric else "string"
