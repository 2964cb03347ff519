"""One asset across all models, since collapsed groups in the UI hide failing checks."""

import dagster as dg

from mlmon_dagster.defs.lineage import asset_key
from mlmon_dagster.defs.metadata import safe_metadata, table
from mlmon_dagster.pipeline.status import COLUMNS, status_of
from mlmon_dagster.pipeline.steps import MEASURED
from mlmon_dagster.project import Project
from mlmon_dagster.spec import Models

OVERVIEW_KEY = dg.AssetKey(["overview"])


def overview_asset(project: Project, models: Models) -> dg.AssetsDefinition:
    """Return the asset that shows every model's status, worst first."""
    specs = models.specs

    @dg.asset(
        key=OVERVIEW_KEY,
        deps=[asset_key(spec, name) for spec in specs for name in MEASURED],
        group_name="overview",
        description="Status of every monitored model, worst first: its newest window, firing "
        "alerts and worst check per family.",
        owners=sorted({owner for spec in specs for owner in spec.owners}) or None,
        kinds={"table"},
        tags={"mlmon/scope": "all"},
    )
    def overview() -> dg.MaterializeResult[None]:
        rows = status_of(project, specs, models.broken)
        worst: dict[str, object] = {
            "models": len(rows),
            "models failing": sum(row["status"] in ("BROKEN", "ERROR", "WARN") for row in rows),
            "status": table(rows, COLUMNS),
        }
        return dg.MaterializeResult(metadata=safe_metadata(worst))

    return overview
