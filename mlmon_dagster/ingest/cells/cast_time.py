"""Read times: with an offset, or in the model's zone where the spec allows it."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.faults import Fault, Mask, mask_of
from mlmon_dagster.spec import TimeSpec

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
    text = pc.utf8_upper(pc.utf8_trim_whitespace(values))
    text = pc.if_else(pc.fill_null(pc.equal(text, ""), True), None, text)
    present = mask_of(text.is_valid())
    is_aware = mask_of(pc.match_substring_regex(text, _AWARE_TEXT).fill_null(False))
    aware = _parsed(text, is_aware, UTC_MICROSECONDS)
    if is_aware[present].all():
        return aware, Fault.where(present & ~mask_of(aware.is_valid()), "wrong_type", column)
    is_naive = mask_of(pc.match_substring_regex(text, _NAIVE_TEXT).fill_null(False))
    plain = _parsed(text, is_naive, _NAIVE_MICROSECONDS)
    local, faults = _localized(plain, column, time)
    read = mask_of(aware.is_valid()) | mask_of(plain.is_valid())
    wrong = Fault.where(present & ~read, "wrong_type", column)
    return pc.coalesce(aware, local), wrong + faults


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
