"""From profiles to drift: of columns, of how they hang together, of attributions, of residuals."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.metrics.frames import MetricRows, concat_frames, stack_rows
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    all_over_versions,
    derived,
    over_versions,
)
from mlmon_dagster.profiles.sql.attribution_columns import EXPLAINER, share_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.tasks import RESIDUAL

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.metrics.drift.references import DriftBaseline

Profiles = Mapping[str, ColumnStatistics]
DRIFT_SEED = 20130101


def drift(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return the distances of features, outputs and actuals from the baseline's windows.

    Without a baseline there is nothing to compare with: no rows but of attributions.
    """
    from mlmon_dagster.metrics.drift.columns import columns_drift, with_outputs
    from mlmon_dagster.metrics.drift.novelty import novelty_metrics
    from mlmon_dagster.metrics.drift.optional_distances import FURTHER

    if baseline is None:
        return _attribution(spec, profiles, None)
    monitor = spec.monitors.drift
    given = derived(baseline, "given", lambda: _given_by_window(spec, baseline))
    now, known = with_outputs(profiles), derived(baseline, "known", lambda: _known(baseline))
    wanted = (*spec.features, *drifting_outputs(spec))
    columns = {c: now[c] for c in wanted if c in now and c in known and c not in given}
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
    own = derived(baseline, ("novelty", *columns), lambda: _over_versions(columns, baseline))
    others = (
        novelty_metrics(columns, own, min_rows=monitor.min_rows),
        _multivariate(profiles, baseline),
        _unjudged(spec, profiles, [c for c in spec.features if c not in known], "not_in_baseline"),
        _unjudged(spec, profiles, [c for c in spec.features if c in given], "given_by_window"),
        _attribution(spec, profiles, baseline),
    )
    return concat_frames([found, *others])


def _drift_baseline(columns: Collection[str], baseline: Profiles, min_rows: int) -> DriftBaseline:
    from mlmon_dagster.metrics.drift.references import DriftBaseline

    return DriftBaseline(_over_versions(columns, baseline), seed=DRIFT_SEED, min_rows=min_rows)


def _over_versions(columns: Collection[str], baseline: Profiles) -> dict[str, ColumnStatistics]:
    """Return the columns of a baseline over all model versions together."""
    from mlmon_dagster.metrics.drift.columns import with_outputs

    outputs = with_outputs(baseline)
    return dict(all_over_versions({column: outputs[column] for column in columns}))


def _known(baseline: Profiles) -> frozenset[str]:
    """Return the columns that a baseline has values of."""
    from mlmon_dagster.metrics.drift.columns import with_outputs

    outputs = with_outputs(baseline)
    return frozenset(column for column, stats in outputs.items() if _has_values(stats))


def _multivariate(profiles: Profiles, baseline: Profiles) -> pd.DataFrame:
    """Return how the columns hang together, where that is profiled on both sides."""
    from mlmon_dagster.metrics.drift.joint import JOINT, multivariate_metrics

    if JOINT not in profiles or JOINT not in baseline:
        return concat_frames([])
    then = derived(baseline, JOINT, lambda: over_versions(baseline[JOINT]))
    return multivariate_metrics(profiles[JOINT], then)


def _attribution(spec: ModelSpec, profiles: Profiles, baseline: Profiles | None) -> pd.DataFrame:
    """Return how much each feature counts, where SHAP values are logged."""
    names = {f: share_of(f) for f in attributed(spec) if share_of(f) in profiles}
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
    if baseline is not None and EXPLAINER in profiles and EXPLAINER in baseline:
        is_same = same_explainer(profiles[EXPLAINER], baseline[EXPLAINER])
    return attribution_metrics(columns, references, min_rows=least, is_same=is_same)


def _has_values(stats: ColumnStatistics) -> bool:
    """Say whether a baseline knows a column: a feature that came later is null in all of it."""
    return bool((stats.n > stats.n_null).any()) or not stats.n.sum()


def _given_by_window(spec: ModelSpec, baseline: Profiles) -> frozenset[str]:
    """Return the features whose value follows from when a window is; they cannot drift."""
    from mlmon_dagster.metrics.drift.between_windows import follows_from_window

    mine = all_over_versions({c: baseline[c] for c in spec.features if c in baseline})
    return frozenset(name for name, stats in mine.items() if follows_from_window(stats))


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
        for role in ("score", "prediction", "actual")
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
    return psi.assign(metric="residual_drift", column_name=TABLE).reset_index(drop=True)


def _with_rows(stats: ColumnStatistics) -> ColumnStatistics:
    """Leave out rows without an actual, which are no change of the residuals."""
    none = stats.n_null * 0
    return replace(stats, n=stats.counts.sum(axis=1), n_null=none)
