"""A landing file as read, before its cells get their types, and how its columns have changed.

Compressed files are unpacked within a limit; refused rows are cut out as they were written. A row
is identified by a hash of its content, the same in any file format, column order and program run,
and where it has no id by several columns together.

A change of columns is news once: a producer that switches back and forth, or two that differ, are
told of once in each direction, not with every file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.report import did_you_mean, file_message, names, shown
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store.state.model_history import Change
from mlmon_dagster.store.tables.kept_rows import CELL

_NAME = re.compile(r"[^\W\d][\w .\[\]:/-]{0,79}")  # a column's, and few values'
MAX_COLUMNS = 10_000
_BLOCK: Final = 1 << 20
_PACKED: Final = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}
MAX_CELLS = 2_000_000_000  # held at once
MAX_EXTRA: Final = 100
UNDECLARED: Final = "not declared"
_NUMBERS: Final = {("integer", "number"): "widened", ("number", "integer"): "narrowed"}


@dataclass(frozen=True)
class Options:
    """How a file is to be read, and what it may not exceed.

    Attributes:
        max_rows: Checked before the file is parsed where the format allows it.
        delimiter: Between the cells of a CSV line.
        quote: Around a cell of a CSV file.
        multiline: Quoted cells of a CSV file may hold line ends.
        header: Names of the columns of a CSV file without a header; () if it has one.
        inputs: Names of the columns of request bodies that are CSV or lists.
        outputs: Names of the columns of response bodies that are CSV or lists.
        rows_at_once: A reader that can yields a larger file in parts of roughly so many rows.
        is_whole: The producer said that the file is complete, so that its last line is, too.
    """

    max_rows: int
    delimiter: str = ","
    quote: str = '"'
    multiline: bool = False
    header: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    rows_at_once: int | None = None
    is_whole: bool = False


@dataclass(frozen=True)
class Refusal:
    """Rows that the format itself makes unusable.

    Attributes:
        reason: A code of `faults.ROW_REASONS`.
        expected: What should have been there.
        rows: Their numbers in the part of the file that was read, ascending.
        column: The column of the file that it was found in; by default the id's.
    """

    reason: str
    expected: str
    rows: tuple[int, ...]
    column: str = ""


@dataclass(frozen=True)
class RawFile:
    """The wanted columns of a file or of a part of it, of the types that they were written with.

    Attributes:
        columns: Arrow arrays of equal length by source name; text for CSV and JSON Lines.
        n_rows: Number of rows.
        present: Every column of the file, in its order.
        place_of: Turns row numbers of the file (from 0) into places such as ``line 7`` or
            ``row 6``.
        refusals: Rows that cannot be read although the file can.
        lines_of: Turns row numbers into the numbers of the lines that each row is made of, the
            first line is 1; None if the file has no lines.
        n_head: Lines before the first row.
        shares_lines: One line may belong to several rows.
        first: How many rows of the file come before these.
    """

    columns: dict[str, pa.Array]
    n_rows: int
    present: tuple[str, ...]
    place_of: Callable[[Sequence[int]], list[str]]
    refusals: tuple[Refusal, ...] = ()
    lines_of: Callable[[Sequence[int]], list[Sequence[int]]] | None = None
    n_head: int = 0
    shares_lines: bool = False
    first: int = 0


def with_nulls(raw: RawFile, tokens: Sequence[str]) -> RawFile:
    """Return the file without the texts that its source declares to mean null.

    Before anything else looks at the cells: an id made of several columns has no part that is null.
    """
    if not tokens:
        return raw
    return replace(raw, columns={n: _with_nulls(v, tokens) for n, v in raw.columns.items()})


def _with_nulls(values: pa.Array, tokens: Sequence[str]) -> pa.Array:
    kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
    if kind not in (pa.string(), pa.large_string(), pa.string_view()):
        return values
    text = values.cast(kind).cast(pa.string())
    return pc.if_else(pc.is_in(text, pa.array(tokens, pa.string())), None, text)


def rows_of(rows: Sequence[int]) -> list[str]:
    """Name rows by number, the first data row being row 1."""
    return [f"row {row + 1}" for row in rows]


def check_header(
    place: str, present: Sequence[str], wanted: Sequence[Column], *, has_schema: bool = False
) -> None:
    """Refuse a file whose columns are ambiguous, missing or too many.

    The first line of a file without a header is a row, and somebody's: names are repeated only
    if the file has a schema, or some of them are declared and the name looks like one.

    Args:
        place: The file.
        present: The names found.
        wanted: The declared columns.
        has_schema: The names cannot be values.

    Raises:
        SchemaError: With every missing column named.
    """
    if len(present) > MAX_COLUMNS:
        found = f"{len(present):,} columns are more than {MAX_COLUMNS:,}."
        raise refused(place, "too_large", found)
    is_header = has_schema or _is_header(present, wanted)
    if is_header:
        _check_unique(place, present)
    missing = [c for c in wanted if c.must_exist and c.source not in set(present)]
    if missing:
        noun = "column" if len(missing) == 1 else "columns"
        found = f"{noun} {names(c.source for c in missing)} not found. "
        if is_header:
            told = [name for name in present if has_schema or _NAME.fullmatch(name)]
            n_more = len(present) - len(told)
            more = f" and {n_more} that are no plain names" if n_more else ""
            hints = "".join(did_you_mean(column.source, told) for column in missing[:3])
            found += f"Present: {names(told) or 'nothing'}{more}.{hints}"
        else:
            found += (
                f"None of the declared columns is among the {len(present)} of the file, which "
                "seems to have no header; their names are not shown, since they may be values."
                f"{_separator_hint(present)}"
            )
        raise refused(place, "missing_column", found)
    if not is_header:
        _check_unique(place, present)


def check_size(
    place: str, n_rows: int, n_columns: int, max_rows: int, at_once: int | None = None
) -> None:
    """Refuse a file with too many rows, or with too many cells to be held.

    Args:
        place: The file, for messages.
        n_rows: Of it.
        n_columns: That are read.
        max_rows: The source's limit.
        at_once: Rows that are held together; by default all.

    Raises:
        SchemaError: With the limit that was passed.
    """
    if n_rows > max_rows:
        found = f"{n_rows:,} rows are more than max_rows = {max_rows:,}."
        raise refused(place, "too_large", found)
    held = n_rows if at_once is None else min(n_rows, at_once)
    if held * max(n_columns, 1) > MAX_CELLS:
        found = f"{held:,} rows of {n_columns:,} columns are more than {MAX_CELLS:,} cells."
        raise refused(place, "too_large", found)


def refused(place: str, reason: str, found: str) -> SchemaError:
    """Return the error of a refused file: where, what was found and expected, next step."""
    return SchemaError(reason, file_message(place, reason, found))


def text_array(cells: Sequence[str | None]) -> pa.Array:
    """Return cells as Arrow text; text that no UTF-8 can hold becomes a lone NUL, refused later."""
    try:
        return pa.array(cells, pa.string())
    except UnicodeEncodeError:
        return pa.array([cell if _encodes(cell) else "\0" for cell in cells], pa.string())


def _encodes(cell: str | None) -> bool:
    try:
        return cell is None or bool(cell.encode("utf-8")) or True
    except UnicodeEncodeError:
        return False


def _check_unique(place: str, present: Sequence[str]) -> None:
    first: dict[str, str] = {}
    for name in present:
        other = first.setdefault(name.casefold(), name)
        if other is not name:
            how = "twice" if other == name else f"and, in other case, as {shown(other)}"
            found = f"column {shown(name)} is present {how}; names must differ."
            raise refused(place, "duplicate_column", found)


def _is_header(present: Sequence[str], wanted: Sequence[Column]) -> bool:
    """Say whether any declared name is there, in whatever case and with whatever signs in it."""
    declared = {_normalise(name) for column in wanted for name in (column.source, *column.aliases)}
    return not present or any(_normalise(name) in declared for name in present)


def _normalise(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold()) or name


def _separator_hint(present: Sequence[str]) -> str:
    header = present[0] if len(present) == 1 else ""
    signs = {";": "semicolon", "\t": "tab", "|": "pipe"}
    sign = next((sign for sign in signs if sign in header), None)
    if sign is None:
        return ""
    way = f"'delimiter: {signs[sign]}' under the source"
    return f" The header looks separated by {shown(sign)}; expected commas, or {way}."


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
            columns[column.name] = (source, "" if written is None else _name_kind(written.type))
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


def _name_kind(kind: pa.DataType) -> str:
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


def decompressed(path: Path, place: str, max_bytes: int) -> Path:
    """Return the plain bytes of a file, written beside it if it is gzip or Zstandard.

    The first bytes decide, not the name.

    Raises:
        SchemaError: If the file is cut off, damaged or larger than ``max_bytes`` once unpacked.
    """
    with path.open("rb") as file:
        head = file.read(4)
    kind = next((kind for kind, magic in _PACKED.items() if head.startswith(magic)), None)
    return path if kind is None else _unpack(path, place, max_bytes, kind)


def _unpack(path: Path, place: str, max_bytes: int, kind: str) -> Path:
    plain = path.with_name(f"incoming-{path.name}.plain")
    n_bytes = 0
    try:
        with pa.CompressedInputStream(str(path), kind) as packed, plain.open("wb") as target:
            while block := packed.read(_BLOCK):
                n_bytes += len(block)
                if n_bytes > max_bytes:
                    found = f"more than max_bytes = {max_bytes:,} bytes once decompressed."
                    raise refused(place, "too_large", found)
                target.write(block)
    except (pa.ArrowException, OSError) as error:
        # Arrow reports damage as one of the operating system's, which have a number.
        if getattr(error, "errno", None) is not None:
            raise
        said, reason = f"damaged {kind} ({str(error)[:160]})", "unreadable"
        if "Truncated" in str(error):
            said, reason = f"the {kind} stream ends early", "truncated"
        raise refused(place, reason, f"{said}; expected a complete {kind} file.") from error
    return plain


def join_chunks(values: pa.ChunkedArray) -> pa.Array:
    """Return a column in one piece; it is copied only if it is in several."""
    return values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)


def in_parts(tables: Iterable[pa.Table], rows_at_once: int) -> Iterator[tuple[int, pa.Table]]:
    """Put tables together, and cut them, into parts of so many rows; with the row each begins at.

    Tables of half as many stay as they are: what is cut is copied.

    Yields:
        One part at least, if there is a table at all.
    """
    held: list[pa.Table] = []
    n_held, first = 0, 0
    for table in tables:
        if n_held + table.num_rows > rows_at_once and 2 * n_held >= rows_at_once:
            yield first, pa.concat_tables(held)
            held, n_held, first = [], 0, first + n_held
        held.append(table)
        n_held += table.num_rows
        while n_held > rows_at_once:
            whole = pa.concat_tables(held)
            yield first, whole.slice(0, rows_at_once)
            held, n_held = [whole.slice(rows_at_once)], n_held - rows_at_once
            first += rows_at_once
    if held:
        yield first, pa.concat_tables(held)


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
        return Cut(list(rows), _read_cells(path, np.array(rows, dtype=np.int64)))
    numbers, lines = list(rows), raw.lines_of(rows)
    if raw.shares_lines:
        numbers, lines = _with_neighbours(raw.lines_of(range(raw.n_rows)), rows)
    head = range(1, raw.n_head + 1)
    texts = _read_lines(path, {*head, *(line for mine in lines for line in mine)})
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


def _read_lines(path: Path, wanted: set[int]) -> dict[int, bytes]:
    found = {}
    last = max(wanted, default=0)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number in wanted:
                found[number] = line
            if number >= last:
                break
    return found


def _without_views(schema: pa.Schema) -> pa.Schema:
    """Return a schema with plain texts and bytes: Arrow cannot take rows of views of them."""
    plain = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
    return pa.schema([field.with_type(plain.get(field.type, field.type)) for field in schema])


def _read_cells(path: Path, rows: np.ndarray) -> pa.Table:
    """Take rows out of a Parquet file, one row group at a time."""
    parts = []
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            mine = rows[(rows >= start) & (rows < end)] - start
            if mine.size:
                cells = file.read_row_group(group)
                parts.append(cells.cast(_without_views(cells.schema)).take(pa.array(mine)))
            start = end
    table = pa.concat_tables(parts)
    return table.rename_columns([f"{CELL}{name}" for name in table.column_names])


_SIP_KEY = "mlmon row hash 1"  # 16 characters, as SipHash wants
_SAMPLE = 2_000  # cells that tell whether a column of text repeats itself
U64 = NDArray[np.uint64]


def row_hashes(rows: pa.Table, columns: Iterable[str]) -> NDArray[np.int64]:
    """Hash the content of each row.

    A null adds nothing, so a column that came to the spec later does not change the hash of
    rows without it; neither does the order of the columns.

    Args:
        rows: Canonical rows; floats are finite.
        columns: The columns that make up the content.

    Returns:
        int64, one per row.
    """
    total = np.zeros(rows.num_rows, dtype=np.uint64)
    # Two arrays for all columns: to get new memory for each takes longer than the arithmetic.
    term, spare = np.empty_like(total), np.empty_like(total)
    for name in columns:
        values = rows.column(name).combine_chunks()
        if values.null_count == len(values):
            continue
        _codes(values, term, spare)
        term ^= _seed(name)
        _mix(term, spare)
        if values.null_count:
            term[values.is_null().to_numpy(zero_copy_only=False)] = 0
        total += term
    return _mix(total, spare).view(np.int64)


def _codes(values: pa.Array, found: U64, spare: U64) -> None:
    """Find 64 bits per cell that stand for its value; anything for a null."""
    kind = values.type
    if pa.types.is_list(kind) and pa.types.is_floating(kind.value_type):
        _vector_codes(values, found)
        return
    if pa.types.is_list(kind):
        values = pc.binary_join(values, "\x1f")
        kind = values.type
    if pa.types.is_string(kind):
        _text_codes(values, found)
        return
    if pa.types.is_timestamp(kind):
        values = values.cast(pa.int64())
    elif pa.types.is_boolean(kind):
        values = values.cast(pa.uint8()).cast(pa.int64())
    # Not `to_numpy`, which makes floats of integers among nulls.
    bits = np.frombuffer(values.buffers()[1], np.uint64)
    found[:] = bits[values.offset : values.offset + len(values)]
    _mix(found, spare)


def _vector_codes(values: pa.Array, found: U64) -> None:
    numbers = np.ascontiguousarray(values.values.to_numpy(zero_copy_only=False))
    ends = values.offsets.to_numpy().tolist()
    for row, (begin, end) in enumerate(pairwise(ends)):
        digest = hashlib.blake2b(numbers[begin:end].data, digest_size=8).digest()
        found[row] = int.from_bytes(digest, "little")


def _text_codes(values: pa.Array, found: U64) -> None:
    if not _repeats(values):
        found[:] = _word_hashes(pc.fill_null(values, ""))
        return
    coded = values.dictionary_encode()
    hashes = _word_hashes(coded.dictionary)
    positions = pc.fill_null(coded.indices, 0).to_numpy(zero_copy_only=False)
    np.take(hashes, positions, out=found, mode="clip")  # the only mode without a copy


def _repeats(values: pa.Array) -> bool:
    """Guess from the first cells whether hashing each distinct word once is cheaper."""
    sample = values.slice(0, _SAMPLE)
    return bool(2 * pc.count_distinct(sample).as_py() < len(sample))


def _word_hashes(words: pa.Array) -> U64:
    objects = words.to_numpy(zero_copy_only=False).astype(object)
    return pd.util.hash_array(objects, hash_key=_SIP_KEY, categorize=False).astype(np.uint64)


def _seed(name: str) -> np.uint64:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _mix(bits: U64, spare: U64) -> U64:
    """Spread every bit over all others, in place (the finalizer of SplitMix64)."""
    bits += np.uint64(0x9E3779B97F4A7C15)
    bits ^= np.right_shift(bits, np.uint64(30), out=spare)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= np.right_shift(bits, np.uint64(27), out=spare)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= np.right_shift(bits, np.uint64(31), out=spare)
    return bits


def columns_to_read(wanted: Sequence[Column], spec: ModelSpec) -> list[Column]:
    """Return the columns that stand in the files: the parts of a derived id instead of the id."""
    parts = spec.columns.id_parts
    if not parts:
        return list(wanted)
    known = {column.source for column in wanted}
    kept = [column for column in wanted if column.name != "prediction_id"]
    return kept + [Column(part, part, "text") for part in parts if part not in known]


def with_derived_id(raw: RawFile, wanted: Sequence[Column], spec: ModelSpec) -> RawFile:
    """Return the file with the id that its rows do not have, 32 hexadecimal digits.

    The id depends on the text of the cells and on the names of the columns, so the same event
    must be written the same way wherever it occurs. A row whose parts are all null gets none.

    Args:
        raw: A file; one that lacks a part is returned as it is.
        wanted: The declared columns.
        spec: The model; so is any file if an id is one column.
    """
    parts = spec.columns.id_parts
    if not parts or not raw.columns.keys() >= set(parts):
        return raw
    [column] = [column for column in wanted if column.name == "prediction_id"]
    cells = {part: _text(raw.columns[part]) for part in parts}
    halves = [
        row_hashes(pa.table({f"{seed}{part}": cells[part] for part in parts}), names)
        for seed, names in ((seed, [f"{seed}{part}" for part in parts]) for seed in ("1:", "2:"))
    ]
    words = np.stack([half.view(np.uint64) for half in halves], axis=1)
    ids = pa.array([f"{high:016x}{low:016x}" for high, low in words.tolist()], pa.string())
    if all(values.null_count for values in cells.values()):
        empty = np.logical_and.reduce(
            [values.is_null().to_numpy(False) for values in cells.values()]
        )
        ids = pa.array(ids.to_pylist(), pa.string(), mask=empty)
    columns = {**raw.columns, column.source: ids}
    return replace(raw, columns=columns, present=(*raw.present, column.source))


def _text(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    return values.cast(pa.string())
