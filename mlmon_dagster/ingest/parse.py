"""Turn a staged file into typed columns, or say why it is refused as a whole."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

from mlmon_dagster.ingest.cast import ARROW_TYPES, cast_column
from mlmon_dagster.ingest.faults import Fault, Mask
from mlmon_dagster.ingest.layout import Column, columns_of
from mlmon_dagster.ingest.raw import Limits, RawFile, refused
from mlmon_dagster.ingest.read_csv import read_csv
from mlmon_dagster.ingest.read_jsonl import read_jsonl
from mlmon_dagster.ingest.read_parquet import read_parquet
from mlmon_dagster.ingest.staging import Staged, too_large
from mlmon_dagster.spec import FileSource, ModelSpec

_BLOCK = 1 << 20
_GZIP = b"\x1f\x8b"
_BY_ENDING: Final = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_READERS: Final = {"parquet": read_parquet, "csv": read_csv, "jsonl": read_jsonl}
_UNNAMED: Final = ("actuals", "dataset")


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
        place_of: Turns row numbers into ``line 7`` or ``row 6``.
    """

    staged: Staged
    columns: dict[str, pa.Array]
    n_rows: int
    faults: tuple[Fault, ...]
    not_finite: dict[str, dict[str, Mask]]
    absent: tuple[str, ...]
    extra: tuple[str, ...]
    place_of: Callable[[Sequence[int]], list[str]]


def parse_file(staged: Staged, spec: ModelSpec, source: FileSource) -> Parsed:
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
    plain = _decompressed(staged.path, staged.name, source.max_bytes)
    if plain.stat().st_size == 0:
        raise refused(staged.name, "empty_file", "0 bytes once decompressed; expected rows.")
    wanted = columns_of(spec, staged.stream)
    raw = reader(plain, staged.name, wanted, Limits(source.max_bytes, source.max_rows))
    return _typed(staged, raw, wanted, spec)


def _typed(staged: Staged, raw: RawFile, wanted: Sequence[Column], spec: ModelSpec) -> Parsed:
    columns: dict[str, pa.Array] = {}
    faults: list[Fault] = []
    not_finite: dict[str, dict[str, Mask]] = {}
    for column in wanted:
        if column.source not in raw.columns:
            columns[column.name] = pa.nulls(raw.n_rows, ARROW_TYPES[column.kind])
            continue
        cast = cast_column(raw.columns[column.source], column, spec.time, staged.name)
        columns[column.name] = cast.values
        faults += cast.faults
        if cast.not_finite:
            not_finite[column.name] = cast.not_finite
    declared = {*spec.features, *spec.columns.declared().values()}
    present = set(raw.present)
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
            if raw.present and c.source not in present and (staged.stream, c.name) != _UNNAMED
        ),
        extra=tuple(name for name in raw.present if name not in declared),
        place_of=raw.place_of,
    )


def _format_of(staged: Staged, source: FileSource) -> str:
    if source.format != "auto":
        return source.format
    name = staged.name.lower().removesuffix(".gz")
    name = name.removesuffix(".pq") + ".parquet" if name.endswith(".pq") else name
    found = next((form for ending, form in _BY_ENDING.items() if name.endswith(ending)), None)
    if found is None:
        expected = "the name tells no format; expected .parquet, .csv, .jsonl, or those with .gz."
        raise refused(staged.name, "unknown_format", expected)
    return found


def _decompressed(path: Path, name: str, max_bytes: int) -> Path:
    """Return the file's plain bytes, written beside it if it is a gzip; counted as they come."""
    with path.open("rb") as file:
        if file.read(2) != _GZIP:
            return path
    plain = path.with_name(f"incoming-{path.name}.plain")
    n_bytes = 0
    try:
        with gzip.open(path, "rb") as packed, plain.open("wb") as target:
            while block := packed.read(_BLOCK):
                n_bytes += len(block)
                if n_bytes > max_bytes:
                    found = f"more than max_bytes = {max_bytes:,} bytes once decompressed."
                    raise refused(name, "too_large", found)
                target.write(block)
    except EOFError as error:
        found = "the gzip stream ends early; expected a complete gzip file."
        raise refused(name, "truncated", found) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        found = f"damaged gzip ({error}); expected a complete gzip file."
        raise refused(name, "unreadable", found) from error
    return plain
