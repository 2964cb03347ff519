"""Monitor results in, alerts and their history out."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts import no_verdict
from mlmon_dagster.alerts.identity import (
    DEFAULT_ENVIRONMENT,
    fingerprint,
    new_row,
    state_columns,
    state_of,
)
from mlmon_dagster.alerts.no_verdict import family_results
from mlmon_dagster.alerts.transitions import EventKind, Verdict, failed, resolve, step
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import Row

CAUSES = ("schema", "freshness")
SUPPRESSED = ("drift", "performance", "estimated_performance")
WINDOWS_UNTIL_MISSING = 2
_BATCH = 5000

AlertRow = dict[str, Any]


def fold_results(
    store: Store,
    specs: Sequence[ModelSpec],
    now: dt.datetime,
    *,
    environment: str = DEFAULT_ENVIRONMENT,
) -> int:
    """Take the new monitor results of some models into their alerts.

    Safe to run in several processes at once and to be killed: results, alerts and history change
    in one transaction, and a result is taken in once.

    Args:
        store: Where the state database is.
        specs: The models; results of other models wait.
        now: The time written beside the changes.
        environment: Part of an alert's identity, such as ``production`` or ``staging``.

    Returns:
        How many results were taken in.
    """
    n_folded = 0
    waiting = set(alert_state.models_with_new_results(store.state))
    for model in [spec.model for spec in specs if spec.model in waiting]:
        more = True
        while more:
            with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
                n_batch, more = _fold_batch(conn, model, now, environment)
            n_folded += n_batch
        with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
            _resolve_missing(conn, model, now)
    return n_folded


def retire_undeclared(store: Store, specs: Sequence[ModelSpec], now: dt.datetime) -> int:
    """End the alerts of models that are not monitored any more; return how many.

    Args:
        store: Where the state database is.
        specs: All the monitored models, not a selection.
        now: The time written beside the changes.
    """
    n_ended = 0
    for model in set(alert_state.models_to_flush(store.state)) - {spec.model for spec in specs}:
        with alert_state.exclusive(store.state, f"alerts:{model}") as conn:
            for row in alert_state.load_alerts(conn, model, states=alert_state.ACTIVE).values():
                _end(conn, dict(row), "model_removed", row["last_window_start"], now)
                n_ended += 1
    return n_ended


def _fold_batch(
    conn: sa.Connection, model: str, now: dt.datetime, environment: str
) -> tuple[int, bool]:
    """Take in one batch; return its size and whether there may be more."""
    read = alert_state.new_results(conn, model, _BATCH)
    results = _whole_windows(read)
    alerts: dict[str, AlertRow] = {
        key: dict(row) for key, row in alert_state.load_alerts(conn, model).items()
    }
    touched: set[str] = set()
    events: list[dict[str, Any]] = []
    for result in [*results, *family_results(results)]:
        if result["status"] == "NO_DATA":
            continue
        key = fingerprint(result, environment)
        row = alerts.setdefault(key, new_row(result, environment, now))
        events += _take_in(row, result, now)
        touched.add(key)
    windows = sorted({result["window_start"] for result in results})
    causes = _failing_causes(conn, model, windows)
    touched |= _mute(alerts.values(), events, causes, windows)
    alert_state.save_alerts(conn, [alerts[key] for key in sorted(touched)])
    alert_state.append_events(conn, events)
    alert_state.mark_folded(conn, [result["id"] for result in results], now)
    return len(results), len(read) == _BATCH


def _whole_windows(results: Sequence[Row]) -> Sequence[Row]:
    """Leave a last window that the batch's end may have cut for the next batch."""
    if len(results) < _BATCH:
        return results
    last = results[-1]["window_start"]
    return [result for result in results if result["window_start"] != last] or results


def _take_in(row: AlertRow, result: Row, now: dt.datetime) -> list[dict[str, Any]]:
    """Change the alert row by one result and return the events to write."""
    verdict = Verdict(result["window_start"], result["status"], result["id"])
    before = state_of(row)
    after, kinds, is_newest = step(before, verdict, k=result["k"], n=result["of_n"])
    row |= state_columns(after)
    if is_newest:
        _remember(row, result, now)
    if "opened" in kinds:
        row |= {
            "opened_window": result["window_start"],
            "opened_at": now,
            "resolved_at": None,
            "resolved_reason": "",
            "muted_reason": "backfill" if result["is_backfill"] else "",
        }
    if "resolved" in kinds:
        reason = "revised" if "revised" in kinds else "recovered"
        row |= {"resolved_at": now, "resolved_reason": reason}
    return [_event(row, kind, result["window_start"], result, now) for kind in kinds]


def _remember(row: AlertRow, result: Row, now: dt.datetime) -> None:
    """Keep what the newest window said; the sentence and numbers stay the last failure's."""
    row |= {
        "last_window_start": result["window_start"],
        "last_data_version": result["data_version"],
        "last_status": result["status"],
        "updated_at": now,
    }
    details = json.loads(row["details"])
    if failed(result["status"]):
        row |= {name: result[name] for name in ("value", "message", "owner", "runbook")}
        same = ("baseline_value", "lower", "upper", "n", "threshold", "granularity", "run_id")
        details = {name: result[name] for name in same}
        details["window_start"] = result["window_start"].isoformat()
        details["explain"] = json.loads(result["details"] or "{}")
    details["newest_value"], details["newest_message"] = result["value"], result["message"]
    details["newest_window_end"] = result["window_end"].isoformat()
    row["details"] = json.dumps(details)


def _event(
    row: AlertRow, kind: EventKind, window: dt.datetime, result: Row | None, now: dt.datetime
) -> dict[str, Any]:
    return {
        "fingerprint": row["fingerprint"],
        "episode": row["episode"],
        "kind": kind,
        "window_start": window,
        "data_version": result["data_version"] if result else row["last_data_version"],
        "severity": row["severity"],
        "value": result["value"] if result else row["value"],
        "message": result["message"] if result else row["message"],
        "muted_reason": row["muted_reason"],
        "created_at": now,
    }


# Suppression: a broken window explains its own drift


def _failing_causes(
    conn: sa.Connection, model: str, windows: Sequence[dt.datetime]
) -> dict[tuple[dt.datetime, str], str]:
    """Return a failing schema or freshness monitor by (window, dataset)."""
    statuses = alert_state.newest_statuses(conn, model, CAUSES, windows)
    failing = [row for row in statuses if failed(row["status"])]
    ordered = sorted(failing, key=lambda row: str(row["monitor"]), reverse=True)
    return {(row["window_start"], row["dataset"]): row["monitor"] for row in ordered}


def _mute(
    alerts: Iterable[AlertRow],
    events: Sequence[dict[str, Any]],
    causes: Mapping[tuple[dt.datetime, str], str],
    windows: Collection[dt.datetime],
) -> set[str]:
    """Mute or unmute what schema and freshness explain; return the changed fingerprints."""
    judged, suppressible, changed = set(windows), {}, set()
    for row in alerts:
        if row["family"] not in SUPPRESSED or row["muted_reason"] == "backfill":
            continue
        suppressible[row["fingerprint"]] = row["dataset"]
        if row["last_window_start"] in judged:
            cause = causes.get((row["last_window_start"], row["dataset"]))
            reason = f"suppressed:{cause}" if cause else _without_suppression(row["muted_reason"])
            if reason != row["muted_reason"]:
                row["muted_reason"] = reason
                changed.add(row["fingerprint"])
    for event in events:
        dataset = suppressible.get(event["fingerprint"])
        cause = causes.get((event["window_start"], dataset)) if dataset else None
        if cause:
            event["muted_reason"] = f"suppressed:{cause}"
    return changed


def _without_suppression(reason: str) -> str:
    return "" if reason.startswith("suppressed:") else reason


# Alerts whose slice or monitor is gone


def _resolve_missing(conn: sa.Connection, model: str, now: dt.datetime) -> None:
    """End the alerts that had no result at all in the last windows their family was judged in."""
    coverage: dict[tuple[str, str], dict[dt.datetime, set[tuple[str, str, str]]]] = {}
    for row in alert_state.load_alerts(conn, model, states=alert_state.ACTIVE).values():
        if row["family"] == "pipeline" or row["metric"] == no_verdict.METRIC:
            continue
        stream = (row["family"], row["dataset"])
        if stream not in coverage:
            coverage[stream] = alert_state.recent_coverage(conn, model, *stream)
        newer = {w: keys for w, keys in coverage[stream].items() if w > row["last_window_start"]}
        key = (row["monitor"], row["slice_key"], row["slice_value"])
        if len(newer) >= WINDOWS_UNTIL_MISSING and not any(key in keys for keys in newer.values()):
            reason = "monitor_removed" if row["slice_key"] == "all" else "slice_missing"
            _end(conn, dict(row), reason, max(newer), now)


def _end(
    conn: sa.Connection, row: AlertRow, reason: str, window: dt.datetime, now: dt.datetime
) -> None:
    after, kinds, _ = resolve(state_of(row))
    row |= {**state_columns(after), "resolved_at": now, "resolved_reason": reason}
    row["updated_at"] = now
    alert_state.save_alerts(conn, [row])
    alert_state.append_events(conn, [_event(row, kind, window, None, now) for kind in kinds])
