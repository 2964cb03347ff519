"""Columns that files may still have under an earlier name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.ingest.layout import Column
from mlmon_dagster.ingest.raw import RawFile, check_header


def with_aliases(wanted: Sequence[Column]) -> list[Column]:
    """Return what a reader is to look for: every column, and its earlier names beside it."""
    found = []
    for column in wanted:
        earlier = [replace(column, source=old, must_exist=False) for old in column.aliases]
        found += [replace(column, must_exist=False) if earlier else column, *earlier]
    return found


def check_renamed(place: str, raw: RawFile, wanted: Sequence[Column]) -> None:
    """Refuse a file that lacks a column under all of its names.

    Raises:
        SchemaError: With every missing column named.
    """
    present = set(raw.present)
    missing = [c for c in wanted if c.aliases and not present & {c.source, *c.aliases}]
    if missing:
        is_header = bool(present & {column.source for column in wanted})
        check_header(place, raw.present, missing, has_schema=is_header)


def source_in(present: Sequence[str], column: Column) -> str:
    """Return the name that a file has a column under, the newest of several."""
    return next(
        (name for name in (column.source, *reversed(column.aliases)) if name in present),
        column.source,
    )


def values_of(raw: RawFile, column: Column) -> pa.Array | None:
    """Return a column of a file under whichever name it has it; None if under none.

    Rows of one file may name it differently: the newest name that has a value counts.
    """
    names = [n for n in (column.source, *reversed(column.aliases)) if n in raw.columns]
    arrays = [raw.columns[name] for name in names]
    if len({array.type for array in arrays}) > 1:
        arrays = [raw.columns[source_in(raw.present, column)]]
    return pc.coalesce(*arrays) if len(arrays) > 1 else (arrays[0] if arrays else None)
