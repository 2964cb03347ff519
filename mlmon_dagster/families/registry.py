"""Every family of monitors by name, and the one entry to their judges."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from mlmon_dagster.families.family import Facts, Family
from mlmon_dagster.monitors.evidence import Evidence, fill_windows
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES as DECLARED
from mlmon_dagster.store.state.monitor_results import MonitorResult

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.late_truth.arrivals import Arrivals
    from mlmon_dagster.monitors.evidence import Changes, Repeated, Sustained


def _load_family(name: str) -> Family:
    """Import the module that is called as a family is, so that nothing lists them twice."""
    found: Family = import_module(f"mlmon_dagster.families.{name}").FAMILY
    return found


FAMILIES: Mapping[str, Family] = {name: _load_family(name) for name in DECLARED}
# The asset that measures a family's metrics -> the family, in the order of the assets.
MEASURED_BY: Mapping[str, Family] = {
    family.step: family for family in FAMILIES.values() if family.measure is not None
}


def evaluate(
    spec: ModelSpec,
    metrics: pd.DataFrame,
    windows: Sequence[Facts],
    *,
    now: dt.datetime,
    run_id: str,
    is_backfill: bool,
    baseline: pd.DataFrame | None = None,
    baseline_windows: pd.DataFrame | None = None,
    unseen: Mapping[tuple[str, pd.Timestamp], Mapping[str, int]] | None = None,
    respelled: Mapping[tuple[str, pd.Timestamp], Mapping[str, str]] | None = None,
    constant: Collection[tuple[str, pd.Timestamp]] = (),
    changes: Changes | None = None,
    sustained: Sustained | None = None,
    repeated: Repeated | None = None,
    arrivals: Arrivals | None = None,
    families: Iterable[str] = DECLARED,
) -> list[MonitorResult]:
    """Judge windows by every monitor that the spec declares.

    Args:
        spec: The model.
        metrics: MetricFrame of the windows, all metrics and slices that exist. Of several model
            versions, `all` is judged, else the one with most rows.
        windows: One row per window (and dataset, production if it is not named): window_start,
            window_end, n, and as far as known n_actual, maturity, data_version, n_bad (refused
            rows), n_by_rule (those of them that a rule of the spec refuses), bad_reasons (JSON or
            dict, reason -> rows), n_quarantined (files), quarantined (their names), schema_broken
            (drift and performance are then NO_DATA), actual_coverage, first_event_time,
            last_event_time, calendar (a `windows.presence.Calendar`), last_before, next_after and
            is_followed, see `freshness`.
        now: The moment of judging, timezone-aware; only freshness looks at it.
        run_id: Of the run that computed this.
        is_backfill: Handed through to the alerts.
        baseline: MetricFrame of the baseline's performance, one row per metric and slice; without
            it, monitors with `drop` are NO_DATA.
        baseline_windows: MetricFrame of the baseline's whole windows one by one; without it,
            monitors with `shift` are NO_DATA.
        unseen: Names and counts of unseen values by (column, window_start), as made by
            `metrics.quality.unseen_values`; shown unless the feature is `pii`.
        respelled: Unseen value -> known value that differs in case, spaces or punctuation alone,
            by the same.
        constant: Columns and windows in which all values are the same, as the baseline's are not.
        changes: Says what changed in a column in the window that starts then, given which others
            it may have been mistaken for; without it, drift is told by its statistics alone.
        sustained: Says what the newest windows of columns have in common; without it, shifts that
            show in no window alone are not judged.
        repeated: Says how far a window's rows repeat earlier ones; without it that is not judged.
        arrivals: What is known of when ground truth comes; without it, late ground truth is told
            by `actuals.expected_within` alone.
        families: Families to judge.

    Returns:
        Rows of `monitor_result` without `id` and `folded_at`. Every monitor has a row for every
        window, except a freshness monitor for an empty window that may still fill.

    Raises:
        KeyError: If a family is unknown.
    """
    known = fill_windows(windows)
    return [
        row
        for family in families
        for row in FAMILIES[family].judge(
            Evidence(
                family=family,
                spec=spec,
                windows=known,
                metrics=metrics,
                baseline=baseline,
                baseline_windows=baseline_windows,
                unseen=unseen or {},
                respelled=respelled or {},
                now=now,
                run_id=run_id,
                is_backfill=is_backfill,
                constant=constant,
                changes=changes,
                sustained=sustained,
                repeated=repeated,
                arrivals=arrivals,
            )
        )
    ]
