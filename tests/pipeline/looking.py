"""A model in a folder of its own, looked at as the planner does, without Dagster."""

from __future__ import annotations

import datetime as dt
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import flush_groups
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.judge import judge, judge_quarantined
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.profiles import ProfileRows, ensure_baseline, profile_in_parts
from mlmon_dagster.profiles.in_force import baselines_shared
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.schema import outbox
from mlmon_dagster.work import Work
from tests.alerts.worlds import rows_of


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


class Place:
    """A model in a folder, whose clock stands where a test puts it.

    Args:
        folder: Of the project.
        spec: The model's file.
        now: Where the clock stands at first.
    """

    def __init__(self, folder: Path, spec: str, now: dt.datetime) -> None:
        self.folder, self.now = folder, now
        named = re.search(r"^model: (\w+)", spec, re.MULTILINE)
        assert named is not None
        path = folder / "models" / f"{named[1]}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(spec)
        self.spec = load_model(path)
        self.project = Project(folder, str(folder / ".mlmon" / "store"), now=lambda: self.now)

    @property
    def store(self) -> Store:
        return self.project.store

    def land(self, stream: str, name: str, rows: pd.DataFrame) -> None:
        """Write a file of a stream as a job does: whole, or not at all."""
        path = self.folder / "landing" / stream / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_parquet(path.with_suffix(".tmp"), index=False)
        path.with_suffix(".tmp").rename(path)

    def look(self) -> None:
        """Look as the planner does."""
        look(self.project, self.spec, f"run {self.now}")

    def tell(self) -> None:
        """Write messages of what the verdicts say."""
        fold_results(self.project.store, [self.spec], self.now)
        flush_groups(self.project.store, [self.spec], self.now)

    def messages(self) -> list[dict[str, Any]]:
        """Return what was written, updates of first messages left out."""
        return [
            {**row, **json.loads(row["payload"])}
            for row in rows_of(self.project.store, outbox)
            if row["kind"] != "head" and row["status"] != "superseded"
        ]

    def newest(self, *families: str) -> pd.DataFrame:
        """Return the newest verdicts, of some families or of all."""
        return monitor_results.newest(
            self.project.store.state, self.spec.model, family=families or None
        )

    def firing(self) -> dict[str, str]:
        """Return what fires of whole windows: monitor -> what is said first."""
        found = self.newest()
        found = found[(found["slice_key"] == "all") & found["status"].isin(["WARN", "ERROR"])]
        lines = [text.partition("\n")[0] for text in found["message"]]
        return dict(zip(found["monitor"], lines, strict=True))

    def profile_twice(self) -> tuple[dict[str, ColumnStatistics], dict[str, ColumnStatistics]]:
        """Profile production's rows at once, and in two halves."""
        store = self.project.store
        binnings = ensure_baseline(store, self.spec, self.now).binnings
        work = ProfileRows(lambda: store.queries, self.spec, binnings)
        whole = store.inference_records(self.spec).from_sql(None, ["production"])
        halves = [
            f"(SELECT * FROM {whole} AS r WHERE MD5(prediction_id) {sign} '8')"
            for sign in ("<", ">=")
        ]
        return profile_in_parts(work, [whole], whole), profile_in_parts(work, halves, whole)
