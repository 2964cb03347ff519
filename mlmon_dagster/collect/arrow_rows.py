"""Read rows from an Arrow IPC stream, which comes from outside and is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from struct import error as struct_error
from struct import unpack_from
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.raw import RawFile, rows_of

_COMPRESSED = (
    "The Arrow buffers are compressed. Write the stream without compression and send it with "
    "Content-Encoding: zstd, whose size is checked while it is unpacked."
)
_SPELLED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


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


def lines_of(
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
    cells = list(values.to_pylist())
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
