"""What a baseline says of the calendar: columns that follow from it, seasons that it may miss."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.drift.between_windows import MIN_WINDOWS
from mlmon_dagster.metrics.statistics import ColumnStatistics, select
from mlmon_dagster.spec.names import ALL

YEAR = pd.Timedelta(days=300)  # a baseline of so much has met every season
_KEYS = ("day_of_week", "month", "day", "hour", "quarter")
_FAR = 0.5  # of the rows' spread: how far days lie apart that may have a season


def follows_from_window(stats: ColumnStatistics) -> bool:
    """Say whether a column's value is given by when a window is: the weekday of a day, the month.

    Every window has one value of it, not all have the same, and windows that share a weekday (or
    month, day of the month, hour, quarter) share the value. Such a column cannot drift.

    Args:
        stats: A numeric or categorical column; its cells are the baseline's windows.

    Returns:
        False with fewer than 14 windows that have values, or if no two share such a place.
    """
    mine = _whole(stats)
    mine = select(mine, mine.counts.sum(axis=1) > 0)
    if stats.binning.kind not in ("numeric", "categorical") or len(mine) < MIN_WINDOWS:
        return False
    codes = mine.counts.argmax(axis=1)
    if (mine.counts.max(axis=1) < mine.counts.sum(axis=1)).any() or len(np.unique(codes)) < 2:
        return False
    starts = pd.DatetimeIndex(mine.cells["window_start"])
    steps = np.diff(np.unique(starts.asi8))
    middle = (
        starts + pd.Timedelta(int(steps.min()) // 2, unit=starts.unit) if len(steps) else starts
    )
    return any(_decides(np.asarray(getattr(middle, key)), codes) for key in _KEYS)


def _decides(places: NDArray[np.int64], codes: NDArray[np.int64]) -> bool:
    """Say whether each of several places, which come again, has one code."""
    both = len({*zip(places.tolist(), codes.tolist(), strict=True)})
    return len(np.unique(places)) == both and 1 < both <= len(codes) / 2


def may_miss_a_season(columns: Mapping[str, ColumnStatistics]) -> list[str]:
    """Return the numeric columns that may look otherwise in a season that the baseline misses.

    It spans less than 300 days, and its windows' means lie apart by more than half of the spread
    of all rows: one day's weather, demand or prices are not another one's.

    Args:
        columns: Columns; their cells are the baseline's windows, at least 14 of them.
    """
    return [name for name, stats in columns.items() if _is_seasonal(_whole(stats))]


def _is_seasonal(stats: ColumnStatistics) -> bool:
    n = stats.counts.sum(axis=1)
    starts = stats.cells["window_start"][n > 0]
    if stats.binning.kind != "numeric" or len(starts) < MIN_WINDOWS:
        return False
    if starts.max() - starts.min() >= YEAR or follows_from_window(stats):
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        means = stats.total[n > 0] / n[n > 0]
        spread = stats.total_sq.sum() / n.sum() - (stats.total.sum() / n.sum()) ** 2
        return bool(np.var(means) > _FAR**2 * spread)


def _whole(stats: ColumnStatistics) -> ColumnStatistics:
    return select(stats, (stats.cells["slice_key"] == ALL).to_numpy())
