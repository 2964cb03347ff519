"""What a step of a run works on: windows, in parts that share a baseline, and that baseline.

Every step takes the revision of its inputs from the step before it and records it with its own
result, so that the planner can tell what is out of date after any crash or partial run.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.spec.baseline import PRODUCTION, BaselineSpec
from mlmon_dagster.spec.declaration import SliceKey
from mlmon_dagster.spec.steps import steps_of
from mlmon_dagster.store import baselines
from mlmon_dagster.store.moments import note_commits
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.state.window_state import NO_BASELINE, StepMark, WindowInputs

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.profiles import Baseline
    from mlmon_dagster.profiles.in_force import BaselineInForce

Numbers = dict[str, object]
_WINDOWS_AT_ONCE = 32  # a year of them, with slices, is gigabytes of mostly empty bins


@dataclass(frozen=True)
class Work:
    """What one step of one run works on.

    Attributes:
        project: Where the state is.
        spec: The model.
        windows: The run's windows, oldest first; () for an asset without partitions.
        now: The moment the run goes by.
        run_id: Dagster's run.
        is_backfill: Whether a person asked for these windows. What nobody waited for is history
            then: its alerts are listed and not sent.
        is_planned: Whether the planner asked for them. A step then leaves out what it has nothing
            newer to compute from; a person who asks gets every window computed again.
    """

    project: Project
    spec: ModelSpec
    windows: tuple[Window, ...]
    now: dt.datetime
    run_id: str
    is_backfill: bool
    is_planned: bool = False

    @property
    def start(self) -> dt.datetime:
        """Start of the first window."""
        return self.windows[0].start

    @property
    def end(self) -> dt.datetime:
        """End of the last window."""
        return self.windows[-1].end

    def states(self) -> dict[dt.datetime, WindowInputs]:
        """Return the state of the run's windows; one that no event touched has none."""
        return window_state.load(self.project.store.state, self.spec.model, self.start, self.end)


def mark_step(
    work: Work,
    step: str,
    marks: Mapping[dt.datetime, StepMark],
    tables: Sequence[Location] = (),
) -> None:
    """Record that a step of the run's windows is done, and which tables it wrote."""
    with work.project.store.state.begin() as conn:
        window_state.mark_step_done(conn, work.spec.model, step, marks, work.now)
        steps = steps_of(work.spec)
        window_state.note_finished(conn, work.spec.model, steps, list(marks), work.now)
        note_commits(conn, work.project.store, work.spec.model, tables)


def mark_of(states: Mapping[dt.datetime, WindowInputs], window: Window, step: str) -> StepMark:
    """Return what a step of a window was made from; revision 0 if it was never run."""
    state = states.get(window.start)
    return state.steps.get(step, StepMark(0, "")) if state else StepMark(0, "")


def is_waiting(state: WindowInputs) -> bool:
    """Tell whether a window has inputs that its records do not hold yet."""
    rebuilt = state.steps.get("inference_store")
    return (rebuilt.revision if rebuilt else 0) < state.input_revision


def stored_metric(work: Work, metric: str, windows: Sequence[Window]) -> pd.DataFrame:
    """Return the newest numbers of a metric in some windows that follow each other."""
    return metric_log.newest(
        work.project.store.state,
        work.spec.model,
        metric=metric,
        start=windows[0].start,
        end=windows[-1].end,
    )


class Stopwatch:
    """Adds up the seconds of what runs under it, in this process."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the time of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds += time.perf_counter() - start


computing = Stopwatch()


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

    @property
    def is_gapless(self) -> bool:
        """Tell whether its windows follow each other, so that no other lies between."""
        windows = self.work.windows
        return all(a.end == b.start for a, b in pairwise(windows))

    def without(self, kept: Collection[dt.datetime]) -> Part:
        """Return its windows but those that start then."""
        return self.only([w for w in self.work.windows if w.start not in kept]) if kept else self

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


@dataclass(frozen=True)
class Comparison:
    """Some windows and what they are compared with.

    Attributes:
        part: The windows.
        baseline: None while there is none, or for metrics that need none.
        mark: Fingerprint of a baseline of earlier windows; empty for others.
    """

    part: Part
    baseline: Baseline | None = None
    mark: str = ""

    @property
    def work(self) -> Work:
        """The windows, as what a step of a run works on."""
        return self.part.work

    def marked(self, marks: Mapping[dt.datetime, StepMark]) -> dict[dt.datetime, StepMark]:
        """Return the windows' marks with what they were compared with, if that moves on."""
        if not self.mark:
            return {}
        prefix = "" if self.baseline else f"{NO_BASELINE}:"
        return {
            window.start: mark_compared(marks[window.start], self.mark, prefix)
            for window in self.work.windows
        }


def mark_compared(mark: StepMark, earlier: str, prefix: str = "") -> StepMark:
    """Return a step's mark with what its window was compared with, if that moves on.

    Args:
        mark: What the step was made from.
        earlier: Fingerprint of a baseline of earlier windows; empty for others.
        prefix: What is said before it.
    """
    if not earlier:
        return mark
    mark = replace(mark, data_version=f"{mark.data_version}:{earlier[:8]}")
    return mark if mark.maturity else replace(mark, maturity=f"{prefix}{earlier}")


def earlier_marks(part: Part, family: str) -> dict[dt.datetime, str]:
    """Return the fingerprints of the earlier windows that windows are compared with.

    Returns:
        Window start -> fingerprint; nothing if the baseline of the family does not move on.
    """
    choice, windows = baseline_of(part.work.spec, family), part.work.windows
    if not windows or not _is_rolling(part, choice):
        return {}
    rolling = part.in_force.rolling(choice, windows[0].start, windows[-1].start)
    return {window.start: rolling.mark(window.start) for window in windows}


def baseline_of(spec: ModelSpec, family: str) -> BaselineSpec:
    """Return what a family of metrics is compared with: its own choice, or the spec's."""
    own: BaselineSpec | None = getattr(spec.monitors.declared(family), "baseline", None)
    return own or spec.baseline


def comparisons(
    part: Part, family: str, columns: Sequence[str], alone: Collection[Window] = ()
) -> Iterator[Comparison]:
    """Yield windows that share a baseline, in parts that are compared with the same rows.

    Args:
        part: The windows.
        family: The family of metrics.
        columns: The profiled columns that are compared.
        alone: Windows that are not compared. They come first and together, without a baseline,
            where each window has one of its own; that takes long to make.
    """
    choice = baseline_of(part.work.spec, family)
    if not _is_rolling(part, choice):
        yield Comparison(part, _own(part))
        return
    if alone:
        yield Comparison(part.only(sorted(alone, key=lambda window: window.start)))
    windows = [window for window in part.work.windows if window not in alone]
    if not windows:
        return
    rolling = part.in_force.rolling(choice, windows[0].start, windows[-1].start, columns)
    for window in windows:
        found = _or_none(partial(rolling.of, window.start))
        yield Comparison(part.only([window]), found, rolling.mark(window.start))


def fixed_comparison(part: Part) -> Comparison:
    """Return windows with their baseline where that does not move on."""
    return Comparison(part, None if _is_rolling(part, part.work.spec.baseline) else _own(part))


def _is_rolling(part: Part, choice: BaselineSpec) -> bool:
    return part.in_force.baseline_id is not None and part.in_force.is_rolling(choice)


def _own(part: Part) -> Baseline | None:
    """Return the baseline in force for a part, if it has rows of its own."""
    return _or_none(lambda: part.in_force.own)


def _or_none(load: Callable[[], Baseline]) -> Baseline | None:
    try:
        return load()
    except BaselineMissingError:
        return None
