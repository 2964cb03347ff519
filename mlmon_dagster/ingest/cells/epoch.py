"""Read times that are numbers since 1970, in the unit that the spec declares."""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.ingest.faults import mask_of
from mlmon_dagster.spec import EpochUnit
from mlmon_dagster.spec.sources import PER_SECOND

_MICROSECONDS: Final = pa.timestamp("us", "UTC")
_NUMBER = r"^\s*[+-]?\d{1,18}(\.\d*)?([eE][+]?\d{1,2})?\s*$"
_WHOLE = r"^\s*[+-]?\d{1,18}\s*$"
# Times of the years 1 to 9998, in microseconds.
_FIRST, _LAST = -62_134_905_600_000_000, 253_339_142_400_000_000


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
        return _from_text(values, unit)
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
        fits = (numbers >= _FIRST // factor) & (numbers <= _LAST // factor)
        micros = np.where(fits, numbers, 0) * factor
    fits &= (micros >= _FIRST) & (micros <= _LAST)
    return pa.array(micros, pa.int64(), mask=~fits | ~mask_of(whole.is_valid()))


def _rounded(floats: pa.Array, unit: EpochUnit) -> pa.Array:
    micros = pc.fill_null(floats, np.nan).to_numpy(zero_copy_only=False) * 1e6 / PER_SECOND[unit]
    fits = (micros >= _FIRST) & (micros <= _LAST)
    return pa.array(np.where(fits, np.round(micros), 0).astype(np.int64), mask=~fits)


def _checked(micros: pa.Array, values: pa.Array) -> pa.Array:
    odd = pc.and_(micros.is_null(), values.is_valid())
    if pc.any(odd).as_py():
        written = pc.if_else(odd, values.cast(pa.string()), None)
        return pc.coalesce(_iso(micros), written)
    return micros.cast(_MICROSECONDS)


def _from_text(text: pa.Array, unit: EpochUnit) -> pa.Array:
    is_whole = pc.match_substring_regex(text, _WHOLE)
    is_number = pc.match_substring_regex(text, _NUMBER)
    trimmed = pc.utf8_trim_whitespace(text)
    whole = pc.if_else(is_whole, pc.utf8_ltrim(trimmed, "+"), None).cast(pa.int64())
    fraction = pc.if_else(pc.and_not(is_number, is_whole), trimmed, None).cast(pa.float64())
    micros = pc.coalesce(_scaled(whole, unit), _rounded(fraction, unit))
    return pc.coalesce(_iso(micros), text)


def _iso(micros: pa.Array) -> pa.Array:
    times = micros.cast(pa.timestamp("us"))
    return (
        pc.strftime(times, format="%Y-%m-%dT%H:%M:%SZ") if len(times) else times.cast(pa.string())
    )
