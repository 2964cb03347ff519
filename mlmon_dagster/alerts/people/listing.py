"""Alerts and their history as a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from mlmon_dagster.alerts.messages.slack_text import clean
from mlmon_dagster.alerts.messages.view import local_moment, number, view_of
from mlmon_dagster.alerts.people.handling import SHORT_ID
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.text_table import text_table
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import alert_state
from mlmon_dagster.store.state.frames import Row

ListedState = Literal["FIRING", "RECOVERING", "RESOLVED", "PENDING"]
_ORDER = {"FIRING": 0, "RECOVERING": 1, "PENDING": 2, "RESOLVED": 3}


@dataclass(frozen=True)
class AlertEpisode:
    """One firing of one alert; a pending alert has no episode yet.

    Attributes:
        fingerprint: Identity of the alert.
        model, monitor, family, metric, column, slice_key, slice_value: What it is about.
        episode: Which firing this is, from 1; 0 if pending.
        state: Where it is in its life.
        severity: The highest so far.
        opened_window: Start of the window that opened it; of the last window if pending.
        resolved_window: Start of the window that ended it; None while it lasts.
        worst_value: The failing value farthest from its baseline; None if there is no value.
        message: The last sentence.
        muted_reason: Why it was not sent; empty if it was.
        acked_by: Who has taken it on; empty if nobody has.
    """

    fingerprint: str
    model: str
    monitor: str
    family: str
    metric: str
    column: str
    slice_key: str
    slice_value: str
    episode: int
    state: ListedState
    severity: str
    opened_window: dt.datetime
    resolved_window: dt.datetime | None
    worst_value: float | None
    message: str
    muted_reason: str
    acked_by: str = ""

    @property
    def is_explained(self) -> bool:
        """Whether another alert is the cause of it, which is told instead."""
        return self.muted_reason.startswith("suppressed:")


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


def _episodes(conn: sa.Connection, row: Row, events: Sequence[Row]) -> list[AlertEpisode]:
    found = [
        _episode(conn, row, [e for e in events if e["episode"] == episode])
        for episode in sorted({event["episode"] for event in events})
    ]
    if row["state"] == "PENDING":
        start = row["last_window_start"]
        found.append(_listed(row, 0, "PENDING", (start, None), row["value"], row["message"], ""))
    return found


def _episode(conn: sa.Connection, row: Row, events: Sequence[Row]) -> AlertEpisode:
    opened = next(e for e in events if e["kind"] == "opened")
    resolved = next((e for e in events if e["kind"] == "resolved"), None)
    is_current = opened["episode"] == row["episode"]
    end = resolved["window_start"] if resolved else None
    state: ListedState = "RESOLVED" if resolved else row["state"]
    told = [e for e in events if e["kind"] not in ("resolved", "acknowledged")]
    return _listed(
        {**row, "severity": events[-1]["severity"]},
        opened["episode"],
        state,
        (opened["window_start"], end),
        alert_state.worst_value(conn, row, opened["window_start"], end),
        view_of(row).sentence if is_current else told[-1]["message"],
        row["muted_reason"] if is_current else opened["muted_reason"],
    )


def _listed(
    row: Row,
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
