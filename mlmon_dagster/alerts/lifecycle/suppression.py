"""Suppression: a broken window explains its own drift and performance, a broken column its drift.

A window is broken when its rows did not arrive (freshness fails), or when what arrived is not
what the model saw: files refused as a whole, more bad rows than a file may have, or another
failing ERROR of the schema. A few bad rows, or a WARN, leave the rest of the window fit to judge.
A column whose values are missing, unseen or out of range has drifted for that reason.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.transitions import failed
from mlmon_dagster.spec import ALL, ModelSpec
from mlmon_dagster.store.alerting import alert_state
from mlmon_dagster.store.state.frames import Row

CAUSES = ("schema", "freshness")
QUALITY = "quality"
SUPPRESSED = ("drift", "performance", "estimated_performance")

WHOLE = ""  # instead of a column: the cause concerns the window

Causes = Mapping[tuple[dt.datetime, str, str], str]


def breaks_window(result: Row, max_bad_rate: float) -> bool:
    """Tell whether a monitor result says that its window cannot be judged at all.

    Args:
        result: ``family``, ``status``, ``metric``, ``value`` and ``details`` of a result.
        max_bad_rate: The share of bad rows from which a window counts as broken.
    """
    if result["family"] == "freshness":
        return failed(result["status"]) and result["metric"] != "actuals_missing"
    if result["family"] != "schema" or result["status"] != "ERROR":
        return False
    if result["metric"] != "bad_rate":
        return True
    details = json.loads(result["details"] or "{}")
    return bool(details.get("n_quarantined")) or (result["value"] or 0.0) > max_bad_rate


def failing_causes(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[dt.datetime]
) -> dict[tuple[dt.datetime, str, str], str]:
    """Return a monitor that says a window or column is broken, by (window, dataset, column)."""
    limit = spec.source.predictions.max_bad_rate
    results = alert_state.newest_results(conn, spec.model, (*CAUSES, QUALITY), windows)
    causes: dict[tuple[dt.datetime, str, str], str] = {}
    for row in sorted(results, key=lambda row: str(row["monitor"]), reverse=True):
        place = row["window_start"], row["dataset"]
        if row["family"] == QUALITY:
            if failed(row["status"]) and row["slice_key"] == ALL:
                causes[(*place, row["column_name"])] = row["monitor"]
        elif breaks_window(row, limit):
            causes[(*place, WHOLE)] = row["monitor"]
    return causes


def _cause(causes: Causes, window: dt.datetime, row: Row) -> str | None:
    """Return the monitor that explains an alert's failure in a window."""
    place = window, row["dataset"]
    of_column = row["column_name"] if row["family"] == "drift" else WHOLE
    return causes.get((*place, WHOLE)) or causes.get((*place, of_column))


def mute(
    alerts: Iterable[dict[str, Any]],
    events: Sequence[dict[str, Any]],
    causes: Causes,
    windows: Collection[dt.datetime],
) -> set[str]:
    """Mute or unmute what schema, freshness and quality explain; return the changed fingerprints.

    What was muted stays so while it recovers: it is told once it fails without an explanation.
    """
    judged, changed = set(windows), set()
    suppressible: dict[str, dict[str, Any]] = {}
    for row in alerts:
        if row["family"] not in SUPPRESSED or row["muted_reason"] == "backfill":
            continue
        suppressible[row["fingerprint"]] = row
        if row["last_window_start"] in judged:
            cause = _cause(causes, row["last_window_start"], row)
            if cause is None and row["state"] == "RECOVERING":
                continue
            reason = f"suppressed:{cause}" if cause else _without_suppression(row["muted_reason"])
            if reason != row["muted_reason"]:
                row["muted_reason"] = reason
                changed.add(row["fingerprint"])
    for event in events:
        alert = suppressible.get(event["fingerprint"])
        cause = _cause(causes, event["window_start"], alert) if alert else None
        if cause:
            event["muted_reason"] = f"suppressed:{cause}"
    return changed


def _without_suppression(reason: str) -> str:
    return "" if reason.startswith("suppressed:") else reason
