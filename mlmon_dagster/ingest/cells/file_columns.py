"""What the columns of a file are, and how that differs from the files before it.

A change is news once: a producer that switches back and forth, or two that differ, are told of
once in each direction, not with every file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.raw import RawFile, check_header
from mlmon_dagster.store.state.schema_changes import Change

MAX_EXTRA: Final = 100
UNDECLARED: Final = "not declared"
_NUMBERS: Final = {("integer", "number"): "widened", ("number", "integer"): "narrowed"}


@dataclass(frozen=True)
class Layout:
    """The columns of one file.

    Attributes:
        columns: Declared column -> its name in the file, and how it is written; the latter is
            empty for text and nulls, which can be anything.
        extra: Columns of the file that nobody declared, at most 100.
    """

    columns: dict[str, tuple[str, str]]
    extra: tuple[str, ...]

    def text(self) -> str:
        """Write it as JSON."""
        return json.dumps({"columns": self.columns, "extra": self.extra}, sort_keys=True)


def layout_from(text: str) -> Layout:
    """Read what `Layout.text` wrote."""
    found = json.loads(text)
    columns = {name: (source, kind) for name, (source, kind) in found["columns"].items()}
    return Layout(columns, tuple(found["extra"]))


def layout_of(raw: RawFile, wanted: Sequence[Column], extra: Sequence[str]) -> Layout:
    """Return the layout of a file."""
    present = set(raw.present)
    columns = {}
    for column in wanted:
        source = source_in(raw.present, column)
        if source in present:
            written = raw.columns.get(source)
            columns[column.name] = (source, "" if written is None else _written(written.type))
    return Layout(columns, tuple(sorted(extra)[:MAX_EXTRA]))


def changes_between(before: Layout, after: Layout, wanted: Sequence[Column]) -> Iterator[Change]:
    """Say what became different.

    Args:
        before: The layout so far, maybe under earlier names of the features.
        after: The layout of a newer file.
        wanted: The declared columns now.
    """
    new_names = {old: column.name for column in wanted for old in column.aliases}
    earlier = {new_names.get(name, name): value for name, value in before.columns.items()}
    no_longer_declared = {source for n, (source, _) in earlier.items() if n not in after.columns}
    for name, (source, kind) in after.columns.items():
        if name not in earlier:
            yield Change("added", name, "", source)
            continue
        old_source, old_kind = earlier[name]
        if source != old_source:
            yield Change("renamed", name, old_source, source)
        if kind and old_kind and kind != old_kind:
            yield Change(_NUMBERS.get((old_kind, kind), "retyped"), name, old_kind, kind)
    for name, (source, _) in earlier.items():
        if name not in after.columns:
            yield Change("removed", name, source, UNDECLARED if source in after.extra else "")
    for name in after.extra:
        if name not in before.extra and name not in no_longer_declared:
            yield Change("extra", name, "", name)


def carried_over(before: Layout, after: Layout) -> Layout:
    """Return the newer layout, with what its text and nulls do not tell taken from before."""
    columns = {}
    for name, (source, kind) in after.columns.items():
        old = before.columns.get(name, ("", ""))[1]
        columns[name] = (source, kind or old)
    return Layout(columns, after.extra)


def _written(kind: pa.DataType) -> str:
    """Name how numbers, booleans and times are written; text and nulls can be anything."""
    if pa.types.is_dictionary(kind):
        return ""
    tests = {
        "integer": pa.types.is_integer,
        "number": pa.types.is_floating,
        "boolean": pa.types.is_boolean,
        "time": pa.types.is_temporal,
    }
    return next((name for name, test in tests.items() if test(kind)), "")


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
