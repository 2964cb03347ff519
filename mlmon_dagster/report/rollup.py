"""Metrics of longer windows, merged from the stored profiles; raw rows are not read again."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics, merge
from mlmon_dagster.profiles import load_baseline, load_profiles
from mlmon_dagster.profiles.estimates import estimate, estimate_columns
from mlmon_dagster.profiles.measures import MEASURES, columns_of, measure
from mlmon_dagster.spec import Granularity, ModelSpec, granularity_windows
from mlmon_dagster.store import Store

if TYPE_CHECKING:
    import pandas as pd

LENGTHS: tuple[Granularity, ...] = ("hour", "day", "week", "month")


def rolled_up_metrics(
    store: Store,
    spec: ModelSpec,
    granularity: Granularity,
    start: dt.datetime | None = None,
    end: dt.datetime | None = None,
) -> pd.DataFrame:
    """Return the MetricFrame of all families for windows of another length.

    Args:
        store: The store.
        spec: The model.
        granularity: Length of the windows, not shorter than the model's own.
        start: Profiles of windows that start at or after this moment.
        end: Profiles of windows that start before this moment.

    Raises:
        ConfigError: If the windows asked for are shorter than the profiles, or do not hold whole
            ones (a week that is cut by the end of a month is no part of either month).
    """
    from mlmon_dagster.metrics.frames import concat_frames

    _refuse_finer(spec, granularity)
    baseline = load_baseline(store, spec)
    frames = []
    for family in MEASURES:
        names = columns_of(spec, family)
        profiles = load_profiles(
            store, spec, start=start, end=end, dataset="production", columns=names
        )
        coarse = {c: coarsen(spec, stats, granularity) for c, stats in profiles.items()}
        if coarse:
            frames.append(measure(spec, family, coarse, baseline.windows if baseline else None))
    if spec.task in ("binary_classification", "multiclass_classification"):
        profiles = load_profiles(
            store, spec, start=start, end=end, dataset="production",
            columns=estimate_columns(spec), slices=[()],
        )  # fmt: skip
        coarse = {c: coarsen(spec, stats, granularity) for c, stats in profiles.items()}
        if coarse:
            frames.append(estimate(store, spec, coarse, baseline))
    return concat_frames(frames)


def _refuse_finer(spec: ModelSpec, granularity: Granularity) -> None:
    own = spec.time.granularity
    if LENGTHS.index(granularity) < LENGTHS.index(own) or (
        own == "week" and granularity == "month"
    ):
        raise ConfigError(
            f"Model {spec.model!r} has {own} windows; they cannot be merged to {granularity}s. "
            f"Ask for {own} or a longer window that holds whole ones."
        )


def coarsen(spec: ModelSpec, stats: ColumnStatistics, granularity: Granularity) -> ColumnStatistics:
    """Merge the cells of a column to longer windows, which hold whole ones of the model's own."""
    import numpy as np
    import pandas as pd

    if not len(stats):
        return stats
    starts = stats.cells["window_start"]
    windows = granularity_windows(
        spec.time,
        granularity,
        starts.min().to_pydatetime(),
        starts.max().to_pydatetime() + dt.timedelta(seconds=1),
    )
    edges = pd.DatetimeIndex([w.start for w in windows]).as_unit("us")
    place = (
        np.searchsorted(edges.asi8, pd.DatetimeIndex(starts).as_unit("us").asi8, side="right") - 1
    )
    cells = stats.cells.assign(window_start=pd.Series(edges[place], index=stats.cells.index))
    return merge(replace(stats, cells=cells), CELL_KEYS)
