"""The assets of one model as a table: names, order, what each is and which checks it carries."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from zoneinfo import ZoneInfo

import dagster as dg

from mlmon_dagster.spec import (
    ModelSpec,
    Window,
    complete_windows,
    first_window,
    production_end,
    window_from_key,
)


def asset_key(spec: ModelSpec, name: str) -> dg.AssetKey:
    """Return the key of a model's asset: the model's name, then the asset's."""
    return dg.AssetKey([spec.model, name])


def keys_of(spec: ModelSpec, names: tuple[str, ...]) -> list[dg.AssetKey]:
    """Return the keys of several assets of a model."""
    return [asset_key(spec, name) for name in names]


RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def partitions_of(spec: ModelSpec) -> dg.PartitionsDefinition:
    """Return the partitions of a model: one per window from its start to its end, if it has one.

    The windows of a model that ends are listed one by one: of time windows the UI plots the newest
    up to today, and so nothing of a model that ended long ago.
    """
    time = spec.time
    end = production_end(time)
    if end is not None:
        return dg.StaticPartitionsDefinition([w.key for w in complete_windows(time, end)])
    first = first_window(time).start.astimezone(ZoneInfo(time.zone))
    start = dt.datetime.combine(first.date(), dt.time())
    if time.granularity == "hour":
        return dg.HourlyPartitionsDefinition(start, timezone=time.zone)
    if time.granularity == "day":
        return dg.DailyPartitionsDefinition(start, timezone=time.zone)
    if time.granularity == "week":
        return dg.WeeklyPartitionsDefinition(start, timezone=time.zone, day_offset=1)
    return dg.MonthlyPartitionsDefinition(start, timezone=time.zone)


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
