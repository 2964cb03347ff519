"""Family freshness: predictions that stopped coming, and overdue ground truth."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.service import chance_of_so_few
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Window,
    excess,
    production,
    result_row,
)
from mlmon_dagster.monitors.wording import no_verdict, threshold
from mlmon_dagster.spec.scalars import format_duration
from mlmon_dagster.store.state.monitor_results import MonitorResult

UNREAD = "unread"  # data version: judged while files waited that may hold the window's rows
MIN_WINDOWS = 7  # earlier windows from which the usual coverage is known
MIN_ROWS = 30  # before that, only windows of this size without any ground truth fail
CHANCE = 1e-4


def judge(evidence: Evidence) -> list[MonitorResult]:
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


def _fresh(evidence: Evidence, window: Window) -> MonitorResult:
    limit = format_duration(evidence.spec.monitors.freshness.no_data_for)
    return _of_predictions(
        evidence, window, status=OK, message="Predictions arrived.", value=0.0, threshold=limit
    )


def _of_predictions(evidence: Evidence, window: Window, **fields: Any) -> MonitorResult:
    monitor = evidence.spec.monitors.freshness
    return result_row(evidence, window, monitor, family="freshness", metric="no_data_for", **fields)


def _of_actuals(evidence: Evidence, window: Window, seen: str, **fields: Any) -> MonitorResult:
    """Return a verdict on ground truth, whose version is that of what was seen of it."""
    return result_row(
        evidence,
        window,
        evidence.spec.monitors.freshness,
        family="freshness",
        metric="actuals_missing",
        data_version=f"actuals:{seen}",
        method_version="actuals-1",
        **fields,
    )


def _silent(
    evidence: Evidence,
    window: Window,
    last_event: pd.Timestamp | None,
    silent_since: pd.Timestamp,
) -> MonitorResult | None:
    monitor = evidence.spec.monitors.freshness
    if evidence.now - silent_since.to_pydatetime() < monitor.no_data_for:
        return None
    start = silent_since if last_event is None else last_event
    silence: dt.timedelta = window["window_end"] - start
    limit = format_duration(monitor.no_data_for)
    # With no event before, it was silent for longer: as many whole windows as the limit has are
    # enough, of a limit of 26 hours one day.
    short = window["window_end"] - window["window_start"] if last_event is None else dt.timedelta()
    failed = silence >= monitor.no_data_for or silence + short > monitor.no_data_for
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
    return _of_predictions(
        evidence, window, status=status, message=message, threshold=limit, **fields
    )


def _when(evidence: Evidence, moment: pd.Timestamp) -> str:
    """Name the window of the last event, in the zone in which windows are cut."""
    time = evidence.spec.time
    if time.granularity == "hour":
        return f"at {moment.tz_convert(time.zone):%Y-%m-%d %H:%M} ({time.zone})"
    unit = {"day": "on", "week": "in the week from", "month": "in the month from"}
    return f"{unit[time.granularity]} {moment.tz_convert(time.zone):%Y-%m-%d}"


def judge_actuals(evidence: Evidence) -> list[MonitorResult]:
    """Fail windows whose ground truth is due and has come far less than it usually does.

    Due is a window's end plus `actuals.expected_within` plus `time.allowed_lateness`. The value is
    the missing share of the usual coverage, the median of the earlier due windows that have any
    (none at all is what is missing, however long, and not what is usual); it fails past
    `actuals_missing`, unless so few can be chance. Windows that are not due or have no predictions
    are NO_DATA, and so is one that would fail while files of actuals are not read yet
    (`n_unread_actuals`).
    """
    spec = evidence.spec
    condition = spec.monitors.freshness.actuals_missing
    if not spec.has_actuals or condition is None:
        return []
    wait = spec.actuals.expected_within + spec.time.allowed_lateness
    rows: list[MonitorResult] = []
    earlier: list[float] = []
    for window in production(evidence):
        n = int(window["n_expected"])
        # A row all the same: a monitor without one in several windows counts as taken away, which
        # ends its alert.
        if window["is_waiting"]:
            rows.append(_not_judged(evidence, window, n, "uncounted"))
            continue
        if not n:
            rows.append(_not_judged(evidence, window, n, "no_rows"))
            continue
        if window["window_end"] + wait > evidence.now:
            rows.append(_not_judged(evidence, window, n, "not_due"))
            continue
        rows.append(_judge(evidence, window, n, earlier))
        if k := int(window["n_actual"]):
            earlier.append(k / n)
    return rows


_NOT_JUDGED = {
    "uncounted": "Rows of this window have come that are not counted yet.",
    "not_due": "Ground truth is not due yet.",
    "no_rows": "No prediction of this window waits for ground truth.",
}


def _not_judged(evidence: Evidence, window: Window, n: int, why: str) -> MonitorResult:
    return _of_actuals(
        evidence,
        window,
        why,
        status=NO_DATA,
        reason="no_rows" if why == "no_rows" else "provisional",
        message=_NOT_JUDGED[why],
        n=n,
    )


def _judge(evidence: Evidence, window: Window, n: int, earlier: Sequence[float]) -> MonitorResult:
    monitor = evidence.spec.monitors.freshness
    condition = monitor.actuals_missing
    assert condition is not None
    k = int(window["n_actual"])
    usual = float(np.median(earlier)) if len(earlier) >= MIN_WINDOWS else math.nan
    if usual > 0:
        missing = 1 - k / n / usual
        failed = condition.fails(missing) and chance_of_so_few(k, n, usual) < CHANCE
        known = f"usually {usual * 100:.0f} %"
    else:
        missing = 1.0 if k == 0 else 0.0
        failed = k == 0 and n >= MIN_ROWS
        known = "how many are usual is not known yet"
    if failed and window["n_unread_actuals"]:
        return _of_actuals(
            evidence,
            window,
            "unread",
            status=NO_DATA,
            reason="files_unread",
            message=no_verdict("ground truth", "files_unread", n),
            n=n,
            details={"unread_until": window["unread_actuals_until"]},
        )
    return _of_actuals(
        evidence,
        window,
        f"{k}:{n}",
        status=monitor.severity if failed else OK,
        message=f"Ground truth is due, and {k:,} of {n:,} predictions have it ({known}).",
        value=missing,
        **excess(missing, condition.bound),
        n=n,
        threshold=threshold(condition),
    )
