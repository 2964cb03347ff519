"""From profiles to metrics: which metrics each family computes, from which columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import (
    ALL,
    CELL_KEYS,
    TABLE,
    ColumnStatistics,
    merge_columns,
    select,
)
from mlmon_dagster.profiles.baseline_windows import derived
from mlmon_dagster.profiles.losses import group_columns, loss_columns
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.tasks import RESIDUAL

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mlmon_dagster.metrics.drift_baseline import DriftBaseline

Profiles = Mapping[str, ColumnStatistics]
DRIFT_SEED = 20130101
_WITHOUT_VERSION = tuple(key for key in CELL_KEYS if key != "model_version")


def quality(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return null, not-a-number, unseen and out-of-range rates of every feature."""
    from mlmon_dagster.metrics.quality import quality_metrics

    return quality_metrics(*(profiles[c] for c in spec.features if c in profiles))


def drift(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return the distances of features, outputs and actuals from the baseline's windows.

    Without a baseline there is nothing to compare with, and no rows.
    """
    from mlmon_dagster.metrics.drift import columns_drift
    from mlmon_dagster.metrics.further_drift import FURTHER
    from mlmon_dagster.metrics.outputs import with_outputs

    if baseline is None:
        return concat_frames([])
    monitor = spec.monitors.drift
    now, known = with_outputs(profiles), derived(baseline, "known", lambda: _known(baseline))
    wanted = (*spec.features, *drifting_outputs(spec))
    columns = {c: now[c] for c in wanted if c in now and c in known}
    then = derived(
        baseline,
        ("drift", *columns, monitor.min_rows),
        lambda: _drift_baseline(columns, baseline, monitor.min_rows),
    )
    found = columns_drift(
        columns,
        then,
        test_slices=monitor.slices,
        further=[name for name in FURTHER if name in (monitor.method, *monitor.also)],
        limits=monitor.auto,
    )
    others = (_multivariate(profiles, baseline), _learning(spec, profiles, known))
    return concat_frames([found, *others])


def _drift_baseline(columns: Collection[str], baseline: Profiles, min_rows: int) -> DriftBaseline:
    """Return the columns of a baseline over all model versions together."""
    from mlmon_dagster.metrics.drift_baseline import DriftBaseline
    from mlmon_dagster.metrics.outputs import with_outputs

    outputs = with_outputs(baseline)
    then = _all_over_versions({column: outputs[column] for column in columns})
    return DriftBaseline(then, seed=DRIFT_SEED, min_rows=min_rows)


def _known(baseline: Profiles) -> frozenset[str]:
    """Return the columns that a baseline has values of."""
    from mlmon_dagster.metrics.outputs import with_outputs

    outputs = with_outputs(baseline)
    return frozenset(column for column, stats in outputs.items() if _has_values(stats))


def _multivariate(profiles: Profiles, baseline: Profiles) -> pd.DataFrame:
    """Return how the columns hang together, where that is profiled on both sides."""
    from mlmon_dagster.metrics.joint import JOINT
    from mlmon_dagster.metrics.multivariate import multivariate_metrics

    if JOINT not in profiles or JOINT not in baseline:
        return concat_frames([])
    then = derived(baseline, JOINT, lambda: _over_versions(baseline[JOINT]))
    return multivariate_metrics(profiles[JOINT], then)


def _has_values(stats: ColumnStatistics) -> bool:
    """Say whether a baseline knows a column: a feature that came later is null in all of it."""
    return bool((stats.n > stats.n_null).any()) or not stats.n.sum()


def _learning(spec: ModelSpec, profiles: Profiles, known: Collection[str]) -> pd.DataFrame:
    """Return rows without a value for features that the baseline does not know yet."""
    from mlmon_dagster.metrics.frames import MetricRows, stack_rows

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
                reason="learning",
                method_version="learning-1",
            )
            for name in spec.features
            if name not in known
            for metric in sorted({"psi", str(spec.monitors.drift.method)})
        ]
    )


def drifting_outputs(spec: ModelSpec) -> list[str]:
    """Return the outputs whose drift is computed: the score, else the prediction.

    With a score, the prediction is the same news twice. It, and the actuals, whose drift comes as
    late as they do, are compared where the monitor names them.
    """
    named = spec.monitors.drift.columns
    first = "score" if spec.columns.score is not None else "prediction"
    return [
        role
        for role in ("score", "prediction", "actual")
        if getattr(spec.columns, role) is not None and (role == first or role in named)
    ]


def performance(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return realized performance, the metrics of the model's task.

    Without a baseline there is no drift of the residuals.
    """
    from mlmon_dagster.metrics.fairness import fairness_metrics
    from mlmon_dagster.metrics.multiclass import multiclass_metrics
    from mlmon_dagster.metrics.performance import performance_metrics
    from mlmon_dagster.metrics.ranking import ranking_metrics
    from mlmon_dagster.metrics.regression import regression_metrics

    if spec.task == "multiclass_classification":
        return multiclass_metrics(profiles)
    if spec.task == "ranking":
        return ranking_metrics(profiles)
    if spec.task == "regression":
        drifted = _residual_drift(spec, profiles, baseline)
        return concat_frames([regression_metrics(profiles), drifted])
    costs = spec.costs.model_dump() if spec.costs else None
    found = [
        performance_metrics(
            profiles.get("score"),
            profiles.get("prediction"),
            profiles,
            top_share=spec.top_share,
            costs=costs,
        )
    ]
    if spec.fairness is not None and "prediction" in profiles:
        declared = spec.fairness.reference or {}
        references = {key: declared.get(key) for key in spec.fairness.slices}
        found.append(fairness_metrics(profiles["prediction"], references))
    return concat_frames(found)


def _residual_drift(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return the PSI of the residuals as a metric of the whole model."""
    from mlmon_dagster.metrics.drift import columns_drift
    from mlmon_dagster.metrics.drift_baseline import DriftBaseline

    if baseline is None or RESIDUAL not in profiles or RESIDUAL not in baseline:
        return concat_frames([])
    then = derived(
        baseline,
        RESIDUAL,
        lambda: DriftBaseline(
            {RESIDUAL: _over_versions(_with_rows(baseline[RESIDUAL]))}, seed=DRIFT_SEED
        ),
    )
    frame = columns_drift({RESIDUAL: _with_rows(profiles[RESIDUAL])}, then)
    psi = frame[frame["metric"] == "psi"]
    return psi.assign(metric="residual_drift", column_name=TABLE).reset_index(drop=True)


def _with_rows(stats: ColumnStatistics) -> ColumnStatistics:
    """Leave out rows without an actual, which are no change of the residuals."""
    none = stats.n_null * 0
    return replace(stats, n=stats.counts.sum(axis=1), n_null=none)


def service(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return volume, latency percentiles and error rate."""
    from mlmon_dagster.metrics.service import service_metrics

    return service_metrics(profiles.get("latency_ms"), profiles.get("status"))


MEASURES: dict[str, Callable[[ModelSpec, Profiles, Profiles | None], pd.DataFrame]] = {
    "quality": quality,
    "drift": drift,
    "performance": performance,
    "service": service,
}


def columns_of(spec: ModelSpec, family: str) -> list[str]:
    """Return the profiled columns that a family reads."""
    return {
        "quality": [*spec.features],
        "drift": [*spec.features, "score", "prediction", "actual", ":joint"],
        "performance": performance_columns(spec),
        "service": ["latency_ms", "status"],
    }[family]


def performance_columns(spec: ModelSpec) -> list[str]:
    """Return the profiled columns that performance is computed from."""
    if spec.task == "ranking":
        return list(group_columns(spec))
    outputs = [name for name in ("score", "prediction") if getattr(spec.columns, name) is not None]
    return list(dict.fromkeys([*outputs, *loss_columns(spec), *group_columns(spec)]))


def measure(
    spec: ModelSpec, family: str, profiles: Profiles, baseline: Profiles | None
) -> pd.DataFrame:
    """Return the MetricFrame of one family over all model versions together."""
    return MEASURES[family](spec, _all_over_versions(profiles), baseline)


def measure_versions(
    spec: ModelSpec, family: str, profiles: Profiles, baseline: Profiles | None
) -> pd.DataFrame:
    """Return the MetricFrame of each model version alone, where a window has several."""
    several: dict[int, NDArray[np.bool_]] = {}
    for stats in profiles.values():
        if id(stats.cells) not in several:
            several[id(stats.cells)] = _side_by_side(stats.cells)
    parts = {
        column: select(stats, several[id(stats.cells)])
        for column, stats in profiles.items()
        if several[id(stats.cells)].any()
    }
    return MEASURES[family](spec, parts, baseline) if parts else concat_frames([])


def _side_by_side(cells: pd.DataFrame) -> NDArray[np.bool_]:
    """Say which cells are of windows that hold several versions of the same slice."""
    several: NDArray[np.bool_] = cells.duplicated(list(_WITHOUT_VERSION), keep=False).to_numpy()
    return several


def _all_over_versions(profiles: Profiles) -> dict[str, ColumnStatistics]:
    """Do that for all columns; those that share their cells' frame are looked at once."""
    single: dict[int, pd.DataFrame | None] = {}
    several = {}
    found = dict(profiles)
    for column, stats in profiles.items():
        key = id(stats.cells)
        if key not in single:
            is_several = stats.cells.duplicated(list(_WITHOUT_VERSION)).any()
            single[key] = None if is_several else stats.cells.assign(model_version=ALL)
        cells = single[key]
        if cells is None:
            several[column] = stats
        else:
            found[column] = replace(stats, cells=cells)
    return found | merge_columns(several, _WITHOUT_VERSION)


def _over_versions(stats: ColumnStatistics) -> ColumnStatistics:
    """Return the statistics of all model versions together, adding up only where there are two."""
    return _all_over_versions({"": stats})[""]
