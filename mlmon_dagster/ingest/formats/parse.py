"""Turn a staged file into typed columns, or say why it is refused as a whole.

Compressed files are unpacked within a limit; refused rows are cut out as they were written.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mlmon_dagster.ingest.cast import ARROW_TYPES, cast_column, from_epoch
from mlmon_dagster.ingest.declared_columns import Column, columns_of
from mlmon_dagster.ingest.faults import Fault, Mask
from mlmon_dagster.ingest.formats.read_csv import read_csv
from mlmon_dagster.ingest.formats.read_jsonl import read_jsonl
from mlmon_dagster.ingest.formats.read_kserve import read_kserve
from mlmon_dagster.ingest.formats.read_parquet import read_parquet
from mlmon_dagster.ingest.formats.read_sagemaker import read_sagemaker
from mlmon_dagster.ingest.landing import Staged, too_large
from mlmon_dagster.ingest.raw import (
    Layout,
    Options,
    RawFile,
    Refusal,
    check_renamed,
    layout_of,
    refused,
    values_of,
    with_aliases,
    with_nulls,
)
from mlmon_dagster.ingest.row_hash import columns_to_read, with_derived_id
from mlmon_dagster.spec import FileSource, ModelSpec, Source
from mlmon_dagster.spec.sources import STREAMS
from mlmon_dagster.store.tables.kept_rows import CELL

_BY_ENDING: Final = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
Reader = Callable[[Path, str, Sequence[Column], Options], RawFile]
_READERS: Final[dict[str, Reader]] = {
    "parquet": read_parquet,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "kserve": read_kserve,
    "sagemaker": read_sagemaker,
}
_UNNAMED: Final = ("actuals", "dataset")
_BLOCK: Final = 1 << 20
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Parsed:
    """A file whose columns have their declared types.

    Attributes:
        staged: The file.
        columns: Arrow arrays by name in the store, every declared column among them.
        n_rows: Number of rows.
        faults: Cells that could not be read.
        not_finite: By column, the masks of its ``nan``, ``inf`` and ``-inf`` cells.
        absent: Declared columns that the file lacks and may lack.
        extra: Columns of the file that the spec does not declare; they are not kept.
        layout: What the file's columns are, to be compared with the files before it.
        place_of: Turns row numbers into ``line 7`` or ``row 6``.
        cut: Takes rows out as they were written; None if the file is not there to be cut.
    """

    staged: Staged
    columns: dict[str, pa.Array]
    n_rows: int
    faults: tuple[Fault, ...]
    not_finite: dict[str, dict[str, Mask]]
    absent: tuple[str, ...]
    extra: tuple[str, ...]
    layout: Layout
    place_of: Callable[[Sequence[int]], list[str]]
    cut: Callable[[Sequence[int]], Cut] | None = None


def parse_file(staged: Staged, spec: ModelSpec, source: Source) -> Parsed:
    """Read a staged file with the declared types.

    Raises:
        SchemaError: If the file is empty, cut off, damaged, too large or not of the declared
            shape; the message names the file, the line and column where known, what was
            expected and the next step.
    """
    if staged.path is None and staged.size > source.max_bytes:
        raise too_large(staged, source.max_bytes)
    if staged.path is None:
        raise refused(staged.name, "failed", "the private copy is lost.")
    if staged.size == 0:
        raise refused(staged.name, "empty_file", "0 bytes; expected a header or rows.")
    reader = _READERS[_format_of(staged, source)]
    plain = decompressed(staged.path, staged.name, source.max_bytes)
    if plain.stat().st_size == 0:
        raise refused(staged.name, "empty_file", "0 bytes once decompressed; expected rows.")
    wanted = columns_of(spec, staged.stream)
    reading = with_aliases(columns_to_read(wanted, spec))
    raw = reader(plain, staged.name, reading, _options(source))
    check_renamed(staged.name, raw, wanted)
    raw = with_derived_id(with_nulls(raw, source.null_tokens), wanted, spec)
    typed = typed_columns(staged, raw, wanted, spec, source)
    known = staged.again.about("place", raw.n_rows) if staged.again else None
    shape = replace(raw, columns={})  # the cells are not to be held any longer
    return replace(
        typed,
        place_of=(lambda rows: [known[row] for row in rows]) if known else shape.place_of,
        cut=lambda rows: cut_rows(plain, shape, rows),
    )


def _options(source: Source) -> Options:
    if not isinstance(source, FileSource):
        return Options(source.max_rows)
    return Options(
        source.max_rows, source.delimiter, source.quote, source.header, source.inputs,
        source.outputs,
    )  # fmt: skip


def typed_columns(
    staged: Staged, raw: RawFile, wanted: Sequence[Column], spec: ModelSpec, source: Source
) -> Parsed:
    """Give the columns of a file their declared types.

    Raises:
        SchemaError: If a column as a whole is of another type.
    """
    columns: dict[str, pa.Array] = {}
    faults = _refusals(raw.refusals, wanted)
    not_finite: dict[str, dict[str, Mask]] = {}
    for column in wanted:
        found = values_of(raw, column)
        if found is None:
            columns[column.name] = pa.nulls(raw.n_rows, ARROW_TYPES[column.kind])
            continue
        if source.epoch and column.kind == "time":
            found = from_epoch(found, source.epoch)
        cast = cast_column(found, column, spec.time, staged.name)
        columns[column.name] = cast.values
        faults += cast.faults
        if cast.not_finite:
            not_finite[column.name] = cast.not_finite
    every = [column for stream in STREAMS for column in columns_of(spec, stream)]
    declared = {name for column in every for name in (column.source, *column.aliases)}
    declared |= set(spec.columns.id_parts)
    present = set(raw.present)
    extra = _undeclared(raw.present, declared)
    return Parsed(
        staged=staged,
        columns=columns,
        n_rows=raw.n_rows,
        faults=tuple(faults),
        not_finite=not_finite,
        absent=tuple(
            c.source
            for c in wanted
            # An actual needs no dataset: without one it applies to all.
            if raw.present
            and not present & {c.source, *c.aliases}
            and (staged.stream, c.name) != _UNNAMED
        ),
        extra=extra,
        layout=layout_of(raw, wanted, extra),
        place_of=raw.place_of,
    )


def _undeclared(present: Sequence[str], declared: Collection[str]) -> tuple[str, ...]:
    """Return the names that nobody declared; of a list or tensor, one value stands for all."""
    lists = {_list_of(name) for name in declared if _list_of(name) != name}
    return tuple(name for name in present if name not in declared and _list_of(name) not in lists)


def _list_of(name: str) -> str:
    head, _, last = name.rpartition(".")
    return head if head and last.isdecimal() else name


def _refusals(found: Sequence[Refusal], wanted: Sequence[Column]) -> list[Fault]:
    of_id = next(column for column in wanted if column.name == "prediction_id")
    return [
        fault
        for refusal in found
        for fault in Fault.of(
            np.array(refusal.rows, dtype=np.int64), refusal.reason, of_id, refusal.expected
        )
    ]


def _format_of(staged: Staged, source: Source) -> str:
    if source.format != "auto":
        return source.format
    name = staged.name.lower().removesuffix(".gz").removesuffix(".zst")
    name = name.removesuffix(".pq") + ".parquet" if name.endswith(".pq") else name
    found = next((form for ending, form in _BY_ENDING.items() if name.endswith(ending)), None)
    if found is None:
        expected = (
            "the name tells no format; expected .parquet, .csv, .jsonl, or those with .gz or .zst."
        )
        raise refused(staged.name, "unknown_format", expected)
    return found


def decompressed(path: Path, place: str, max_bytes: int) -> Path:
    """Return the plain bytes of a file, written beside it if it is gzip or Zstandard.

    The first bytes decide, not the name.

    Raises:
        SchemaError: If the file is cut off, damaged or larger than ``max_bytes`` once unpacked.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] == _GZIP:
        return _unpacked(path, place, max_bytes, "gzip")
    return _unpacked(path, place, max_bytes, "zstd") if head == _ZSTD else path


def _unpacked(path: Path, place: str, max_bytes: int, kind: str) -> Path:
    plain = path.with_name(f"incoming-{path.name}.plain")
    n_bytes = 0
    try:
        with _opened(path, kind) as packed, plain.open("wb") as target:
            while block := packed.read(_BLOCK):
                n_bytes += len(block)
                if n_bytes > max_bytes:
                    found = f"more than max_bytes = {max_bytes:,} bytes once decompressed."
                    raise refused(place, "too_large", found)
                target.write(block)
    except EOFError as error:
        found = f"the {kind} stream ends early; expected a complete {kind} file."
        raise refused(place, "truncated", found) from error
    except (gzip.BadGzipFile, zlib.error, pa.ArrowException) as error:
        raise _damaged(place, kind, error) from error
    except OSError as error:
        # Arrow reports damage as one; those of the operating system have a number.
        if error.errno is not None:
            raise
        raise _damaged(place, kind, error) from error
    return plain


def _damaged(place: str, kind: str, error: Exception) -> Exception:
    text = str(error)
    if "Truncated" in text:
        found = f"the {kind} stream ends early; expected a complete {kind} file."
        return refused(place, "truncated", found)
    found = f"damaged {kind} ({text[:160]}); expected a complete {kind} file."
    return refused(place, "unreadable", found)


def _opened(path: Path, kind: str) -> BinaryIO | Any:
    return gzip.open(path, "rb") if kind == "gzip" else pa.CompressedInputStream(str(path), "zstd")


@dataclass(frozen=True)
class Cut:
    """Rows of a file, and those that cannot be parted from them.

    Attributes:
        numbers: Which rows these are, ascending.
        columns: What is kept of each: ``lines`` and ``records``, or ``cell:NAME``.
        head: The bytes before the first row.
    """

    numbers: list[int]
    columns: pa.Table
    head: bytes = b""


def cut_rows(path: Path, raw: RawFile, rows: Sequence[int]) -> Cut:
    """Take rows out of a file.

    Args:
        path: The file, not packed.
        raw: What was read from it.
        rows: Row numbers, ascending.
    """
    if raw.lines_of is None:
        return Cut(list(rows), _cells(path, np.array(rows, dtype=np.int64)))
    numbers, lines = list(rows), raw.lines_of(rows)
    if raw.shares_lines:
        numbers, lines = _with_neighbours(raw.lines_of(range(raw.n_rows)), rows)
    head = range(1, raw.n_head + 1)
    texts = _texts(path, {*head, *(line for mine in lines for line in mine)})
    records = [[texts[line] for line in mine] for mine in lines]
    columns = pa.table(
        {
            "lines": pa.array([list(mine) for mine in lines], pa.list_(pa.int64())),
            "records": pa.array(records, pa.list_(pa.binary())),
        }
    )
    return Cut(numbers, columns, b"".join(texts[line] for line in head))


def _with_neighbours(
    every: Sequence[Sequence[int]], rows: Sequence[int]
) -> tuple[list[int], list[Sequence[int]]]:
    """Return the rows and all that share lines with them, however far."""
    lines = {line for row in rows for line in every[row]}
    while True:
        numbers = [row for row, mine in enumerate(every) if not lines.isdisjoint(mine)]
        more = {line for row in numbers for line in every[row]}
        if more == lines:
            return numbers, [every[row] for row in numbers]
        lines = more


def _texts(path: Path, wanted: set[int]) -> dict[int, bytes]:
    found = {}
    last = max(wanted, default=0)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number in wanted:
                found[number] = line
            if number >= last:
                break
    return found


def _cells(path: Path, rows: np.ndarray) -> pa.Table:
    """Take rows out of a Parquet file, one row group at a time."""
    parts = []
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            mine = rows[(rows >= start) & (rows < end)] - start
            if mine.size:
                parts.append(file.read_row_group(group).take(pa.array(mine)))
            start = end
    table = pa.concat_tables(parts)
    return table.rename_columns([f"{CELL}{name}" for name in table.column_names])
