"""What the columns of a file are, and how that differs from the files before it.

A change is news once: a producer that switches back and forth, or two that differ, are told of
once in each direction, not with every file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from mlmon_dagster.ingest.layout import Column
from mlmon_dagster.ingest.raw import RawFile
from mlmon_dagster.ingest.renamed import source_in
from mlmon_dagster.store.schema_changes import Change

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
