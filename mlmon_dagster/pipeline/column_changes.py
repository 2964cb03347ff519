"""What changed in the columns of a run's windows; worked out where a verdict asks for it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.baseline_choice import comparisons
from mlmon_dagster.pipeline.parts import Part
from mlmon_dagster.spec.names import ALL

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.novelty import ColumnChange
    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.profiles import Baseline

Baselines = Mapping[dt.datetime, "Baseline | None"]  # by the start of a window
_OUTPUTS = ("score", "prediction", "actual")
_BEHIND = {"prediction": ("prediction",), "actual": ("actual", "prediction")}


class ColumnChanges:
    """Column and window -> what changed in it.

    Profiles are read where a column fails, once for all, and none where nothing fails.

    Args:
        part: The windows.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        self._known: dict[str, _Sides] = {}
        self._profiles: dict[str, ColumnStatistics] | None = None
        self._fixed: Baselines | None = None  # the same for all columns, unless it moves on

    def __call__(self, column: str, start: pd.Timestamp) -> ColumnChange | None:
        """Return what changed in a column in the window that starts then; None if unknown."""
        from mlmon_dagster.metrics.drift.novelty import column_change

        if column not in self._known:
            self._known[column] = _Sides(self._whole, column, self._baselines(column))
        sides = self._known[column]
        now, then = sides.window(start), sides.baseline(start.to_pydatetime())
        if now is None or then is None or now.binning.binning_id != then.binning.binning_id:
            return None
        return column_change(now, then)

    @property
    def _whole(self) -> dict[str, ColumnStatistics]:
        if self._profiles is None:
            columns = [*self._part.work.spec.features, *_OUTPUTS]
            self._profiles = self._part.whole(columns)
        return self._profiles

    def _baselines(self, column: str) -> Baselines:
        if self._fixed is not None:
            return self._fixed
        found = list(comparisons(self._part, "drift", profiled(column)))
        baselines = {w.start: one.baseline for one in found for w in one.work.windows}
        if not any(one.mark for one in found):
            self._fixed = baselines
        return baselines


def profiled(column: str) -> Sequence[str]:
    """Return the profiled columns that a column that drifts is counted in."""
    return _BEHIND.get(column, (column,))


class _Sides:
    """One column of the windows, and of what each of them is compared with."""

    def __init__(
        self, windows: Mapping[str, ColumnStatistics], column: str, baselines: Baselines
    ) -> None:
        self._column, self._baselines = column, baselines
        self._windows = self._of(windows)
        self._pooled: dict[int, ColumnStatistics | None] = {}  # by the identity of the baseline

    def window(self, start: pd.Timestamp) -> ColumnStatistics | None:
        """Return the column of one window as one cell."""
        from mlmon_dagster.metrics.statistics import select

        if self._windows is None:
            return None
        mine = (self._windows.cells["window_start"] == start).to_numpy()
        return _as_one(select(self._windows, mine))

    def baseline(self, start: dt.datetime) -> ColumnStatistics | None:
        """Return what a window is compared with as one cell."""
        found = self._baselines.get(start)
        if found is None:
            return None
        if id(found) not in self._pooled:
            stats = self._of(found.windows)
            self._pooled[id(found)] = None if stats is None else _as_one(stats)
        return self._pooled[id(found)]

    def _of(self, profiles: Mapping[str, ColumnStatistics]) -> ColumnStatistics | None:
        from mlmon_dagster.metrics.drift.columns import with_outputs

        names = [name for name in profiled(self._column) if name in profiles]
        return with_outputs({name: profiles[name] for name in names}).get(self._column)


def _as_one(stats: ColumnStatistics) -> ColumnStatistics | None:
    """Add up the cells of slice `all`; None if there are none."""
    from mlmon_dagster.metrics.statistics import merge, select

    whole = select(stats, (stats.cells["slice_key"] == ALL).to_numpy())
    return merge(whole, ()) if len(whole) else None
