"""Give the cells of a column their declared type; every cell is kept or reported.

Nothing is inferred: the target type comes from the spec alone, and a cell that cannot be read
as that type becomes null and a fault of its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.ingest.cells.cast_time import to_time
from mlmon_dagster.ingest.declared_columns import EXPECTED, Column, Kind
from mlmon_dagster.ingest.faults import Fault, Mask, mask_of
from mlmon_dagster.ingest.raw import refused
from mlmon_dagster.ingest.reasons import shown
from mlmon_dagster.spec import TimeSpec

ARROW_TYPES: Final[dict[Kind, pa.DataType]] = {
    "id": pa.string(),
    "time": pa.timestamp("us", "UTC"),
    "number": pa.float64(),
    "label": pa.float64(),  # narrowed to int64 once the rows that are not 0 or 1 are out
    "boolean": pa.bool_(),
    "text": pa.string(),
}
MAX_TEXT = 1 << 20
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_NOT_FINITE = r"(?i)^[+-]?(nan|inf|infinity)$"
_LOGICAL: Final = {"true": 1.0, "false": 0.0}
_EXACT_INTEGERS = 2.0**53


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
    if _is_text(values.type):
        folded = pc.utf8_lower(values)
        for word, number in _LOGICAL.items():
            values = pc.if_else(pc.fill_null(pc.equal(folded, word), False), str(number), values)
    cast = _to_number(values, column)
    if cast is None or not cast.not_finite:
        return cast
    # A NaN label is how pandas writes a missing one; an infinite one is wrong.
    wrong = np.zeros(len(values), dtype=bool)
    for kind, mask in cast.not_finite.items():
        wrong |= mask if kind != "nan" else False
    return Cast(cast.values, cast.faults + Fault.where(wrong, "wrong_type", column))


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
        return Cast(pc.if_else(pc.equal(cast.values, ""), None, cast.values), cast.faults)
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


_CASTS: Final[dict[Kind, Callable[[pa.Array, Column], Cast | None]]] = {
    "id": _to_id,
    "number": _to_number,
    "label": _to_label,
    "boolean": _to_boolean,
    "text": _to_text,
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
    legal = pc.match_substring_regex(trimmed, _NUMBER)
    if not (all_legal := pc.all(legal).as_py() is not False):
        legal = pc.or_(legal, pc.match_substring_regex(trimmed, _NOT_FINITE))
    wrong = np.zeros(len(values), dtype=bool) if all_legal else ~mask_of(legal.fill_null(True))
    kept = trimmed if all_legal else pc.if_else(pa.array(wrong), None, trimmed)
    return kept.cast(pa.float64()), Fault.where(wrong, "wrong_type", column)


def _unsigned_zero(numbers: pa.Array, floats: NDArray[np.float64]) -> pa.Array:
    # -0.0 equals 0.0 everywhere but in a hash of its bits.
    if not (np.signbit(floats) & (floats == 0)).any():
        return numbers
    return pc.add(numbers, 0.0)


def _clean_text(values: pa.Array, column: Column) -> Cast:
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


def _wrong_type(place: str, column: Column, found: Any) -> Exception:
    message = f"column {shown(column.source)} is {found}; expected {EXPECTED[column.kind]}."
    return refused(place, "wrong_column_type", message)
