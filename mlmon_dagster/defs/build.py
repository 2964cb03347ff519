"""From declared models to Dagster definitions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import dagster as dg

from mlmon_dagster.defs.assets import model_assets
from mlmon_dagster.defs.checks import model_checks
from mlmon_dagster.defs.component import MonitoredModel
from mlmon_dagster.defs.delivery_check import delivery_check
from mlmon_dagster.defs.maintenance import maintenance_asset, maintenance_schedule
from mlmon_dagster.defs.overview import overview_asset
from mlmon_dagster.defs.resources import Project, project_from_environment
from mlmon_dagster.defs.schedules import cadence_schedules
from mlmon_dagster.defs.sensors import dispatcher_sensor, planner_sensor
from mlmon_dagster.spec import ModelSpec, check_window_count


def build_definitions(
    models: Sequence[ModelSpec | MonitoredModel], project: Project | None = None
) -> dg.Definitions:
    """Return everything Dagster needs to monitor some models.

    Args:
        models: The models, as specs or components.
        project: Where their state lives; default: what the environment names.
    """
    project = project or project_from_environment()
    specs = [m.spec if isinstance(m, MonitoredModel) else m for m in models]
    parts = [model_definitions(project, spec) for spec in specs]
    executor = dg.Definitions(executor=dg.in_process_executor)
    return dg.Definitions.merge(*parts, shared_definitions(project, specs), executor)


def shared_definitions(project: Project, specs: Sequence[ModelSpec]) -> dg.Definitions:
    """Return what serves all models together: overview, planner, dispatcher, schedules."""
    return dg.Definitions(
        assets=[overview_asset(project, specs), maintenance_asset(project, specs)],
        asset_checks=[delivery_check(project, specs)],
        sensors=[planner_sensor(project, specs), dispatcher_sensor(project, specs)],
        schedules=[*cadence_schedules(project, specs), maintenance_schedule()],
    )


def model_definitions(project: Project, spec: ModelSpec) -> dg.Definitions:
    """Return the assets and checks of one model.

    Raises:
        ConfigError: If the model has more hourly windows than Dagster copes with.
    """
    check_window_count(spec.time, project.now())
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster; its notice once per check helps nobody.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.Definitions(
            assets=model_assets(project, spec), asset_checks=model_checks(project, spec)
        )
