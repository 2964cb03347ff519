"""Suppression: a broken window explains its own drift and performance, a broken column its drift.

A window is broken when its rows did not arrive (freshness fails), or when what arrived is not
what the model saw: files refused as a whole, more bad rows than a file may have, or another
failing ERROR of the schema. A few bad rows, or a WARN, leave the rest of the window fit to judge.
A column whose values are missing, unseen or out of range has drifted for that reason.

Columns whose quality fails at once are one alert: one feed is down, not seven columns.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.alerts.lifecycle.transitions import failed
from mlmon_dagster.monitors.wording import NAMES, number
from mlmon_dagster.spec import ALL, ModelSpec
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.alert_state import AlertEvent
from mlmon_dagster.store.state.statements import Row

CAUSES = ("schema", "freshness")
QUALITY = "quality"
SUPPRESSED = ("drift", "performance", "estimated_performance", "business", "versions")
WHOLE = ""  # instead of a column: the cause concerns the window
Causes = Mapping[tuple[dt.datetime, str, str], str]
SEVERAL = 3  # columns
_MOST = 8  # that are named


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
    events: Sequence[AlertEvent],
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


def join_columns(results: Iterable[Row]) -> list[Row]:
    """Return results as alerts take them in: what fails in several columns at once as one.

    The joint result is about `SEVERAL` columns or more: it fails when so many fail the same metric
    in the same window, and the results of these columns are left out then, so that their own
    alerts stay as they are. Its evidence is that of the column which decides.

    Args:
        results: Rows of ``monitor_result``.

    Returns:
        The rows, and one more per window, dataset and metric of the quality where enough columns
        were judged.
    """
    taken, groups = [], dict[tuple[object, ...], list[Row]]()
    for row in results:
        if row["family"] == QUALITY and row["slice_key"] == ALL and row["status"] != "NO_DATA":
            key = (row["window_start"], row["dataset"], row["metric"])
            groups.setdefault(key, []).append(row)
        else:
            taken.append(row)
    for rows in groups.values():
        newest = {row["column_name"]: row for row in rows}  # in the order of their ids
        if len(newest) < SEVERAL:
            taken += rows
            continue
        failing = [row for row in newest.values() if failed(row["status"])]
        is_joint = len(failing) >= SEVERAL
        taken += rows if not is_joint else [r for r in rows if not failed(r["status"])]
        taken.append(_joint(list(newest.values()), failing if is_joint else []))
    return taken


def _joint(rows: Sequence[Row], failing: Sequence[Row]) -> Row:
    """Return the result about all the columns; ``failing`` is empty if there is no failure."""
    by_excess = sorted(rows, key=lambda r: math.inf if r["excess"] is None else -r["excess"])
    deciding = by_excess[SEVERAL - 1]
    worst = next((r for r in failing if r["status"] == "ERROR"), (failing or rows)[0])
    metric = str(worst["metric"])
    return {
        **worst,
        "id": max(row.get("id", 0) for row in rows),
        "monitor": f"{QUALITY}/{metric}",
        "column_name": TABLE,
        "status": worst["status"] if failing else "OK",
        "value": None,
        "lower": None,
        "upper": None,
        "excess": deciding["excess"],
        "excess_error": deciding["excess_error"],
        "message": _message(metric, failing) if failing else "",
        "details": json.dumps({"n_columns": len(failing)}),
    }


def _message(metric: str, failing: Sequence[Row]) -> str:
    names = sorted(str(row["column_name"]) for row in failing)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    limits = " or ".join(sorted({str(row["threshold"]) for row in failing}))
    values = [row["value"] for row in failing if row["value"] is not None]
    worst = f"; at worst {number(max(values))}" if values else ""
    n = max(int(row["n"]) for row in failing)
    return (
        f"{NAMES.get(metric, metric)} of {len(names)} columns is {limits}: "
        f"{', '.join(names[:_MOST])}{more}{worst} (n {n:,})."
    )
