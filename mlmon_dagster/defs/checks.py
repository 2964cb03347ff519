"""Monitors as asset checks: one check per family, one evaluation per window."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)

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
from mlmon_dagster.defs.metadata import REBUILT, page_metadata, safe_metadata, table
from mlmon_dagster.pipeline.families import FAMILIES
from mlmon_dagster.pipeline.judge import judge, verdicts_on, why_no_verdict
from mlmon_dagster.pipeline.steps import AssetInfo, assets_of
from mlmon_dagster.pipeline.work import Work, computing
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, Window, window_containing
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.standing import load_standing

Result = Mapping[str, Any]
_VERDICTS = SharedOut(None, is_required=False)  # one an evaluated window, however many
NOTHING_TO_WATCH = "The model declares nothing that this family could watch."
UNWATCHED = {"performance": "No ground truth is declared, so there is nothing to judge."}
EXPECTED = (
    "expectation", "columns", "severity", "kept", "rows", "unexpected", "share", "values", "error",
)  # fmt: skip
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
        description=f"{info.check} {FAMILIES[family].limits(spec)}".strip(),
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
        if info.is_windowed and not work.windows:
            return  # rows past retention; the verdicts of then stand
        with computing.running():
            judged = verdicts_on(work, family, judge(work, family))
        keys = [window.key for window in work.windows] if info.is_windowed else [None]
        targets = _targets(context.instance, key, keys)
        for partition in keys:
            results = judged.get(partition, [])
            watched = FAMILIES[family].is_watched(spec) or bool(results)
            yield evaluation(key, family, partition, results, targets.get(partition), watched)
        if info.is_windowed and (newer := _newer_verdict(work, family)) is not None:
            # The UI counts a check as what it said last: of the newest window, once more.
            target = _targets(context.instance, key, [newer.key]).get(newer.key)
            known = monitor_results.newest(
                project.store.state, spec.model, newer.start, newer.end, family
            )
            rows = [{str(name): row[name] for name in row} for row in known.to_dict("records")]
            yield evaluation(key, family, newer.key, rows, target, is_known=True)

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


def _newer_verdict(work: Work, family: str) -> Window | None:
    """Return the newest window that the family could judge, if it is later than those of a run."""
    state, spec = work.project.store.state, work.spec
    judged = {
        row["window_start"]
        for row in load_standing(state, [spec], work.now)[spec.model]
        if row["family"] == family and row["status"] != "NO_DATA"
    }
    newest = max(judged, default=work.start)
    return window_containing(work.spec.time, newest) if newest >= work.end else None


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
    model passes without one. What was known before the run says so.
    """
    failing = [r for r in results if r["status"] in ("WARN", "ERROR")]
    decided = [r for r in results if r["status"] != "NO_DATA"]
    is_error = any(r["status"] == "ERROR" for r in failing)
    ranked = sorted(results, key=lambda r: ("ERROR", "WARN", "NO_DATA", "OK").index(r["status"]))
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=family,
        partition=partition,
        passed=not watched or (bool(decided) and not failing),
        severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
        blocking=False,
        description=_sentence(results, failing, decided)
        if watched
        else UNWATCHED.get(family, NOTHING_TO_WATCH),
        metadata=safe_metadata(
            {
                "failing": len(failing),
                "checked": len(decided),
                "no data": len(results) - len(decided),
                "results": table([_shown(r) for r in ranked], SHOWN),
                **_expectations(results),
                **(REBUILT if is_known else {}),
            }
        ),
        target_materialization_data=target,
    )


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
