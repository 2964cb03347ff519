"""Columns whose quality fails at once are one alert: one feed is down, not seven columns."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from mlmon_dagster.alerts.lifecycle.suppression import QUALITY
from mlmon_dagster.alerts.lifecycle.transitions import failed
from mlmon_dagster.monitors.wording import NAMES, number
from mlmon_dagster.spec import ALL
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.store.state.frames import Row

SEVERAL = 3  # columns
_MOST = 8  # that are named


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
    taken, groups = [], dict[tuple[Any, ...], list[Row]]()
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
