"""How every model is, worst first."""

from __future__ import annotations

from collections.abc import Sequence

from mlmon_dagster.project import Project
from mlmon_dagster.spec import BrokenModel, ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.standing import PIPELINE

ORDER = ("BROKEN", "ERROR", "WARN", "NO_DATA", "OK")
COLUMNS = (
    "model",
    "status",
    "window",
    "n",
    "actual_coverage",
    "firing",
    *FAMILIES,
    PIPELINE,
    "owners",
)


def status_of(
    project: Project, specs: Sequence[ModelSpec], broken: Sequence[BrokenModel] = ()
) -> list[dict[str, object]]:
    """Return one row per model, worst first; a file that does not load is worse than any.

    A family's status is the worst verdict on the newest window that it could judge: NO_DATA where
    it could judge none, and then the model is NO_DATA too unless something fails; ``-`` where there
    is nothing to judge. A model without windows is NO_DATA unless something fails. What failed
    outside the data is the family ``pipeline``.
    """
    rows = [_status(project, spec) for spec in specs]
    rows += [
        {"model": b.name, "status": "BROKEN", "window": "does not load", "firing": 0}
        for b in broken
    ]
    return sorted(rows, key=lambda row: (ORDER.index(str(row["status"])), str(row["model"])))


def _status(project: Project, spec: ModelSpec) -> dict[str, object]:
    from mlmon_dagster.alerts.listing import list_alerts
    from mlmon_dagster.report.standing import name_window, overall, standing_of

    engine = project.store.state
    windows = {k: v for k, v in window_state.load(engine, spec.model).items() if v.n}
    row: dict[str, object] = {"model": spec.model, "owners": ", ".join(spec.owners)}
    firing = [
        a
        for a in list_alerts(project.store, model=spec.model)
        if a.state == "FIRING" and not a.is_explained
    ]
    row["firing"] = len(firing)
    standings = standing_of(project.store, spec, project.now())
    row |= {standing.family: standing.status for standing in standings}
    row |= {"status": overall(standings, has_windows=bool(windows)), "window": "none yet"}
    if windows:
        newest = windows[max(windows)]
        row |= {
            "window": name_window(spec, newest.window_start),
            "n": newest.n,
            "actual_coverage": round(newest.coverage or 0.0, 4),
        }
    return row
