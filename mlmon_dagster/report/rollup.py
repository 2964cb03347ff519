"""Metrics of longer windows, merged from the stored profiles; raw rows are not read again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.metrics.statistics import CELL_KEYS, ColumnStatistics, merge, select
from mlmon_dagster.profiles import load_baseline, load_profiles
from mlmon_dagster.profiles.measure.estimates import estimate, estimate_columns
from mlmon_dagster.profiles.measure.measures import MEASURES, columns_of, measure
from mlmon_dagster.profiles.measure.model_versions import all_over_versions
from mlmon_dagster.spec import Granularity, ModelSpec, granularity_windows
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store import Store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

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
            store, spec, start=start, end=end, dataset=PRODUCTION, columns=names
        )
        coarse = {c: coarsen(spec, stats, granularity) for c, stats in profiles.items()}
        if coarse:
            frame = measure(spec, family, coarse, baseline.windows if baseline else None)
            is_realized = family == "performance"
            frames.append(by_windows(spec, profiles, granularity, frame) if is_realized else frame)
    if spec.task in ("binary_classification", "multiclass_classification"):
        profiles = load_profiles(
            store, spec, start=start, end=end, dataset=PRODUCTION,
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


def by_windows(
    spec: ModelSpec,
    profiles: Mapping[str, ColumnStatistics],
    granularity: Granularity,
    frame: pd.DataFrame,
) -> pd.DataFrame:
    """Widen intervals of longer windows to what the windows in them stray.

    Of slice ``all``, and where a longer window holds enough of the model's own; others stay as they
    are, by rows (see `metrics.clusters`).

    Args:
        spec: The model.
        profiles: Of the model's own windows.
        granularity: Length of the windows of ``frame``.
        frame: MetricFrame of realized performance.

    Returns:
        ``frame``; `method_version` ends in ``:windows`` where that was looked at.
    """  # fmt: skip
    import numpy as np
    import pandas as pd

    from mlmon_dagster.metrics.clusters import SERIES, interval, standard_errors

    own = all_over_versions(
        {c: select(s, (s.cells["slice_key"] == ALL).to_numpy()) for c, s in profiles.items()}
    )
    starts = {c: _coarse_starts(spec, s.cells, granularity) for c, s in own.items() if len(s)}
    found = []
    for start in np.unique(np.concatenate(list(starts.values()))) if starts else []:
        part = {c: select(own[c], mine == start) for c, mine in starts.items()}
        errors = standard_errors(part, lambda cells: measure(spec, "performance", cells, None))
        found.append(errors.assign(window_start=pd.Timestamp(start, tz="UTC")).reset_index())
    if not found:
        return frame
    keys = ["window_start", *SERIES]
    known = frame.merge(pd.concat(found), on=keys, how="left")
    lower, upper = interval(known["value"], known["error"], known["n_windows"])
    counted = np.where(np.isfinite(upper - lower), ":windows", "")
    low, high = (
        frame["metric"].map({name: getattr(info, end) for name, info in METRICS.items()})
        for end in ("low", "high")
    )
    return frame.assign(
        lower=np.fmin(frame["lower"], np.maximum(lower, low)),
        upper=np.fmax(frame["upper"], np.minimum(upper, high)),
        method_version=frame["method_version"] + counted,
    )


def coarsen(spec: ModelSpec, stats: ColumnStatistics, granularity: Granularity) -> ColumnStatistics:
    """Merge the cells of a column to longer windows, which hold whole ones of the model's own."""
    import pandas as pd

    if not len(stats):
        return stats
    starts = pd.Series(_coarse_starts(spec, stats.cells, granularity), index=stats.cells.index)
    cells = stats.cells.assign(window_start=starts.dt.tz_localize("UTC"))
    return merge(replace(stats, cells=cells), CELL_KEYS)


def _coarse_starts(
    spec: ModelSpec, cells: pd.DataFrame, granularity: Granularity
) -> NDArray[np.datetime64]:
    """Return the start (UTC) of the longer window of each cell, of which there is one at least."""
    import numpy as np
    import pandas as pd

    starts = cells["window_start"]
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
    return np.asarray(edges.tz_localize(None).to_numpy()[place])
