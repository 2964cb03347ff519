"""From the bytes of a request to rows: unpacked within limits, read by its media type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from mlmon_dagster.collect import arrow_rows, json_rows
from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.parse import Parsed
from mlmon_dagster.ingest.raw import RawFile

ARROW: Final = "application/vnd.apache.arrow.stream"
ARRAY: Final = "application/json"
LINES: Final = ("application/x-ndjson", "application/jsonl", "application/ndjson")
MEDIA_TYPES: Final = (ARRAY, *LINES, ARROW)
ENCODINGS: Final = ("identity", "gzip", "zstd")
_BLOCK = 1 << 18


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
    encoding = content_encoding.strip().lower() or "identity"
    if media_type not in MEDIA_TYPES:
        raise Problem(
            "unsupported_media_type",
            f"Set Content-Type to one of {', '.join(MEDIA_TYPES)}.",
            headers={"accept-post": ", ".join(MEDIA_TYPES)},
        )
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if "charset=" in charset and "charset=utf-8" not in charset:
        raise Problem("unsupported_media_type", "The text must be UTF-8.")
    if encoding not in ENCODINGS:
        raise Problem(
            "unsupported_media_type",
            f"Set Content-Encoding to one of {', '.join(ENCODINGS)}, or leave it out.",
            headers={"accept-encoding": ", ".join(ENCODINGS[1:])},
        )
    return Form(media_type, encoding)


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
        raw = arrow_rows.read_stream(plain, wanted, max_bytes, max_rows)
        batch = Batch(raw, lambda parsed, kept: arrow_rows.lines_of(raw, parsed, wanted, kept))
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
    read = json_rows.read_array if media_type == ARRAY else json_rows.read_lines
    rows = read(text, max_rows)
    raw = json_rows.raw_file(rows, wanted)
    return Batch(
        raw,
        lambda _, kept: json_rows.lines_of(rows, wanted, kept, raw.present),
        {i: row.fault for i, row in enumerate(rows) if row.fault},
    )
