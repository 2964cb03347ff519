"""What a person looks at: which slices explain a change, and the health report of a model."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from mlmon_dagster.defs.metadata import table
from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.pipeline.work import Numbers, Work
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import ALL

if TYPE_CHECKING:
    from mlmon_dagster.report.health import HealthReport

_EXACT = ("slice", "n", "value", "baseline", "change", "mix", "within", "share", "p_adjusted")
_OWN_CHANGE = ("slice", "n", "value", "baseline", "change", "lower", "upper", "p_adjusted")
_COLUMNS = {
    "baseline": "baseline_value",
    "lower": "change_lower",
    "upper": "change_upper",
}


def trace_performance(work: Work) -> Numbers:
    """Trace the newest mature windows; return a table per metric for the asset's metadata."""
    from mlmon_dagster.report.trace import newest_mature, performance_trace

    store, spec = work.project.store, work.spec
    period = newest_mature(store, spec)
    if period is None:
        return {"n": 0, "reason": "no window has mature ground truth yet"}
    try:
        frame = performance_trace(store, spec, *period)
    except BaselineMissingError as error:
        return {"n": 0, "reason": str(error)}
    if frame.empty:
        return {"n": 0, "reason": "the windows' profiles hold no ground truth"}
    numbers: Numbers = {
        "n": int(frame["n"].iloc[0]),
        "from": period[0].isoformat(),
        "to": period[1].isoformat(),
    }
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
    """Write the health report; return where it is and one picture of it."""
    report, path = write_health_report(work.project, work.spec)
    numbers: Numbers = {
        "path": dg.MetadataValue.path(str(path)),
        "status": report.status,
        "n_firing": report.n_firing,
    }
    if report.plot is not None:
        # Markdown of constants and our own picture alone: it is shown as it is, so no name or
        # value from data may be in it.
        picture = base64.b64encode(report.plot).decode()
        numbers["plot"] = dg.MetadataValue.md(f"![Health](data:image/png;base64,{picture})")
    return numbers


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
    from mlmon_dagster.alerts import list_alerts
    from mlmon_dagster.report.health import health_report, write_report

    target = path or project.state_folder / "reports" / spec.model / "health.html"
    episodes = list_alerts(project.store, spec.model)
    report = health_report(project.store, spec, project.now(), episodes)
    write_report(report.html, target)
    return report, target


REPORTS: dict[str, Callable[[Work], Numbers]] = {
    "performance_trace": trace_performance,
    "health_report": make_health_report,
}
