"""Family freshness: predictions that stopped coming, and overdue ground truth."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd

from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Row,
    Window,
    production,
    result_row,
)
from mlmon_dagster.monitors.overdue import judge_actuals
from mlmon_dagster.monitors.wording import no_verdict
from mlmon_dagster.spec.scalars import format_duration

UNREAD = "unread"  # data version: judged while files waited that may hold the window's rows


def judge(evidence: Evidence) -> list[Row]:
    """Fail empty production windows when the silence has lasted `no_data_for`.

    At an empty window's end, silence is counted from the last event before it (`last_event_time`
    of the last window that has data; unless that is known, from that window's start; before the
    first window, from `last_before`). A window fails if the silence reaches `no_data_for` and as
    much time has passed since the silent windows began, so that rows on their way have their
    chance; before that there is no row for it. Where landing files are not read yet that may hold
    its rows (`n_unread`), it is NO_DATA.
    Overdue ground truth: see `overdue`.
    """
    rows = []
    last_event: pd.Timestamp | None = None
    silent_since: pd.Timestamp | None = None
    for window in production(evidence):
        if window["n"] > 0:
            last_event, silent_since = _last_event(window), None
            rows.append(_fresh(evidence, window))
            continue
        if last_event is None and pd.notna(before := window.get("last_before")):
            last_event = pd.Timestamp(before)
        silent_since = window["window_start"] if silent_since is None else silent_since
        row = _silent(evidence, window, last_event, silent_since)
        rows += [row] if row else []
    return rows + judge_actuals(evidence)


def _last_event(window: Window) -> pd.Timestamp:
    known = window.get("last_event_time")
    return pd.Timestamp(window["window_start"] if known is None or pd.isna(known) else known)


def _fresh(evidence: Evidence, window: Window) -> Row:
    monitor = evidence.spec.monitors.freshness
    return result_row(
        evidence,
        window,
        monitor,
        family="freshness",
        metric="no_data_for",
        status=OK,
        message="Predictions arrived.",
        value=0.0,
        threshold=format_duration(monitor.no_data_for),
    )


def _silent(
    evidence: Evidence,
    window: Window,
    last_event: pd.Timestamp | None,
    silent_since: pd.Timestamp,
) -> Row | None:
    monitor = evidence.spec.monitors.freshness
    if evidence.now - silent_since.to_pydatetime() < monitor.no_data_for:
        return None
    start = silent_since if last_event is None else last_event
    silence: dt.timedelta = window["window_end"] - start
    limit = format_duration(monitor.no_data_for)
    failed = silence >= monitor.no_data_for or last_event is None
    fields: dict[str, Any] = {}
    if failed and window["n_unread"]:
        status = NO_DATA
        message = no_verdict("freshness", "files_unread", 0)
        fields = {
            "reason": "files_unread",
            "data_version": UNREAD,
            "details": {"unread_until": window["unread_until"]},
        }
    else:
        status = monitor.severity if failed else OK
        known = (
            "and none was taken in before it"
            if last_event is None
            else f"the last before it came {_when(evidence, last_event)}"
        )
        message = f"No prediction in this window, {known}; the limit is {limit}."
        fields = {
            "value": silence.total_seconds() / 3600,
            "details": {"silent_since": f"{start:%Y-%m-%dT%H:%M:%SZ}"},
        }
    return result_row(
        evidence,
        window,
        monitor,
        family="freshness",
        metric="no_data_for",
        status=status,
        message=message,
        threshold=limit,
        **fields,
    )


def _when(evidence: Evidence, moment: pd.Timestamp) -> str:
    """Name the window of the last event, in the zone in which windows are cut."""
    time = evidence.spec.time
    if time.granularity == "hour":
        return f"at {moment.tz_convert(time.zone):%Y-%m-%d %H:%M} ({time.zone})"
    unit = {"day": "on", "week": "in the week from", "month": "in the month from"}
    return f"{unit[time.granularity]} {moment.tz_convert(time.zone):%Y-%m-%d}"
