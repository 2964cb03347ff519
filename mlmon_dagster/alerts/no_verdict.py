"""A family that cannot judge is an alert of its own; NO_DATA itself moves no alert.

Too few rows, ground truth that is still to come and a broken schema explain themselves or have
their own alert. A missing baseline, and ground truth that should be there and is not, would
otherwise go unnoticed: nothing fires, because nothing is judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlmon_dagster.store.alert_state import Row

METRIC = "no_verdict"
_ALWAYS = ("no_baseline",)
_WHEN_MATURE = ("no_actuals",)


def family_results(results: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one more result per window, dataset and family: whether it could be judged.

    Args:
        results: Rows of ``monitor_result``; only those of whole windows (slice ``all``) count.

    Returns:
        WARN where a monitor could not judge and somebody must act, OK where all the others did;
        nothing where there was no verdict for a reason that needs no one.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results:
        if row["slice_key"] == "all" and row["family"] != "pipeline":
            key = (row["window_start"], row["family"], row["dataset"])
            groups.setdefault(key, []).append(row)
    return [found for rows in groups.values() if (found := _family_result(rows))]


def _family_result(rows: Sequence[Row]) -> dict[str, Any] | None:
    mute = [row for row in rows if row["status"] == "NO_DATA" and _needs_someone(row)]
    judged = [row for row in rows if row["status"] != "NO_DATA"]
    if not mute and not judged:
        return None
    example = (mute or judged)[0]
    others = f" The same holds for {len(mute) - 1} more." if len(mute) > 1 else ""
    return {
        **example,
        "id": max(row["id"] for row in rows),
        "monitor": f"{example['family']}/{METRIC}",
        "metric": METRIC,
        "column_name": ":table",
        "status": "WARN" if mute else "OK",
        "value": None,
        "threshold": "",
        "message": f"{example['message']}{others}" if mute else "",
        "details": "{}",
        "k": 1,
        "of_n": 1,
    }


def _needs_someone(row: Row) -> bool:
    if row["reason"] in _ALWAYS:
        return True
    return row["reason"] in _WHEN_MATURE and row["maturity"] in ("mature", "closed")
