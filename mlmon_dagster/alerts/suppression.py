"""Suppression: a broken window explains its own drift and performance.

A window is broken when its rows did not arrive (freshness fails), or when what arrived is not
what the model saw: files refused as a whole, more bad rows than a file may have, or another
failing ERROR of the schema. A few bad rows, or a WARN, leave the rest of the window fit to judge.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.transitions import failed
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.alert_state import Row

CAUSES = ("schema", "freshness")
SUPPRESSED = ("drift", "performance", "estimated_performance")

Causes = Mapping[tuple[dt.datetime, str], str]


def breaks_window(result: Row, max_bad_rate: float) -> bool:
    """Tell whether a monitor result says that its window cannot be judged at all.

    Args:
        result: ``family``, ``status``, ``metric``, ``value`` and ``details`` of a result.
        max_bad_rate: The share of bad rows from which a window counts as broken.
    """
    if result["family"] == "freshness":
        return failed(result["status"])
    if result["family"] != "schema" or result["status"] != "ERROR":
        return False
    if result["metric"] != "bad_rate":
        return True
    details = json.loads(result["details"] or "{}")
    return bool(details.get("n_quarantined")) or (result["value"] or 0.0) > max_bad_rate


def failing_causes(
    conn: sa.Connection, spec: ModelSpec, windows: Sequence[dt.datetime]
) -> dict[tuple[dt.datetime, str], str]:
    """Return a monitor that says a window is broken, by (window, dataset)."""
    limit = spec.source.predictions.max_bad_rate
    results = alert_state.newest_results(conn, spec.model, CAUSES, windows)
    breaking = [row for row in results if breaks_window(row, limit)]
    ordered = sorted(breaking, key=lambda row: str(row["monitor"]), reverse=True)
    return {(row["window_start"], row["dataset"]): row["monitor"] for row in ordered}


def mute(
    alerts: Iterable[dict[str, Any]],
    events: Sequence[dict[str, Any]],
    causes: Causes,
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
