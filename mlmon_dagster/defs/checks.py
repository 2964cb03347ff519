"""Monitors as asset checks: one check per family, one evaluation per window."""

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

import dagster as dg

from mlmon_dagster.defs.assets import (
    Inputs,
    SharedOut,
    StepCheck,
    asset_key,
    by_input,
    first_of_all,
    partitions_of,
    step_of,
    step_of_key,
    work_of,
)
from mlmon_dagster.defs.instance import models_in_flight, models_of
from mlmon_dagster.defs.metadata import REBUILT, page_metadata, safe_metadata, table
from mlmon_dagster.defs.private_dagster import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)
from mlmon_dagster.defs.private_dagster import AssetCheckExecutionRecord
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.pipeline.judge import (
    judge,
    judge_computed,
    verdicts_on,
    waits_for_truth,
    why_no_verdict,
)
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.names import ALL, PERFORMANCE
from mlmon_dagster.spec.steps import AssetInfo, assets_of
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.monitor_results import load_standing, name_window, worst_of
from mlmon_dagster.work import computing

Result = Mapping[str, Any]
_VERDICTS = SharedOut(None, is_required=False)  # one an evaluated window, however many
NOTHING_TO_WATCH = "The model declares nothing that this family could watch."
UNWATCHED = {PERFORMANCE: "No ground truth is declared, so there is nothing to judge."}
EXPECTED = (
    "expectation", "columns", "severity", "kept", "rows", "unexpected", "share", "values", "error",
)  # fmt: skip
WINDOW = ("window",)
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]
_OVERLAP = dt.timedelta(minutes=1)  # a run's end may be written a little after it
_MODELS_AT_ONCE = 100
SHOWN = ("column", "slice", "metric", "value", "baseline", "threshold", "n", "status", "message")


def model_checks(project: Project, spec: ModelSpec) -> list[dg.AssetChecksDefinition]:
    """Return one check definition per asset that carries a monitor family."""
    return [_family_check(project, spec, info) for info in assets_of(spec) if info.family]


def _family_check(project: Project, spec: ModelSpec, info: AssetInfo) -> dg.AssetChecksDefinition:
    assert info.family is not None
    family, key = info.family, asset_key(spec, info.name)
    # Not blocking: one broken window must not stop the good ones of the same run; the assets skip
    # a broken window themselves and their monitors report NO_DATA with the reason.
    check = dg.AssetCheckSpec(
        family,
        asset=key,
        description=f"{info.check} {JUDGED_BY[family].limits(spec)}".strip(),
        blocking=False,
        partitions_def=partitions_of(spec) if info.is_windowed else None,
        metadata={
            "owners": ", ".join(spec.owners),
            **page_metadata(project.page_of(spec.model)),
        },
    )

    def family_check(
        context: dg.AssetCheckExecutionContext, _: Inputs
    ) -> Iterator[dg.AssetCheckEvaluation]:
        work = work_of(project, spec, context)
        judged: Mapping[str, Sequence[Result]] = {}
        shown: list[str] = []
        with computing.running():
            if not info.is_windowed:
                judge(work, family)
            elif work.windows:
                judge(work, family)
                judged = verdicts_on(work, family)
            else:  # "Execute all" in the UI names none: what stands is looked at again
                judge_computed(work, family, again=True)
        if info.is_windowed:
            # A window that waits for its ground truth has nothing to show, and hides nothing.
            shown = [w.key for w in work.windows if not waits_for_truth(judged[w.key])]
            targets = _targets(context.instance, key, shown)
            for name in shown:
                results = judged[name]
                watched = JUDGED_BY[family].is_watched(spec) or bool(results)
                yield evaluation(key, family, name, results, targets.get(name), watched)
        standing = load_standing(project.store.state, [spec], work.now)[spec.model]
        mine = [row for row in standing if row["family"] == family]
        names = windows_of_rows(spec, mine)
        is_last = bool(work.windows) and shown[-1:] == [work.windows[-1].key]
        if not (is_last and names <= set(shown[-1:])):
            # Of a check the UI shows what was planned or said last: so what stands comes last.
            outside = names - {window.key for window in work.windows}
            partition = next(iter(outside)) if len(names) == len(outside) == 1 else None
            target = _targets(context.instance, key, [partition]).get(partition)
            yield show_standing(spec, key, family, mine, target, partition, is_known=bool(shown))

    parents = by_input([key])
    return StepCheck(
        keys_by_input_name=parents,
        keys_by_output_name={},
        node_def=step_of(
            family_check,
            parents,
            {family: _VERDICTS},
            name=step_of_key(asset_key(spec, f"{family}_check")),
            description=check.description,
            tags={"dagster/compute_kind": "mlmon", **first_of_all(spec)},
            pool=spec.model,
        ),
        check_specs_by_output_name={family: check},
        can_subset=True,
    )


def windows_of_rows(spec: ModelSpec, rows: Sequence[Result]) -> set[str]:
    """Return the keys of the windows that some verdicts are on."""
    return {window_containing(spec.time, row["window_start"]).key for row in rows}


def show_standing(
    spec: ModelSpec,
    key: dg.AssetKey,
    family: str,
    rows: Sequence[Result],
    target: Target | None,
    partition: str | None = None,
    *,
    is_known: bool = False,
) -> dg.AssetCheckEvaluation:
    """Put what stands of a family into one evaluation, which may hold verdicts on several windows.

    Args:
        spec: The model.
        key: The asset.
        family: The family.
        rows: Its verdicts that stand.
        target: The materialization that the evaluation is of.
        partition: The window, if it is one alone that the run does not have.
        is_known: Whether the run said it before, or nothing was judged for it.
    """
    windowed = [{**row, "window": name_window(spec, row["window_start"])} for row in rows]
    watched = JUDGED_BY[family].is_watched(spec) or bool(rows)
    return evaluation(key, family, partition, windowed, target, watched, is_known=is_known)


class StandingChecks:
    """Keeps what Dagster shows of a check last equal to what stands.

    Of two runs at once Dagster shows as the latest the one that was asked for last, whichever said
    its verdict last, and of a run that ended early what was only planned. So once the runs of a
    model are over, a check that shows anything else is evaluated once more, outside of a run and
    of no partition: of these Dagster takes any number.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self._seen = -1  # the newest verdict that was compared
        self._since: dt.datetime | None = None  # runs that ended before were, too
        self._left: set[str] = set()  # models whose runs went on at the last look

    def report(self, instance: dg.DagsterInstance, specs: Sequence[ModelSpec]) -> int:
        """Evaluate the checks that show something else than what stands; return how many."""
        began = self._project.clock()  # Dagster's times are of the real clock
        seen, changed = monitor_results.changed_since(self._project.store.state, self._seen)
        if self._since is not None:
            since = min(self._since, began)  # the clock may have been put back
            ended = dg.RunsFilter(statuses=FINISHED, updated_after=since - _OVERLAP)
            runs = instance.get_run_records(ended)
            changed |= {model for run in runs for model in models_of(run.dagster_run)}
        busy, wanted = models_in_flight(instance), changed | self._left
        mine = [spec for spec in specs if spec.model in wanted - busy]
        n = sum(
            self._report_some(instance, mine[place : place + _MODELS_AT_ONCE])
            for place in range(0, len(mine), _MODELS_AT_ONCE)
        )
        self._seen, self._since, self._left = seen, began, wanted & busy
        return n

    def _report_some(self, instance: dg.DagsterInstance, specs: Sequence[ModelSpec]) -> int:
        checks = {
            dg.AssetCheckKey(asset_key(spec, info.name), info.family): spec
            for spec in specs
            for info in assets_of(spec)
            if info.family
        }
        storage = instance.event_log_storage
        newest = storage.get_latest_asset_check_execution_by_key(list(checks))
        standing = load_standing(self._project.store.state, specs, self._project.now())
        last = {
            record.asset_entry.asset_key: record.asset_entry.last_materialization_record
            for record in instance.get_asset_records([key.asset_key for key in newest])
        }
        n = 0
        for key, record in newest.items():
            spec, made = checks[key], last.get(key.asset_key)
            rows = [row for row in standing[spec.model] if row["family"] == key.name]
            target = made and Target(
                storage_id=made.storage_id, run_id=made.run_id, timestamp=made.timestamp
            )
            shown = show_standing(spec, key.asset_key, key.name, rows, target, is_known=True)
            if not _says(record, shown, windows_of_rows(spec, rows)):
                instance.report_runless_asset_event(shown)
                n += 1
        return n


def _says(
    record: AssetCheckExecutionRecord, shown: dg.AssetCheckEvaluation, windows: Set[str]
) -> bool:
    """Tell whether the latest evaluation of a check says what stands, and the UI counts it."""
    said = record.evaluation
    if not isinstance(said, dg.AssetCheckEvaluation):  # planned, and not evaluated in its run
        return False
    same = (said.passed, said.severity, said.description)
    if same != (shown.passed, shown.severity, shown.description):
        return False
    if record.partition is not None:
        return windows <= {record.partition}
    # Without a partition it counts only for the asset's last materialization, or in the same run.
    of, now = said.target_materialization_data, shown.target_materialization_data
    is_counted = now is None or (of is not None and of.storage_id == now.storage_id)
    return is_counted or (now is not None and now.run_id == record.run_id)


def evaluation(
    key: dg.AssetKey,
    family: str,
    partition: str | None,
    results: Sequence[Result],
    target: Target | None,
    watched: bool = True,
    *,
    is_known: bool = False,
) -> dg.AssetCheckEvaluation:
    """Put the results of one window into one check evaluation.

    Failing results come first in its table. A window without any verdict does not pass: it fails
    as a warning, since "no data" is not "healthy". Only a family that has nothing to watch in this
    model passes without one. What stands, whatever the run's windows are, says of which window.
    """
    status = worst_of(results)
    failing = [r for r in results if r["status"] in ("WARN", "ERROR")]
    decided = [r for r in results if r["status"] != "NO_DATA"]
    has_windows = any("window" in r for r in results)
    ranked = sorted(results, key=lambda r: ("ERROR", "WARN", "NO_DATA", "OK").index(r["status"]))
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=family,
        partition=partition,
        passed=not watched or status == "OK",
        severity=dg.AssetCheckSeverity.ERROR if status == "ERROR" else dg.AssetCheckSeverity.WARN,
        blocking=False,
        description=_sentence(results, failing, decided if status == "OK" else ())
        if watched
        else UNWATCHED.get(family, NOTHING_TO_WATCH),
        metadata=safe_metadata(
            {
                "failing": len(failing),
                "checked": len(decided),
                "no data": len(results) - len(decided),
                "results": table([_shown(r) for r in ranked], (*WINDOW[:has_windows], *SHOWN)),
                **_expectations(results),
                **({"window": _newest_window(results)} if has_windows else {}),
                **(REBUILT if is_known else {}),
            }
        ),
        target_materialization_data=target,
    )


def _newest_window(results: Sequence[Result]) -> str:
    """Return the newest window with the worst verdict; "none" where nothing was ever judged."""
    worst = worst_of(results)
    return max((r["window"] for r in results if r["status"] == worst), default="none")


def _expectations(results: Sequence[Result]) -> dict[str, object]:
    """Return what the expectations of the spec found, as a table; nothing if it has none."""
    found = [
        one
        for result in results
        for one in json.loads(result["details"] or "{}").get("expectations", ())
    ]
    rows = [
        {
            **one,
            "columns": ", ".join(one["columns"]),
            "kept": "yes" if one["kept"] else "no",
            "share": None if one["unexpected"] is None else one["unexpected"] / one["rows"],
            "values": "; ".join(one["values"]),
        }
        for one in found
    ]
    return {"expectations": table(rows, EXPECTED)} if rows else {}


def _sentence(
    results: Sequence[Result], failing: Sequence[Result], decided: Sequence[Result]
) -> str:
    if failing:
        more = f" And {len(failing) - 1} more." if len(failing) > 1 else ""
        return f"{failing[0]['message']}{more}"
    if decided:
        return f"{len(decided)} monitor{'s' if len(decided) > 1 else ''} passed."
    return "No verdict: " + why_no_verdict([r["reason"] for r in results]) + "."


def _shown(result: Result) -> dict[str, object]:
    is_whole = result["slice_key"] == ALL
    details = json.loads(result["details"] or "{}")
    unseen = details.get("unseen_values") or details.get("unseen")
    suffix = f" Values: {', '.join(map(str, unseen))}." if unseen else ""
    return {
        "window": result.get("window"),
        "column": result["column_name"],
        "slice": "all" if is_whole else f"{result['slice_key']}={result['slice_value']}",
        "metric": result["metric"],
        "value": result["value"],
        "baseline": result["baseline_value"],
        "threshold": result["threshold"],
        "n": result["n"],
        "status": result["status"],
        "message": (result["message"] or result["reason"]) + suffix,
    }


def _targets(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Sequence[str | None]
) -> dict[str | None, Target]:
    """Return the newest materialization of each partition, in one query."""
    wanted = [p for p in partitions if p is not None]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=wanted or None),
        limit=max(len(wanted), 1),
    ).records
    found: dict[str | None, Target] = {}
    for record in records:  # newest first
        partition = record.partition_key if wanted else None
        target = Target(
            storage_id=record.storage_id, run_id=record.run_id, timestamp=record.timestamp
        )
        found.setdefault(partition, target)
    return found
