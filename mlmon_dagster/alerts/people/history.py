"""What happened to alerts, in order, and everything about one alert."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence

from mlmon_dagster.alerts.messages.slack_text import clean
from mlmon_dagster.alerts.messages.view import local_moment, view_of
from mlmon_dagster.alerts.people.handling import SHORT_ID, find_alert
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.text_table import text_table
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import alert_state
from mlmon_dagster.store.state.frames import Row

_SENTENCE = 110


def render_history(
    store: Store,
    zones: Mapping[str, str],
    model: str | None = None,
    since: dt.datetime | None = None,
    limit: int = 200,
) -> str:
    """Return what happened to alerts as a table, the newest last.

    Args:
        store: Where the state database is.
        zones: Model -> its time zone, in which its windows are named; UTC for others.
        model: Only of this model.
        since: Only what was written after this time.
        limit: At most so many lines, the newest.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, model)
        events = [e for found in alert_state.all_events(conn, model).values() for e in found]
    wanted = [e for e in events if since is None or e["created_at"] >= since]
    wanted.sort(key=lambda e: e["id"])
    if not wanted:
        return "Nothing happened."
    head = ("WHEN", "WHAT", "SEVERITY", "MODEL", "MONITOR", "SLICE", "WINDOW", "MUTED", "SAID")
    lines = [
        _line(e, rows[e["fingerprint"]], zones) for e in wanted[-limit:] if e["fingerprint"] in rows
    ]
    left_out = len(wanted) - len(lines)
    note = f"\n({left_out} older ones left out)" if left_out else ""
    return text_table(head, lines) + note


def _line(event: Row, row: Row, zones: Mapping[str, str]) -> tuple[str, ...]:
    return (
        f"{event['created_at']:%Y-%m-%d %H:%M}",
        event["kind"],
        event["severity"] or "-",
        row["model"],
        clean(row["monitor"]),
        _slice(row),
        local_moment(event["window_start"], zones.get(row["model"], "UTC")),
        event["muted_reason"],
        clean(event["message"], _SENTENCE),
    )


def render_alert(store: Store, short_id: str, zone: str = "UTC") -> str:
    """Return everything that is known of one alert.

    Args:
        store: Where the state database is.
        short_id: The beginning of its id.
        zone: Time zone of the model.

    Raises:
        ConfigError: If there is no such alert.
    """
    row = find_alert(store, short_id)
    view = view_of(row, zone)
    with store.state.connect() as conn:
        events = alert_state.all_events(conn, row["model"]).get(row["fingerprint"], [])
    acked = f"{row['acked_by']} at {view.moment(row['acked_at'])}" if row["acked_at"] else ""
    facts = {
        "Alert": row["fingerprint"][: SHORT_ID + 4],
        "Model": row["model"],
        "Monitor": row["monitor"],
        "Slice": _slice(row),
        "State": f"{row['state']} ({row['severity']})" if row["severity"] else row["state"],
        "Episode": str(row["episode"]),
        "Since": view.since if row["opened_window"] else "",
        "Said": row["message"],
        "Numbers": view.numbers,
        "Explained by": "; ".join(view.explained_by),
        "Not sent": row["muted_reason"],
        "Taken on by": acked,
        "Ended": row["resolved_reason"].replace("_", " "),
        "Owner": row["owner"],
        "Runbook": row["runbook"],
        "Last windows": ", ".join(_recent(row, zone)),
    }
    lines = [f"{label + ':':<14} {clean(text, 500)}" for label, text in facts.items() if text]
    return "\n".join([*lines, "", *_events(events)])


def _recent(row: Row, zone: str) -> list[str]:
    recent = json.loads(row["recent"])
    return [
        f"{local_moment(dt.datetime.fromisoformat(start), zone)} {status}"
        for start, status, *_ in recent
    ]


def _events(events: Sequence[Row]) -> list[str]:
    return [
        f"{e['created_at']:%Y-%m-%d %H:%M}  episode {e['episode']}  {e['kind']:<12}  "
        f"{clean(e['message'], _SENTENCE)}"
        for e in events
    ]


def _slice(row: Row) -> str:
    if row["slice_key"] == ALL:
        return "all"
    return clean(f"{row['slice_key']}={row['slice_value']}")
