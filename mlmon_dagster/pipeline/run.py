"""The steps of a model in their order, in this process: what a run of its assets does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.judge import judge, judge_quarantined
from mlmon_dagster.pipeline.measure import measure_windows
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.rebuild import build_window_profiles, rebuild_records
from mlmon_dagster.pipeline.steps import MEASURED, assets_of
from mlmon_dagster.pipeline.work import Numbers, Work
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec

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


def look(project: Project, spec: ModelSpec, run_id: str) -> None:
    """Take in what has landed, then compute and judge what that touches, as the planner asks.

    Alerts are not told; `alerts.dispatch` does that.
    """
    idle = Work(project, spec, (), project.now(), run_id, False)
    ingest(idle)
    judge(idle, "freshness")
    judge_quarantined(idle)
    requests = plan(project, spec, project.now())
    while requests:
        for request in requests:
            run(replace(idle, windows=request.windows), request.assets)
        # The baseline comes alone, and the windows at the next look.
        again = not any(request.windows for request in requests)
        requests = plan(project, spec, project.now()) if again else []
