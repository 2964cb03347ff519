"""A run's windows in parts that share a baseline, with what steps read of them, looked up once."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.work import Work
from mlmon_dagster.spec import Window
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.store import baselines
from mlmon_dagster.store.state.window_state import WindowInputs

if TYPE_CHECKING:
    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.profiles.in_force import BaselineInForce

_WINDOWS_AT_ONCE = 32  # a year of them, with slices, is gigabytes of mostly empty bins


@dataclass(frozen=True)
class Part:
    """Windows of a run that share a baseline.

    Attributes:
        work: The windows.
        in_force: Their baseline: its bins, its own rows, and the profiles that its bins made.
        states: The state of windows, of the whole run; one that no event touched has none.
    """

    work: Work
    in_force: BaselineInForce
    states: Mapping[dt.datetime, WindowInputs]

    def only(self, windows: Sequence[Window]) -> Part:
        """Return some of its windows, with the very same baseline."""
        return replace(self, work=replace(self.work, windows=tuple(windows)))

    def in_runs(self) -> Iterator[Part]:
        """Yield it in runs of so many windows that their bins fit into memory."""
        windows = self.work.windows
        for first in range(0, len(windows), _WINDOWS_AT_ONCE):
            yield self.only(windows[first : first + _WINDOWS_AT_ONCE])

    def profiles(
        self,
        columns: Sequence[str],
        *,
        dataset: str | None = None,
        slices: Sequence[SliceKey] | None = None,
    ) -> dict[str, ColumnStatistics]:
        """Read the stored profiles of its windows, as `profiles.load_profiles` does."""
        return self.in_force.profiles(
            start=self.work.start,
            end=self.work.end,
            dataset=dataset,
            columns=columns,
            slices=slices,
        )

    def whole(self, columns: Sequence[str]) -> dict[str, ColumnStatistics]:
        """Read the stored profiles of production as a whole and of no slice."""
        return self.profiles(columns, dataset=PRODUCTION, slices=[()])


def parts_of(work: Work, states: Mapping[dt.datetime, WindowInputs] | None = None) -> list[Part]:
    """Split a run's windows where another baseline comes into force.

    Args:
        work: The windows.
        states: Their states, if whoever asks has read them.
    """
    from mlmon_dagster.profiles.in_force import stored_in_force

    if not work.windows:
        return []
    store, spec = work.project.store, work.spec
    force = baselines.baselines_in_force(store.state, spec)
    known = work.states() if states is None else states
    return [
        Part(
            replace(work, windows=tuple(windows)), stored_in_force(store, spec, baseline_id), known
        )
        for baseline_id, windows in groupby(work.windows, key=lambda w: force.at(w.start))
    ]
