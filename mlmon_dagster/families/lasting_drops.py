"""Performance that is worse by too little for any one window, and stays so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlmon_dagster.monitors.evidence import (
    A_YEAR,
    N_TOGETHER,
    Case,
    Evidence,
    Window,
    early_text,
    excess,
    failing,
    finite,
    level_of,
)
from mlmon_dagster.monitors.wording import (
    name_fall,
    name_span,
    number,
    subject,
    told,
    unit_of,
    weighted_text,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import METRICS, OUTCOME_MEANS, is_loss
from mlmon_dagster.spec.monitors import SUSTAINED_WINDOWS, PerformanceMonitor
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import baseline_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlmon_dagster.metrics.frames import BaselineSample, MetricSample
    from mlmon_dagster.metrics.performance.lasting import Course, Drop

MOST = SUSTAINED_WINDOWS[-1]
_STILL = 0.5  # of the limit, by which the newest windows must still be off


def judge_newest(
    case: Case, monitor: PerformanceMonitor, row: MetricSample, base: BaselineSample | None
) -> MonitorResult | None:
    """Fail a window whose newest ones together are worse by the declared amount, and surely so.

    The newest 7, 14 or 28 windows with a value, whichever say it most, by the law of the baseline's
    windows (`metrics.performance.lasting`): an unchanged model has a false alert in twenty years.
    And it lasts: the middle one of the newest three is worse by half of the amount still.

    Args:
        case: The newest window.
        monitor: Of a drop or a change against the baseline.
        row: Its metric in the window.
        base: The same in the baseline.

    Returns:
        None where the newest windows say no such thing; then the window stands for itself.
    """
    evidence, window = case.evidence, case.window
    drop = _find_drop(evidence, window, monitor, row, base)
    if drop is None:
        return None
    from mlmon_dagster.metrics.intervals import Z95
    from mlmon_dagster.metrics.windows.law import level_of_newest

    limit = monitor.allowed(drop.usual)
    # Either way there would be twice as many false alerts; only the worse counts. Weeks are held to
    # the level of days: a tenth of a false alert a year would be one of few that a model has.
    a_year = max(A_YEAR[evidence.spec.time.granularity], A_YEAR["day"])
    level = level_of(window, level_of_newest(a_year) / 2)
    is_large, lasts = drop.worse >= limit - 1e-12, drop.newest >= _STILL * limit
    if not (is_large and lasts and drop.p_value / 2 <= level):
        return None
    from scipy import special

    margin = drop.worse / -special.ndtri(drop.p_value / 2) * Z95
    return case.result(
        failing(monitor, monitor.is_error(drop.value, drop.worse, drop.usual)),
        _describe(evidence, window, monitor, row, drop, limit),
        value=drop.value,
        lower=drop.value - margin,
        upper=drop.value + margin,
        n=drop.n,
        baseline_value=drop.usual,
        p_value=drop.p_value / 2,
        p_adjusted=drop.p_value / 2,
        details={
            "worse_by": finite(drop.worse),
            "p": drop.p_value / 2,
            "n_baseline": 0 if base is None else int(base["n"]),
            N_TOGETHER: drop.run,
        },
        k=1,  # it is of several windows already
        of_n=1,
        method_version=f"{row['method_version']}:together",
        **excess(drop.worse, limit, margin),
    )


def _find_drop(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    row: MetricSample,
    base: BaselineSample | None,
) -> Drop | None:
    if not monitor.is_relative or row["slice_key"] != ALL or base is None:
        return None
    usual, metric = finite(base.get("usual")), METRICS[monitor.metric]
    known = evidence.baseline_course(monitor.metric, monitor.column)
    if usual is None or not known:
        return None
    newest = evidence.recent(window, monitor.metric, MOST, monitor.column)
    if known[0]["dataset"] == PRODUCTION:  # windows of the baseline say nothing against it
        newest = [one for one in newest if one["window_start"] > known[-1]["window_start"]]
    if not newest or newest[-1]["window_start"] != window["window_start"]:
        return None
    from mlmon_dagster.metrics.performance.lasting import find_drop

    side = 1 if is_loss(monitor.metric) else -1
    moving = baseline_of(evidence.spec, evidence.family).moving
    return find_drop(
        _read_course(known, side),
        _read_course(newest, side),
        usual,
        usual + side * monitor.allowed(usual),
        is_share=(metric.low, metric.high) == (0.0, 1.0),
        windows_a_year=A_YEAR[evidence.spec.time.granularity],
        is_moving=moving is not None,
    )


def _read_course(rows: Sequence[MetricSample], side: int) -> Course:
    import numpy as np

    from mlmon_dagster.metrics.performance.lasting import Course

    return Course(
        np.array([row["value"] for row in rows], np.float64),
        np.array([row["lower"] if side > 0 else row["upper"] for row in rows], np.float64),
        np.array([row["n"] for row in rows], np.float64),
        np.array([int(row["window_start"].timestamp()) for row in rows], np.int64),
    )


def _describe(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    row: MetricSample,
    drop: Drop,
    limit: float,
) -> str:
    grain, direction = evidence.spec.time.granularity, "worse"
    if monitor.metric in OUTCOME_MEANS:  # of which people differ what is better
        direction = "higher" if drop.value > drop.usual else "lower"
    unit = unit_of(evidence.spec, monitor.metric, monitor.column)
    first = (
        f"{subject(monitor.metric, monitor.column, row)} is {number(drop.value)}{unit} "
        f"{name_span(drop.run, grain)}, {direction} than the usual {number(drop.usual)}"
    )
    alone = (
        f"This {grain} alone (n {int(row['n']):,}) may be chance, together they are not "
        f"(n {drop.n:,}); the limit is {name_fall(monitor.metric, limit)}"
    )
    weighted = weighted_text(row["method_version"], window.get("actual_coverage"))
    return told(first, ". ".join(filter(None, (alone, weighted, early_text(window)))))
