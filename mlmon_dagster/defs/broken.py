"""A declaration that does not load, as people see it in the UI: an asset with a failing check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from mlmon_dagster.defs.liveness import MODEL_TAG
from mlmon_dagster.project import Project
from mlmon_dagster.spec import BrokenModel, Models, ModelSpec

ASSET = "declaration"
CHECK = "loads"
UNKNOWN = (
    "declared anew or with other windows, which Dagster does not know yet; `mlmon dev` tells it, "
    "elsewhere reload the code location (Deployment, Reload)"
)


def refused_by_dagster(folder: Path, spec: ModelSpec, error: Exception) -> BrokenModel:
    """Describe a model whose declaration is good and that Dagster cannot take nevertheless."""
    path = folder / f"{spec.model}.yaml"
    said = " ".join(str(error).split())
    return BrokenModel(spec.model, path, f"{path}:1: {said}", spec.alerts, spec)


def broken_definitions(project: Project, models: Models) -> dg.Definitions:
    """Return an asset per declaration that does not load, with the check that fails."""
    return dg.Definitions(
        assets=[_asset(broken) for broken in models.broken],
        asset_checks=[_check(project, models, broken) for broken in models.broken],
    )


def report_broken(instance: dg.DagsterInstance, broken: Sequence[BrokenModel]) -> int:
    """Evaluate the checks outside of a run, where what they say has changed; return how many."""
    keys = {_check_key(b): b for b in broken}
    if not keys:
        return 0
    newest = instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    n_told = 0
    for key, one in keys.items():
        event = record.event.dagster_event if (record := newest.get(key)) and record.event else None
        if event is None or event.asset_check_evaluation_data.description != one.problems:
            n_told += 1
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=key.asset_key,
                    check_name=CHECK,
                    passed=False,
                    severity=dg.AssetCheckSeverity.ERROR,
                    description=one.problems,
                    metadata={"file": str(one.path)},
                )
            )
    return n_told


def _check_key(broken: BrokenModel) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(dg.AssetKey([broken.name, ASSET]), CHECK)


def _asset(broken: BrokenModel) -> dg.AssetSpec:
    listed = "\n".join(f"    {line}" for line in broken.problems.splitlines())
    return dg.AssetSpec(
        _check_key(broken).asset_key,
        group_name=broken.name,
        description=f"**This model does not load and is not monitored:**\n\n{listed}\n\n"
        "Mend the file; `mlmon validate` says when it is right. The other models go on.",
        metadata={"file": str(broken.path)},
        kinds={"yaml"},
        tags={MODEL_TAG: broken.name},
    )


def _check(project: Project, models: Models, broken: BrokenModel) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_check_key(broken).asset_key,
        name=CHECK,
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
