"""Whether what was written of the models, their pages and the overview, is out of date."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.state import model_history, monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import load_standing

OVERVIEW = "overview"


def digest_shown(project: Project, specs: Sequence[ModelSpec]) -> Mapping[str, str]:
    """Return a digest of what each model's reports show: its windows, what stands, what fires.

    Models without windows are left out; of them there is nothing to show.
    """
    store = project.store
    windows = window_state.load_progress(store.state)
    mine = [spec for spec in specs if spec.model in windows]
    standing = load_standing(store.state, mine, project.now())
    with store.state.connect() as conn:
        alerts = alert_state.load_open_alerts(conn)
    shown: dict[str, list[object]] = {
        model: [windows[model], *(sorted(row["id"] for row in rows))]
        for model, rows in standing.items()
    }
    for alert in alerts:
        if alert["model"] in shown:
            told = (
                alert["state"], alert["severity"], alert["muted_reason"], alert["acked_by"],
            )  # fmt: skip
            shown[alert["model"]].append((alert["fingerprint"], alert["episode"], *told))
    return {model: _digest(parts) for model, parts in shown.items()}


def find_outdated(project: Project, specs: Sequence[ModelSpec]) -> Mapping[str, str]:
    """Return the models whose reports show something else than what there is, and its digest."""
    made = window_state.load_report_digests(project.store.state)
    shown = digest_shown(project, specs)
    return {model: digest for model, digest in shown.items() if made.get(model) != digest}


def digest_overview(project: Project, specs: Sequence[ModelSpec], broken: Sequence[str]) -> str:
    """Return a digest of what the overview rests on; none is ever the same again."""
    state = project.store.state
    with state.connect() as conn:
        newest = (monitor_results.newest_id(conn), alert_state.newest_event_id(conn))
    windows = window_state.load_progress(state)
    mine = [(spec.model, windows.get(spec.model)) for spec in specs]
    return _digest([newest, mine, sorted(broken)])


def is_overview_outdated(project: Project, digest: str) -> bool:
    """Tell whether the overview was made from something else."""
    return model_history.load_last_note(project.store.state, OVERVIEW) != digest


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
