"""How every model is, worst first, and whether what was written of it says something else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from mlmon_dagster.project import Project
from mlmon_dagster.spec import BrokenModel, ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.state import model_history, monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import PIPELINE, load_standing, name_window

OVERVIEW = "overview"
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
    from mlmon_dagster.report.curves import firing, sentence_of
    from mlmon_dagster.report.standing import overall, standing_of

    engine = project.store.state
    windows = {k: v for k, v in window_state.load(engine, spec.model).items() if v.n}
    row: dict[str, object] = {"model": spec.model, "owners": ", ".join(spec.owners)}
    alerts = [
        a for a in firing(list_alerts(project.store, model=spec.model)) if a.state == "FIRING"
    ]
    row["firing"] = len(alerts)
    if alerts:
        since = min(alert.opened_window for alert in alerts)
        row |= {"since": name_window(spec, since), "sentence": sentence_of(spec, alerts[0])}
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


def digest_shown(project: Project, specs: Sequence[ModelSpec]) -> Mapping[str, str]:
    """Return a digest of what each model's reports show: its windows, what stands, what fires.

    Models without windows are left out; of them there is nothing to show.
    """
    store = project.store
    windows = window_state.progress(store.state)
    mine = [spec for spec in specs if spec.model in windows]
    standing = load_standing(store.state, mine, project.now())
    with store.state.connect() as conn:
        firing = alert_state.firing(conn)
    shown: dict[str, list[object]] = {
        model: [windows[model], *(sorted(row["id"] for row in rows))]
        for model, rows in standing.items()
    }
    for alert in firing:
        if alert["model"] in shown:
            told = (alert["severity"], alert["muted_reason"], alert["acked_by"])
            shown[alert["model"]].append((alert["fingerprint"], alert["episode"], *told))
    return {model: _digest(parts) for model, parts in shown.items()}


def find_outdated(project: Project, specs: Sequence[ModelSpec]) -> Mapping[str, str]:
    """Return the models whose reports show something else than what there is, and its digest."""
    made = window_state.report_digests(project.store.state)
    shown = digest_shown(project, specs)
    return {model: digest for model, digest in shown.items() if made.get(model) != digest}


def digest_overview(project: Project, specs: Sequence[ModelSpec], broken: Sequence[str]) -> str:
    """Return a digest of what the overview rests on; none is ever the same again."""
    state = project.store.state
    with state.connect() as conn:
        newest = (monitor_results.newest_id(conn), alert_state.newest_event_id(conn))
    windows = window_state.progress(state)
    mine = [(spec.model, windows.get(spec.model)) for spec in specs]
    return _digest([newest, mine, sorted(broken)])


def is_overview_outdated(project: Project, digest: str) -> bool:
    """Tell whether the overview was made from something else."""
    return model_history.last_note(project.store.state, OVERVIEW) != digest


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
