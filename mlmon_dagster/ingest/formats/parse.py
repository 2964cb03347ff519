"""Turn a staged file into typed columns, or say why it is refused as a whole.

Cells that cannot be read as their declared type become null, and a fault that says why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.declared_columns import Column, Kind, Notation, columns_of
from mlmon_dagster.ingest.formats.known import read_file
from mlmon_dagster.ingest.landing import Staged, too_large
from mlmon_dagster.ingest.raw import (
    Cut,
    Layout,
    Options,
    RawFile,
    Refusal,
    check_renamed,
    columns_to_read,
    cut_rows,
    decompressed,
    layout_of,
    refused,
    values_of,
    with_aliases,
    with_derived_id,
    with_nulls,
)
from mlmon_dagster.ingest.report import Fault, Mask, mask_of, shown
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.spec.sources import (
    ISO8601,
    PER_SECOND,
    STREAMS,
    EpochUnit,
    FileSource,
    Source,
    Stream,
)
from mlmon_dagster.spec.tasks import BETWEEN, NO_LABELS

_UNNAMED: Final = ("actuals", "dataset")


@dataclass(frozen=True)
class Parsed:
    """A file, or the rows of a part of it, whose columns have their declared types.

    Attributes:
        staged: The file.
        columns: Arrow arrays by name in the store, every declared column among them.
        n_rows: Number of rows.
        faults: Cells that could not be read.
        not_finite: By column, the masks of its ``nan``, ``inf`` and ``-inf`` cells.
        absent: Declared columns that the file lacks and may lack.
        extra: Columns of the file that the spec does not declare; they are not kept.
        layout: What the file's columns are, to be compared with the files before it.
        place_of: Turns row numbers, those of the part, into ``line 7`` or ``row 6``.
        cut: Takes rows out as they were written; None if the file is not there to be cut.
        first: How many rows of the file come before this part.
        is_of_other: It has no rows of this stream: both streams name the file, whose columns are
            the other one's.
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
    first: int = 0
    is_of_other: bool = False

    def row_numbers(self) -> np.ndarray:
        """Return the number of each row in the landing file."""
        return self.first + self.staged.row_numbers(self.n_rows)


def parse_file(
    staged: Staged,
    spec: ModelSpec,
    source: Source,
    rows_at_once: int | None = None,
) -> Iterator[Parsed]:
    """Read a staged file with the declared types, in parts of roughly so many rows.

    Args:
        staged: The file.
        spec: The model.
        source: Where it is from.
        rows_at_once: Of a part; by default the file is one part.

    Yields:
        The parts in order, one at least; whoever sees an error forgets the parts before it.

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
    plain = decompressed(staged.path, staged.name, source.max_bytes)
    if plain.stat().st_size == 0:
        raise refused(staged.name, "empty_file", "0 bytes once decompressed; expected rows.")
    wanted = columns_of(spec, staged.stream)
    reading = with_aliases(columns_to_read(wanted, spec))
    options = replace(_options(source), rows_at_once=rows_at_once, is_whole=staged.has_marker)
    raws = read_file(source.format, plain, staged.name, reading, options)
    try:
        first = next(raws)
    except SchemaError as error:
        if error.reason != "missing_column" or not _is_of_other(plain, staged, spec):
            raise
        first = RawFile({column.source: pa.nulls(0, pa.string()) for column in reading}, 0,
                        tuple(column.source for column in reading), lambda rows: [])  # fmt: skip
        typed = typed_columns(staged, first, wanted, spec, source)
        yield replace(typed, is_of_other=True)
        return
    rest = chain([first], raws)
    del first  # who goes on to the next part holds no earlier one
    for raw in rest:
        check_renamed(staged.name, raw, wanted)
        named = with_derived_id(with_nulls(raw, source.null_tokens), wanted, spec)
        typed = typed_columns(staged, named, wanted, spec, source)
        shape = replace(named, columns={})  # the cells are not to be held any longer
        yield replace(
            typed,
            place_of=partial(_places, shape, staged),
            cut=partial(_cut, plain, shape),
            first=raw.first,
        )


def _is_of_other(plain: Path, staged: Staged, spec: ModelSpec) -> bool:
    """Say whether both streams name a file, and it has the columns of the other one.

    People keep both in one folder, and one file may hold both: which are which, columns tell.
    """
    other: Stream = "predictions" if staged.stream == "actuals" else "actuals"
    own, source = spec.source.of(staged.stream), spec.source.of(other)
    if not (isinstance(own, FileSource) and isinstance(source, FileSource)):
        return False
    if own.path != source.path:
        return False
    wanted = with_aliases(columns_to_read(columns_of(spec, other), spec))
    try:
        next(read_file(own.format, plain, staged.name, wanted, _options(source)))
    except SchemaError:
        return False
    return True


def _places(shape: RawFile, staged: Staged, rows: Sequence[int]) -> list[str]:
    known = staged.again.about("place", shape.n_rows) if staged.again else None
    if known:
        return [known[row] for row in rows]
    return shape.place_of([shape.first + row for row in rows])


def _cut(plain: Path, shape: RawFile, rows: Sequence[int]) -> Cut:
    cut = cut_rows(plain, shape, [shape.first + row for row in rows])
    return replace(cut, numbers=[number - shape.first for number in cut.numbers])


def _options(source: Source) -> Options:
    if not isinstance(source, FileSource):
        return Options(source.max_rows)
    return Options(
        source.max_rows, source.delimiter, source.quote, source.multiline, source.header,
        source.inputs, source.outputs,
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
            np.array(refusal.rows, dtype=np.int64),
            refusal.reason,
            replace(of_id, source=refusal.column or of_id.source),
            refusal.expected,
        )
    ]


ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    "id": pa.string(),
    "time": pa.timestamp("us", "UTC"),
    "number": pa.float64(),
    "label": pa.float64(),  # narrowed to int64 once the rows that are not 0 or 1 are out
    "boolean": pa.bool_(),
    "text": pa.string(),
    "labels": pa.string(),
    "vector": pa.list_(pa.float32()),
}
MAX_TEXT = 1 << 20
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
_LOGICAL: Final = {"true": "1", "false": "0"}
# Beside a null pandas writes 1 as 1.0.
_WHOLE_FRACTION: Final = {".": r"^(-?\d+)\.0+$", ",": r"^(-?\d+),0+$"}
_EXACT_INTEGERS = 2.0**53
# What cells look like that a declaration would make readable, and that declaration.
_OTHER_NUMBER = r"^[+-]?(\d+|\d{1,3}([.' ]\d{3})+),\d+$"
_OTHER_TIME = r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}([T ,].*)?$"
_SAY_DECIMAL: Final = "; of decimal commas the source says 'decimal: comma'"
_SAY_FORMAT: Final = (
    "; of times written otherwise the source says so, such as time_format: '%d.%m.%Y %H:%M'"
)
_SAY_LABELS: Final = "; of other words the spec says 'labels: {positive: ..., negative: ...}'"
UTC_MICROSECONDS: Final = pa.timestamp("us", "UTC")
_NAIVE_MICROSECONDS: Final = pa.timestamp("us")
_OFFSET = r"(?:[Zz]|[+-]\d{2}(?::?\d{2})?)"
_NAIVE_TEXT = r"^\d{4}-\d{2}-\d{2}(?:[Tt ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)?$"
_AWARE_TEXT = (
    rf"^\d{{4}}-\d{{2}}-\d{{2}}[Tt ]\d{{2}}:\d{{2}}(?::\d{{2}}(?:\.\d{{1,9}})?)? ?{_OFFSET}$"
)
# Windows exist for these years only; see `spec.windows`.
_FIRST = np.datetime64("0001-01-09", "us")
_LAST = np.datetime64("9998-12-30", "us")

_EPOCH_NUMBER = r"^\s*[+-]?\d{1,18}(\.\d*)?([eE][+]?\d{1,2})?\s*$"
_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
# Times of the years 1 to 9998, in microseconds.
_FIRST_MICROSECOND, _LAST_MICROSECOND = -62_134_905_600_000_000, 253_339_142_400_000_000


@dataclass(frozen=True)
class Cast:
    """A column with its declared type.

    Attributes:
        values: Arrow array of the kind's type; cells at fault and not finite are null.
        faults: What was wrong, by rule.
        not_finite: Masks of the cells that were ``nan``, ``inf`` or ``-inf``.
    """

    values: pa.Array
    faults: tuple[Fault, ...] = ()
    not_finite: dict[str, Mask] = field(default_factory=dict)


def cast_column(values: pa.Array, column: Column, time: TimeSpec, place: str) -> Cast:
    """Cast one column to its declared type.

    Args:
        values: The column as it was written.
        column: Its declaration.
        time: The model's zone, and what to do with times that name none.
        place: The file, for messages.

    Raises:
        SchemaError: If no cell of that column type can be read as the declared type.
    """
    plain = _plain(values)
    # Without a value the type says nothing: pandas makes an empty column one of floats.
    if plain.null_count == len(plain):
        return Cast(pa.nulls(len(plain), ARROW_TYPES[column.kind]))
    if column.kind == "time":
        found = to_time(plain, column, time)
        cast = None if found is None else Cast(*found)
    else:
        cast = _CASTS[column.kind](plain, column)
    if cast is None:
        raise _wrong_type(place, column, values.type)
    return cast


def _plain(values: pa.Array) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values.type, pa.BaseExtensionType):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_text(values.type) and values.type != pa.string():
        values = values.cast(pa.string())
    return values.cast(pa.float32()) if pa.types.is_float16(values.type) else values


def _to_number(values: pa.Array, column: Column) -> Cast | None:
    read = _numbers(values, column)
    if read is None:
        return None
    numbers, faults = read
    floats = numbers.to_numpy(zero_copy_only=False)
    odd = mask_of(numbers.is_valid()) & ~np.isfinite(floats)
    if not odd.any():
        return Cast(_unsigned_zero(numbers, floats), faults)
    found = {"nan": odd & np.isnan(floats), "inf": floats == np.inf, "-inf": floats == -np.inf}
    finite = pc.if_else(pa.array(~odd), numbers, None)
    return Cast(
        _unsigned_zero(finite, floats), faults, {k: mask for k, mask in found.items() if mask.any()}
    )


def _to_label(values: pa.Array, column: Column) -> Cast | None:
    if column.words:
        return _from_words(values, column)
    if _is_text(values.type):
        folded = pc.utf8_lower(values)
        for word, number in _LOGICAL.items():
            values = pc.if_else(pc.fill_null(pc.equal(folded, word), False), number, values)
    cast = _to_number(values, column)
    if cast is None or not cast.not_finite:
        return cast
    # A NaN label is how pandas writes a missing one; an infinite one is wrong.
    wrong = np.zeros(len(values), dtype=bool)
    for kind, mask in cast.not_finite.items():
        wrong |= mask if kind != "nan" else False
    return Cast(cast.values, cast.faults + Fault.where(wrong, "wrong_type", column))


def _from_words(values: pa.Array, column: Column) -> Cast | None:
    read = _to_text(values, column)
    if read is None:
        return None
    folded = pc.utf8_lower(pc.utf8_trim_whitespace(read.values))
    folded = pc.if_else(pc.equal(folded, ""), None, folded)
    folded = pc.replace_substring_regex(folded, _WHOLE_FRACTION[column.notation.decimal], r"\1")
    words, meanings = zip(*column.words, strict=True)
    place = pc.index_in(folded, pa.array(words, pa.string()))
    unknown = mask_of(pc.and_(folded.is_valid(), place.is_null()))
    return Cast(
        pa.array(meanings, pa.float64()).take(place),
        read.faults + Fault.where(unknown, "wrong_type", column),
    )


def _to_boolean(values: pa.Array, column: Column) -> Cast | None:
    if pa.types.is_boolean(values.type):
        return Cast(values)
    cast = _to_label(values, column)
    if cast is None:
        return None
    floats = cast.values.to_numpy(zero_copy_only=False)
    wrong = mask_of(cast.values.is_valid()) & (floats != 0) & (floats != 1)
    kept = pc.if_else(pa.array(~wrong), cast.values, None)
    return Cast(pc.equal(kept, 1.0), cast.faults + Fault.where(wrong, "wrong_type", column))


def _to_id(values: pa.Array, column: Column) -> Cast | None:
    # Never through a float: it has lost the last digits of a long id already.
    if _is_text(values.type):
        cast = _clean_text(values, column)
        empty = pc.equal(cast.values, "")
        if pc.any(empty).as_py():
            return Cast(pc.if_else(empty, None, cast.values), cast.faults)
        return cast
    return Cast(values.cast(pa.string())) if pa.types.is_integer(values.type) else None


def _to_text(values: pa.Array, column: Column) -> Cast | None:
    kind = values.type
    if _is_text(kind):
        return _clean_text(values, column)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return _clean_text(pa.Array.from_buffers(
            pa.string(), len(values), values.cast(pa.binary()).buffers(), offset=values.offset
        ), column)  # fmt: skip
    if pa.types.is_floating(kind):
        return Cast(_float_text(values.cast(pa.float64())))
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        return Cast(values.cast(pa.string()))
    return Cast(values.cast(pa.string())) if pa.types.is_date(kind) else None


def _to_labels(values: pa.Array, column: Column) -> Cast | None:
    """Read lists of labels, their JSON or names with a bar between; an empty text is no answer.

    Returns:
        The labels of a row sorted, each once; a list without any says so, see `spec.tasks`.
    """
    wrong = np.zeros(len(values), dtype=bool)
    if _is_list(values.type):
        inner = values.cast(pa.list_(pa.string())) if len(values) else values
        texts = pc.binary_join(inner, BETWEEN)
        # Without a label the joined text would be that of a row without an answer.
        texts = pc.if_else(pc.equal(pc.list_value_length(inner), 0), NO_LABELS, texts)
        bars = pc.sum(pc.match_substring(inner.values, BETWEEN)).as_py()
        if bars:
            kept = [one is None or not any(BETWEEN in (x or "") for x in one)
                    for one in inner.to_pylist()]  # fmt: skip
            wrong |= ~np.array(kept, dtype=bool)
        wrong |= mask_of(pc.and_(values.is_valid(), texts.is_null()))
    else:
        read = _to_text(values, column)
        if read is None:
            return None
        texts = read.values
    encoded = texts.dictionary_encode()
    names = [_sort_labels(text) for text in encoded.dictionary.to_pylist()]
    unread = pa.array([name is None for name in names], pa.bool_()).take(encoded.indices)
    wrong |= mask_of(unread.fill_null(False))
    found = pa.array([name or None for name in names], pa.string()).take(encoded.indices)
    found = pc.if_else(pa.array(wrong), None, found) if wrong.any() else found
    return Cast(found, Fault.where(wrong, "wrong_type", column))


def _sort_labels(text: str) -> str | None:
    """Return the labels of a text as they are stored, "" for an empty one; None if it has none."""
    labels: object = text.split(BETWEEN)
    if text.lstrip().startswith("["):
        try:
            labels = json.loads(text)
        except (ValueError, RecursionError):
            return None
        if not isinstance(labels, list) or any(
            not isinstance(one, str | int) or BETWEEN in str(one) for one in labels
        ):
            return None
        if not labels:
            return NO_LABELS
    assert isinstance(labels, list)
    return BETWEEN.join(sorted({str(one).strip() for one in labels} - {""}))


def _is_list(kind: pa.DataType) -> bool:
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list or bool(pa.types.is_fixed_size_list(kind))


def _to_vector(values: pa.Array, column: Column) -> Cast | None:
    """Read lists of numbers, or their JSON; one that is missing among them is not a number."""
    if _is_text(values.type):
        return _vectors_from_json(values, column)
    kind = values.type
    if not _is_list(kind):
        return None
    inner = kind.value_type
    if not pa.types.is_floating(inner) and not pa.types.is_integer(inner):
        return None
    lists = values.cast(pa.list_(inner)).cast(pa.list_(pa.float32()), safe=False)
    if lists.values.null_count:
        filled = pc.fill_null(lists.values, float("nan"))
        lists = pa.ListArray.from_arrays(lists.offsets, filled, mask=lists.is_null())
    return Cast(lists)


def _vectors_from_json(values: pa.Array, column: Column) -> Cast:
    found: list[list[float] | None] = []
    wrong = np.zeros(len(values), dtype=bool)
    for row, text in enumerate(values.to_pylist()):
        vector = None if text is None or not text.strip() else _vector_of(text)
        wrong[row] = vector is None and bool(text and text.strip())
        found.append(vector)
    return Cast(pa.array(found, pa.list_(pa.float32())), Fault.where(wrong, "wrong_type", column))


def _vector_of(text: str) -> list[float] | None:
    """Return the numbers of a JSON list; None if it is none."""
    try:
        found = json.loads(text)
        numbers = [float("nan") if cell is None else float(cell) for cell in found]
    except (ValueError, TypeError, RecursionError, OverflowError):
        return None
    return numbers if isinstance(found, list) else None


_CASTS: Final[dict[Kind, Callable[[pa.Array, Column], Cast | None]]] = {
    "id": _to_id,
    "number": _to_number,
    "label": _to_label,
    "boolean": _to_boolean,
    "text": _to_text,
    "labels": _to_labels,
    "vector": _to_vector,
}


def _numbers(values: pa.Array, column: Column) -> tuple[pa.Array, tuple[Fault, ...]] | None:
    kind = values.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return values.cast(pa.float64(), safe=False), ()
    if pa.types.is_boolean(kind):
        return values.cast(pa.uint8()).cast(pa.float64()), ()
    if not _is_text(kind):
        return None
    trimmed = pc.utf8_trim_whitespace(values)
    trimmed = pc.if_else(pc.fill_null(pc.equal(trimmed, ""), True), None, trimmed)
    trimmed = _with_points(trimmed, column.notation)
    legal = pc.match_substring_regex(trimmed, _NUMBER)
    if not (all_legal := pc.all(legal).as_py() is not False):
        legal = pc.or_(legal, pc.match_substring_regex(trimmed, _NOT_FINITE))
    wrong = np.zeros(len(values), dtype=bool) if all_legal else ~mask_of(legal.fill_null(True))
    kept = trimmed if all_legal else pc.if_else(pa.array(wrong), None, trimmed)
    expected = column.expected + _hint(trimmed, wrong, column) if wrong.any() else None
    return kept.cast(pa.float64()), Fault.where(wrong, "wrong_type", column, expected)


def _with_points(text: pa.Array, notation: Notation) -> pa.Array:
    """Write numbers with a decimal point and nothing between thousands."""
    decimal, thousands = notation.decimal, notation.thousands
    if thousands:
        sign, point = re.escape(thousands), re.escape(decimal)
        grouped = pc.match_substring_regex(text, rf"^[+-]?\d{{1,3}}({sign}\d{{3}})+({point}\d*)?$")
        text = pc.if_else(grouped, pc.replace_substring(text, thousands, ""), text)
    if decimal != ".":
        # A point that is no sign of thousands stands in no number.
        text = pc.replace_substring(pc.replace_substring(text, ".", "?"), decimal, ".")
    return text


def _hint(text: pa.Array, wrong: Mask, column: Column) -> str:
    """Name the key that would make cells at fault readable; "" for none."""
    found = text.filter(pa.array(wrong))
    if (
        column.notation.decimal == "."
        and pc.any(pc.match_substring_regex(found, _OTHER_NUMBER)).as_py()
    ):
        return _SAY_DECIMAL
    return _SAY_LABELS if column.kind == "label" else ""


def _unsigned_zero(numbers: pa.Array, floats: NDArray[np.float64]) -> pa.Array:
    # -0.0 equals 0.0 everywhere but in a hash of its bits.
    if not (np.signbit(floats) & (floats == 0)).any():
        return numbers
    return pc.add(numbers, 0.0)


def _clean_text(values: pa.Array, column: Column) -> Cast:
    if _is_plain(values):
        return Cast(values)
    values = _valid_utf8(values, column)
    wrong = mask_of(pc.match_substring(values, "\0").fill_null(False))
    if (pc.max(pc.binary_length(values)).as_py() or 0) > MAX_TEXT:
        wrong |= mask_of(pc.greater(pc.binary_length(values), MAX_TEXT).fill_null(False))
    if wrong.any():
        values = pc.if_else(pa.array(wrong), None, values)
    # Not of ids: two that differ are two, and whoever asks for one has it as it was written.
    if column.kind == "text" and pc.all(pc.string_is_ascii(values)).as_py() is False:
        values = pc.utf8_normalize(values, form="NFC")
    return Cast(values, Fault.where(wrong, "wrong_type", column))


def _is_plain(values: pa.Array) -> bool:
    """Say whether texts are of ASCII, without a null character, and of usual length.

    Most columns are, and then this is one look at their bytes instead of five at their cells.
    """
    _, offsets, data = values.buffers()
    if offsets is None or data is None:
        return False
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    cells = np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]
    is_usual = not cells.size or (cells.min() > 0 and cells.max() < 128)
    return bool(is_usual and np.diff(ends).max(initial=0) <= MAX_TEXT)


def _valid_utf8(values: pa.Array, column: Column) -> pa.Array:
    try:
        values.validate(full=True)
    except pa.ArrowInvalid:
        cells = [_decoded(cell) for cell in values.cast(pa.binary()).to_pylist()]
        return pa.array(cells, pa.string())
    return values


def _decoded(cell: bytes | None) -> str | None:
    try:
        return None if cell is None else cell.decode("utf-8")
    except UnicodeDecodeError:
        return "\0"


def _float_text(values: pa.Array) -> pa.Array:
    """Write floats as text, whole ones without a point: beside a null pandas makes 1 a 1.0."""
    floats = values.to_numpy(zero_copy_only=False)
    present = mask_of(values.is_valid()) & ~np.isnan(floats)
    whole = present & (np.abs(floats) < _EXACT_INTEGERS) & (floats == np.floor(floats))
    integers = pa.array(np.where(whole, floats, 0).astype(np.int64)).cast(pa.string())
    text = pc.if_else(pa.array(whole), integers, values.cast(pa.string()))
    return pc.if_else(pa.array(present), text, None)


def _is_text(kind: pa.DataType) -> bool:
    return kind in (pa.string(), pa.large_string(), pa.string_view())


def _wrong_type(place: str, column: Column, found: object) -> Exception:
    message = f"column {shown(column.source)} is {found}; expected {column.expected}."
    return refused(place, "wrong_column_type", message)


def to_time(
    values: pa.Array, column: Column, time: TimeSpec
) -> tuple[pa.Array, tuple[Fault, ...]] | None:
    """Read times as UTC microseconds; finer digits are cut off.

    Returns:
        The times and the faults of the cells that are none, or None if the column's type is
        neither text, a date nor a timestamp. A whole number is no time: its unit is unknown.
    """
    kind = values.type
    if pa.types.is_string(kind):
        return _from_text(values, column, time)
    if pa.types.is_date(kind):
        return _localized(values.cast(_NAIVE_MICROSECONDS), column, time)
    if not pa.types.is_timestamp(kind):
        return None
    values, faults = _in_range(values, column)
    if kind.tz is not None:
        return values.cast(UTC_MICROSECONDS, safe=False), faults
    found, more = _localized(values.cast(_NAIVE_MICROSECONDS, safe=False), column, time)
    return found, faults + more


def _from_text(
    values: pa.Array, column: Column, time: TimeSpec
) -> tuple[pa.Array, tuple[Fault, ...]]:
    text = pc.utf8_trim_whitespace(values)
    text = pc.if_else(pc.fill_null(pc.equal(text, ""), True), None, text)
    text = pc.utf8_upper(_in_formats(text, column.notation.times))
    present = mask_of(text.is_valid())
    is_aware = mask_of(pc.match_substring_regex(text, _AWARE_TEXT).fill_null(False))
    aware = _parsed(text, is_aware, UTC_MICROSECONDS)
    if is_aware[present].all():
        return aware, Fault.where(present & ~mask_of(aware.is_valid()), "wrong_type", column)
    is_naive = mask_of(pc.match_substring_regex(text, _NAIVE_TEXT).fill_null(False))
    plain = _parsed(text, is_naive, _NAIVE_MICROSECONDS)
    local, faults = _localized(plain, column, time)
    read = mask_of(aware.is_valid()) | mask_of(plain.is_valid())
    unread = present & ~read
    is_dated = unread.any() and not column.notation.times and pc.any(
        pc.match_substring_regex(text.filter(pa.array(unread)), _OTHER_TIME)
    ).as_py()  # fmt: skip
    expected = column.expected + _SAY_FORMAT if is_dated else None
    return pc.coalesce(aware, local), Fault.where(unread, "wrong_type", column, expected) + faults


def _in_formats(text: pa.Array, formats: Sequence[str]) -> pa.Array:
    """Write texts of declared formats as ISO 8601, and spoil what is neither one nor has an offset.

    So that no text of another format is read as if it were ISO 8601: 2026-02-03 may be in March.
    """
    if not formats:
        return text
    upper = pc.utf8_upper(text)
    is_aware = pc.match_substring_regex(upper, _AWARE_TEXT)
    is_iso = pc.or_(is_aware, pc.match_substring_regex(upper, _NAIVE_TEXT))
    found = pa.nulls(len(text), pa.string())
    for written in formats:
        more = pc.if_else(is_iso, text, None) if written == ISO8601 else _as_iso(text, written)
        found = pc.coalesce(found, more)
    return pc.coalesce(found, pc.if_else(is_aware, text, pc.if_else(text.is_valid(), "?", None)))


def _as_iso(text: pa.Array, written: str) -> pa.Array:
    """Return the texts of a format as ISO 8601, null for others."""
    series = pd.Series(text.to_numpy(zero_copy_only=False), dtype=object)
    has_offset = "%z" in written
    times = pd.to_datetime(series, format=written, errors="coerce", utc=has_offset)
    moments = pa.array(times.dt.tz_localize(None).astype("datetime64[us]"), _NAIVE_MICROSECONDS)
    iso = pc.strftime(moments, format="%Y-%m-%dT%H:%M:%S")
    return pc.binary_join_element_wise(iso, "Z", "") if has_offset else iso


def _parsed(text: pa.Array, chosen: Mask, kind: pa.DataType) -> pa.Array:
    if not chosen.any():
        return pa.nulls(len(text), kind)
    kept = text if chosen.all() else pc.if_else(pa.array(chosen), text, None)
    # More than six digits would make pandas count nanoseconds, which end in the year 2262.
    kept = pc.replace_substring_regex(kept, r"(\.\d{6})\d+", r"\1")
    series = pd.Series(kept.to_numpy(zero_copy_only=False), dtype=object)
    times = pd.to_datetime(series, format="ISO8601", utc=True, errors="coerce")
    return _bounded(pa.array(times.astype("datetime64[us, UTC]"), UTC_MICROSECONDS)).cast(kind)


def _bounded(times: pa.Array) -> pa.Array:
    moments = times.cast(_NAIVE_MICROSECONDS).to_numpy(zero_copy_only=False)
    outside = (moments < _FIRST) | (moments > _LAST)
    return pc.if_else(pa.array(outside), None, times) if outside.any() else times


def _in_range(values: pa.Array, column: Column) -> tuple[pa.Array, tuple[Fault, ...]]:
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    seconds = values.cast(pa.int64()).to_numpy(zero_copy_only=False) / per_second
    epoch = np.datetime64(0, "us")
    low, high = ((edge - epoch) / np.timedelta64(1, "s") for edge in (_FIRST, _LAST))
    outside = mask_of(values.is_valid()) & ((seconds < low) | (seconds > high))
    if not outside.any():
        return values, ()
    kept = pc.if_else(pa.array(outside), None, values)
    return kept, Fault.where(outside, "wrong_type", column, "a time in the years 1 to 9998")


def _localized(
    plain: pa.Array, column: Column, time: TimeSpec
) -> tuple[pa.Array, tuple[Fault, ...]]:
    present = mask_of(plain.is_valid())
    if time.naive == "refuse" or not present.any():
        nothing = pa.nulls(len(plain), UTC_MICROSECONDS)
        return nothing, Fault.where(present, "naive_time", column, "an offset such as +00:00")
    earliest, latest = (
        pc.assume_timezone(plain, time.zone, ambiguous=side, nonexistent=side).cast(
            UTC_MICROSECONDS
        )
        for side in ("earliest", "latest")
    )
    odd = present & mask_of(pc.not_equal(earliest, latest).fill_null(False))
    expected = f"a time that occurs once in {time.zone}"
    kept = pc.if_else(pa.array(odd), None, earliest) if odd.any() else earliest
    return kept, Fault.where(odd, "ambiguous_time", column, expected)


def from_epoch(values: pa.Array, unit: EpochUnit) -> pa.Array:
    """Turn numbers of a time column into UTC times; finer digits than microseconds are cut off.

    Args:
        values: A column as it was written: text, or any Arrow type.
        unit: The unit of its numbers.

    Returns:
        For numbers, timestamps; numbers out of range as text, which no rule reads as a time. For
        text, the same text with its numbers written as ISO 8601. Other types are left as they
        are, so that a file may also hold ready-made times.
    """
    kind = values.type
    if pa.types.is_integer(kind):
        return _checked(_scaled(values.cast(pa.int64()), unit), values)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _checked(_rounded(values.cast(pa.float64(), safe=False), unit), values)
    if pa.types.is_string(kind):
        return _epoch_from_text(values, unit)
    return values


def _scaled(whole: pa.Array, unit: EpochUnit) -> pa.Array:
    """Return whole numbers of a unit as whole microseconds; null if they are no time."""
    numbers = pc.fill_null(whole, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    per_second = PER_SECOND[unit]
    if per_second > 10**6:
        micros = numbers // (per_second // 10**6)
        fits = np.ones(len(numbers), dtype=bool)
    else:
        factor = 10**6 // per_second
        fits = (numbers >= _FIRST_MICROSECOND // factor) & (numbers <= _LAST_MICROSECOND // factor)
        micros = np.where(fits, numbers, 0) * factor
    fits &= (micros >= _FIRST_MICROSECOND) & (micros <= _LAST_MICROSECOND)
    return pa.array(micros, pa.int64(), mask=~fits | ~mask_of(whole.is_valid()))


def _rounded(floats: pa.Array, unit: EpochUnit) -> pa.Array:
    micros = pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False) * 1e6 / PER_SECOND[unit]
    fits = (micros >= _FIRST_MICROSECOND) & (micros <= _LAST_MICROSECOND)
    return pa.array(np.where(fits, np.round(micros), 0).astype(np.int64), mask=~fits)


def _checked(micros: pa.Array, values: pa.Array) -> pa.Array:
    odd = pc.and_(micros.is_null(), values.is_valid())
    if pc.any(odd).as_py():
        written = pc.if_else(odd, values.cast(pa.string()), None)
        return pc.coalesce(_iso(micros), written)
    return micros.cast(UTC_MICROSECONDS)


def _epoch_from_text(text: pa.Array, unit: EpochUnit) -> pa.Array:
    is_whole = pc.match_substring_regex(text, _WHOLE)
    is_number = pc.match_substring_regex(text, _EPOCH_NUMBER)
    trimmed = pc.utf8_trim_whitespace(text)
    whole = pc.if_else(is_whole, pc.utf8_ltrim(trimmed, "+"), None).cast(pa.int64())
    fraction = pc.if_else(pc.and_not(is_number, is_whole), trimmed, None).cast(pa.float64())
    return _checked(pc.coalesce(_scaled(whole, unit), _rounded(fraction, unit)), text)


def _iso(micros: pa.Array) -> pa.Array:
    times = micros.cast(pa.timestamp("us"))
    return (
        pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ") if len(times) else times.cast(pa.string())
    )
