"""Family service: latency and errors of the serving system, and fewer predictions than usual."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mlmon_dagster.metrics.frames import MetricSample
from mlmon_dagster.metrics.service import MIN_WINDOWS, volume_drop
from mlmon_dagster.monitors.evidence import (
    MIN_COUNT,
    NO_DATA,
    OK,
    Evidence,
    Window,
    excess,
    excess_of,
    not_measured,
    production,
    result_row,
)
from mlmon_dagster.monitors.wording import compared, no_verdict, number, subject, threshold
from mlmon_dagster.spec import Condition
from mlmon_dagster.store.state.monitor_results import MonitorResult

_ROLES = {"p95_latency_ms": "latency_ms", "p99_latency_ms": "latency_ms", "error_rate": "status"}
STRANGE = 4.0  # usual deviations below the usual


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail declared conditions; those on columns that the model does not log are left out.

    The volume is judged against its own past (see `volume`).
    """
    spec = evidence.spec
    conditions: dict[str, Condition | None] = {
        metric: getattr(spec.monitors.service, metric) for metric in (*_ROLES, "n")
    }
    rows = [
        _judge_metric(evidence, window, metric, condition)
        for window in evidence.windows
        for metric, condition in conditions.items()
        if condition is not None
        and (metric == "n" or getattr(spec.columns, _ROLES[metric]) is not None)
    ]
    volumes = (judge_volume(evidence, window) for window in production(evidence))
    return rows + [row for row in volumes if row is not None]


def _is_evident(condition: Condition, row: MetricSample) -> bool:
    """Say whether errors are more than chance: 3 of 200 are 1.5 %, and no evidence for above 1 %.

    Nor are 2 of 30, whose interval lies above that: of many quiet days one has them.
    """
    if not condition.above:  # none at all are allowed
        return True
    return bool(row["lower"] > condition.above and round(row["value"] * row["n"]) >= MIN_COUNT)


def _judge_metric(
    evidence: Evidence, window: Window, metric: str, condition: Condition
) -> MonitorResult:
    monitor = evidence.spec.monitors.service
    row = evidence.whole(window, metric)
    if metric == "n":
        n = int(window["n"])
        counted = {"value": float(n), "n": n, "reason": "", "method_version": "count-1"}
        row = cast("MetricSample", counted)  # a count has no interval
    common: dict[str, Any] = {
        "family": "service",
        "metric": metric,
        "source": row,
        "threshold": threshold(condition),
    }
    if row is None or row["reason"]:
        missing = not_measured(window)
        reason = str(row["reason"]) if row else missing
        message = no_verdict(subject(metric), reason, int(window["n"]))
        return result_row(
            evidence, window, monitor, status=NO_DATA, message=message, reason=reason, **common
        )
    failed = condition.fails(row["value"])
    if metric == "error_rate":
        failed = failed and _is_evident(condition, row)
    count = "" if metric == "n" else f" (n {int(row['n']):,})"
    message = f"{subject(metric)} is {number(row['value'])}{count}, {compared(condition, failed)}."
    if not failed and condition.fails(row["value"]):
        message = f"{subject(metric)} is {number(row['value'])}{count}, too few errors to tell."
    is_error = failed and condition.is_error(row["value"])
    status = ("ERROR" if is_error else monitor.severity) if failed else OK
    return result_row(
        evidence,
        window,
        monitor,
        status=status,
        message=message,
        **excess_of(condition, row),
        **common,
    )


def judge_volume(evidence: Evidence, window: Window) -> MonitorResult | None:
    """Fail a window with far fewer rows than its place in the week usually has.

    It needs `MIN_WINDOWS` earlier windows with rows (`earlier_places` and `earlier_sizes` of the
    window); before that there is no row. An empty window is the business of freshness, and one
    whose rows were refused that of the schema: neither has a row here.
    """
    monitor = evidence.spec.monitors.service
    condition, sizes = monitor.volume_drop, window.get("earlier_sizes", ())
    refused = window["schema_broken"] or window["n_quarantined"]
    if condition is None or not window["n"] or refused:
        return None
    if len(sizes) < MIN_WINDOWS:
        return None
    n = int(window["n"])
    found = volume_drop(n, int(window["place"]), window["earlier_places"], np.asarray(sizes))
    failed = condition.fails(found.drop) and found.z > STRANGE
    share = f"{abs(found.drop) * 100:.0f}"
    message = (
        f"{n:,} predictions, {share} % {'less' if found.drop >= 0 else 'more'} than the usual "
        f"{found.usual:,.0f} of such a window"
    )
    if condition.fails(found.drop) and not failed:
        message += "; the volume varies as much anyway"
    return result_row(
        evidence,
        window,
        monitor,
        family="service",
        metric="volume_drop",
        status=monitor.severity if failed else OK,
        message=message + ".",
        value=found.drop,
        baseline_value=found.usual,
        threshold=threshold(condition),
        method_version="volume-1",
        details={"usual": round(found.usual, 1), "z": round(found.z, 2)},
        **excess(found.drop, condition.bound),
    )
