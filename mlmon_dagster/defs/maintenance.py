"""One asset for the upkeep of all models' tables, daily."""

from collections.abc import Sequence

import dagster as dg

from mlmon_dagster.defs.metadata import safe_metadata, table
from mlmon_dagster.defs.sensors import ASSET_JOB
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec

MAINTENANCE_KEY = dg.AssetKey(["maintenance"])
COLUMNS = ("model", "what", "rows", "files", "bytes")


class MaintenanceConfig(dg.Config):
    """How to run it."""

    dry_run: bool = False


def maintenance_asset(project: Project, specs: Sequence[ModelSpec]) -> dg.AssetsDefinition:
    """Return the asset that deletes by age, merges small files and removes old versions."""

    @dg.asset(
        key=MAINTENANCE_KEY,
        group_name="overview",
        description="Upkeep of the tables of every model: rows past their age, many small files, "
        "versions that nobody can ask for any more. With `dry_run: true` it only says what it "
        "would do.",
        owners=sorted({owner for spec in specs for owner in spec.owners}) or None,
        kinds={"deltalake"},
        tags={"mlmon/scope": "all"},
    )
    def maintenance(config: MaintenanceConfig) -> dg.MaterializeResult[None]:
        from mlmon_dagster.store.upkeep.maintenance import maintain

        rows: list[dict[str, object]] = []
        totals = {"rows": 0, "files": 0, "bytes": 0}
        for spec in specs:
            for r in maintain(project.store, spec, project.now(), dry_run=config.dry_run):
                row = {"rows": r.rows, "files": r.files, "bytes": r.size}
                rows.append({"model": spec.model, "what": r.what, **row})
                totals = {name: totals[name] + n for name, n in row.items()}
        metadata = {**totals, "dry run": config.dry_run, "removed": table(rows, COLUMNS)}
        return dg.MaterializeResult(metadata=safe_metadata(metadata))

    return maintenance


def maintenance_schedule() -> dg.ScheduleDefinition:
    """Return the daily schedule of the upkeep."""

    @dg.schedule(
        name="daily_maintenance",
        job_name=ASSET_JOB,
        cron_schedule="15 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Deletes rows past their retention, merges small files, removes old versions.",
    )
    def daily_maintenance(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        tick = context.scheduled_execution_time.isoformat()
        return dg.RunRequest(run_key=f"maintenance:{tick}", asset_selection=[MAINTENANCE_KEY])

    return daily_maintenance
