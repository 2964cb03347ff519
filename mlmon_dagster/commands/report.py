"""``mlmon report``: the health report of a model as one HTML file."""

from __future__ import annotations

from pathlib import Path

from mlmon_dagster.defs.reports import write_health_report
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec


def make_report(project: Project, spec: ModelSpec, out: Path | None) -> str:
    """Write the report and return what to tell.

    Raises:
        ConfigError: If the file cannot be written there.
    """
    try:
        report, path = write_health_report(project, spec, out)
    except OSError as error:
        raise ConfigError(f"The report cannot be written: {error}") from error
    alerts = f"{report.n_firing} alert{'' if report.n_firing == 1 else 's'} firing"
    return f"{spec.model}: {report.status}, {alerts}. {path}"
