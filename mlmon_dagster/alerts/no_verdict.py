"""A family that cannot judge is an alert of its own; NO_DATA itself moves no alert.

Ground truth that is still to come, an empty window and a broken schema explain themselves or have
their own alert. Otherwise nothing would fire because nothing is judged, and nobody would know: so
a missing baseline or ground truth that should be there is told at once, and whatever else keeps a
family from judging, such as too few rows, once it has lasted for some windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlmon_dagster.spec import Granularity, ModelSpec
from mlmon_dagster.store.alert_state import Row

METRIC = "no_verdict"
_AT_ONCE = ("no_baseline",)
_WHEN_MATURE = ("no_actuals",)
# Told by other alerts, over by themselves, or known to whoever installed it.
_EXPLAINED = (
    "no_rows", "no_records", "files_unread", "provisional", "schema", "fully_covered",
    "no_actuals", "no_scikit_learn",
)  # fmt: skip
# Windows with predictions in a row without a verdict: a week of days, two days of hours.
_PATIENCE: dict[Granularity, int] = {"hour": 48, "day": 7, "week": 3, "month": 2}
_NEXT = {
    "few_rows": "Choose a coarser time.granularity, or lower the monitor's min_rows.",
    "few_of_rarer_class": "Choose a coarser time.granularity, so that a window holds more of them.",
}


def family_results(results: Sequence[Row], spec: ModelSpec) -> list[dict[str, Any]]:
    """Return one more result per window, dataset and family: whether it could be judged.

    Args:
        results: Rows of ``monitor_result``; only those of whole windows (slice ``all``) count.
        spec: The model that they are of.

    Returns:
        WARN where no monitor of a family could judge, or one could not and somebody must act; OK
        where others did; nothing where there was no verdict for a reason that needs no one. What
        may pass by itself fires only if it lasts: a week of days, or two days of hours.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in results:
        if row["slice_key"] == "all" and row["family"] != "pipeline":
            key = (row["window_start"], row["family"], row["dataset"])
            groups.setdefault(key, []).append(row)
    return [found for rows in groups.values() if (found := _family_result(rows, spec))]


def _family_result(rows: Sequence[Row], spec: ModelSpec) -> dict[str, Any] | None:
    unjudged = [row for row in rows if row["status"] == "NO_DATA"]
    judged = [row for row in rows if row["status"] != "NO_DATA"]
    mute = [row for row in unjudged if _needs_someone(row)]
    patience = _patience(spec)
    k = 1 if mute else patience
    if not mute and not judged:
        mute = [row for row in unjudged if row["reason"] not in _EXPLAINED and row["n"]]
    if not mute and not judged:
        return None
    example = (mute or judged)[0]
    return {
        **example,
        "id": max(row["id"] for row in rows),
        "monitor": f"{example['family']}/{METRIC}",
        "metric": METRIC,
        "column_name": ":table",
        "status": "WARN" if mute else "OK",
        "value": None,
        "excess": None,
        "excess_error": None,
        "threshold": "",
        "message": _message(mute, spec) if mute else "",
        "details": "{}",
        "k": k,
        "of_n": patience,
    }


def _needs_someone(row: Row) -> bool:
    if row["reason"] in _AT_ONCE:
        return True
    return row["reason"] in _WHEN_MATURE and row["maturity"] in ("mature", "closed")


def _patience(spec: ModelSpec) -> int:
    """Return how many windows without a verdict are borne, beside those that are learnt from."""
    grain = spec.time.granularity
    learnt = spec.baseline.windows_needed(grain) if spec.baseline.is_rolling else 0
    return _PATIENCE[grain] + learnt


def _message(mute: Sequence[Row], spec: ModelSpec) -> str:
    first = mute[0]
    others = f" The same holds for {len(mute) - 1} more." if len(mute) > 1 else ""
    step = _NEXT.get(first["reason"], "")
    if first["reason"] == "learning":
        step = f"The baseline is {spec.baseline.described()}."
    return f"{first['message']}{others}" + (f" {step}" if step else "")
