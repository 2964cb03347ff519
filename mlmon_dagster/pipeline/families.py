"""What belongs to a family of monitors, in one record each: steps, metrics, facts, limits, plots.

A new family is a record here, an asset in `steps`, a judge in `monitors/` and its conditions in
`spec/monitors.py`; one that measures something new also has a row in `profiles/measures.py`
and a module in `metrics/`.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mlmon_dagster.pipeline import silence
from mlmon_dagster.pipeline.baseline_choice import Comparison
from mlmon_dagster.pipeline.column_changes import ColumnChanges
from mlmon_dagster.pipeline.reported_files import (
    expected_of,
    files_with_expectations,
    first_line_of,
    quarantined_files,
    refusals_behind,
    repeating_files,
    reported_in,
    sent_again,
    unplaced_of,
    unplaced_rows,
)
from mlmon_dagster.pipeline.serving.declared import declared_frame
from mlmon_dagster.pipeline.serving.requests import served
from mlmon_dagster.pipeline.steps import ASSETS
from mlmon_dagster.pipeline.work import Work
from mlmon_dagster.spec import ModelSpec, Window, declaration
from mlmon_dagster.spec.baseline import GRAINS, LIVE
from mlmon_dagster.spec.declaration import NOT_ADDITIVE, SHORTEST_CLOSING
from mlmon_dagster.spec.metric_registry import AUTO, METRICS, NOVEL, MetricFamily
from mlmon_dagster.spec.monitors import (
    CANARY_SHARE,
    CLASS_RATE,
    CORRELATION_CHANGE,
    CORRELATION_SHIFT,
    GAIN,
    PROMETHEUS,
    SKEW_RATE,
    VERSION_AGE,
    Condition,
    PerformanceMonitor,
)
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.tasks import estimated, estimated_of, residual
from mlmon_dagster.store.state import model_history
from mlmon_dagster.store.state.window_state import WindowInputs

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.statistics import ColumnStatistics
    from mlmon_dagster.profiles import Baseline

Profiles = Mapping[str, "ColumnStatistics"]
Facts = Mapping[str, Any]  # of a window, as `monitors.evaluate` takes them
Plotted = Callable[[str, str], str | None]
References = Mapping[str, Any]  # as `monitors.evaluate` takes them


@dataclass(frozen=True)
class Measure:
    """How a family's metrics come from profiles.

    Attributes:
        columns: The profiled columns that are read.
        frame: Metrics of some windows that share a baseline.
        against: What the metrics need: the ``baseline`` of each window, only one that is
            ``fixed`` (earlier windows are not split in halves, so that estimates could learn from
            one and be held against the other), or nothing.
        plotted: Metric and column -> name of its plot in the UI; None if it has none, or is another
            family's.
        by_slice: Whether slices are measured.
    """

    columns: Callable[[ModelSpec], list[str]]
    frame: Callable[[Comparison, Profiles], pd.DataFrame]
    against: Callable[[ModelSpec], Literal["baseline", "fixed", "nothing"]]
    plotted: Plotted
    by_slice: bool = True


def _nothing(_: object) -> tuple[()]:
    return ()


@dataclass(frozen=True)
class Family:
    """A family of monitors.

    Attributes:
        name: As in ``spec.FAMILIES``.
        limits: Says in a check's description what its thresholds are; the UI plots no constants.
        measure: How its metrics are made; None for what is judged by counts alone.
        is_watched: Whether a model has anything to judge; not every model logs everything.
        is_due: Whether a verdict is ever to come.
        metrics: Names of the stored metrics that its monitors read.
        explained_by_slices: Its monitors also read the metrics of slices.
        looks_back: Windows whose metrics a verdict reads, its own included.
        is_compared: Whether a verdict reads the baseline's own metrics, see ``references``.
        compared: The profiled columns of the baseline that a verdict reads, if not those that
            its metrics are made from.
        references: What verdicts read of the baseline and of profiles.
        facts: What its monitors must know of each window beside metrics and counts.
        counted: The rows of a window as this family counts them.
        version: Version of what was judged, if not only that of the step.
        learns_at: Steps that may wait for a baseline.
        traced: The metric of ground truth whose trace says why a verdict on a metric failed; empty
            if none does.
        judged_together: The windows that a verdict on a metric is of, its own included.
        needs_truth: Nothing of a window is judged before its ground truth is there.
    """

    name: str
    limits: Callable[[ModelSpec], str]
    measure: Measure | None = None
    is_watched: Callable[[ModelSpec], bool] = lambda spec: True
    is_due: Callable[[ModelSpec], bool] = lambda spec: True
    metrics: Callable[[ModelSpec], Sequence[str]] = _nothing
    explained_by_slices: bool = False
    looks_back: Callable[[ModelSpec], int] = lambda spec: 1
    is_compared: Callable[[ModelSpec], bool] = lambda spec: False
    compared: Callable[[ModelSpec], list[str]] | None = None
    references: Callable[[Comparison], References] = lambda comparison: {}
    facts: Callable[[Work, Sequence[Window]], Sequence[Facts]] = lambda work, windows: [
        {} for _ in windows
    ]
    counted: Callable[[WindowInputs], int] = lambda state: state.n
    version: Callable[[str, WindowInputs, Facts], str] = lambda version, state, facts: version
    learns_at: tuple[str, ...] = ("profiles",)
    traced: Callable[[str], str] = lambda metric: ""
    judged_together: Callable[[ModelSpec, str], int] = lambda spec, metric: 1
    needs_truth: bool = False

    @property
    def step(self) -> str:
        """The asset that its data come from; of freshness not the one that shows its check."""
        return "inference_store" if self.name == "freshness" else _STEPS[self.name]

    @property
    def made(self) -> Measure:
        """How its metrics are made.

        Raises:
            ValueError: If it has none of its own.
        """
        if self.measure is None:
            raise ValueError(f"The family {self.name} is judged by counts; it has no metrics.")
        return self.measure

    def columns(self, spec: ModelSpec) -> list[str]:
        """Return the profiled columns that its metrics are made from."""
        return self.made.columns(spec)


_STEPS = {info.family: info.name for info in ASSETS if info.family}


# --- how metrics are made


def _columns(family: str, spec: ModelSpec) -> list[str]:
    from mlmon_dagster.profiles.measures import columns_of

    return columns_of(spec, family)


def _frame(family: str, comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    from mlmon_dagster.metrics.frames import concat_frames
    from mlmon_dagster.profiles.measures import measure, measure_versions

    spec, baseline = comparison.work.spec, comparison.baseline
    windows = baseline.windows if baseline else None
    return concat_frames([m(spec, family, profiles, windows) for m in (measure, measure_versions)])


def _estimate_columns(spec: ModelSpec) -> list[str]:
    from mlmon_dagster.profiles.estimates import estimate_columns

    return estimate_columns(spec)


def _estimate(comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    from mlmon_dagster.profiles.estimates import estimate

    work = comparison.work
    return estimate(
        work.project.store, work.spec, profiles, comparison.baseline, work.windows, LIVE
    )


def _measure(
    family: str,
    against: Callable[[ModelSpec], Literal["baseline", "fixed", "nothing"]],
    plotted: Plotted | None = None,
) -> Measure:
    return Measure(
        partial(_columns, family),
        partial(_frame, family),
        against,
        plotted or _plot_of_family(family),
    )


def _plotted(*metrics: str) -> Plotted:
    return lambda metric, column: f"{metric}/{column}" if metric in metrics else None


def _plot_of_family(family: str) -> Plotted:
    """Return the plots of the metrics that the registry lists for a family."""

    def name_plot(metric: str, column: str) -> str | None:
        info = METRICS.get(metric.partition("/")[0])
        is_own = info is not None and info.family == family
        return metric if is_own and column == TABLE else None

    return name_plot


def _plot_estimate(metric: str, column: str) -> str | None:
    is_own = metric.startswith(estimated("")) or bool(estimated_of(metric))
    return metric if is_own and column == TABLE else None


def _plot_by_column(is_own: Callable[[str], bool]) -> Plotted:
    def name_plot(metric: str, column: str) -> str | None:
        if not is_own(metric):
            return None
        return metric if column == TABLE else f"{metric}/{column}"

    return name_plot


def _plotted_drift(metric: str, column: str) -> str | None:
    return (
        metric
        if metric == CORRELATION_SHIFT
        else _plotted("psi", declaration.ATTRIBUTION)(metric, column)
    )


# --- schema


def _schema_facts(work: Work, windows: Sequence[Window]) -> list[Facts]:
    spec = work.spec
    files, taken = quarantined_files(work), repeating_files(work, windows[0].end)
    expected = files_with_expectations(work, windows[0].end)
    unplaced = unplaced_rows(work, windows[0].end)
    found = model_history.load_changes(work.project.store.state, spec.model)
    rows: list[Facts] = []
    for window in windows:
        refused = reported_in(files, window, spec.time)
        quarantined = refused["path"].astype(str).tolist()
        changed = model_history.find_warned(found, window.start)
        rows.append(
            {
                **unplaced_of(reported_in(unplaced, window, spec.time)),
                "n_quarantined": len(quarantined),
                "quarantined": quarantined,
                "refused_because": first_line_of(refused),
                "changes": [f"{seen.change.text()} ({seen.path})" for seen in changed],
                **sent_again(reported_in(taken, window, spec.time)),
                "expectations": expected_of(reported_in(expected, window, spec.time)),
            }
        )
    return rows


def _schema_version(version: str, _: WindowInputs, facts: Facts) -> str:
    repeats = [facts["n_duplicate"], facts["n_conflict"]]
    tail = f":{repeats[0]}:{repeats[1]}" if any(repeats) else ""
    tail += f":columns:{len(facts['changes'])}" if facts["changes"] else ""
    tail += f":unplaced:{sorted(facts['unplaced'].items())}" if facts["unplaced"] else ""
    if expected := facts["expectations"]:
        found = [[one["kept"], one["rows"], one["unexpected"]] for one in expected]
        tail += f":expectations:{sorted(map(str, found))}"
    return f"{version}:{facts['n_bad']}:{facts['n_quarantined']}{tail}"


def _schema_limits(spec: ModelSpec) -> str:
    return f"Fails above a share of {spec.monitors.schema_.bad_rate.bound:g} of bad rows."


# --- freshness


def _freshness_facts(work: Work, windows: Sequence[Window]) -> list[Facts]:
    unread, around = silence.unread_files(work, windows), silence.silence_facts(work, windows)
    refused = refusals_behind(work, windows)
    return [
        {**own, **unread.get(window.start, {}), **files}
        for window, own, files in zip(windows, around, refused, strict=True)
    ]


def _freshness_version(_: str, state: WindowInputs, facts: Facts) -> str:
    return silence.ARRIVED if silence.arrived(state) else silence.SILENT


def _freshness_limits(spec: ModelSpec) -> str:
    monitor = spec.monitors.freshness
    hours = monitor.no_data_for.total_seconds() / 3600
    is_learnt = spec.time.granularity == "hour" and "no_data_for" not in monitor.model_fields_set
    silence = f"{hours:g} hours" + (" (fewer once learnt)" if is_learnt else "")
    missing = spec.monitors.freshness.actuals_missing
    late = f", or if over {missing.bound:.0%} of the usual actuals is overdue" if missing else ""
    return f"Fails after {silence} without data{late}."


# --- quality


def _quality_limits(spec: ModelSpec) -> str:
    q = spec.monitors.quality
    return (
        f"Limits: null_rate {q.null_rate.bound:g}, nan_rate {q.nan_rate.bound:g}, "
        f"unseen_rate {q.unseen_rate.bound:g}, out_of_range_rate {q.out_of_range_rate.bound:g}"
        + (f", {NOT_ADDITIVE} {q.not_additive_rate.bound:g}." if _is_added_up(spec) else ".")
    )


def _is_added_up(spec: ModelSpec) -> bool:
    return len(declaration.attributed(spec)) == len(spec.features)


def _quality_metrics(spec: ModelSpec) -> Sequence[str]:
    unseen = ("unseen_rate", f"unseen_rate{AUTO}")
    shap = (NOT_ADDITIVE,) if _is_added_up(spec) else ()
    return ("null_rate", "nan_rate", "inf_rate", *unseen, "out_of_range_rate", *shap)


def _unseen(comparison: Comparison) -> References:
    from mlmon_dagster.metrics.quality import unseen_values

    names = [name for name, f in comparison.work.spec.features.items() if f.type == "categorical"]
    if not names:
        return {"unseen": {}}
    profiles = comparison.part.whole(names)
    return {"unseen": {k: v for s in profiles.values() for k, v in unseen_values(s).items()}}


# --- drift


def _drift_limits(spec: ModelSpec) -> str:
    d = spec.monitors.drift
    limit = "its own usual distance" if d.auto else f"{d.above:g}"
    joint = f" Correlations may change by {d.multivariate.above:g}." if d.multivariate else ""
    shares = ""
    if declaration.attributed(spec) and d.attribution:
        shares = f" Shares of the attributions may change by {d.attribution.above:g}."
    return (
        f"Fails above {limit} ({d.method}, bias taken off) if also significant "
        f"(q = {d.q:g} over the columns).{joint}{shares}"
    )


def _drift_metrics(spec: ModelSpec) -> Sequence[str]:
    # Columns without an order have no ks; psi also explains by slice.
    method = spec.monitors.drift.method
    joint = (CORRELATION_SHIFT, CORRELATION_CHANGE) if spec.monitors.drift.multivariate else ()
    attribution = (declaration.ATTRIBUTION, declaration.ATTRIBUTION_SHIFT)
    shap = (*attribution, declaration.ATTRIBUTION_NDCG) if declaration.attributed(spec) else ()
    novel = (NOVEL, f"{NOVEL}{AUTO}")
    return sorted({"psi", method, f"psi{AUTO}", f"{method}{AUTO}", *novel, *joint, *shap})


# --- performance, and business, which is judged alike


def _monitors_of(family: MetricFamily, spec: ModelSpec) -> Sequence[PerformanceMonitor]:
    monitors: Sequence[PerformanceMonitor] = getattr(spec.monitors, family)
    return monitors


def _performance_limits(family: MetricFamily, spec: ModelSpec) -> str:
    limits = "; ".join(map(_limit, _monitors_of(family, spec)))
    return f"Limits: {limits}." if limits else ""


def _limit(monitor: PerformanceMonitor) -> str:
    for side in ("drop", "change", "shift", "above", "below"):
        bound = getattr(monitor, side)
        if bound is not None:
            return f"{monitor.metric} {side} {bound:g}"
    return str(monitor.metric)


def _performance_metrics(family: MetricFamily, spec: ModelSpec) -> Sequence[str]:
    judged = {monitor.metric for monitor in _monitors_of(family, spec)}
    beside = {"calibration_gap": "actual_rate", "bias": "me"}  # what the sentence says
    return sorted(judged | {name for metric, name in beside.items() if metric in judged})


def _levels(family: MetricFamily, spec: ModelSpec) -> list[PerformanceMonitor]:
    """Return what is judged by its level over several windows."""
    return [monitor for monitor in _monitors_of(family, spec) if monitor.shift is not None]


def _level_windows(family: MetricFamily, spec: ModelSpec) -> int:
    """Return the windows that a level is judged by, with those that say how far windows stray."""
    from mlmon_dagster.monitors.levels import APART, SEEN

    return max((max(m.over, APART) + SEEN for m in _levels(family, spec)), default=1)


def _own_performance(family: MetricFamily, comparison: Comparison) -> References:
    from mlmon_dagster.profiles.measures import baseline_performance

    spec, baseline = comparison.work.spec, comparison.baseline
    own = baseline_performance(spec, family, baseline.windows) if baseline else None
    return {"baseline": own, "baseline_windows": _windows_of(family, spec, baseline)}


def _windows_of(
    family: MetricFamily, spec: ModelSpec, baseline: Baseline | None
) -> pd.DataFrame | None:
    """Return the performance of each window of the baseline, of what is judged by its level."""
    from mlmon_dagster.profiles.measures import windows_performance

    levels = [monitor.metric for monitor in _levels(family, spec)]
    if baseline is None or not levels:
        return None
    found = windows_performance(spec, family, baseline.windows)
    return found[found["metric"].isin(levels) & (found["slice_key"] == ALL)]


def _judged_alike(family: MetricFamily, measured: Measure) -> Family:
    """Return a family of metrics that are held against the baseline's windows or a bound."""
    return Family(
        family,
        limits=partial(_performance_limits, family),
        measure=measured,
        is_watched=lambda spec: spec.has_actuals and bool(_monitors_of(family, spec)),
        is_due=lambda spec: spec.has_actuals,
        metrics=partial(_performance_metrics, family),
        explained_by_slices=True,
        looks_back=partial(_level_windows, family),
        is_compared=lambda spec: any(m.is_relative for m in _monitors_of(family, spec)),
        references=partial(_own_performance, family),
        learns_at=("profiles", "drift"),
        traced=lambda metric: metric,
        judged_together=lambda spec, metric: max(
            (m.over for m in _levels(family, spec) if m.metric == metric), default=1
        ),
        needs_truth=True,
    )


# --- estimated performance


def _estimate_limits(spec: ModelSpec) -> str:
    stated = [
        f"{m.metric}: estimate drop {m.drop:g}, realized worse than estimated "
        f"by {m.residual:g} over {m.over} windows"
        for m in spec.monitors.estimated_performance
    ]
    return f"Limits: {'; '.join(stated)}." if stated else ""


def _estimate_metrics(spec: ModelSpec) -> Sequence[str]:
    named = (monitor.metric for monitor in spec.monitors.estimated_performance)
    return sorted({name(metric) for metric in named for name in (estimated, residual)})


def _missed_over(spec: ModelSpec, metric: str) -> int:
    named = spec.monitors.estimated_performance
    return max((m.over for m in named if residual(m.metric) == metric), default=1)


_MOST_DUE = 400  # windows


def _record(spec: ModelSpec) -> int:
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
    return {"baseline": estimate_baseline(work.project.store, work.spec, baseline)}


# --- service

# As `metrics.service` names them, which is not imported before something is measured.
SPAN_METRICS = (
    "span_coverage", "span_error_bias", "span_latency_bias", "p50_stage_ms", "p95_stage_ms",
    "p99_stage_ms", "stage_error_rate", "stage_timeout_rate", "p50_tokens", "p95_tokens",
    "sum_tokens",
)  # fmt: skip
_SERVICE = (
    "n", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms", "error_rate", CLASS_RATE, PROMETHEUS
)  # fmt: skip


def _service_frame(comparison: Comparison, profiles: Profiles) -> pd.DataFrame:
    from mlmon_dagster.metrics.frames import concat_frames

    return concat_frames([_frame("service", comparison, profiles), declared_frame(comparison.work)])


def _service_version(version: str, _: WindowInputs, facts: Facts) -> str:
    return f"{version}:{facts['answers']}" if facts["answers"] else version


def _service_limits(spec: ModelSpec) -> str:
    names = ("p95_latency_ms", "p99_latency_ms", "error_rate", "n", "volume_drop")
    limits: dict[str, Condition | None] = {
        name: getattr(spec.monitors.service, name) for name in names
    }
    stated = [
        f"{name} {'above' if c.above is not None else 'below'} {c.bound:g}"
        for name, c in limits.items()
        if c is not None
    ]
    stated += [
        f"{_limited(metric, name)} {'above' if c.above is not None else 'below'} {c.bound:g}"
        for (metric, name), c in spec.monitors.service.limits.items()
    ]
    promised = [f"{o.name}: {o.target:.4%} good" for o in spec.monitors.service.objectives]
    return " ".join(
        text
        for text, said in (
            (f"Fails at {', '.join(stated)}.", stated),
            (f"Objectives whose budgets must not burn: {', '.join(promised)}.", promised),
        )
        if said
    )


def _limited(metric: str, name: str) -> str:
    if metric in (CLASS_RATE, PROMETHEUS):
        return name
    return metric if name == TABLE else f"{metric} of {name}"


def _serves(spec: ModelSpec) -> bool:
    service, columns = spec.monitors.service, spec.columns
    latency = service.p95_latency_ms or service.p99_latency_ms
    return bool(
        service.n
        or (columns.latency_ms and latency)
        or (columns.status and service.error_rate)
        or service.objectives
        or service.limits
    )


# --- versions


def _versions_limits(spec: ModelSpec) -> str:
    declared = spec.monitors.versions
    stated = [f"{one.gain} below -{one.margin:g}" for one in declared.compare]
    stated += [f"{CANARY_SHARE} not {c.share:g}" for c in declared.compare if c.share is not None]
    stated += [f"{SKEW_RATE} above {declared.skew.above:g}"] if declared.skew else []
    days = declared.staleness.above / dt.timedelta(days=1) if declared.staleness else None
    stated += [f"{VERSION_AGE} above {days:g}"] if days is not None else []
    return f"Fails at {', '.join(stated)}." if stated else ""


def _versions_metrics(spec: ModelSpec) -> Sequence[str]:
    gains = {one.gain for one in spec.monitors.versions.compare}
    return sorted({*gains, CANARY_SHARE, SKEW_RATE, VERSION_AGE})


def _versions_measure(comparison: Comparison, _: Profiles) -> pd.DataFrame:
    from mlmon_dagster.pipeline.versions import versions_frame

    return versions_frame(comparison.work)


def _versions_facts(work: Work, windows: Sequence[Window]) -> Sequence[Facts]:
    from mlmon_dagster.pipeline.versions import version_facts

    return version_facts(work, windows)


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            "schema",
            limits=_schema_limits,
            facts=_schema_facts,
            version=_schema_version,
        ),
        Family(
            "freshness",
            limits=_freshness_limits,
            facts=_freshness_facts,
            counted=silence.arrived,
            version=_freshness_version,
        ),
        Family(
            "quality",
            limits=_quality_limits,
            # It asks which share of unseen values is usual.
            measure=_measure(
                "quality",
                lambda spec: "baseline" if spec.baseline.is_rolling else "fixed",
                plotted=_plotted("null_rate", "unseen_rate"),
            ),
            metrics=_quality_metrics,
            explained_by_slices=True,
            references=_unseen,
        ),
        Family(
            "drift",
            limits=_drift_limits,
            measure=_measure("drift", lambda spec: "baseline", plotted=_plotted_drift),
            metrics=_drift_metrics,
            explained_by_slices=True,
            references=lambda comparison: {"changes": ColumnChanges(comparison.part)},
            learns_at=("profiles", "drift"),
        ),
        _judged_alike(
            "performance",
            _measure(
                "performance",
                lambda spec: "baseline" if spec.task == "regression" else "nothing",
            ),
        ),
        Family(
            "estimated_performance",
            limits=_estimate_limits,
            measure=Measure(
                _estimate_columns,
                _estimate,
                lambda spec: "fixed",
                plotted=_plot_estimate,
                by_slice=False,
            ),
            is_watched=lambda spec: bool(spec.monitors.estimated_performance),
            metrics=_estimate_metrics,
            looks_back=_record,
            is_compared=lambda spec: bool(spec.monitors.estimated_performance),
            compared=partial(_columns, "performance"),
            references=_own_estimate,
            traced=estimated_of,
            judged_together=_missed_over,
        ),
        Family(
            "service",
            limits=_service_limits,
            measure=Measure(
                partial(_columns, "service"),
                _service_frame,
                lambda spec: "nothing",
                plotted=_plot_by_column(lambda metric: metric in (*_SERVICE, *SPAN_METRICS)),
            ),
            is_watched=_serves,
            metrics=lambda spec: _SERVICE if spec.spans is None else (*_SERVICE, *SPAN_METRICS),
            facts=served,
            version=_service_version,
        ),
        _judged_alike("business", _measure("business", lambda spec: "nothing")),
        Family(
            "versions",
            limits=_versions_limits,
            # It reads rows; the profile of any column tells which windows have none.
            measure=Measure(
                lambda spec: list(spec.features)[:1],
                _versions_measure,
                lambda spec: "nothing",
                plotted=_plot_by_column(
                    lambda metric: (
                        metric in (CANARY_SHARE, SKEW_RATE, VERSION_AGE) or metric.endswith(GAIN)
                    )
                ),
                by_slice=False,
            ),
            is_watched=lambda spec: spec.monitors.versions.is_declared,
            is_due=lambda spec: spec.monitors.versions.is_declared,
            metrics=_versions_metrics,
            facts=_versions_facts,
        ),
    )
}
# The asset that measures a family's metrics -> the family, in the order of the assets.
MEASURED_BY: Mapping[str, Family] = {
    info.name: FAMILIES[info.family]
    for info in ASSETS
    if info.family and FAMILIES[info.family].measure is not None
}
