"""The end of a backfill: one message about everything it left firing."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence

from mlmon_dagster.alerts.lifecycle.routing import Destination
from mlmon_dagster.alerts.lifecycle.silences import silenced_by
from mlmon_dagster.alerts.messages import message as say
from mlmon_dagster.alerts.messages.group_state import SUMMARY, GroupState, dump, episode_of
from mlmon_dagster.alerts.messages.outbox_rows import row_key
from mlmon_dagster.spec import complete_windows
from mlmon_dagster.store.alerting import alert_state
from mlmon_dagster.store.state.frames import Row

BACKFILL_QUIET = dt.timedelta(minutes=30)  # after which a backfill that left gaps has ended


def summarize_backfill(state: GroupState, *, is_running: bool) -> int:
    """Tell in one message what a backfill left firing; from then on it counts as told."""
    rows = [
        row
        for row in state.alerts.values()
        if row["state"] in alert_state.ACTIVE
        and row["muted_reason"] == "backfill"
        and silenced_by(row, state.silences) is None
    ]
    if not rows or is_running or _backfill_runs(state):
        return 0
    for row in rows:
        row["muted_reason"] = ""
        alert_state.set_muted(state.conn, row["fingerprint"], "")
    places = sorted({place for row in rows for place in state.routes[row["fingerprint"]]})
    for place in places:
        _summarize(state, place, [row for row in rows if state.goes_to(row, place)])
    return len(places)


def _summarize(state: GroupState, place: Destination, rows: Sequence[Row]) -> None:
    summary = state.group(place, SUMMARY)
    summary |= {"version": summary["version"] + 1, "last_sent_at": state.now}
    key = row_key(summary)
    summary["head_key"] = key
    views = [state.views[row["fingerprint"]] for row in rows]
    text = say.summary_message(state.context_of(summary), views)
    tells = [state.key(row) for row in rows]
    state.enqueue(summary, key, SUMMARY, text, head_key="", tells=tells, pictured=views)
    alert_state.save_group(state.conn, summary)
    for row in rows:
        _count_as_told(state, place, row, key)


def _backfill_runs(state: GroupState) -> bool:
    model = state.context.spec.model
    windows = complete_windows(state.context.spec.time, state.now)
    if not windows:
        return False
    if not alert_state.has_stale_windows(state.conn, model, windows[0].start, windows[-1].end):
        return False
    last = alert_state.last_backfill_result(state.conn, model)
    return last is not None and last > state.now - BACKFILL_QUIET


def _count_as_told(state: GroupState, place: Destination, row: Row, head_key: str) -> None:
    group = state.group(place, row["family"])
    firing = set(json.loads(group["firing"]))
    if not firing:
        group |= {"head_key": head_key, "resolved": "[]", "n_reminders": 0}
    group |= {
        "firing": dump(firing | {state.key(row)}),
        "owed": dump(set(json.loads(group["owed"])) - {episode_of(state.key(row))}),
        "version": max(group["version"], 1),
        "last_sent_at": state.now,
    }
    alert_state.save_group(state.conn, group)
