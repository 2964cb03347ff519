"""Assets of one model; every body hands the run's windows to one function and reports numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from mlmon_dagster.defs import reports
from mlmon_dagster.defs.lineage import asset_key, partitions_of, windows_of
from mlmon_dagster.defs.liveness import MODEL_TAG, note_process
from mlmon_dagster.defs.metadata import numbers_only, safe_metadata
from mlmon_dagster.pipeline.baseline import fit_baseline
from mlmon_dagster.pipeline.ingest import ingest, ingest_numbers, schema_changes_now, table_sizes
from mlmon_dagster.pipeline.judge import judge_quarantined
from mlmon_dagster.pipeline.run import WINDOW_STEPS
from mlmon_dagster.pipeline.steps import BY_NAME, AssetInfo
from mlmon_dagster.pipeline.stopwatch import computing
from mlmon_dagster.pipeline.work import Numbers, Work
from mlmon_dagster.project import Project
from mlmon_dagster.spec import PRODUCTION, ModelSpec, Window
from mlmon_dagster.store.state import retention_marks
from mlmon_dagster.store.state.declared import check_declared

BACKFILL_TAG = "mlmon/backfill"
PAST = "rows are past retention; profiles and metrics stay as they were computed"
AssetDecorator = Callable[[Callable[..., Any]], dg.AssetsDefinition]
WindowNumbers = dict[str, dict[str, object]]


def model_assets(project: Project, spec: ModelSpec) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of one model, in lineage order."""
    return [
        _landing(spec),
        _event_log(project, spec),
        _baseline(project, spec),
        *(_windowed(project, spec, BY_NAME[name], body) for name, body in WINDOW_STEPS.items()),
        *(_report(project, spec, BY_NAME[name], body) for name, body in reports.REPORTS.items()),
    ]


def work_of(project: Project, spec: ModelSpec, context: Any) -> Work:
    """Return what this run works on: its windows, the present moment, and whether it is history."""
    check_declared(project.store.state, spec)
    run = context.run
    note_process(context.instance, run.run_id)
    is_backfill = BACKFILL_TAG in run.tags or "dagster/backfill" in run.tags
    # One partition by a click in the UI is a key; a range of them is a pair of tags.
    is_windowed = context.has_partition_key or context.has_partition_key_range
    windows = windows_of(spec, context.partition_keys) if is_windowed else []
    kept = _with_rows(project, spec, windows)
    if len(kept) < len(windows):
        context.log.warning(f"{len(windows) - len(kept)} of {len(windows)} windows: {PAST}")
    return Work(project, spec, tuple(kept), project.now(), run.run_id, is_backfill)


def _with_rows(project: Project, spec: ModelSpec, windows: Sequence[Window]) -> list[Window]:
    """Return the windows whose rows were not deleted by age; the others keep their numbers."""
    mark = retention_marks.rows_from(project.store.state, spec.model).get(PRODUCTION)
    return [window for window in windows if mark is None or window.start >= mark]


def _landing(spec: ModelSpec) -> dg.AssetSpec:
    labels = [s.label for s in (spec.source.predictions, spec.source.actuals) if s is not None]
    return dg.AssetSpec(
        asset_key(spec, "landing"),
        group_name=spec.model,
        description="What the serving system leaves for us: " + ", ".join(labels),
        owners=list(spec.owners),
        kinds={"file"},
        tags={MODEL_TAG: spec.model},
    )


def _asset(spec: ModelSpec, info: AssetInfo, **more: Any) -> AssetDecorator:
    """Return the decorator that makes a function this asset of the model."""
    options: dict[str, Any] = {
        "key": asset_key(spec, info.name),
        "deps": [asset_key(spec, dep) for dep in info.deps],
        "group_name": spec.model,
        "description": info.description,
        "owners": list(spec.owners),
        "kinds": set(info.kinds),
        "tags": {MODEL_TAG: spec.model},
        "pool": spec.model,
    }
    decorator: AssetDecorator = dg.asset(**options, **more)
    return decorator


def _event_log(project: Project, spec: ModelSpec) -> dg.AssetsDefinition:
    @_asset(spec, BY_NAME["event_log"])
    def event_log(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        work = work_of(project, spec, context)
        with computing.running():
            report = ingest(work, context.log.info)
            judge_quarantined(work)
            numbers = {**ingest_numbers(report), **table_sizes(work)}
            numbers |= schema_changes_now(work)
        return dg.MaterializeResult(metadata=safe_metadata(numbers))

    return event_log


def _baseline(project: Project, spec: ModelSpec) -> dg.AssetsDefinition:
    @_asset(spec, BY_NAME["baseline"])
    def baseline(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        with computing.running():
            numbers = fit_baseline(work_of(project, spec, context))
        if "reason" in numbers:
            context.log.warning(str(numbers["reason"]))
        return dg.MaterializeResult(metadata=safe_metadata(numbers))

    return baseline


def _windowed(
    project: Project, spec: ModelSpec, info: AssetInfo, body: Callable[[Work], WindowNumbers]
) -> dg.AssetsDefinition:
    @_asset(
        spec,
        info,
        partitions_def=partitions_of(spec),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def windowed(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        work = work_of(project, spec, context)
        if not work.windows:
            return dg.MaterializeResult(metadata={"reason": PAST})
        with computing.running():
            numbers_of = body(work)
        for key, numbers in numbers_of.items():
            context.add_asset_metadata(numbers_only(numbers), partition_key=key)
        return dg.MaterializeResult()

    return windowed


def _report(
    project: Project, spec: ModelSpec, info: AssetInfo, body: Callable[[Work], Numbers]
) -> dg.AssetsDefinition:
    @_asset(spec, info)
    def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata=safe_metadata(body(work_of(project, spec, context))))

    return report
