"""Alerts, their history, silences and refused messages as tables; everything about one alert."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import TypedDict, cast

import sqlalchemy as sa

from mlmon_dagster.alerts.handling import find_alert
from mlmon_dagster.alerts.messages.message import clean
from mlmon_dagster.alerts.messages.view import (
    SHORT_ID,
    is_amendment,
    local_moment,
    number,
    view_of,
)
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.text_table import text_table
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import (
    AlertEpisode,
    AlertRow,
    ListedState,
    SilenceRow,
    StoredEvent,
)
from mlmon_dagster.store.outbox import OutboxRow

_ORDER = {"FIRING": 0, "RECOVERING": 1, "PENDING": 2, "RESOLVED": 3, "WITHDRAWN": 4}
_SENTENCE = 110


def list_alerts(
    store: Store,
    model: str | None = None,
    state: ListedState | None = None,
    since: dt.datetime | None = None,
) -> list[AlertEpisode]:
    """Return alert episodes, firing ones first, then by opening window, newest first.

    Args:
        store: Where the state database is.
        model: Only of this model.
        state: Only in this state.
        since: Only those that were still firing at this time or opened after it.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, model)
        events = alert_state.all_events(conn, model)
        episodes = [e for f, row in rows.items() for e in _episodes(conn, row, events.get(f, []))]
    wanted = [
        e
        for e in episodes
        if (state is None or e.state == state)
        and (since is None or e.resolved_window is None or e.resolved_window >= since)
    ]
    newest = sorted(wanted, key=lambda e: (e.opened_window, e.model, e.monitor), reverse=True)
    return sorted(newest, key=lambda e: _ORDER[e.state])


def _episodes(
    conn: sa.Connection, row: AlertRow, events: Sequence[StoredEvent]
) -> list[AlertEpisode]:
    found = [
        _episode(conn, row, [e for e in events if e["episode"] == episode])
        for episode in sorted({event["episode"] for event in events})
    ]
    if row["state"] == "PENDING":
        start = row["last_window_start"]
        found.append(_listed(row, 0, "PENDING", (start, None), row["value"], row["message"], ""))
    return found


def _episode(conn: sa.Connection, row: AlertRow, events: Sequence[StoredEvent]) -> AlertEpisode:
    opened = next(e for e in events if e["kind"] == "opened")
    ends = [e for e in events if e["kind"] == "resolved" or is_amendment(e)]
    is_current = opened["episode"] == row["episode"]
    known = [e["first_window"] for e in events if e["kind"] != "acknowledged"]
    start = known[-1] or opened["window_start"]
    end = ends[-1]["window_start"] if ends else None
    state = "RESOLVED" if ends else cast("ListedState", row["state"])  # not OK: it is open
    if any(event["kind"] == "withdrawn" for event in events):
        state = "WITHDRAWN"
    told = [e for e in events if e["kind"] not in ("resolved", "withdrawn", "acknowledged")]
    return _listed(
        {**row, "severity": events[-1]["severity"]},
        opened["episode"],
        state,
        (start, end),
        alert_state.worst_value(conn, row, start, end),
        view_of(row).sentence if is_current else _last_words(told),
        row["muted_reason"] if is_current else opened["muted_reason"],
    )


def _last_words(events: Sequence[StoredEvent]) -> str:
    said = [event["message"] for event in events if event["message"]]
    return said[-1] if said else ""


def _listed(
    row: AlertRow,
    episode: int,
    state: ListedState,
    windows: tuple[dt.datetime, dt.datetime | None],
    worst: float | None,
    message: str,
    muted: str,
) -> AlertEpisode:
    return AlertEpisode(
        fingerprint=row["fingerprint"],
        model=row["model"],
        monitor=row["monitor"],
        family=row["family"],
        metric=row["metric"],
        column=row["column_name"],
        slice_key=row["slice_key"],
        slice_value=row["slice_value"],
        episode=episode,
        state=state,
        severity=row["severity"],
        opened_window=windows[0],
        resolved_window=windows[1],
        worst_value=worst,
        message=message,
        muted_reason=muted,
        acked_by=clean(row["acked_by"]) if state in alert_state.ACTIVE else "",
    )


def render_alerts(episodes: Sequence[AlertEpisode], zones: Mapping[str, str]) -> str:
    """Return a text table; one line that says so if there are no alerts.

    Args:
        episodes: What to show.
        zones: Model -> its time zone, in which its windows are named; UTC for others.
    """
    if not episodes:
        return "No alerts."
    head = ("ID", "STATE", "SEVERITY", "MODEL", "MONITOR", "SLICE", "FROM", "TO", "WORST", "MUTED")
    return text_table(head, [_cells(e, zones.get(e.model, "UTC")) for e in episodes])


def _cells(episode: AlertEpisode, zone: str) -> tuple[str, ...]:
    where = f"{episode.slice_key}={episode.slice_value}" if episode.slice_key != ALL else "all"
    return (
        episode.fingerprint[:SHORT_ID],
        episode.state,
        episode.severity or "-",
        episode.model,
        clean(episode.monitor),
        clean(where),
        local_moment(episode.opened_window, zone),
        local_moment(episode.resolved_window, zone) if episode.resolved_window else "",
        number(episode.worst_value),
        episode.muted_reason or (f"acked by {episode.acked_by}" if episode.acked_by else ""),
    )


def render_silences(silences: Sequence[SilenceRow], now: dt.datetime) -> str:
    """Return silences as a table; one line that says so if there are none."""
    if not silences:
        return "No silences."
    head = ("ID", "STATE", "MATCHES", "UNTIL (UTC)", "AUTHOR", "COMMENT")
    return text_table(head, [_silence_cells(row, now) for row in silences])


def _silence_cells(row: SilenceRow, now: dt.datetime) -> tuple[str, ...]:
    labels = json.loads(row["matcher"])
    state = "ended" if row["ends_at"] <= now else "pending" if row["starts_at"] > now else "active"
    return (
        str(row["id"]),
        f"{state} by {clean(row['ended_by'])}" if row["ended_by"] else state,
        clean(", ".join(f"{name}={value}" for name, value in sorted(labels.items())), 200),
        f"{row['ends_at']:%Y-%m-%d %H:%M}",
        clean(row["author"]),
        clean(row["comment"], 200),
    )


def render_dead_letters(rows: Sequence[OutboxRow]) -> str:
    """Return the messages that were refused for good; one line that says so if there are none."""
    if not rows:
        return "No message was refused."
    head = ("ID", "WRITTEN (UTC)", "TO", "KIND", "WHY", "MESSAGE")
    lines = [
        (
            str(row["id"]),
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            clean(f"{row['receiver']} {row['channel']}"),
            row["kind"],
            clean(row["error"], 160),
            clean(json.loads(row["payload"])["plain"].split("\n")[0], 80),
        )
        for row in rows
    ]
    return text_table(head, lines) + "\nTo send them again: mlmon alerts requeue --all"


class Happened(TypedDict):
    """Something that happened to an alert."""

    at: dt.datetime
    kind: str
    severity: str
    alert: str
    model: str
    monitor: str
    slice: str
    window_start: dt.datetime
    muted_reason: str
    message: str


def list_history(
    store: Store, model: str | None = None, since: dt.datetime | None = None, limit: int = 200
) -> tuple[list[Happened], int]:
    """Return what happened to alerts, the newest last, and how many older ones are left out.

    Args:
        store: Where the state database is.
        model: Only of this model.
        since: Only what was written after this time.
        limit: At most so many, the newest.
    """
    with store.state.connect() as conn:
        rows = alert_state.all_alerts(conn, model)
        events = [e for found in alert_state.all_events(conn, model).values() for e in found]
    wanted = [e for e in events if since is None or e["created_at"] >= since]
    wanted.sort(key=lambda e: e["id"])
    found = [
        _happened(e, rows[e["fingerprint"]]) for e in wanted[-limit:] if e["fingerprint"] in rows
    ]
    return found, len(wanted) - len(found)


def _happened(event: StoredEvent, row: AlertRow) -> Happened:
    return {
        "at": event["created_at"],
        "kind": event["kind"],
        "severity": event["severity"],
        "alert": row["fingerprint"][:SHORT_ID],
        "model": row["model"],
        "monitor": row["monitor"],
        "slice": _slice(row),
        "window_start": event["window_start"],
        "muted_reason": event["muted_reason"],
        "message": event["message"],
    }


def render_history(found: Sequence[Happened], n_older: int, zones: Mapping[str, str]) -> str:
    """Return what happened to alerts as a table.

    Args:
        found: What to show.
        n_older: How much is left out.
        zones: Model -> its time zone, in which its windows are named; UTC for others.
    """
    if not found:
        return "Nothing happened."
    head = ("WHEN", "WHAT", "SEVERITY", "MODEL", "MONITOR", "SLICE", "WINDOW", "MUTED", "SAID")
    lines = [
        (
            f"{one['at']:%Y-%m-%d %H:%M}",
            one["kind"],
            one["severity"] or "-",
            one["model"],
            clean(one["monitor"]),
            one["slice"],
            local_moment(one["window_start"], zones.get(one["model"], "UTC")),
            one["muted_reason"],
            clean(one["message"], _SENTENCE),
        )
        for one in found
    ]
    note = f"\n({n_older} older ones left out)" if n_older else ""
    return text_table(head, lines) + note


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
        "Why": "; ".join(view.why),
        "Not sent": row["muted_reason"],
        "Taken on by": acked,
        "Ended": row["resolved_reason"].replace("_", " "),
        "Owner": row["owner"],
        "Runbook": row["runbook"],
        "Last windows": ", ".join(_recent(row, zone)),
    }
    lines = [f"{label + ':':<14} {clean(text, 500)}" for label, text in facts.items() if text]
    return "\n".join([*lines, "", *_events(events)])


def _recent(row: AlertRow, zone: str) -> list[str]:
    recent = json.loads(row["recent"])
    return [
        f"{local_moment(dt.datetime.fromisoformat(start), zone)} {status}"
        for start, status, *_ in recent
    ]


def _events(events: Sequence[StoredEvent]) -> list[str]:
    return [
        f"{e['created_at']:%Y-%m-%d %H:%M}  episode {e['episode']}  {e['kind']:<12}  "
        f"{clean(e['message'], _SENTENCE)}"
        for e in events
    ]


def _slice(row: AlertRow) -> str:
    if row["slice_key"] == ALL:
        return "all"
    return clean(f"{row['slice_key']}={row['slice_value']}")
