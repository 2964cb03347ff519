"""Fewer predictions than usual: part of the family service."""

from __future__ import annotations

import numpy as np

from mlmon_dagster.metrics.volume import MIN_WINDOWS, volume_drop
from mlmon_dagster.monitors.evidence import OK, Evidence, Row, Window, result_row
from mlmon_dagster.monitors.limits import excess
from mlmon_dagster.monitors.wording import threshold

STRANGE = 4.0  # usual deviations below the usual


def judge_volume(evidence: Evidence, window: Window) -> Row | None:
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
