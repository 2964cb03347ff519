"""Family estimated_performance: what scores alone say, and whether the truth then agrees."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mlmon_dagster.families.family import (
    Family,
    Measure,
    Profiles,
    References,
    plot_wholes,
    profiled_columns,
)
from mlmon_dagster.monitors.evidence import (
    OK,
    Case,
    Evidence,
    Window,
    choose_level_together,
    early_text,
    excess,
    finite,
    level_of,
    not_valued,
)
from mlmon_dagster.monitors.wording import (
    NAMES,
    interval_text,
    name_fall,
    number,
    unit_of,
    width_text,
    write_limit,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, LIVE
from mlmon_dagster.spec.declaration import SHORTEST_CLOSING, Granularity
from mlmon_dagster.spec.metric_registry import is_loss
from mlmon_dagster.spec.monitors import FAMILIES, EstimateMonitor
from mlmon_dagster.spec.names import ESTIMATED_PERFORMANCE, PERFORMANCE
from mlmon_dagster.spec.tasks import estimated, estimated_of, residual
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.work import Comparison

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.estimated.calibration import LearntWidth
    from mlmon_dagster.metrics.frames import MetricSample

_MOST_DUE = 400  # windows
_TINY = 1e-12
_SEVERE = 2  # times the limit, and times what chance gives: one window says it
# Over with more ground truth.
_COMES = ("", "no_actuals", "few_rows", "single_class", "few_of_rarer_class")


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail windows whose estimate fell, and those that turned out worse than estimated.

    Two monitors per declared metric. ``estimated_performance/<metric>``: the estimate is worse than
    the baseline's by `drop`, and its band excludes the baseline's. It needs no actuals, but where
    those of earlier windows lay outside their bands, the band is wider (`learnt_width`). Of a fall
    of twice the limit and twice its margin one window is enough.
    ``estimated_performance/<metric>_residual``: once actuals are there, the realized values of the
    last `over` windows are worse than the estimates by `residual` more than those of the baseline's
    windows were, held out. That is more than chance under all spreads and autocorrelations that
    these may have (`metrics.windows.clusters`), with a false alert in twenty years
    (`evidence.choose_level_together`), and it lasts: the newest three are worse by two thirds of
    `residual`, so that a large fault is forgotten when it is over. Then the score no longer means
    what it meant, which is concept drift. Windows that turn out better than estimated pass. With
    fewer than eight windows in the baseline they are compared with 0, by their own intervals.
    Provisional windows are NO_DATA for the second.
    """
    rows: list[MonitorResult] = []
    for window in evidence.windows:
        for monitor in evidence.spec.monitors.estimated_performance:
            name = f"{evidence.family}/{monitor.metric}"
            rows.append(_judge_estimate(evidence, window, monitor) | {"monitor": name})
            rows.append(_judge_residual(evidence, window, monitor))
    return rows


def _judge_estimate(evidence: Evidence, window: Window, monitor: EstimateMonitor) -> MonitorResult:
    from mlmon_dagster.metrics.estimated.calibration import RECORD, learnt_width, reaching

    metric = estimated(monitor.metric)
    row = evidence.whole(window, metric)
    base = evidence.baseline_row(metric, row)
    reason = _not_estimated(evidence, window, row)
    if not reason and (base is None or finite(base["value"]) is None):
        reason = "no_baseline"
    limit = f"drop {write_limit(monitor.drop)}"
    case = Case(evidence, window, monitor, metric, source=row, threshold=limit)
    fields: dict[str, Any] = {"baseline_value": finite(base["value"]) if base else None}
    if row is None or base is None or reason:
        return case.unjudged(reason, NAMES.get(metric, metric), **fields)
    wait = evidence.wait_for_truth
    width = learnt_width(evidence.recent(window, residual(monitor.metric), RECORD, wait=wait))
    row = reaching(monitor.metric, row, width)
    case = replace(case, source=row)
    worse, margin = _worse(monitor.metric, row, base)
    failed = worse >= monitor.drop - 1e-12 and worse > margin
    direction = "worse" if worse > 0 else "better"
    unit = unit_of(evidence.spec, monitor.metric)
    text = (
        f"{NAMES.get(metric, metric)} is {number(row['value'])}{unit}, "
        f"{direction} than the baseline's {number(base['value'])}.\n"
        f"{_interval(row)}; the limit is {name_fall(monitor.metric, monitor.drop)}"
    )
    past = worse >= monitor.drop and not failed
    fields |= excess(worse, monitor.drop, margin)
    if failed and worse >= _SEVERE * max(monitor.drop, margin):
        fields |= {"k": 1, "of_n": 1}
    learnt = _learnt(width, evidence.spec.time.granularity)
    return _with(case, text, past, failed, worse, margin, fields, learnt)


def _not_estimated(evidence: Evidence, window: Window, row: MetricSample | None) -> str:
    reason = not_valued(window, row)
    is_rolling = row is None and window["n"] and evidence.spec.baseline.is_rolling
    return "moving_baseline" if is_rolling and not window["schema_broken"] else reason


def _judge_residual(evidence: Evidence, window: Window, monitor: EstimateMonitor) -> MonitorResult:
    metric = residual(monitor.metric)
    row = evidence.whole(window, metric)
    reason = _not_estimated(evidence, window, row)
    waits = window["maturity"] == "provisional" or (window["maturity"] == "early" and reason)
    if reason in _COMES and waits:
        reason = str(window["truth_reason"])
    limit = f"above {write_limit(monitor.residual)}"
    case = Case(evidence, window, monitor, metric, source=row, threshold=limit)
    if row is None or reason:
        return case.unjudged(reason, NAMES.get(metric, metric))
    recent = evidence.recent(window, metric, monitor.over)
    side = -1 if is_loss(monitor.metric) else 1
    missed = _measure_missed(evidence, monitor, recent, side)
    worse, margin = missed.worse, missed.margin
    is_past = worse >= monitor.residual - 1e-12
    values = [side * one["value"] - missed.usual for one in recent]
    lasts = still(values, monitor.residual)
    level = choose_level_together(monitor.over, evidence.spec.time.granularity)
    failed = is_past and lasts and missed.p_value <= level_of(window, level)
    name = NAMES.get(monitor.metric, monitor.metric)
    grain = evidence.spec.time.granularity
    span = f" over {len(recent)} {grain}s" if len(recent) > 1 else ""
    n = sum(int(one["n"]) for one in recent)
    unit = unit_of(evidence.spec, monitor.metric)
    difference = interval_text(worse - margin, worse + margin, of="of the difference ")
    text = (
        f"{name}{span} turned out {_tell_missed(missed, unit)}.\n{difference} (n {n:,}); "
        f"the limit is {number(monitor.residual)}"
    )
    if failed:
        text += ". The scores no longer mean what they meant in the baseline"
    if is_past and not lasts:
        text += f", but it is over: the newest {grain}s are within it"
    past = is_past and lasts and not failed
    value = side * worse
    fields: dict[str, Any] = {"value": value, "n": n}
    fields |= {"lower": value - margin, "upper": value + margin}
    if missed.is_beside_windows:
        fields["baseline_value"] = side * missed.usual
    # Of this window alone: what the ones before it were does not say whether it is over. Unless
    # they together are past the limit, failing or by chance, and last: one lucky day ends nothing.
    own = values[-1], (row["upper"] - row["lower"]) / 2
    at_most = max(own, (worse, margin)) if failed or past else own
    fields |= excess(at_most[0], monitor.residual, at_most[1])
    fields |= {"p_value": finite(missed.p_value), "p_adjusted": finite(missed.p_value)}
    return _with(case, text, past, failed, worse, margin, fields)


class _Missed(NamedTuple):
    """How much worse than estimated windows turned out together.

    Attributes:
        worse: By how much, beyond what is usual.
        margin: Half of its 95 % interval.
        p_value: One-sided chance of so much if the scores mean what they meant.
        usual: How much worse the baseline's windows turned out, held out; 0 if not known.
        is_beside_windows: Whether that is known.
    """

    worse: float
    margin: float
    p_value: float
    usual: float = 0.0
    is_beside_windows: bool = False


def _measure_missed(
    evidence: Evidence, monitor: EstimateMonitor, recent: Sequence[MetricSample], side: int
) -> _Missed:
    from scipy import special

    from mlmon_dagster.families.levels import measure_shift
    from mlmon_dagster.metrics.intervals import Z95

    usual = evidence.usual_level(residual(monitor.metric))
    if usual is None:
        base = evidence.baseline_row(estimated(monitor.metric), recent[-1])
        mean, margin = pooled(recent, base)
        z = side * mean / max(margin, _TINY) * Z95
        return _Missed(side * mean, margin, float(special.ndtr(-z)))
    found = measure_shift(recent, usual)
    worse, half = side * found.shift, found.p_value / 2
    p_value = half if worse > 0 else 1 - half
    return _Missed(worse, found.margin, p_value, side * usual.mean, is_beside_windows=True)


def _tell_missed(missed: _Missed, unit: str) -> str:
    """Say how far from its estimate it is, and what is usual where that can be seen."""
    usual = missed.usual
    if number(abs(usual)) == number(0.0) or abs(usual) < missed.margin / 4:
        return f"{_beside_estimate(missed.worse, unit)} than estimated"
    now = f"{_beside_estimate(missed.worse + usual, unit)} than estimated"
    return f"{now}, usually {_beside_estimate(usual, unit)}"


def _beside_estimate(worse: float, unit: str) -> str:
    return f"{number(abs(worse))}{unit} {'worse' if worse > 0 else 'better'}"


def still(worse: Sequence[float], limit: float) -> bool:
    """Say whether a change of about `limit` lasts, by how much worse windows are, newest last.

    Two thirds, since by chance three windows of a change that lasts may be that much less.
    """
    newest = worse[-3:]
    return sum(newest) / len(newest) >= limit * 2 / 3


def pooled(rows: Sequence[MetricSample], base: MetricSample | None) -> tuple[float, float]:
    """Mean of some windows' residuals, each by its precision, and half its 95 % interval.

    The windows' own chance averages out; that of the baseline, which they share, does not.
    """
    widths = [max((row["upper"] - row["lower"]) / 2, 1e-12) for row in rows]
    weights = [width**-2 for width in widths]
    total = sum(weights)
    mean = sum(w * row["value"] for w, row in zip(weights, rows, strict=True)) / total
    shared = (base["upper"] - base["lower"]) / 2 if base is not None else 0.0
    own = total**-0.5
    widest = max(widths)
    return mean, min(math.hypot(own, shared if math.isfinite(shared) else 0.0), max(widest, own))


def _worse(metric: str, row: MetricSample, base: MetricSample) -> tuple[float, float]:
    """How much worse than the baseline's the estimate is, and how much of that may be chance."""
    if is_loss(metric):
        worse, here = row["value"] - base["value"], row["value"] - row["lower"]
    else:
        worse, here = base["value"] - row["value"], row["upper"] - row["value"]
    known = finite(base["upper"] if is_loss(metric) else base["lower"])
    return worse, math.hypot(here, abs(base["value"] - known) if known is not None else 0.0)


def _interval(row: MetricSample) -> str:
    if finite(row["lower"]) is None or finite(row["upper"]) is None:
        return f"n {int(row['n']):,}"
    return f"{interval_text(row['lower'], row['upper'])} (n {int(row['n']):,})"


def _learnt(width: LearntWidth, grain: Granularity) -> str:
    return f" {width_text(width.factor, width.n, grain)}." if width.factor > 1 else ""


def _with(
    case: Case,
    text: str,
    past: bool,
    failed: bool,
    worse: float,
    margin: float,
    fields: dict[str, Any],
    learnt: str = "",
) -> MonitorResult:
    from scipy import special

    from mlmon_dagster.metrics.intervals import Z95

    p = float(special.ndtr(-worse / margin * Z95)) if margin > 0 else None
    ending = f"{', but this may be chance' if past else ''}.{learnt}"
    maturity = case.window["maturity"]
    if maturity == "early" and estimated_of(case.metric):
        ending += f" {early_text(case.window)}."
    elif maturity in ("provisional", "early"):
        ending += " Ground truth is still coming."
    return case.result(
        case.monitor.severity if failed else OK,
        text + ending,
        details={"worse_by": finite(worse), "margin": finite(margin)},
        **{"p_value": p, "p_adjusted": p, **fields},
    )


def _limits(spec: ModelSpec) -> str:
    stated = [
        f"{m.metric}: estimate drop {m.drop:g}, realized worse than estimated "
        f"by {m.residual:g} over {m.over} windows"
        for m in spec.monitors.estimated_performance
    ]
    return f"Limits: {'; '.join(stated)}." if stated else ""


def _metrics(spec: ModelSpec) -> Sequence[str]:
    named = (monitor.metric for monitor in spec.monitors.estimated_performance)
    return sorted({name(metric) for metric in named for name in (estimated, residual)})


def _missed_over(spec: ModelSpec, metric: str) -> int:
    named = spec.monitors.estimated_performance
    return max((m.over for m in named if residual(m.metric) == metric), default=1)


def _windows_of_record(spec: ModelSpec) -> int:
    """Return the windows that a width is learnt from, with those whose truth is still due."""
    from mlmon_dagster.metrics.estimated.calibration import RECORD

    named = spec.monitors.estimated_performance
    declared = spec.actuals.expected_within
    wait = SHORTEST_CLOSING if declared is None else declared  # learnt ones are seldom longer
    due = min(math.ceil(wait / GRAINS[spec.time.granularity]), _MOST_DUE)
    return max(RECORD + max(due, 1), *(m.over for m in named)) if named else 1


def _own_estimate(comparison: Comparison) -> References:
    from mlmon_dagster.profiles.estimates import estimate_baseline

    work, baseline = comparison.work, comparison.baseline
    if baseline is None or not baseline.halves:
        return {}
    own = estimate_baseline(work.project.store, work.spec, baseline)
    return {"baseline": own.whole, "baseline_windows": own.windows}


def _columns(spec: ModelSpec) -> list[str]:
    from mlmon_dagster.profiles.estimates import estimate_columns

    return estimate_columns(spec)


def _frame(comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    from mlmon_dagster.profiles.estimates import estimate

    work = comparison.work
    return estimate(
        work.project.store, work.spec, profiles, comparison.baseline, work.windows, LIVE
    )


FAMILY = Family(
    FAMILIES[ESTIMATED_PERFORMANCE],
    judge,
    _limits,
    measure=Measure(
        _columns,
        _frame,
        lambda spec: "fixed",
        plot_wholes(lambda metric: metric.startswith(estimated("")) or bool(estimated_of(metric))),
        slices=lambda spec: "none",
    ),
    is_watched=lambda spec: bool(spec.monitors.estimated_performance),
    metrics=_metrics,
    looks_back=_windows_of_record,
    is_compared=lambda spec: bool(spec.monitors.estimated_performance),
    compared=partial(profiled_columns, PERFORMANCE),
    references=_own_estimate,
    traced=estimated_of,
    judged_together=_missed_over,
)
