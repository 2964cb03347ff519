"""The steps of a model in their order, in this process: what a run of its assets does."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from mlmon_dagster.families.registry import MEASURED_BY
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.judge import judge
from mlmon_dagster.pipeline.measure import measure_windows, numbers_of
from mlmon_dagster.pipeline.rebuild import (
    build_window_profiles,
    rebuild_records,
    record_numbers,
)
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.baseline import LIVE
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.steps import MEASURED, assets_of
from mlmon_dagster.store.state import metric_log, window_state
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Numbers, Work

# What is done window by window; each returns window key -> numbers for whoever shows them.
WINDOW_STEPS: Mapping[str, Callable[[Work], dict[str, Numbers]]] = {
    "inference_store": rebuild_records,
    "profiles": build_window_profiles,
    **{step: partial(measure_windows, step=step) for step in MEASURED},
}


def run(work: Work, steps: Sequence[str] | None = None) -> None:
    """Compute steps of a model's windows, then judge the families that go with them.

    Args:
        work: The windows.
        steps: Names of assets in any order; the baseline is fitted if it is among them. By default
            all that have windows.
    """
    compute(work, steps)
    for info in assets_of(work.spec):
        if info.family and info.is_windowed and (steps is None or info.name in steps):
            judge(work, info.family)


def compute(work: Work, steps: Sequence[str] | None = None) -> None:
    """Compute steps of a model's windows in their order, and judge nothing."""
    if steps is not None and "baseline" in steps:
        fit_baseline(work)
    for info in assets_of(work.spec):
        if info.is_windowed and (steps is None or info.name in steps):
            WINDOW_STEPS[info.name](work)


def known_numbers(
    project: Project,
    spec: ModelSpec,
    step: str,
    windows: Sequence[Window],
    states: Mapping[dt.datetime, WindowInputs],
) -> Mapping[str, Numbers]:
    """Return, from the store alone, what computing a step of some windows returned.

    Args:
        project: Where the store is.
        spec: The model.
        step: An asset with windows.
        windows: The windows, oldest first.
        states: Their states, by start.
    """
    if step == "inference_store":
        return {window.key: record_numbers(states[window.start], {}) for window in windows}
    if step not in MEASURED or not windows:
        return {}
    frame = metric_log.newest(
        project.store.state,
        spec.model,
        dataset=None,
        granularity=spec.time.granularity,
        slice_key=ALL,
        start=windows[0].start,
        end=windows[-1].end,
    )
    frame = frame[frame["dataset"].isin(LIVE)]
    return numbers_of(windows, frame, MEASURED_BY[step].made.plotted)


def newer_window(work: Work, step: str) -> tuple[Window, WindowInputs] | None:
    """Return the newest window with results of a step, if it is later than those of a run."""
    later = window_state.load(work.project.store.state, work.spec.model, start=work.end)
    computed = [start for start, state in later.items() if step in state.steps]
    if not computed:
        return None
    newest = max(computed)
    return window_containing(work.spec.time, newest), later[newest]
