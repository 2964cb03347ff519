"""The file of a model's page, where people and archives look for it."""

from __future__ import annotations

from pathlib import Path

from mlmon_dagster.alerts.listing import list_alerts
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import HealthReport, health_report, write_report
from mlmon_dagster.spec import ModelSpec


def write_health_report(
    project: Project, spec: ModelSpec, path: Path | None = None
) -> tuple[HealthReport, Path]:
    """Render a model's health report as of now and put it into place in one step.

    Args:
        project: The project.
        spec: The model.
        path: Where to; default ``.mlmon/reports/<model>/health.html`` of the project.

    Returns:
        The report, and where it is.
    """
    target = path or project.state_folder / "reports" / spec.model / "health.html"
    episodes = list_alerts(project.store, spec.model)
    report = health_report(project.store, spec, project.now(), episodes)
    write_report(report.html, target)
    return report, target
