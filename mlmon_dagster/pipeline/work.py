"""What the assets do, window by window, free of Dagster.

Every step takes the revision of its inputs from the step before it and records it with its own
result, so that the planner can tell what is out of date after any crash or partial run.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlmon_dagster.pipeline.steps import steps_of
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.store.moments import note_commits
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.state.window_state import StepMark, WindowInputs

if TYPE_CHECKING:
    import pandas as pd

Numbers = dict[str, object]


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
    """

    project: Project
    spec: ModelSpec
    windows: tuple[Window, ...]
    now: dt.datetime
    run_id: str
    is_backfill: bool

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


def windows_begin(first: Window, n_windows: int) -> dt.datetime:
    """Return from when on metrics are read, if a verdict is of several windows."""
    if n_windows == 1:
        return first.start
    return first.start - (n_windows - 1) * (first.end - first.start) - dt.timedelta(hours=1)


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
