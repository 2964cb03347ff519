"""From profiles to metrics: which metrics each family computes, from which columns.

Drift is of columns, of attributions and of residuals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.metrics.estimated.multiclass import DECIDED_FOR
from mlmon_dagster.metrics.frames import MetricRows, concat_frames, stack_rows
from mlmon_dagster.metrics.late_truth.means_by_output import BY_OUTPUT, OUTCOME
from mlmon_dagster.metrics.performance.weighted_back import DECIDED, EXEMPT
from mlmon_dagster.metrics.quality import BROKEN
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    all_over_versions,
    derived,
    each_window,
    merge_columns,
    of_all,
    over_versions,
    select_columns,
    side_by_side,
)
from mlmon_dagster.profiles import loss_columns as losses
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.evaluations import find_judge
from mlmon_dagster.spec.metric_registry import (
    GENERATION,
    METRICS,
    MULTILABEL,
    OFF_HEAP,
    MetricFamily,
)
from mlmon_dagster.spec.monitors import PerformanceMonitor
from mlmon_dagster.spec.names import (
    ALL,
    BUSINESS,
    DRIFT,
    OUTPUTS,
    PERFORMANCE,
    QUALITY,
    SERVICE,
    TABLE,
)
from mlmon_dagster.spec.spans import TOKENS, Spans, stage_calls, stage_column
from mlmon_dagster.spec.tasks import RESIDUAL, task_of

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.references import DriftBaseline


DRIFT_SEED = 20130101


def drift(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return the distances of features, outputs and actuals from the baseline's windows.

    Without a baseline there is nothing to compare with: no rows but of attributions.
    """
    from mlmon_dagster.metrics.drift.columns import columns_drift, with_outputs
    from mlmon_dagster.metrics.drift.distances import FURTHER
    from mlmon_dagster.metrics.drift.novelty import novelty_metrics, unlike_metrics
    from mlmon_dagster.metrics.drift.off_heap import off_heap_baseline, off_heap_drift

    if baseline is None:
        return _attribution(spec, profiles, None)
    monitor = spec.monitors.drift
    known, given = _known(baseline), _given_by_window(spec, baseline)
    now = with_outputs(profiles)
    columns = {c: now[c] for c in comparable_columns(spec, baseline) if c in now}
    then = derived(
        baseline,
        (DRIFT, *columns, monitor.min_rows),
        lambda: _drift_baseline(columns, baseline, monitor.min_rows),
    )
    found = columns_drift(
        columns,
        then,
        further=[name for name in FURTHER if name in (monitor.method, *monitor.also)],
    )
    own = derived(baseline, ("novelty", *columns), lambda: over_all_versions(columns, baseline))
    rest = derived(
        baseline,
        (OFF_HEAP, *columns, monitor.min_rows),
        lambda: off_heap_baseline(own, seed=DRIFT_SEED, min_rows=monitor.min_rows),
    )
    embedded = {name: columns[name] for name in spec.novelty_columns if name in columns}
    others = (
        off_heap_drift(columns, rest),
        novelty_metrics(columns, own, min_rows=monitor.min_rows),
        unlike_metrics(embedded, own, min_rows=monitor.min_rows),
        _unjudged(spec, profiles, [c for c in spec.features if c not in known], "not_in_baseline"),
        _unjudged(spec, profiles, [c for c in spec.features if c in given], "given_by_window"),
        _attribution(spec, profiles, baseline),
    )
    return concat_frames([found, *others])


def comparable_columns(spec: ModelSpec, baseline: Profiles) -> list[str]:
    """Return the features and outputs that a baseline has values of, and that can drift."""
    known, given = _known(baseline), _given_by_window(spec, baseline)
    wanted = (*spec.features, *drifting_outputs(spec))
    return [column for column in wanted if column in known and column not in given]


def _drift_baseline(columns: Collection[str], baseline: Profiles, min_rows: int) -> DriftBaseline:
    from mlmon_dagster.metrics.drift.references import DriftBaseline

    return DriftBaseline(over_all_versions(columns, baseline), seed=DRIFT_SEED, min_rows=min_rows)


def over_all_versions(columns: Iterable[str], windows: Profiles) -> dict[str, ColumnStatistics]:
    """Return columns of some windows over all model versions together."""
    from mlmon_dagster.metrics.drift.columns import with_outputs

    outputs = with_outputs(windows)
    return dict(all_over_versions({column: outputs[column] for column in columns}))


def _known(baseline: Profiles) -> frozenset[str]:
    """Return the columns that a baseline has values of."""
    from mlmon_dagster.metrics.drift.columns import with_outputs

    def compute() -> frozenset[str]:
        outputs = with_outputs(baseline)
        return frozenset(column for column, stats in outputs.items() if _has_values(stats))

    return derived(baseline, "known", compute)


def _attribution(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return how much each feature counts, where SHAP values are logged."""
    names = {f: losses.share_of(f) for f in attributed(spec) if losses.share_of(f) in profiles}
    if not names:
        return concat_frames([])
    from mlmon_dagster.metrics.drift.attribution import (
        attribution_metrics,
        attribution_references,
        same_explainer,
    )

    least = spec.monitors.drift.min_rows
    references = None
    if baseline is not None:
        then = {f: baseline[name] for f, name in names.items() if name in baseline}
        references = derived(
            baseline,
            ("attribution", *then, least),
            lambda: attribution_references(then, min_rows=least),
        )
    columns = {feature: profiles[name] for feature, name in names.items()}
    is_same = None
    if baseline is not None and losses.EXPLAINER in profiles and losses.EXPLAINER in baseline:
        is_same = same_explainer(profiles[losses.EXPLAINER], baseline[losses.EXPLAINER])
    return attribution_metrics(columns, references, min_rows=least, is_same=is_same)


def _has_values(stats: ColumnStatistics) -> bool:
    """Say whether a baseline knows a column: a feature that came later is null in all of it."""
    return bool((stats.n > stats.n_null).any()) or not stats.n.sum()


def _given_by_window(spec: ModelSpec, baseline: Profiles) -> frozenset[str]:
    """Return the features whose value follows from when a window is; they cannot drift."""
    from mlmon_dagster.metrics.drift.between_windows import follows_from_window

    def compute() -> frozenset[str]:
        mine = all_over_versions({c: baseline[c] for c in spec.features if c in baseline})
        return frozenset(name for name, stats in mine.items() if follows_from_window(stats))

    return derived(baseline, "given", compute)


def _unjudged(
    spec: ModelSpec, profiles: Profiles, names: Collection[str], reason: str
) -> pd.DataFrame:
    """Return rows without a value for features that are not compared, with the reason."""
    some = next(iter(profiles.values()), None)
    if some is None:
        return stack_rows([])
    whole = (some.cells["slice_key"] == ALL).to_numpy()
    cells, n = some.cells[whole], some.n[whole]
    return stack_rows(
        [
            MetricRows(
                cells,
                column_name=name,
                metric=metric,
                value=float("nan"),
                n=n,
                reason=reason,
                method_version="unjudged-1",
            )
            for name in names
            for metric in sorted({"psi", str(spec.monitors.drift.method)})
        ]
    )


def drifting_outputs(spec: ModelSpec) -> list[str]:
    """Return the outputs whose drift is computed: the score, else the prediction.

    With a score, the prediction is the same news twice. It, and the actuals, whose drift comes as
    late as they do, are compared where the monitor names them.
    """
    named, first = spec.monitors.drift.columns, main_output(spec)
    return [
        role
        for role in OUTPUTS
        if getattr(spec.columns, role) is not None and (role == first or role in named)
    ]


def main_output(spec: ModelSpec) -> str | None:
    """Return the output that says most: the score, else the prediction; None without any."""
    roles = (role for role in ("score", "prediction") if getattr(spec.columns, role) is not None)
    return next(roles, None)


def residual_drift(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return the PSI of the residuals as a metric of the whole model."""
    from mlmon_dagster.metrics.drift.columns import columns_drift
    from mlmon_dagster.metrics.drift.references import DriftBaseline

    if baseline is None or RESIDUAL not in profiles or RESIDUAL not in baseline:
        return concat_frames([])
    then = derived(
        baseline,
        RESIDUAL,
        lambda: DriftBaseline(
            {RESIDUAL: over_versions(_with_rows(baseline[RESIDUAL]))}, seed=DRIFT_SEED
        ),
    )
    frame = columns_drift({RESIDUAL: _with_rows(profiles[RESIDUAL])}, then)
    psi = frame[frame["metric"] == "psi"]
    beyond_chance = {end: psi[end] - psi["by_chance"] for end in ("value", "lower", "upper")}
    return psi.assign(
        metric="residual_drift", column_name=TABLE, by_chance=float("nan"), **beyond_chance
    ).reset_index(drop=True)


def _with_rows(stats: ColumnStatistics) -> ColumnStatistics:
    """Leave out rows without an actual, which are no change of the residuals."""
    none = stats.n_null * 0
    return replace(stats, n=stats.counts.sum(axis=1), n_null=none)


Profiles = Mapping[str, ColumnStatistics]


def quality(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return null, not-a-number, unseen and out-of-range rates of every feature.

    Where SHAP values are logged or computed, also whether they add up to the score. With a baseline
    also what is usual of unseen values among its windows. Before there are enough earlier windows
    to compare with, unseen values have no rate (`learning`): bins know those of the first alone.
    """
    from mlmon_dagster.metrics.drift.novelty import unseen_limits
    from mlmon_dagster.metrics.quality import additivity_metrics, personal_metrics, quality_metrics

    columns = [profiles[c] for c in spec.features if c in profiles]
    sums = [
        {name: stats for name, stats in side.items() if name.startswith(BROKEN)}
        for side in (profiles, baseline or {})
    ]
    added = additivity_metrics(sums[0], sums[1] or None) if sums[0] else stack_rows([])
    personal = {
        name: profiles[name]
        for name, feature in spec.derived_features.items()
        if feature.kind.is_personal and name in profiles
    }
    of_texts = (
        personal_metrics(personal, baseline or {}, min_rows=spec.monitors.quality.min_rows)
        if personal
        else stack_rows([])
    )
    found = concat_frames([quality_metrics(*columns), added, of_texts])
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


def performance(
    spec: ModelSpec,
    profiles: Profiles,
    baseline: Profiles | None,
    metrics: Collection[str] = METRICS,
) -> pd.DataFrame:
    """Return realized performance, the metrics of the model's task.

    Without a baseline there is no drift of the residuals. A binary classifier's metrics that are
    not among ``metrics`` are not computed; those of other tasks come in one go.
    """
    from mlmon_dagster.metrics.performance.binary import performance_metrics
    from mlmon_dagster.metrics.performance.fairness import fairness_metrics
    from mlmon_dagster.metrics.performance.multiclass import multiclass_metrics
    from mlmon_dagster.metrics.performance.multilabel import multilabel_metrics
    from mlmon_dagster.metrics.performance.ranking import ranking_metrics
    from mlmon_dagster.metrics.performance.regression import regression_metrics

    if spec.task == "multiclass_classification":
        return multiclass_metrics(profiles)
    if spec.task == MULTILABEL:
        return multilabel_metrics(profiles)
    if spec.task == "ranking":
        return ranking_metrics(profiles)
    if spec.task == "regression":
        drifted = residual_drift(spec, profiles, baseline)
        return concat_frames([regression_metrics(profiles, spec.quantile), drifted])
    if spec.task == GENERATION:
        return _evaluations(spec, profiles, baseline)
    found = [
        performance_metrics(
            profiles.get("score"),
            profiles.get("prediction"),
            profiles,
            top_share=spec.top_share,
            metrics=metrics,
        )
    ]
    if spec.fairness is not None and "prediction" in profiles:
        declared = spec.fairness.reference or {}
        references = {key: declared.get(key) for key in spec.fairness.slices}
        found.append(fairness_metrics(profiles["prediction"], references))
    return concat_frames(found)


def _evaluations(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    from mlmon_dagster.metrics.evaluations import Evaluated, evaluation_metrics, find_clusters

    evaluations = {
        name: Evaluated(
            profiles[f"{OUTCOME}{name}"],
            profiles[f"{losses.UNJUDGED}{name}"],
            one.good is not None,
            profiles.get(f"{losses.JUDGED}{find_judge(spec.evaluations, name)}"),
            profiles.get(f"{losses.EVALUATOR}{name}"),
            (baseline or {}).get(f"{losses.EVALUATOR}{name}"),
            find_clusters(profiles, name),
        )
        for name, one in spec.evaluations.items()
        if f"{OUTCOME}{name}" in profiles
    }
    judges = {
        name: profiles[f"{losses.JUDGED}{name}"]
        for name in spec.evaluations
        if f"{losses.JUDGED}{name}" in profiles
    }
    return evaluation_metrics(evaluations, judges)


def service(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return volume, latency, error rate and costs, and what spans say of requests."""
    from mlmon_dagster.metrics.service import cost_metrics, service_metrics

    found = service_metrics(profiles.get("latency_ms"), profiles.get("status"))
    costs = {name: profiles[name] for name in spec.priced_features if name in profiles}
    if costs:
        found = concat_frames([found, cost_metrics(costs)])
    if spec.spans is None or losses.TRACED not in profiles:
        return found
    return concat_frames([found, *_of_spans(spec.spans, profiles)])


def _of_spans(spans: Spans, profiles: Profiles) -> Iterator[pd.DataFrame]:
    from mlmon_dagster.metrics.service import Stage, coverage_metrics, stage_metrics, token_metrics

    def both(all_: str, traced: str) -> tuple[ColumnStatistics, ColumnStatistics] | None:
        return (profiles[all_], profiles[traced]) if {all_, traced} <= profiles.keys() else None

    told = {
        name: profiles[losses.TOLD + name]
        for name in spans.columns
        if losses.TOLD + name in profiles
    }
    yield coverage_metrics(
        profiles[losses.TRACED],
        both("latency_ms", losses.TRACED_LATENCY),
        both("status", losses.TRACED_STATUS),
        told,
    )
    stages = {
        column: Stage(
            profiles[column],
            profiles[stage_calls(name)],
            profiles[losses.FAILED + column],
            profiles[losses.TIMED_OUT + column],
        )
        for name in spans.stages
        if (column := stage_column(name)) in profiles
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
            profiles.get(f"{losses.GAIN}{name}"),
            profiles.get(f"{losses.DEBIT}{name}"),
            "outcome" if declared.better == "higher" else "cost",
            profiles.get(f"{BY_OUTPUT}{OUTCOME}{name}"),
        )
        for name, declared in spec.columns.outcomes.items()
        if f"{OUTCOME}{name}" in profiles
    }
    return business_metrics(outcomes, costs, profiles)


MEASURES: dict[str, Callable[[ModelSpec, Profiles, Profiles | None], pd.DataFrame]] = {
    QUALITY: quality,
    DRIFT: drift,
    PERFORMANCE: performance,
    SERVICE: service,
    BUSINESS: business,
}


def columns_of(spec: ModelSpec, family: str) -> list[str]:
    """Return the profiled columns that a family reads."""
    return {
        QUALITY: [
            *spec.features,
            *(n for n in losses.attribution_columns(spec) if n.startswith(BROKEN)),
        ],
        DRIFT: [
            *spec.features,
            "score",
            "prediction",
            "actual",
            *map(losses.share_of, attributed(spec)),
            losses.EXPLAINER,
        ],
        PERFORMANCE: performance_columns(spec),
        SERVICE: ["latency_ms", "status", *spec.priced_features, *losses.span_columns(spec)],
        BUSINESS: [*losses.outcome_columns(spec), *(_decided_columns(spec) if spec.costs else [])],
    }[family]


def _decided_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that tell what decisions were worth."""
    outputs = ["prediction", *(["score", DECIDED] if spec.columns.score is not None else [])]
    return [*outputs, *(n for n in losses.loss_columns(spec) if n.startswith(EXEMPT))]


def performance_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that performance is computed from."""
    if task_of(spec).is_grouped:
        return list(losses.group_columns(spec))
    if spec.evaluations:
        outcomes, evaluated = losses.outcome_columns(spec), losses.evaluation_columns(spec)
        return [*outcomes, *evaluated, *losses.group_columns(spec)]
    outputs = [name for name in ("score", "prediction") if getattr(spec.columns, name) is not None]
    mine = [name for name in losses.loss_columns(spec) if not name.startswith(DECIDED_FOR)]
    return list(dict.fromkeys([*outputs, *mine, *losses.group_columns(spec)]))


def measure(
    spec: ModelSpec,
    family: str,
    profiles: Profiles,
    baseline: Profiles | None,
    metrics: Collection[str] = METRICS,
) -> pd.DataFrame:
    """Return the MetricFrame of one family over all model versions together.

    Args:
        spec: The model.
        family: Whose metrics.
        profiles: Column -> statistics.
        baseline: The same of the baseline's windows, for what is compared with it.
        metrics: Those of performance that are wanted; others may be there, too.
    """
    whole = all_over_versions(profiles)
    if family == PERFORMANCE:
        return performance(spec, whole, baseline, metrics)
    return MEASURES[family](spec, whole, baseline)


def measure_versions(
    spec: ModelSpec, family: str, profiles: Profiles, baseline: Profiles | None
) -> pd.DataFrame:
    """Return the MetricFrame of each model version alone, where a window has several."""
    found = select_columns(profiles, side_by_side)
    parts = {column: stats for column, stats in found.items() if len(stats)}
    return MEASURES[family](spec, parts, baseline) if parts else concat_frames([])


def baseline_performance(
    spec: ModelSpec,
    family: MetricFamily,
    baseline: Profiles,
    metrics: Collection[str] = METRICS,
) -> pd.DataFrame:
    """Return a baseline's own performance: of all its rows, and how its windows usually are.

    Args:
        spec: The model.
        family: Or what the business got out of its predictions.
        baseline: Column -> statistics of the baseline's windows.
        metrics: Those of performance that are wanted; others may be there, too.

    Returns:
        MetricFrame, one row per metric and slice, with the columns `windows.clusters.USUAL`: NaN
        where too few windows have a value, and of slices unless a monitor judges them.
    """
    from mlmon_dagster.metrics.windows.clusters import SERIES, usual_windows

    def measured() -> pd.DataFrame:
        columns = {c: baseline[c] for c in columns_of(spec, family) if c in baseline}
        pooled = merge_columns(columns, ("dataset", "slice_key", "slice_value"))
        usual = usual_windows(windows_performance(spec, family, baseline, metrics))
        return measure(spec, family, pooled, None, metrics).join(usual, on=list(SERIES))

    return derived(baseline, (PERFORMANCE, family, spec, frozenset(metrics)), measured)


def windows_performance(
    spec: ModelSpec,
    family: MetricFamily,
    baseline: Profiles,
    metrics: Collection[str] = METRICS,
) -> pd.DataFrame:
    """Return the MetricFrame of a baseline's windows; of slices only if a monitor judges them."""
    monitors: Sequence[PerformanceMonitor] = getattr(spec.monitors, family)
    is_sliced = any(m.slices for m in monitors if m.is_relative)

    def measured(windows: Profiles) -> pd.DataFrame:
        columns = {c: windows[c] for c in columns_of(spec, family) if c in windows}
        return measure(spec, family, columns if is_sliced else of_all(columns), None, metrics)

    return each_window(baseline, ("windows", family, is_sliced, frozenset(metrics)), measured)
