"""From the bytes of a request to rows: unpacked within limits, read by its media type.

Rows come as JSON (an object, an array of objects, or one object a line) or as an Arrow IPC
stream, which comes from outside and is not trusted either.
Numbers keep the digits they came with: a row is passed on as the text that it was.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from struct import error as struct_error
from struct import unpack_from
from sys import intern
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.formats.read_jsonl import LIST_TEXTS, NESTED, dig, vector_text
from mlmon_dagster.ingest.raw import RawFile, rows_of, text_array

ARROW: Final = "application/vnd.apache.arrow.stream"
ARRAY: Final = "application/json"
LINES: Final = ("application/x-ndjson", "application/jsonl", "application/ndjson")
MEDIA_TYPES: Final = (ARRAY, *LINES, ARROW)
ENCODINGS: Final = ("identity", "gzip", "zstd")
_BLOCK = 1 << 18
MAX_LINE = 1 << 24  # what the reader of landing files takes
_SPACE = " \t\r\n"
_NEWLINES = str.maketrans("\r\n", "  ")
_COMPRESSED = (
    "The Arrow buffers are compressed. Write the stream without compression and send it with "
    "Content-Encoding: zstd, whose size is checked while it is unpacked."
)
_SPELLED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


@dataclass(frozen=True)
class Form:
    """How a body is written: its media type and content encoding."""

    media_type: str
    encoding: str


@dataclass(frozen=True)
class Batch:
    """The rows of a request.

    Attributes:
        raw: Their wanted columns.
        lines: Writes chosen rows as JSON Lines, given the judged columns.
        unread: Row number -> reason code of rows that are none.
    """

    raw: RawFile
    lines: Callable[[Parsed, Sequence[int]], list[bytes]]
    unread: dict[int, str] = field(default_factory=dict)


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


def read_batch(
    plain: bytes, media_type: str, wanted: Sequence[Column], max_bytes: int, max_rows: int
) -> Batch:
    """Read the rows of a body.

    Raises:
        Problem: If it cannot be read, holds no row, or too many.
    """
    if media_type == ARROW:
        raw = read_stream(plain, wanted, max_bytes, max_rows)
        batch = Batch(raw, lambda parsed, kept: arrow_lines_of(raw, parsed, wanted, kept))
    else:
        batch = _json_batch(plain, media_type, wanted, max_rows)
    if batch.raw.n_rows > max_rows:
        raise Problem("too_large", f"More than {max_rows:,} rows; send fewer at once.")
    if not batch.raw.n_rows:
        raise Problem("malformed", "There are no rows; send at least one.")
    return batch


def _json_batch(plain: bytes, media_type: str, wanted: Sequence[Column], max_rows: int) -> Batch:
    try:
        text = plain.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem("malformed", f"Byte {error.start + 1} is not UTF-8.") from None
    read = read_array if media_type == ARRAY else read_lines
    rows = read(text, max_rows)
    raw = raw_file(rows, wanted)
    return Batch(
        raw,
        lambda _, kept: json_lines_of(rows, wanted, kept, raw.present),
        {i: row.fault for i, row in enumerate(rows) if row.fault},
    )


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
    present: dict[str, None] = {}
    for row in rows:
        if row.cells.keys() - present.keys():
            present.update(dict.fromkeys(row.cells))
    columns: dict[str, pa.Array] = {}
    for column in wanted:
        found = [_cell(row.cells, column.source) for row in rows]
        if column.source in present or any(is_there for is_there, _ in found):
            of_list = LIST_TEXTS.get(column.kind)
            columns[column.source] = text_array(
                [
                    of_list(cell) if of_list and isinstance(cell, list) else _text(cell)
                    for _, cell in found
                ]
            )
            present.setdefault(column.source)
    roots = {name.partition(".")[0] for name in columns if "." in name}
    named = tuple(name for name in present if name in columns or name not in roots)
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
    found = {name: _cell(cells, name) for name in keys}
    parts = (
        f"{key}: {_spelled(found[name][1])}"
        for name, (key, must_exist) in keys.items()
        if must_exist or found[name][0]
    )
    return ("{" + ", ".join(parts) + "}\n").encode()


def _cell(cells: Mapping[str, object], name: str) -> tuple[bool, object]:
    """Return whether a row has a column, and its cell; a dotted name may lead into objects."""
    if name in cells:
        return True, cells[name]
    return dig(cells, tuple(name.split("."))) if "." in name else (False, None)


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


def _text(cell: object) -> str | None:
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return NESTED


def read_stream(body: bytes, wanted: Sequence[Column], max_bytes: int, max_rows: int) -> RawFile:
    """Read the wanted columns of a stream.

    Raises:
        Problem: If it is damaged, compressed inside, or too large once unfolded.
    """
    _refuse_compressed(body)
    try:
        with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
            schema = stream.schema
            _refuse_repeated(schema.names)
            batches, n_rows = [], 0
            for batch in stream:
                n_rows += batch.num_rows
                if n_rows > max_rows:
                    raise Problem("too_large", f"More than {max_rows:,} rows; send fewer at once.")
                batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        kind = type(error).__name__
        raise Problem("malformed", f"Not a readable Arrow IPC stream ({kind}).") from None
    names = {column.source for column in wanted}
    columns = {
        name: _unfolded(table[name], name, max_bytes) for name in schema.names if name in names
    }
    return RawFile(columns, table.num_rows, tuple(schema.names), rows_of)


def arrow_lines_of(
    raw: RawFile, parsed: Parsed, wanted: Sequence[Column], kept: Sequence[int]
) -> list[bytes]:
    """Write the kept rows as JSON Lines; cells that were not finite by their names.

    Columns that only identify an event have no type; they are written as text.
    """
    names, columns = [], []
    chosen = pa.array(kept, pa.int64())
    for column in wanted:
        if column.source in parsed.absent or not len(chosen):
            continue
        names.append(column.source)
        masks = parsed.not_finite.get(column.name, {})
        typed = parsed.columns.get(column.name)
        values = raw.columns[column.source].cast(pa.string()) if typed is None else typed
        columns.append(_cells(values.take(chosen), column, masks, kept))
    encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
    return [
        encode(dict(zip(names, row, strict=True))).encode() + b"\n"
        for row in zip(*columns, strict=True)
    ]


def _cells(
    values: pa.Array, column: Column, masks: Mapping[str, Any], kept: Sequence[int]
) -> list[Any]:
    if column.kind == "time":
        return list(values.cast(pa.string()).to_pylist())
    if column.kind == "label":
        values = values.cast(pa.int64())
        if column.words:  # as ingest will read them again
            word = {n: next(word for word, m in column.words if m == n) for n in (0, 1)}
            return [word.get(value) for value in values.to_pylist()]
    cells = list(values.to_pylist())
    if column.kind == "vector":  # JSON has no word for what is not finite
        return [cell and [n if math.isfinite(n) else None for n in cell] for cell in cells]
    for kind, mask in masks.items():
        for position in np.flatnonzero(mask[np.asarray(kept)]):
            cells[position] = _SPELLED[kind]
    return cells


def _unfolded(values: pa.ChunkedArray, name: str, max_bytes: int) -> pa.Array:
    """Return a column in its plain form, which a few bytes may unfold into very many."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        longest = max((_longest(chunk.dictionary) for chunk in values.chunks), default=0)
        if longest * len(values) > max_bytes:
            found = f"The dictionary of column {name!r} unfolds to more than {max_bytes:,} bytes."
            raise Problem("too_large", found)
        plain = kind.value_type
        return values.cast(plain).combine_chunks()
    if pa.types.is_run_end_encoded(kind) or "view" in str(kind):
        found = f"Column {name!r} is {kind}; send it as a plain or dictionary array."
        raise Problem("unsupported_media_type", found)
    return values.combine_chunks()


def _longest(dictionary: pa.Array) -> int:
    if pa.types.is_primitive(dictionary.type):
        return 8
    try:
        return int(pc.max(pc.binary_length(dictionary)).as_py() or 0)
    except pa.ArrowException:
        return int(dictionary.nbytes)


def _refuse_repeated(names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise Problem("malformed", "The stream has two columns of the same name.")


def _refuse_compressed(body: bytes) -> None:
    """Look into the messages' headers, since reading a compressed one unpacks all of it."""
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    try:
        for message in reader:
            if message.type in ("record batch", "dictionary") and _is_compressed(
                message.metadata.to_pybytes(), message.type == "dictionary"
            ):
                raise Problem("unsupported_media_type", _COMPRESSED)
    except (pa.ArrowException, OSError, struct_error) as error:
        kind = type(error).__name__
        raise Problem("malformed", f"Not a readable Arrow IPC stream ({kind}).") from None


def _is_compressed(metadata: bytes, is_dictionary: bool) -> bool:
    """Say whether a message's flatbuffer has RecordBatch.compression, its fourth field."""
    (message,) = unpack_from("<I", metadata, 0)
    header = _field(metadata, message, 2)
    batch = _table(metadata, header)
    if is_dictionary:
        batch = _table(metadata, _field(metadata, batch, 1))
    return _field(metadata, batch, 3) != 0


def _field(data: bytes, table: int, number: int) -> int:
    vtable = table - unpack_from("<i", data, table)[0]
    (size,) = unpack_from("<H", data, vtable)
    entry = 4 + 2 * number
    offset = unpack_from("<H", data, vtable + entry)[0] if entry < size else 0
    return table + offset if offset else 0


def _table(data: bytes, at: int) -> int:
    return int(at + unpack_from("<I", data, at)[0])
