"""Windows as Dagster partitions: the same keys, the same edges."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import dagster as dg

from mlmon_dagster.spec import ModelSpec, Window, window_from_key

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def partitions_of(spec: ModelSpec) -> dg.TimeWindowPartitionsDefinition:
    """Return the partitions of a model: one per window from its start to its end, if it has one."""
    time = spec.time
    start = dt.datetime.combine(time.start, dt.time())
    end = dt.datetime.combine(time.end, dt.time()) if time.end else None
    if time.granularity == "hour":
        return dg.HourlyPartitionsDefinition(start, end_date=end, timezone=time.zone)
    if time.granularity == "day":
        return dg.DailyPartitionsDefinition(start, end_date=end, timezone=time.zone)
    if time.granularity == "week":
        return dg.WeeklyPartitionsDefinition(start, end_date=end, timezone=time.zone, day_offset=1)
    return dg.MonthlyPartitionsDefinition(start, end_date=end, timezone=time.zone)


def windows_of(spec: ModelSpec, keys: Sequence[str]) -> list[Window]:
    """Turn the partition keys of a run into windows, oldest first."""
    return sorted((window_from_key(spec.time, key) for key in keys), key=lambda w: w.start)


def range_tags(windows: Sequence[Window]) -> dict[str, str]:
    """Return the run tags that ask Dagster for one run over a contiguous range of windows.

    Without windows, for assets that are not partitioned, there are none.
    """
    if not windows:
        return {}
    return {RANGE_START: windows[0].key, RANGE_END: windows[-1].key}
