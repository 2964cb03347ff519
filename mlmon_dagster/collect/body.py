"""From the bytes of a request to rows: unpacked within limits, read by its media type.

Rows come as JSON: an object, an array of objects, or one object a line. Numbers keep the digits
they came with: a row is passed on as the text that it was.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from sys import intern
from typing import Final

import pyarrow as pa

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.read_jsonl import JsonCells, find_cell, vector_text
from mlmon_dagster.ingest.raw import RawFile, rows_of

ARRAY: Final = "application/json"
LINES: Final = ("application/x-ndjson", "application/jsonl", "application/ndjson")
MEDIA_TYPES: Final = (ARRAY, *LINES)
ENCODINGS: Final = ("identity", "gzip", "zstd")
_BLOCK = 1 << 18
MAX_LINE = 1 << 24  # what the reader of landing files takes
_SPACE = " \t\r\n"
_NEWLINES = str.maketrans("\r\n", "  ")


@dataclass(frozen=True)
class Form:
    """How a body is written: its media type and content encoding."""

    media_type: str
    encoding: str


def form_of(content_type: str, content_encoding: str) -> Form:
    """Return the form that the headers name.

    Raises:
        Problem: If it is not read here.
    """
    media_type, _, parameters = content_type.partition(";")
    media_type = media_type.strip().lower()
    encoding = encoding_of(content_encoding)
    if media_type not in MEDIA_TYPES:
        raise Problem(
            "unsupported_media_type",
            f"Set Content-Type to one of {', '.join(MEDIA_TYPES)}.",
            headers={"accept-post": ", ".join(MEDIA_TYPES)},
        )
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise Problem("unsupported_media_type", "The text must be UTF-8.")
    return Form(media_type, encoding)


def encoding_of(content_encoding: str) -> str:
    """Return the content encoding that a header names.

    Raises:
        Problem: If it is not read here.
    """
    encoding = content_encoding.strip().lower() or "identity"
    if encoding not in ENCODINGS:
        raise Problem(
            "unsupported_media_type",
            f"Set Content-Encoding to one of {', '.join(ENCODINGS)}, or leave it out.",
            headers={"accept-encoding": ", ".join(ENCODINGS[1:])},
        )
    return encoding


def unpacked(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """Return the plain bytes, never making more than the limit.

    Raises:
        Problem: If the body is damaged, or larger than the limit.
    """
    if encoding == "identity":
        return body
    plain = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), encoding) as stream:
            while block := stream.read(_BLOCK):
                plain += block
                if len(plain) > max_bytes:
                    found = f"More than {max_bytes:,} bytes once unpacked; send fewer rows at once."
                    raise Problem("too_large", found)
    except OSError:
        raise Problem("malformed", f"The body is cut off, or no {encoding}.") from None
    return bytes(plain)


def read_rows(plain: bytes, media_type: str, max_rows: int) -> list[JsonRow]:
    """Read the rows of a body.

    Raises:
        Problem: If it cannot be read, holds no row, or too many.
    """
    try:
        text = plain.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem("malformed", f"Byte {error.start + 1} is not UTF-8.") from None
    read = read_array if media_type == ARRAY else read_lines
    rows = read(text, max_rows)
    if len(rows) > max_rows:
        raise Problem("too_large", f"More than {max_rows:,} rows; send fewer at once.")
    if not rows:
        raise Problem("malformed", "There are no rows; send at least one.")
    return rows


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


class _Repeated(dict[str, object]):
    """An object that holds the same key twice."""


@dataclass(frozen=True)
class JsonRow:
    """One row: its text, its cells, and why it is none, if so."""

    text: str
    cells: Mapping[str, object]
    fault: str = ""


def read_array(text: str, max_rows: int) -> list[JsonRow]:
    """Read an object or an array of objects, one more than the limit at most.

    Raises:
        Problem: If the text is not JSON, or neither of the two.
    """
    try:
        # A row takes a hundred times the memory of the two characters that it may come as.
        rows = list(islice(_elements(text), max_rows + 1))
    except json.JSONDecodeError as error:
        found = f"Not JSON at line {error.lineno}, column {error.colno}: {error.msg}."
        raise Problem("malformed", found) from None
    except RecursionError:
        raise Problem("malformed", "The JSON is nested too deeply.") from None
    return rows


def read_lines(text: str, max_rows: int) -> list[JsonRow]:
    """Read one object a line, one more than the limit at most.

    Blank lines are no rows, a bad line is a row with a fault.
    """
    lines = (line for line in _split(text) if line and not line.isspace())
    return [_line(line) for line in islice(lines, max_rows + 1)]


def _split(text: str) -> Iterator[str]:
    begin = 0
    while (end := text.find("\n", begin)) >= 0:
        yield text[begin:end]
        begin = end + 1
    yield text[begin:]


def raw_file(rows: Sequence[JsonRow], wanted: Sequence[Column]) -> RawFile:
    """Return the wanted columns of the rows, as text."""
    cells = JsonCells(wanted)
    for row in rows:
        cells.add(row.cells)
    columns = cells.columns()
    roots = {name.partition(".")[0] for name in columns if "." in name}
    named = tuple(n for n in cells.present if n in columns or n.partition(".")[0] not in roots)
    return RawFile(columns, len(rows), named, rows_of)


def json_lines_of(
    rows: Sequence[JsonRow], wanted: Sequence[Column], kept: Sequence[int], present: Sequence[str]
) -> list[bytes]:
    """Write the kept rows as JSON Lines, with the wanted columns only."""
    is_plain = set(present) <= {column.source for column in wanted}
    if is_plain and len(kept) == len(rows) and not any("." in name for name in present):
        return [row.text.translate(_NEWLINES).encode() + b"\n" for row in rows]
    # A column that must exist may be in none of the rows that are kept; ingest asks for it.
    keys = {column.source: (json.dumps(column.source), column.must_exist) for column in wanted}
    return [_projected(rows[i].cells, keys) for i in kept]


def _projected(cells: Mapping[str, object], keys: Mapping[str, tuple[str, bool]]) -> bytes:
    found = {name: find_cell(cells, name) for name in keys}
    parts = (
        f"{key}: {_spelled(found[name][1])}"
        for name, (key, must_exist) in keys.items()
        if must_exist or found[name][0]
    )
    return ("{" + ", ".join(parts) + "}\n").encode()


def _spelled(cell: object) -> str:
    if type(cell) is _Number:
        return cell
    is_vector = isinstance(cell, list) and all(type(n) is _Number or n is None for n in cell)
    return vector_text(cell) if is_vector else json.dumps(cell)


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Each row brings its own copy of every name; they would be a sixth of a large batch's memory.
    row = {intern(name): cell for name, cell in pairs}
    return row if len(row) == len(pairs) else _Repeated()


_DECODER: Final = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_Number, object_pairs_hook=_object
)


def _elements(text: str) -> Iterator[JsonRow]:
    at = _after_space(text, 0)
    if not text.startswith("[", at):
        row, end = _DECODER.raw_decode(text, at)
        if not isinstance(row, dict):
            raise Problem("malformed", "The JSON is neither an object nor an array of objects.")
        _expect_end(text, end)
        yield _row(text[at:end], row)
        return
    at = _after_space(text, at + 1)
    if text.startswith("]", at):
        _expect_end(text, at + 1)
        return
    while True:
        row, end = _DECODER.raw_decode(text, at)
        yield _row(text[at:end], row)
        at = _after_space(text, end)
        if text.startswith("]", at):
            _expect_end(text, at + 1)
            return
        if not text.startswith(",", at):
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _after_space(text, at + 1)


def _after_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _expect_end(text: str, at: int) -> None:
    end = _after_space(text, at)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _line(line: str) -> JsonRow:
    text = line.strip(_SPACE)
    try:
        return _row(text, _DECODER.decode(text))
    except (json.JSONDecodeError, RecursionError):
        return JsonRow("", {}, "malformed_json")


def _row(text: str, row: object) -> JsonRow:
    if len(text) > MAX_LINE // 4:  # a character is at most four bytes
        return JsonRow("", {}, "too_large")
    if type(row) is _Repeated:
        return JsonRow("", {}, "duplicate_column")
    if not isinstance(row, dict):
        return JsonRow("", {}, "malformed_json")
    return JsonRow(text, row)
