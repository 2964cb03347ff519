"""Families performance and business: worse than the baseline's windows, or past a fixed bound."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from mlmon_dagster.families.family import Family, Measure, References, await_truth, measure_profiles
from mlmon_dagster.families.lasting_drops import MOST, judge_newest
from mlmon_dagster.families.releases import count_read, find_releases, judge_release
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    WORST_SLICES,
    Case,
    Evidence,
    Excess,
    Window,
    choose_level,
    early_text,
    excess,
    finite,
    level_of,
    not_mature,
    not_valued,
)
from mlmon_dagster.monitors.wording import (
    interval_text,
    name_fall,
    number,
    subject,
    told,
    unit_of,
    weighted_text,
    write_limit,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import (
    COUNTED,
    GENERATION,
    METRICS,
    OUTCOME_MEANS,
    REGRESSION,
    MetricFamily,
    is_loss,
)
from mlmon_dagster.spec.monitors import FAMILIES, RELEASE_CHANGE, PerformanceMonitor
from mlmon_dagster.spec.names import ALL, PERFORMANCE
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.frames import BaselineSample, MetricSample
    from mlmon_dagster.profiles import Baseline

_Q = 0.01
_CHANCE = 0.5  # ROC AUC of scores that mean nothing
_SIGNED = {"bias": "predictions", "me": "predictions", "calibration_gap": "scores"}
_RELATIVE = ("mape", "smape", "wape", "r2")


@dataclass(frozen=True)
class _Change:
    """How much worse than its bound a value is, and whether that is more than chance.

    Attributes:
        worse: By how much; negative if better.
        limit: What `worse` must exceed: the declared drop, or 0 for a fixed bound.
        p: One-sided chance of so bad a value if nothing were worse.
        usual: The baseline's value that `worse` is counted from: what its windows have on average,
            or all its rows together where they are too few; NaN for a fixed bound.
        margin: Half of the 95 % interval of `worse`, on the side of 0.
        n_windows: The baseline's windows whose spread counts; 0 if rows were counted.
        level: What `p` must not exceed for the window to fail.
    """

    worse: float
    limit: float
    p: float
    usual: float = math.nan
    margin: float = math.nan
    n_windows: int = 0
    level: float = 0.0

    @property
    def is_large(self) -> bool:
        # a drop of exactly the limit counts, whatever the rounding
        return self.worse >= self.limit - 1e-12 if self.limit else self.worse > 0

    @property
    def failed(self) -> bool:
        return self.is_large and self.p <= self.level


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail windows that are worse by the declared amount, and significantly so.

    `drop`: worse by at least that much than the baseline's windows on average, and further from it
    than one more of those is by chance (`windows.clusters.beyond_usual`), since rows of a window
    share more than they show. The chance that counts follows from k of n windows, so that a false
    alert opens once in twenty years (`evidence.choose_level`). A baseline of fewer than eight
    windows with a value does not say how far they stray: then rows count as independent, worse is
    worse than all of its rows together, and the interval is Newcombe's; `method_version` ends in
    `windows` or `rows` accordingly. `above` or `below`: past the bound, and by more than the
    window's rows explain. `shift`: see `levels`. For losses, such as log_loss or rmse, worse is
    higher. A window that is not worse by itself fails if the newest ones together are
    (`lasting_drops`). Provisional windows are NO_DATA. Slices (if `slices` is set) must also hold
    against Benjamini-Hochberg, q = .01.
    """
    from mlmon_dagster.families.levels import judge_level

    monitors: Sequence[PerformanceMonitor] = getattr(evidence.spec.monitors, evidence.family)
    rows: list[MonitorResult] = []
    for window in evidence.windows:
        for monitor in monitors:
            if monitor.shift is not None:
                rows.append(judge_level(evidence, window, monitor))
                continue
            row = evidence.whole(window, monitor.metric, monitor.column)
            rows.append(_judge_cell(evidence, window, monitor, row))
            if monitor.slices:
                rows += _judge_slices(evidence, window, monitor)
    return rows


def _side(monitor: PerformanceMonitor) -> str:
    return next(s for s in ("drop", "change", "above", "below") if getattr(monitor, s) is not None)


def _threshold(monitor: PerformanceMonitor) -> str:
    side = _side(monitor)
    bound = getattr(monitor, side)
    return (
        f"{side} {bound:.3g}".replace("change ", "change of ")
        if side == "change"
        else f"{side} {write_limit(bound)}"
    )


def _judge_cell(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    row: MetricSample | None,
) -> MonitorResult:
    base = evidence.baseline_row(monitor.metric, row)
    reason = _no_data(evidence, window, monitor, row, base)
    limit = _threshold(monitor)
    case = Case(evidence, window, monitor, monitor.metric, monitor.column, row, limit)
    if row is None or reason:
        return await_truth(case, reason, subject(monitor.metric, monitor.column, row))
    level = choose_level(monitor.windows, evidence.spec.time.granularity)
    change = replace(_change(monitor, row, base), level=level_of(window, level))
    if not change.failed and (found := judge_newest(case, monitor, row, base)):
        return found
    details: dict[str, object] = {"worse_by": finite(change.worse), "p": finite(change.p)}
    if base:
        details |= {
            "baseline_lower": finite(change.usual - change.margin),
            "baseline_upper": finite(change.usual + change.margin),
            "n_baseline": int(base["n"]),
            "n_windows": change.n_windows,
        }
    sliced = evidence.slices(window, monitor.metric, monitor.column)
    if change.failed and row["slice_key"] == ALL and sliced:
        details["worst_slices"] = worst_slices(evidence, window, monitor, row, base)
        details["sliced_by"] = sorted({part["slice_key"] for part in sliced})
    counted = f":{'windows' if change.n_windows else 'rows'}" if monitor.is_relative else ""
    return case.result(
        _status(monitor, row, change),
        _message(evidence, window, monitor, row, change),
        baseline_value=finite(change.usual),
        p_value=finite(change.p),
        p_adjusted=finite(change.p),
        details=details,
        method_version=f"{row['method_version']}{counted}",
        **_excess(monitor, change, base),
    )


def _excess(monitor: PerformanceMonitor, change: _Change, base: MetricSample | None) -> Excess:
    """Say how far past its limit a window is; a fixed bound's unit is its way to the baseline."""
    if change.limit:
        return excess(change.worse, change.limit, change.margin)
    known = finite(base["value"]) if base else None
    bound = monitor.above if monitor.above is not None else monitor.below
    assert bound is not None or monitor.is_relative
    unit = abs(bound - known if known is not None else bound) if bound is not None else 0.0
    return excess(change.worse + unit, unit, change.margin)


def _status(monitor: PerformanceMonitor, row: MetricSample, change: _Change) -> str:
    if not change.failed:
        return OK
    is_error = monitor.is_error(row["value"], change.worse, finite(change.usual))
    return "ERROR" if is_error else monitor.severity


def _no_data(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    row: MetricSample | None,
    base: BaselineSample | None,
) -> str:
    if _is_complete(evidence, window, monitor, row):
        reason = not_valued(window, row)
    else:
        reason = not_mature(window, row, is_shown=_is_shown_early(monitor.metric, row))
    if reason:
        return reason
    if monitor.is_relative and (base is None or finite(base["value"]) is None):
        return "learning" if evidence.baseline is None else "no_baseline"
    if monitor.is_relative and base is not None and finite(base.get("usual")) is None:
        return str(base["reason"])  # of a value that can have no interval
    return ""


def _is_complete(
    evidence: Evidence, window: Window, monitor: PerformanceMonitor, row: MetricSample | None
) -> bool:
    """Tell whether an evaluation is there of nearly all calls, whoever else is awaited."""
    from mlmon_dagster.metrics.performance.weighted_back import COMPLETE

    if row is None or monitor.column not in evidence.spec.evaluations:
        return False
    return bool(row["n"] >= COMPLETE * window["n"])


def _is_shown_early(metric: str, row: MetricSample | None) -> bool:
    """Tell whether a metric follows from what early ground truth is compared by.

    That is truth and score, or the error of a regression, of all rows: neither outcomes nor groups
    of rows, nor what an error is relative to.
    """
    info, is_whole = METRICS[metric], row is None or row["slice_key"] == ALL
    is_of_rows = info.family != "business" or "costs" in info.needs
    return is_whole and is_of_rows and "fairness" not in info.needs and metric not in _RELATIVE


def _change(monitor: PerformanceMonitor, row: MetricSample, base: BaselineSample | None) -> _Change:
    from mlmon_dagster.metrics.windows.clusters import margin_beside

    value, lower, upper = row["value"], row["lower"], row["upper"]
    if monitor.metric in COUNTED:
        lower = upper = value
    if monitor.is_relative and base is not None:
        sides = value - lower, upper - value
        towards, away = sides if is_loss(monitor.metric) else sides[::-1]
        if finite(base.get("usual")) is not None:
            if monitor.metric in OUTCOME_MEANS:
                towards = float(margin_beside(towards, away))
            return _among_windows(monitor, value, towards, base)
        if is_loss(monitor.metric):
            worse, there = value - base["value"], base["upper"] - base["value"]
        else:
            worse, there = base["value"] - value, base["value"] - base["lower"]
        limit = monitor.allowed(base["value"])
        return _by_rows(worse, limit, math.hypot(towards, there), base["value"])
    if monitor.above is not None:
        return _by_rows(value - monitor.above, 0.0, value - lower)
    assert monitor.below is not None
    return _by_rows(monitor.below - value, 0.0, upper - value)


def _among_windows(
    monitor: PerformanceMonitor, value: float, towards: float, base: BaselineSample
) -> _Change:
    """Compare a window with the baseline's windows."""
    from mlmon_dagster.metrics.intervals import Z95
    from mlmon_dagster.metrics.windows.clusters import beyond_usual

    usual = base["usual"]
    worse = value - usual if is_loss(monitor.metric) else usual - value
    found = beyond_usual(
        [value],
        [towards / Z95],
        {
            "usual": usual,
            "usual_error": base["usual_error"],
            "spread": base["spread"],
            "row_error": base["row_error"],
            "n_windows": base["n_windows"],
        },
    )
    half = float(found.p_value[0]) / 2
    return _Change(
        worse,
        monitor.allowed(usual),
        half if worse > 0 else 1 - half,
        usual,
        float(found.margin[0]),
        int(base["n_windows"]),
    )


def _by_rows(worse: float, limit: float, margin: float, usual: float = math.nan) -> _Change:
    """Test `worse` > 0, `margin` being the distance to the lower end of its 95 % interval."""
    from scipy import special

    from mlmon_dagster.metrics.intervals import Z95

    if not math.isfinite(margin):
        return _Change(worse, limit, math.nan, usual)
    z = worse / margin * Z95 if margin > 0 else math.copysign(math.inf, worse)
    return _Change(worse, limit, float(special.ndtr(-z)), usual, margin)


def _message(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    row: MetricSample,
    change: _Change,
) -> str:
    unit = unit_of(evidence.spec, monitor.metric, monitor.column)
    first = f"{subject(monitor.metric, monitor.column, row)} is {number(row['value'])}{unit}"
    if monitor.is_relative:
        direction = "worse" if change.worse > 0 else "better"
        if monitor.metric in OUTCOME_MEANS:  # of which people differ what is better
            direction = "higher" if row["value"] > change.usual else "lower"
        whose = "the usual" if change.n_windows else "the baseline's"
        first += f", {direction} than {whose} {number(change.usual)}"
    else:
        side, bound = _threshold(monitor).split(" ")
        first += f", {'' if change.is_large else 'not '}{side} the limit of {bound}{unit}"
    if monitor.metric == "specificity":
        first += f": the false positive rate is {number(1 - row['value'])}"
    if monitor.metric in _SIGNED and row["value"]:
        side = "high" if row["value"] > 0 else "low"
        first += f": {_SIGNED[monitor.metric]} are too {side}"
    if monitor.metric == "roc_auc" and change.failed and row["upper"] < _CHANCE:
        first += ": scores or labels look inverted"
    parts = [f"n {int(row['n']):,}"]
    if math.isfinite(row["lower"]):
        parts[0] = f"{interval_text(row['lower'], row['upper'], unit=unit)} ({parts[0]})"
    if change.n_windows and math.isfinite(change.margin):
        grain = evidence.spec.time.granularity
        parts.append(f"the baseline's {grain}s lie within {_usual_range(monitor, change)}")
    if monitor.is_relative:
        parts.append(f"the limit is {name_fall(monitor.metric, change.limit)}")
    chance = ", but this may be chance" if change.is_large and not change.failed else ""
    weighted = weighted_text(row["method_version"], window.get("actual_coverage"))
    said = ("; ".join(parts) + chance, weighted, early_text(window))
    return told(first, ". ".join(filter(None, said)))


def _usual_range(monitor: PerformanceMonitor, change: _Change) -> str:
    info = METRICS[monitor.metric]
    low = max(change.usual - change.margin, info.low)
    high = min(change.usual + change.margin, info.high)
    return f"{number(low)} to {number(high)}"


def worst_slices(
    evidence: Evidence,
    window: Window,
    monitor: PerformanceMonitor,
    whole: MetricSample,
    base: BaselineSample | None,
) -> list[dict[str, object]]:
    """Return slices that got worse by more than the whole window did, worst first.

    By more than chance, at a false discovery rate of .01: slice and whole are of one window, so
    what the window did to all of its rows cancels, and rows count as independent.
    """
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    of_whole = _by_rows_alone(monitor, whole, base)
    found = list[tuple[float, float, dict[str, object]]]()
    for row in evidence.slices(window, monitor.metric, monitor.column):
        known = evidence.baseline_row(monitor.metric, row)
        if monitor.is_relative and (known is None or finite(known["value"]) is None):
            continue
        mine = _by_rows_alone(monitor, row, known)
        more = _by_rows(
            mine.worse - max(of_whole.worse, 0.0), 0.0, math.hypot(mine.margin, of_whole.margin)
        )
        worse = _change(monitor, row, known).worse
        part = {
            "slice_key": row["slice_key"],
            "slice_value": row["slice_value"],
            "value": row["value"],
            "n": row["n"],
            "worse_by": worse,
            "baseline_value": finite(known["value"]) if known else None,
        }
        found.append((worse, more.p if more.worse > 0 else 1.0, part))
    adjusted = benjamini_hochberg([p for _, p, _ in found])
    real = [(one[0], one[2]) for one, p in zip(found, adjusted, strict=True) if p <= _Q]
    return [part for _, part in sorted(real, key=lambda one: -one[0])[:WORST_SLICES]]


def _by_rows_alone(
    monitor: PerformanceMonitor, row: MetricSample, base: BaselineSample | None
) -> _Change:
    return _change(monitor, row, base and {**base, "usual": math.nan})


def _judge_slices(
    evidence: Evidence, window: Window, monitor: PerformanceMonitor
) -> list[MonitorResult]:
    from mlmon_dagster.metrics.intervals import benjamini_hochberg

    rows = [
        _judge_cell(evidence, window, monitor, part)
        for part in evidence.slices(window, monitor.metric, monitor.column)
    ]
    p_values = [math.nan if row["status"] == NO_DATA else row["p_value"] for row in rows]
    known = [math.nan if p is None else p for p in p_values]
    size = sum(not math.isnan(p) for p in known)
    for row, adjusted in zip(rows, benjamini_hochberg(known), strict=True):
        row |= {"p_adjusted": finite(adjusted), "family_size": max(size, 1)}
        if row["status"] not in (OK, NO_DATA) and not adjusted <= _Q:
            row |= {"status": OK, "message": row["message"][:-1] + ", but this may be chance."}
    return rows


def _monitors_of(family: MetricFamily, spec: ModelSpec) -> Sequence[PerformanceMonitor]:
    monitors: Sequence[PerformanceMonitor] = getattr(spec.monitors, family)
    return monitors


def _limits(family: MetricFamily, spec: ModelSpec) -> str:
    limits = "; ".join(map(_limit_of, _monitors_of(family, spec)))
    return f"Limits: {limits}." if limits else ""


def _limit_of(monitor: PerformanceMonitor) -> str:
    for side in ("drop", "change", "shift", "above", "below"):
        bound = getattr(monitor, side)
        if bound is not None:
            return f"{monitor.series} {side} {bound:g}"
    return str(monitor.series)


def _metrics(family: MetricFamily, spec: ModelSpec) -> Sequence[str]:
    judged = {monitor.metric for monitor in _monitors_of(family, spec)}
    beside = {"calibration_gap": "actual_rate", "bias": "me"}  # what the sentence says
    return sorted(judged | {name for metric, name in beside.items() if metric in judged})


def _levels_of(family: MetricFamily, spec: ModelSpec) -> list[PerformanceMonitor]:
    """Return what is judged by its level over several windows."""
    return [monitor for monitor in _monitors_of(family, spec) if monitor.shift is not None]


def _count_newest(family: MetricFamily, spec: ModelSpec) -> int:
    """Return the windows that are judged together, with those that say how far windows stray."""
    from mlmon_dagster.families.levels import APART, SEEN

    of_drops = MOST if any(m.is_relative for m in _monitors_of(family, spec)) else 1
    return max((max(m.over, APART) + SEEN for m in _levels_of(family, spec)), default=of_drops)


def _own_performance(family: MetricFamily, comparison: Comparison) -> References:
    from mlmon_dagster.profiles.measures import baseline_performance

    spec, baseline = comparison.work.spec, comparison.baseline
    judged = _metrics(family, spec)
    own = baseline_performance(spec, family, baseline.windows, judged) if baseline else None
    return {"baseline": own, "baseline_windows": _windows_of(family, spec, baseline)}


def _windows_of(
    family: MetricFamily, spec: ModelSpec, baseline: Baseline | None
) -> pd.DataFrame | None:
    """Return the performance of each window of the baseline, of what is held against them."""
    from mlmon_dagster.profiles.measures import windows_performance

    compared = [monitor.metric for monitor in _monitors_of(family, spec) if monitor.is_relative]
    if baseline is None or not compared:
        return None
    found = windows_performance(spec, family, baseline.windows, _metrics(family, spec))
    return found[found["metric"].isin(compared) & (found["slice_key"] == ALL)]


def judge_alike(family: MetricFamily, measured: Measure) -> Family:
    """Return a family of metrics that are held against the baseline's windows or a bound."""
    return Family(
        FAMILIES[family],
        judge,
        partial(_limits, family),
        measure=measured,
        is_watched=lambda spec: spec.has_actuals and bool(_monitors_of(family, spec)),
        is_due=lambda spec: spec.has_actuals,
        metrics=partial(_metrics, family),
        explained_by_slices=lambda spec: True,
        looks_back=partial(_count_newest, family),
        is_compared=lambda spec: any(m.is_relative for m in _monitors_of(family, spec)),
        references=partial(_own_performance, family),
        learns_at=("profiles", "drift"),
        traced=lambda metric: metric,
        judged_together=lambda spec, metric: max(
            (m.over for m in _levels_of(family, spec) if m.metric == metric), default=1
        ),
        needs_truth=True,
    )


_MEASURED = judge_alike(
    PERFORMANCE,
    measure_profiles(
        PERFORMANCE,
        lambda spec: "baseline" if spec.task in (REGRESSION, GENERATION) else "nothing",
    ),
)


def _judge_all(evidence: Evidence) -> list[MonitorResult]:
    """Judge what is declared, and each version beside the one that it replaced."""
    released = (row for window in evidence.windows for row in judge_release(evidence, window))
    return [*judge(evidence), *released]


FAMILY = replace(
    _MEASURED,
    judge=_judge_all,
    facts=find_releases,
    looks_back=lambda spec: max(_MEASURED.looks_back(spec), count_read(spec)),
    judged_together=lambda spec, metric: (
        count_read(spec) if metric == RELEASE_CHANGE else _MEASURED.judged_together(spec, metric)
    ),
)
