"""Assets: of one model, across all models, and of a declaration that does not load.

Every body hands the run's windows to one function and reports numbers.
"""

import datetime as dt
import inspect
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast
from zoneinfo import ZoneInfo

import dagster as dg

from mlmon_dagster.defs.instance import MODEL_TAG, WINDOWS_TAG, note_process
from mlmon_dagster.defs.mapping import line_up
from mlmon_dagster.defs.metadata import (
    PARTITION_ROW_COUNT,
    REBUILT,
    ROW_COUNT,
    code_version,
    definition_metadata,
    freshness_of,
    numbers_only,
    safe_metadata,
    table,
)
from mlmon_dagster.defs.private_dagster import DATA_VERSION_TAG, OutputDefinition
from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.pipeline.baseline import fit_baseline, version_of_inputs
from mlmon_dagster.pipeline.ingest import ingest, ingest_numbers, schema_changes_now, table_sizes
from mlmon_dagster.pipeline.judge import judge_quarantined
from mlmon_dagster.pipeline.run import WINDOW_STEPS, known_numbers, newer_window
from mlmon_dagster.pipeline.status import OVERVIEW, digest_overview, digest_shown
from mlmon_dagster.project import Project
from mlmon_dagster.spec import (
    BrokenModel,
    Models,
    ModelSpec,
    Window,
    complete_windows,
    first_window,
    production_end,
    window_from_key,
)
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.spec.steps import MEASURED, AssetInfo, assets_of
from mlmon_dagster.store.state import model_history, window_state
from mlmon_dagster.store.state.model_history import check_declared
from mlmon_dagster.work import Numbers, Work, computing

BACKFILL_TAG = "mlmon/backfill"
PLANNED_TAG = "mlmon/planned"  # what is up to date is left as it is
PAST = "rows are past retention; profiles and metrics stay as they were computed"
Materialized = dg.MaterializeResult[None] | dg.AssetMaterialization
Inputs = Mapping[str, object]  # of a step: nothing, since our steps hand each other no values
Body = Callable[[dg.AssetExecutionContext, Inputs], Iterator[Materialized]]
_SIGNATURE = inspect.signature(lambda context, inputs: None)  # of every body
_OUTPUT = "result"
SHARED = "mlmon"  # before the name of everything that serves all models together
OVERVIEW_KEY = dg.AssetKey([SHARED, "overview"])
_EXACT = ("slice", "n", "value", "baseline", "change", "mix", "within", "share", "p_adjusted")
_OWN_CHANGE = ("slice", "n", "value", "baseline", "change", "lower", "upper", "p_adjusted")
_COLUMNS = {
    "baseline": "baseline_value",
    "lower": "change_lower",
    "upper": "change_upper",
}
BROKEN_ASSET = "declaration"
LOADS_CHECK = "loads"
NOT_LOADED_YET = (
    "new, or declared with other windows, assets or keys, which Dagster does not know yet; "
    "`mlmon dev` reloads, elsewhere reload the code location (Deployment, Reload)"
)


def model_assets(
    project: Project,
    spec: ModelSpec,
    declared: Path | None = None,
    neighbours: Mapping[dg.AssetKey, dg.PartitionsDefinition | None] | None = None,
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Return the assets of one model, in lineage order.

    Args:
        project: Where its state lives.
        spec: The model.
        declared: The model's file, if there is one.
        neighbours: Partitions of the user's own assets by key; None if they are not known.
    """
    landing, mine = _landing(spec), assets_of(spec)
    names = {info.name for info in mine} | {one.key.path[-1] for one in landing}
    return [
        *landing,
        *(
            made_of(
                _spec(project, spec, info, _parents(spec, info, names, neighbours), declared),
                _body(project, spec, info),
                pool=spec.model,
                tags=first_of_all(spec),
            )
            for info in mine
        ),
    ]


def _body(project: Project, spec: ModelSpec, info: AssetInfo) -> Body:
    """Return what an asset does."""
    if info.is_windowed:
        return _windowed(project, spec, info)
    if info.name in REPORTS:
        return _report(project, spec, REPORTS[info.name])
    return {"event_log": _event_log, "baseline": _baseline}[info.name](project, spec)


def work_of(
    project: Project,
    spec: ModelSpec,
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
) -> Work:
    """Return what this run works on: its windows, the present moment, and whether it is history."""
    check_declared(project.store.state, spec)
    run = context.run
    note_process(context.instance, run.run_id)
    is_backfill = BACKFILL_TAG in run.tags or "dagster/backfill" in run.tags
    windows = windows_of(spec, _partition_keys(spec, run.tags))
    kept = _with_rows(project, spec, windows)
    if len(kept) < len(windows):
        context.log.warning(f"{len(windows) - len(kept)} of {len(windows)} windows: {PAST}")
    # A run executed once more has the tags of the first, and is asked for by a person.
    is_asked = is_backfill or "dagster/parent_run_id" in run.tags
    is_planned = PLANNED_TAG in run.tags and not is_asked
    return Work(project, spec, tuple(kept), project.now(), run.run_id, is_backfill, is_planned)


def _partition_keys(spec: ModelSpec, tags: Mapping[str, str]) -> Sequence[str]:
    """Return the keys of a run's windows in this model, of those in a run each may have its own.

    One partition by a click in the UI is a key; a range of them is a pair of tags.
    """
    if PARTITION in tags:
        return [tags[PARTITION]]
    if RANGE_START not in tags:
        return []
    wanted = dg.PartitionKeyRange(tags[RANGE_START], tags[RANGE_END])
    return partitions_of(spec).get_partition_keys_in_range(wanted)


def _with_rows(project: Project, spec: ModelSpec, windows: Sequence[Window]) -> list[Window]:
    """Return the windows whose rows were not deleted by age; the others keep their numbers."""
    mark = model_history.load_rows_from(project.store.state, spec.model).get(PRODUCTION)
    return [window for window in windows if mark is None or window.start >= mark]


def _landing(spec: ModelSpec) -> list[dg.AssetSpec]:
    """Return what stands for the streams of which no asset is named that writes them, if any."""
    named = spec.source.assets()
    labels = [s.label for name, s in spec.source if s is not None and name not in named]
    if not labels:
        return []
    return [
        dg.AssetSpec(
            asset_key(spec, "landing"),
            group_name=spec.model,
            description="What the serving system leaves for us: " + ", ".join(labels),
            owners=list(spec.owners),
            kinds={"file"},
            tags={MODEL_TAG: spec.model},
        )
    ]


def _parents(
    spec: ModelSpec,
    info: AssetInfo,
    names: Set[str],
    neighbours: Mapping[dg.AssetKey, dg.PartitionsDefinition | None] | None,
) -> list[dg.AssetDep]:
    """Return what an asset of a model is computed from: ours, and those of the user's project.

    The event log has no partitions, as one commit takes in whatever has come. So that lineage by
    partition does not end there, the windows' records hang on the user's assets themselves, too.

    Args:
        spec: The model.
        info: The asset.
        names: Those that the model has.
        neighbours: Partitions of the user's own assets by key; None if they are not known.
    """
    streams = [dg.AssetKey.from_user_string(key) for key in spec.source.assets().values()]
    theirs: list[dg.AssetDep] = []
    if info.name == "event_log":
        theirs = [dg.AssetDep(key) for key in dict.fromkeys(streams)]
    elif info.name == "inference_store":
        lined_up = (line_up(key, partitions_of(spec), neighbours) for key in dict.fromkeys(streams))
        theirs = [dep for dep in lined_up if dep is not None]
    elif info.name == "baseline" and spec.baseline.asset:
        theirs = [dg.AssetDep(dg.AssetKey.from_user_string(spec.baseline.asset))]
    return [*theirs, *(dg.AssetDep(asset_key(spec, dep)) for dep in info.deps if dep in names)]


def written_by(
    instance: dg.DagsterInstance, specs: Sequence[ModelSpec]
) -> dict[str, dict[Stream, dt.datetime]]:
    """Return when the assets that write the streams were last materialized, by model and stream.

    One query for all models; none if no model names an asset.
    """
    named = {spec.model: spec.source.assets() for spec in specs}
    keys = {key: dg.AssetKey.from_user_string(key) for s in named.values() for key in s.values()}
    if not keys:
        return {}
    newest: dict[str, dt.datetime] = {}
    for record in instance.get_asset_records(list(keys.values())):
        entry = record.asset_entry.last_materialization_record
        if entry is not None:
            name = record.asset_entry.asset_key.to_user_string()
            newest[name] = dt.datetime.fromtimestamp(entry.timestamp, dt.UTC)
    return {
        model: {stream: newest[key] for stream, key in streams.items() if key in newest}
        for model, streams in named.items()
    }


def _spec(
    project: Project,
    spec: ModelSpec,
    info: AssetInfo,
    parents: list[dg.AssetDep],
    declared: Path | None,
) -> dg.AssetSpec:
    """Return what Dagster shows of an asset of a model."""
    return dg.AssetSpec(
        asset_key(spec, info.name),
        deps=parents,
        group_name=spec.model,
        description=info.description,
        owners=list(spec.owners),
        kinds=set(info.kinds),
        tags={MODEL_TAG: spec.model, WINDOWS_TAG: spec.time.granularity},
        metadata=definition_metadata(project, spec, info, declared),
        code_version=code_version(info),
        freshness_policy=freshness_of(spec, info),
        partitions_def=partitions_of(spec) if info.is_windowed else None,
    )


class StepAsset(dg.AssetsDefinition):
    """An asset whose step takes none of a location's resources.

    Dagster makes every asset anew to bind resources to it, also those that need none: with a
    thousand models that is a fifth of what loading the code location takes.
    """

    def with_resources(
        self,
        resource_defs: Mapping[str, dg.ResourceDefinition],
    ) -> dg.AssetsDefinition:
        """Return the asset as it is."""
        return self


class StepCheck(StepAsset, dg.AssetChecksDefinition):
    """A check whose step takes none, either."""


def made_of(
    asset: dg.AssetSpec,
    body: Body,
    *,
    pool: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> dg.AssetsDefinition:
    """Return an asset, put together from the parts that `dg.asset` would make.

    Of any function the decorator has to find out what it takes and returns, which costs three
    times as much; with a thousand models that is what loading the code location takes.
    """
    parents = by_input(dep.asset_key for dep in asset.deps)
    return StepAsset(
        keys_by_input_name=parents,
        keys_by_output_name={_OUTPUT: asset.key},
        node_def=step_of(
            body,
            parents,
            {_OUTPUT: _out(asset.description, asset.code_version)},
            name=step_of_key(asset.key),
            description=asset.description,
            tags=tags,
            code_version=asset.code_version,
            pool=pool,
        ),
        specs=[asset],
        backfill_policy=dg.BackfillPolicy.single_run() if asset.partitions_def else None,
    )


def by_input(keys: Iterable[dg.AssetKey]) -> dict[str, dg.AssetKey]:
    """Return the assets that a step comes after, by the names that its inputs have.

    They are short, so that the steps of all models have the same ones; longer where two would be
    called alike.
    """
    found: dict[str, dg.AssetKey] = {}
    for key in keys:
        short, whole = (re.sub("[-.]", "_", name) for name in (key.path[-1], "_".join(key.path)))
        found[whole if short in found else short] = key
    return found


def step_of(
    body: Callable[..., object],
    parents: Iterable[str],
    outs: Mapping[str, dg.Out],
    *,
    name: str,
    description: str | None,
    tags: Mapping[str, str] | None = None,
    code_version: str | None = None,
    pool: str | None = None,
) -> dg.OpDefinition:
    """Return a step that comes after others, and takes nothing from them.

    Args:
        body: What it does, with its context and nothing.
        parents: Its inputs' names.
        outs: Its outputs.
        name: Its name among all steps of the code location.
        description: What people read of it.
        tags: For whoever runs it.
        code_version: Of what it does.
        pool: Of which so many steps at once may be run.
    """
    body.__signature__ = _SIGNATURE  # type: ignore[attr-defined]  # Dagster need not search for it
    return dg.OpDefinition(
        body,
        name=name,
        description=description,
        ins={parent: _input(parent) for parent in parents},
        outs=outs,
        tags=tags,
        code_version=code_version,
        pool=pool,
    )


@lru_cache(maxsize=1_000)  # steps of all models come after the same few, and each is checked
def _input(name: str) -> dg.In:
    # What Dagster would make of it for each step; it takes one that is made already.
    return cast(dg.In, dg.In(dg.Nothing).to_definition(name))


class SharedOut(dg.Out):
    """An output whose definition is made once for all steps that have it."""

    @lru_cache(maxsize=1_000)  # noqa: B019  # they are few, and live as long
    def to_definition(
        self,
        annotation_type: type,
        name: str | None,
        description: str | None,
        code_version: str | None,
    ) -> OutputDefinition:
        """Return what Dagster makes of it."""
        return super().to_definition(annotation_type, name, description, code_version)


@cache
def _out(description: str | None, version: str | None) -> dg.Out:
    return SharedOut(dg.Nothing, description=description, code_version=version)


def first_of_all(spec: ModelSpec) -> dict[str, str]:
    """Return the tags by which a run of many models does one model's steps after the other.

    What a step read the next one then finds in memory, and of no second model anything is there.
    """
    return {"dagster/priority": str(zlib.crc32(spec.model.encode()))}


def _event_log(project: Project, spec: ModelSpec) -> Body:
    def event_log(context: dg.AssetExecutionContext, _: Inputs) -> Iterator[Materialized]:
        work = work_of(project, spec, context)
        with computing.running():
            written = written_by(context.instance, [spec]).get(spec.model)
            report = ingest(work, context.log.info, written_by=written)
            judge_quarantined(work)
            numbers = {**ingest_numbers(report), **table_sizes(work)}
            numbers |= {**schema_changes_now(work), **_registry_numbers(work)}
        yield dg.MaterializeResult(
            metadata=safe_metadata({**numbers, **_row_count(numbers)}),
            data_version=dg.DataVersion(version_of_inputs(project, spec)),
        )

    return event_log


def _registry_numbers(work: Work) -> Numbers:
    if work.spec.registry is None:
        return {}
    from mlmon_dagster.pipeline.model_registry import registry_numbers

    return {
        name: dg.MetadataValue.url(str(value)) if name.endswith("/page") else value
        for name, value in registry_numbers(work).items()
    }


def _row_count(numbers: Numbers) -> Numbers:
    name = "rows/predictions"
    return {ROW_COUNT: numbers[name]} if name in numbers else {}


def report_taken_in(
    instance: dg.DagsterInstance, project: Project, spec: ModelSpec, numbers: Numbers
) -> None:
    """Tell Dagster, outside of a run, that files were taken in.

    The data version of the event log changes with the events that the baseline is made from: of
    all that is computed from the log, Dagster may call that out of date. What new events mean for
    the windows the planner knows, and Dagster does not.
    """
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            asset_key(spec, "event_log"),
            metadata=safe_metadata(numbers),
            tags={DATA_VERSION_TAG: version_of_inputs(project, spec)},
        )
    )


def _baseline(project: Project, spec: ModelSpec) -> Body:
    def baseline(context: dg.AssetExecutionContext, _: Inputs) -> Iterator[Materialized]:
        with computing.running():
            numbers = fit_baseline(work_of(project, spec, context))
        if "reason" in numbers:
            context.log.warning(str(numbers["reason"]))
        yield dg.MaterializeResult(
            metadata=safe_metadata(numbers),
            data_version=dg.DataVersion(str(numbers.get("baseline_id", "none"))),
        )

    return baseline


def _windowed(project: Project, spec: ModelSpec, info: AssetInfo) -> Body:
    def windowed(context: dg.AssetExecutionContext, _: Inputs) -> Iterator[Materialized]:
        work = work_of(project, spec, context)
        if not work.windows:
            yield dg.MaterializeResult(metadata={"reason": PAST})
            return
        with computing.running():
            numbers_of = WINDOW_STEPS[info.name](work)
            left = [window for window in work.windows if window.key not in numbers_of]
            states = work.states() if left else {}
            known = known_numbers(project, spec, info.name, left, states)
        for window in work.windows:
            if window.key in numbers_of:
                shown = _of_window(info, numbers_of[window.key])
            else:
                shown = _shown_again(context.instance, spec, info, window, known)
            context.add_asset_metadata(shown, partition_key=window.key)
        yield dg.MaterializeResult()
        if (newer := newer_window(work, info.name)) is not None:
            window, state = newer
            known = known_numbers(project, spec, info.name, [window], {window.start: state})
            if shown := _shown_again(context.instance, spec, info, window, known):
                # The UI shows what came last as the newest: so the newest window comes once more.
                yield dg.AssetMaterialization(
                    asset_key(spec, info.name),
                    partition=window.key,
                    metadata={**REBUILT, **shown},
                )

    return windowed


def _shown_again(
    instance: dg.DagsterInstance,
    spec: ModelSpec,
    info: AssetInfo,
    window: Window,
    known: Mapping[str, Numbers],
) -> dict[str, Any]:
    """Return the metadata of a window that was not computed: what computing it showed."""
    shown = _of_window(info, known.get(window.key, {}))
    if info.name in MEASURED:
        return shown
    # What a count of all rows found is not kept elsewhere.
    return _shown_before(instance, asset_key(spec, info.name), window) or shown


def _shown_before(
    instance: dg.DagsterInstance, key: dg.AssetKey, window: Window
) -> dict[str, dg.MetadataValue]:
    """Return the metadata that a window's asset was materialized with last."""
    of_window = dg.AssetRecordsFilter(asset_key=key, asset_partitions=[window.key])
    found = instance.fetch_materializations(of_window, limit=1).records
    last = found[0].asset_materialization if found else None
    return {k: v for k, v in last.metadata.items() if k not in REBUILT} if last else {}


def _of_window(info: AssetInfo, numbers: Numbers) -> dict[str, Any]:
    """Return the metadata of a window's materialization: what the UI can plot."""
    shown = numbers_only(numbers)
    if info.name == "inference_store" and "n" in shown:
        shown[PARTITION_ROW_COUNT] = shown["n"]
    return shown


def _report(project: Project, spec: ModelSpec, body: Callable[[Work], Numbers]) -> Body:
    def report(context: dg.AssetExecutionContext, _: Inputs) -> Iterator[Materialized]:
        yield dg.MaterializeResult(metadata=safe_metadata(body(work_of(project, spec, context))))

    return report


def overview_asset(
    project: Project, models: Models, only: Set[str] | None = None
) -> dg.AssetsDefinition:
    """Return the asset that shows every model's status, worst first.

    Args:
        project: Where the state is.
        models: The models.
        only: Those of which there are assets that it can hang on; None if of all.
    """
    specs = models.specs
    owners = {owner for spec in specs for owner in spec.owners}
    asset = dg.AssetSpec(
        OVERVIEW_KEY,
        deps=[
            asset_key(spec, info.name)
            for spec in specs
            if only is None or spec.model in only
            for info in assets_of(spec)
            if info.name in MEASURED
        ],
        group_name=SHARED,
        description="Status of every monitored model, worst first: its newest window, firing "
        "alerts and worst check per family.",
        owners=sorted(owners),
        kinds={"table"},
        tags={"mlmon/scope": "all"},
    )

    def overview(_: dg.AssetExecutionContext, __: Inputs) -> Iterator[Materialized]:
        from mlmon_dagster.tables.standing import STATUS_BY_FAMILY, list_models

        now = models.again(project.now())
        digest = digest_overview(project, now.specs, [one.name for one in now.broken])
        rows = [row.fields() for row in list_models(project, now.specs, now.broken)]
        worst: dict[str, object] = {
            "models": len(rows),
            "models failing": sum(row["status"] in ("BROKEN", "ERROR", "WARN") for row in rows),
            "status": table(rows, STATUS_BY_FAMILY),
        }
        model_history.note_beat(project.store.state, OVERVIEW, project.now(), digest)
        yield dg.MaterializeResult(metadata=safe_metadata(worst))

    return made_of(asset, overview)


def trace_performance(work: Work) -> Numbers:
    """Trace the newest mature windows; return a table per metric for the asset's metadata."""
    from mlmon_dagster.report.trace import newest_mature, trace_of

    store, spec = work.project.store, work.spec
    period = newest_mature(store, spec)
    if period is None:
        return {"n": 0, "reason": "no window has mature ground truth yet"}
    try:
        trace = trace_of(store, spec, period)
    except BaselineMissingError as error:
        return {"n": 0, "reason": str(error)}
    frame = trace.slices
    if frame.empty:
        return {"n": 0, "reason": "the windows' profiles hold no ground truth"}
    numbers: Numbers = {
        "n": int(frame["n"].iloc[0]),
        "from": period[0].isoformat(),
        "to": period[1].isoformat(),
        "why": "\n".join(trace.said),
    }
    if (scored := trace.raw_score) is not None:
        numbers["change/raw_score"] = scored.change
        parts = zip(scored.split.parts, scored.split.effects, scored.split.margins, strict=True)
        effects = [{"feature": f, "effect": e, "give or take": m} for f, e, m in parts]
        effects.sort(key=lambda row: -abs(row["effect"]))
        numbers["features/raw_score"] = table(effects, ("feature", "effect", "give or take"))
    for metric, part in frame.groupby("metric", sort=False):
        is_whole = part["slice_key"] == ALL
        numbers[f"change/{metric}"] = float(part.loc[is_whole, "change"].iloc[0])
        names = part["slice_key"] + " = " + part["slice_value"]
        part = part.assign(slice=names.mask(is_whole, "all"))
        columns = _EXACT if part["method"].iloc[0] == "exact" else _OWN_CHANGE
        for shown, stored in _COLUMNS.items():
            part[shown] = part[stored]
        rows = [{str(key): row[key] for key in row} for row in part.to_dict("records")]
        numbers[f"slices/{metric}"] = table(rows, columns)
    return numbers


def make_health_report(work: Work) -> Numbers:
    """Write the health report; return where it is and how the model is."""
    from mlmon_dagster.report.health import write_health_report

    state, model = work.project.store.state, work.spec.model
    shown = digest_shown(work.project, [work.spec]).get(model, "")
    report, path = write_health_report(work.project, work.spec)
    window_state.note_report(state, model, shown, work.now)
    return {
        "path": dg.MetadataValue.path(str(path)),
        "status": report.status,
        "n_firing": report.alerts.firing,
        "n_recovering": report.alerts.recovering,
        "alerts": show_alerts(work.project, work.spec),
    }


def show_alerts(project: Project, spec: ModelSpec) -> dg.MetadataValue:
    """Return a model's newest alerts, what fires first, as `mlmon alerts list` has them."""
    from mlmon_dagster.tables.alerts import list_alerts, tabulate_alerts

    episodes = list_alerts(project.store, spec.model)
    opened = [episode for episode in episodes if episode.state != "PENDING"]
    listed = tabulate_alerts([spec], opened)
    names = [column.title for column in listed.table.columns]
    rows = [dict(zip(names, cells, strict=True)) for cells in listed.cells()]
    return table(rows, names)


REPORTS: dict[str, Callable[[Work], Numbers]] = {
    "performance_trace": trace_performance,
    "health_report": make_health_report,
}


def refused_by_dagster(folder: Path | None, spec: ModelSpec, problem: str) -> BrokenModel:
    """Describe a model whose declaration is good and that Dagster cannot take nevertheless."""
    problems = " ".join(problem.split())
    if folder is None:
        path = Path(f"{spec.model} (declared in code)")
    else:
        path = folder / f"{spec.model}.yaml"
        problems = f"{path}:1: {problems}"
    return BrokenModel(spec.model, path, problems, spec.alerts, spec, spec.key_prefix)


def broken_definitions(project: Project, models: Models) -> dg.Definitions:
    """Return an asset per declaration that does not load, with the check that fails."""
    return dg.Definitions(
        assets=[_broken_asset(broken) for broken in models.broken],
        asset_checks=[_check(project, models, broken) for broken in models.broken],
    )


def report_broken(instance: dg.DagsterInstance, broken: Sequence[BrokenModel]) -> int:
    """Evaluate the checks outside of a run, where what they say has changed; return how many."""
    said = [
        dg.AssetCheckEvaluation(
            asset_key=asset_key(one, BROKEN_ASSET),
            check_name=LOADS_CHECK,
            passed=False,
            severity=dg.AssetCheckSeverity.ERROR,
            description=one.problems,
            metadata={"file": str(one.path)},
        )
        for one in broken
    ]
    return report_changes(instance, said)


def report_changes(instance: dg.DagsterInstance, said: Sequence[dg.AssetCheckEvaluation]) -> int:
    """Evaluate checks outside of a run, where Dagster shows other words; return how many."""
    if not said:
        return 0
    keys = [one.asset_check_key for one in said]
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys)
    shown = {key: record.evaluation for key, record in newest.items()}
    n_told = 0
    for one in said:
        # Of a run that goes on, it may only be planned.
        known = shown.get(one.asset_check_key)
        if not isinstance(known, dg.AssetCheckEvaluation) or known.description != one.description:
            instance.report_runless_asset_event(one)
            n_told += 1
    return n_told


def _check_key(broken: BrokenModel) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(asset_key(broken, BROKEN_ASSET), LOADS_CHECK)


def _broken_asset(broken: BrokenModel) -> dg.AssetSpec:
    listed = "\n".join(f"    {line}" for line in broken.problems.splitlines())
    return dg.AssetSpec(
        _check_key(broken).asset_key,
        group_name=broken.name,
        description=f"**This model does not load and is not monitored:**\n\n{listed}\n\n"
        "Correct that; `mlmon validate` says when the file is right. The other models go on.",
        metadata={"file": str(broken.path)},
        kinds={"yaml"},
        tags={MODEL_TAG: broken.name},
    )


def _check(project: Project, models: Models, broken: BrokenModel) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_check_key(broken).asset_key,
        name=LOADS_CHECK,
        description="Fails while the declaration has mistakes. The dispatcher evaluates it too.",
    )
    def loads() -> dg.AssetCheckResult:
        now = models.again(project.now())
        problems = next((b.problems for b in now.broken if b.path == broken.path), "")
        return dg.AssetCheckResult(
            passed=not problems,
            severity=dg.AssetCheckSeverity.ERROR,
            description=problems or "It loads now; Dagster shows it after the next reload.",
        )

    return loads


def asset_key(spec: ModelSpec | BrokenModel, name: str) -> dg.AssetKey:
    """Return the key of a model's asset: the user's prefix, the model's name, the asset's."""
    prefix = spec.key_prefix.split("/") if spec.key_prefix else []
    return dg.AssetKey([*prefix, spec.model, name])


def step_of_key(key: dg.AssetKey) -> str:
    """Return the name of the step that makes an asset."""
    return key.to_python_identifier()


def keys_of_model(spec: ModelSpec) -> list[dg.AssetKey]:
    """Return the keys of all that a model has in Dagster."""
    return [
        *(one.key for one in _landing(spec)),
        *(asset_key(spec, i.name) for i in assets_of(spec)),
    ]


def keys_of(spec: ModelSpec, names: tuple[str, ...]) -> list[dg.AssetKey]:
    """Return the keys of several assets of a model."""
    return [asset_key(spec, name) for name in names]


PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def partitions_of(spec: ModelSpec) -> dg.PartitionsDefinition:
    """Return the partitions of a model: one per window from its start to its end, if it has one.

    The windows of a model that ends are listed one by one: of time windows the UI plots the newest
    up to today, and so nothing of a model that ended long ago.
    """
    return _partitions(spec.time)


@lru_cache(maxsize=1_000)  # most models have the windows of many others
def _partitions(time: TimeSpec) -> dg.PartitionsDefinition:
    end = production_end(time)
    if end is not None:
        return dg.StaticPartitionsDefinition([w.key for w in complete_windows(time, end)])
    first = first_window(time).start.astimezone(ZoneInfo(time.zone))
    start = dt.datetime.combine(first.date(), dt.time())
    if time.granularity == "hour":
        return dg.HourlyPartitionsDefinition(start, timezone=time.zone)
    if time.granularity == "day":
        return dg.DailyPartitionsDefinition(start, timezone=time.zone)
    if time.granularity == "week":
        return dg.WeeklyPartitionsDefinition(start, timezone=time.zone, day_offset=1)
    return dg.MonthlyPartitionsDefinition(start, timezone=time.zone)


def windows_of(spec: ModelSpec, keys: Sequence[str]) -> list[Window]:
    """Turn the partition keys of a run into windows, oldest first."""
    return sorted((window_from_key(spec.time, key) for key in keys), key=lambda w: w.start)


def range_tags(windows: Sequence[Window]) -> dict[str, str]:
    """Return the run tags that ask Dagster for one run over a contiguous range of windows.

    Without windows, for assets that are not partitioned, there are none.
    """
    if not windows:
        return {}
    return {RANGE_START: windows[0].key, RANGE_END: windows[-1].key}
