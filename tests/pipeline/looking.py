"""One look at a model, as the planner makes it, without Dagster."""

from __future__ import annotations

from dataclasses import replace

from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.judge import judge, judge_quarantined
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.profiles.in_force import baselines_shared
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.work import Work


def look(project: Project, spec: ModelSpec, run_id: str) -> None:
    """Take in what has landed, then compute and judge what that touches, as the planner asks.

    What was read of a baseline is kept for the look, as a command keeps it. Alerts are not told;
    `alerts.dispatch` does that.
    """
    idle = Work(project, spec, (), project.now(), run_id, False)
    with baselines_shared():
        ingest(idle)
        judge(idle, "freshness")
        judge_quarantined(idle)
        requests = plan(project, spec, project.now())
        while requests:
            for request in requests:
                run(replace(idle, windows=request.windows, is_planned=True), request.assets)
            # The baseline comes alone, and the windows at the next look.
            again = not any(request.windows for request in requests)
            requests = plan(project, spec, project.now()) if again else []
