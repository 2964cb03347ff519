"""Read JSON Lines as text: numbers keep the digits they were written with.

A column is a key, or a dotted path such as ``output.probabilities.1`` through objects and lists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlmon_dagster.ingest.json_lines import as_object, cell_text, dig, json_lines, leaves
from mlmon_dagster.ingest.layout import Column
from mlmon_dagster.ingest.raw import Options, RawFile, check_header, check_size, text_array
from mlmon_dagster.ingest.read_jsonl_fast import read_flat


def read_jsonl(path: Path, place: str, wanted: Sequence[Column], options: Options) -> RawFile:
    """Read a file of one JSON object a line; a key that a row lacks is null in that row.

    Raises:
        SchemaError: If a line is cut, is no JSON object or repeats a key, if the file is not
            UTF-8 or if a column is in no row.
    """
    return read_flat(path, place, wanted, options) or read_any(path, place, wanted, options)


def read_any(path: Path, place: str, wanted: Sequence[Column], options: Options) -> RawFile:
    """Read line by line whatever is legal, and say on which line it is not."""
    columns: dict[str, list[str | None]] = {column.source: [] for column in wanted}
    paths = {name: tuple(name.split(".")) for name in columns if "." in name}
    roots = {parts[0] for parts in paths.values()}
    keys: dict[str, None] = {}
    present: dict[str, None] = {}
    numbers: list[int] = []
    for number, value in json_lines(path, place):
        row = as_object(value, f"{place}, line {number}")
        if len(numbers) >= options.max_rows:
            check_size(place, len(numbers) + 1, len(columns), options.max_rows)
        numbers.append(number)
        if row.keys() - keys.keys():
            keys.update(dict.fromkeys(row))
            present.update(dict.fromkeys(_names(row, roots)))
        for name, cells in columns.items():
            cell = row.get(name)
            if cell is None and name in paths and name not in row:
                found, cell = dig(row, paths[name])
                if found:
                    present.setdefault(name)
            cells.append(cell_text(cell))
    if numbers:
        check_header(place, tuple(present), wanted)
    arrays = {name: text_array(cells) for name, cells in columns.items() if name in present}
    return RawFile(
        arrays, len(numbers), tuple(present), _places(numbers),
        lines_of=lambda rows: [(numbers[row],) for row in rows],
    )  # fmt: skip


def _names(row: dict[str, Any], roots: set[str]) -> list[str]:
    """List what a row holds; inside the objects that columns are taken from, by dotted path."""
    found: list[str] = []
    for key, value in row.items():
        inner = leaves(value, key) if key in roots and isinstance(value, dict) else [(key, None)]
        found += [name for name, _ in inner]
    return found


def _places(numbers: list[int]) -> Callable[[Sequence[int]], list[str]]:
    return lambda rows: [f"line {numbers[row]}" for row in rows]
