"""Lines of JSON, shared by the formats that are made of them; numbers keep their digits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl_fast import read_flat
from mlmon_dagster.ingest.raw import Options, RawFile, check_header, check_size, refused, text_array

_MAX_LINE = 1 << 24
# A nested value is no cell of a table; the NUL makes the cell refused as of the wrong type.
NESTED = "\0"


def json_lines(path: Path, place: str) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of every line that is not blank.

    Raises:
        SchemaError: If a line is cut, is no JSON or repeats a key, or is not UTF-8.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_MAX_LINE), b""), 1):
            if not line.isspace():
                yield number, _parsed(line, f"{place}, line {number}", number == 1)


def as_object(value: Any, where: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        SchemaError: If it is another kind of value.
    """
    if not isinstance(value, dict):
        found = f"a JSON {type(value).__name__}; expected a JSON object."
        raise refused(where, "malformed_json", found)
    return value


def decode_json(text: str) -> Any:
    """Parse JSON whose numbers become the text they were written with.

    Raises:
        ValueError: If it is no JSON, repeats a key or is nested too deeply.
    """
    try:
        return _DECODER.decode(text.strip())
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def cell_text(cell: Any) -> str | None:
    """Return a JSON value as the text of a cell."""
    if cell is None or type(cell) is str:
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return NESTED


def dig(value: Any, parts: tuple[str, ...]) -> tuple[bool, Any]:
    """Follow a path through objects and lists; say whether it leads anywhere, and to what."""
    for part in parts:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value


def leaves(value: Any, name: str, depth: int = 8) -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and value of everything inside objects; lists are values."""
    if isinstance(value, dict) and depth:
        for key, child in value.items():
            yield from leaves(child, f"{name}.{key}" if name else key, depth - 1)
    else:
        yield name, value


def _parsed(line: bytes, where: str, is_first: bool) -> Any:
    try:
        return decode_json(line.decode("utf-8-sig" if is_first else "utf-8"))
    except UnicodeDecodeError as error:
        found = f"byte {error.start + 1} of the line is not UTF-8; expected UTF-8."
        raise refused(where, "not_utf8", found) from error
    except _RepeatedKeyError as error:
        raise refused(where, "duplicate_column", "a key is present twice in one object.") from error
    except ValueError as error:
        if not line.endswith(b"\n"):
            found = "the last line is cut off; expected a whole JSON object and a line end."
            raise refused(where, "cut_line", found) from error
        raise refused(where, "malformed_json", "not JSON; expected a JSON object.") from error


class _RepeatedKeyError(ValueError):
    """One object holds the same key twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise _RepeatedKeyError
    return row


_DECODER = json.JSONDecoder(
    parse_float=str, parse_int=str, parse_constant=str, object_pairs_hook=_unique
)


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
