"""From profiles to metrics: which metrics each family computes, from which columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from mlmon_dagster.metrics.additivity import BROKEN
from mlmon_dagster.metrics.frames import concat_frames, stack_rows
from mlmon_dagster.metrics.means_by_output import BY_OUTPUT
from mlmon_dagster.metrics.performance.decomposition import OUTCOME
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, EXEMPT
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    all_over_versions,
    derived,
    each_window,
    merge_columns,
    of_all,
    select_columns,
    side_by_side,
)
from mlmon_dagster.profiles.measure.drift import drift, residual_drift
from mlmon_dagster.profiles.sql.attribution_columns import (
    EXPLAINER,
    attribution_columns,
    share_of,
)
from mlmon_dagster.profiles.sql.loss_columns import (
    DEBIT,
    FAILED,
    GAIN,
    TIMED_OUT,
    TOLD,
    TRACED,
    TRACED_LATENCY,
    TRACED_STATUS,
    group_columns,
    loss_columns,
    outcome_columns,
    span_columns,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.metric_registry import MetricFamily
from mlmon_dagster.spec.monitors import PerformanceMonitor
from mlmon_dagster.spec.spans import TOKENS, Spans, stage_column
from mlmon_dagster.spec.tasks import task_of

if TYPE_CHECKING:
    import pandas as pd


Profiles = Mapping[str, ColumnStatistics]


def quality(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return null, not-a-number, unseen and out-of-range rates of every feature.

    Where SHAP values are logged or computed, also whether they add up to the score. With a baseline
    also what is usual of unseen values among its windows. Before there are enough earlier windows
    to compare with, unseen values have no rate (`learning`): bins know those of the first alone.
    """
    from mlmon_dagster.metrics.additivity import additivity_metrics
    from mlmon_dagster.metrics.drift.novelty import unseen_limits
    from mlmon_dagster.metrics.quality import quality_metrics

    columns = [profiles[c] for c in spec.features if c in profiles]
    sums = [
        {name: stats for name, stats in side.items() if name.startswith(BROKEN)}
        for side in (profiles, baseline or {})
    ]
    added = additivity_metrics(sums[0], sums[1] or None) if sums[0] else stack_rows([])
    found = concat_frames([quality_metrics(*columns), added])
    if baseline is None:
        return _unlearnt(found) if spec.baseline.is_rolling else found
    least, names = spec.monitors.quality.min_rows, [stats.binning.column for stats in columns]
    own = derived(baseline, ("unseen", *names), lambda: _categorical(names, baseline))
    usual = [
        limit
        for name, stats in zip(names, columns, strict=True)
        if name in own and own[name].binning.binning_id == stats.binning.binning_id
        for limit in unseen_limits(stats, own[name], min_rows=least)
    ]
    return concat_frames([found, stack_rows(usual)])


def _unlearnt(found: pd.DataFrame) -> pd.DataFrame:
    is_unseen = (found["metric"] == "unseen_rate") & (found["reason"] == "")
    numbers = found[["value", "lower", "upper"]].mask(is_unseen)
    return found.assign(**numbers, reason=found["reason"].mask(is_unseen, "learning"))


def _categorical(names: Sequence[str], baseline: Profiles) -> dict[str, ColumnStatistics]:
    """Return the categorical columns of a baseline over all versions together."""
    mine = {c: baseline[c] for c in names if c in baseline}
    return all_over_versions(
        {c: stats for c, stats in mine.items() if stats.binning.kind == "categorical"}
    )


def performance(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return realized performance, the metrics of the model's task.

    Without a baseline there is no drift of the residuals.
    """
    from mlmon_dagster.metrics.performance.binary import performance_metrics
    from mlmon_dagster.metrics.performance.fairness import fairness_metrics
    from mlmon_dagster.metrics.performance.loss_means import ranking_metrics
    from mlmon_dagster.metrics.performance.multiclass import multiclass_metrics
    from mlmon_dagster.metrics.performance.regression import regression_metrics

    if spec.task == "multiclass_classification":
        return multiclass_metrics(profiles)
    if spec.task == "ranking":
        return ranking_metrics(profiles)
    if spec.task == "regression":
        drifted = residual_drift(spec, profiles, baseline)
        return concat_frames([regression_metrics(profiles, spec.quantile), drifted])
    found = [
        performance_metrics(
            profiles.get("score"),
            profiles.get("prediction"),
            profiles,
            top_share=spec.top_share,
        )
    ]
    if spec.fairness is not None and "prediction" in profiles:
        declared = spec.fairness.reference or {}
        references = {key: declared.get(key) for key in spec.fairness.slices}
        found.append(fairness_metrics(profiles["prediction"], references))
    return concat_frames(found)


def service(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return volume, latency percentiles and error rate, and what spans say of them."""
    from mlmon_dagster.metrics.service import service_metrics

    found = service_metrics(profiles.get("latency_ms"), profiles.get("status"))
    if spec.spans is None or TRACED not in profiles:
        return found
    return concat_frames([found, *_of_spans(spec.spans, profiles)])


def _of_spans(spans: Spans, profiles: Profiles) -> Iterator[pd.DataFrame]:
    from mlmon_dagster.metrics.spans import coverage_metrics, stage_metrics, token_metrics

    def both(all_: str, traced: str) -> tuple[ColumnStatistics, ColumnStatistics] | None:
        return (profiles[all_], profiles[traced]) if {all_, traced} <= profiles.keys() else None

    told = {name: profiles[TOLD + name] for name in spans.columns if TOLD + name in profiles}
    yield coverage_metrics(
        profiles[TRACED],
        both("latency_ms", TRACED_LATENCY),
        both("status", TRACED_STATUS),
        told,
    )
    stages = {
        column: (profiles[column], profiles[FAILED + column], profiles[TIMED_OUT + column])
        for column in map(stage_column, spans.stages)
        if column in profiles
    }
    unbiased = spans.sampling == "unbiased"
    yield stage_metrics(stages, unbiased=unbiased)
    tokens = {column: profiles[column] for column in TOKENS if column in profiles}
    yield token_metrics(tokens, unbiased=unbiased)


def business(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return what is known of the outcomes, and what decisions were worth at the costs."""
    from mlmon_dagster.metrics.business import Outcome, business_metrics

    costs = spec.costs.model_dump() if spec.costs else None
    outcomes = {
        name: Outcome(
            profiles[f"{OUTCOME}{name}"],
            profiles.get(f"{GAIN}{name}"),
            profiles.get(f"{DEBIT}{name}"),
            "outcome" if declared.better == "higher" else "cost",
            profiles.get(f"{BY_OUTPUT}{OUTCOME}{name}"),
        )
        for name, declared in spec.columns.outcomes.items()
        if f"{OUTCOME}{name}" in profiles
    }
    return business_metrics(outcomes, costs, profiles)


MEASURES: dict[str, Callable[[ModelSpec, Profiles, Profiles | None], pd.DataFrame]] = {
    "quality": quality,
    "drift": drift,
    "performance": performance,
    "service": service,
    "business": business,
}


def columns_of(spec: ModelSpec, family: str) -> list[str]:
    """Return the profiled columns that a family reads."""
    return {
        "quality": [
            *spec.features,
            *(n for n in attribution_columns(spec) if n.startswith(BROKEN)),
        ],
        "drift": [
            *spec.features,
            "score",
            "prediction",
            "actual",
            ":joint",
            *map(share_of, attributed(spec)),
            EXPLAINER,
        ],
        "performance": performance_columns(spec),
        "service": ["latency_ms", "status", *span_columns(spec)],
        "business": [*outcome_columns(spec), *(_decided_columns(spec) if spec.costs else [])],
    }[family]


def _decided_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that tell what decisions were worth."""
    outputs = ["prediction", *(["score", DECIDED] if spec.columns.score is not None else [])]
    return [*outputs, *(n for n in loss_columns(spec) if n.startswith(EXEMPT))]


def performance_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that performance is computed from."""
    if task_of(spec).is_grouped:
        return list(group_columns(spec))
    outputs = [name for name in ("score", "prediction") if getattr(spec.columns, name) is not None]
    return list(dict.fromkeys([*outputs, *loss_columns(spec), *group_columns(spec)]))


def measure(
    spec: ModelSpec, family: str, profiles: Profiles, baseline: Profiles | None
) -> pd.DataFrame:
    """Return the MetricFrame of one family over all model versions together."""
    return MEASURES[family](spec, all_over_versions(profiles), baseline)


def measure_versions(
    spec: ModelSpec, family: str, profiles: Profiles, baseline: Profiles | None
) -> pd.DataFrame:
    """Return the MetricFrame of each model version alone, where a window has several."""
    found = select_columns(profiles, side_by_side)
    parts = {column: stats for column, stats in found.items() if len(stats)}
    return MEASURES[family](spec, parts, baseline) if parts else concat_frames([])


def baseline_performance(spec: ModelSpec, family: MetricFamily, baseline: Profiles) -> pd.DataFrame:
    """Return a baseline's own performance: of all its rows, and how its windows usually are.

    Args:
        spec: The model.
        family: Or what the business got out of its predictions.
        baseline: Column -> statistics of the baseline's windows.

    Returns:
        MetricFrame, one row per metric and slice, with the columns `metrics.clusters.USUAL`: NaN
        where too few windows have a value, and of slices unless a monitor judges them.
    """
    from mlmon_dagster.metrics.clusters import SERIES, usual_windows

    def measured() -> pd.DataFrame:
        columns = {c: baseline[c] for c in columns_of(spec, family) if c in baseline}
        pooled = merge_columns(columns, ("dataset", "slice_key", "slice_value"))
        usual = usual_windows(windows_performance(spec, family, baseline))
        return measure(spec, family, pooled, None).join(usual, on=list(SERIES))

    return derived(baseline, ("performance", family, spec), measured)


def windows_performance(spec: ModelSpec, family: MetricFamily, baseline: Profiles) -> pd.DataFrame:
    """Return the MetricFrame of a baseline's windows; of slices only if a monitor judges them."""
    monitors: Sequence[PerformanceMonitor] = getattr(spec.monitors, family)
    is_sliced = any(m.slices for m in monitors if m.is_relative)

    def measured(windows: Profiles) -> pd.DataFrame:
        columns = {c: windows[c] for c in columns_of(spec, family) if c in windows}
        return measure(spec, family, columns if is_sliced else of_all(columns), None)

    return each_window(baseline, ("windows", family, is_sliced), measured)
