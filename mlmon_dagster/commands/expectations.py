"""``mlmon expectations``: what the spec's own Great Expectations found."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.options import examples, period, prints_table, spec_of
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.report.data_docs import said_of
from mlmon_dagster.tables.asked import complete_period
from mlmon_dagster.tables.table import Answer, AnyAnswer, Column, Table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

EXPECTATIONS: Table[Any] = Table(
    "expectations",
    (
        Column("window", "window"),
        Column("expectation", "expectation"),
        Column("columns", lambda row: ", ".join(row["columns"])),
        Column("severity", "severity"),
        Column("found", lambda row: row["error"] or said_of(row)),
        Column("rows", "rows", "{:,}", is_number=True),
        Column("such as", lambda row: "; ".join(row["values"])),
    ),
)


@click.command(epilog=examples("mlmon expectations churn --html expectations.html"))
@click.argument("model")
@period
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with all of it instead.",
)
@prints_table
@click.pass_obj
def expectations(
    project: Project, model: str, first: dt.date | None, last: dt.date | None, html: Path | None
) -> AnyAnswer | None:
    """Show what the expectations of MODEL's spec found: those that failed, window by window."""
    from mlmon_dagster.report.data_docs import data_docs, judged_windows
    from mlmon_dagster.report.health import write_report

    spec = spec_of(project, model)
    now = project.now()
    judged = judged_windows(project.store.state, spec, complete_period(spec, first, last, now))
    n_failed = sum(window.n_failed for window in judged)
    n_judged = sum(len(window.results) for window in judged)
    said = f"{spec.model}: {n_judged - n_failed} of {n_judged} held in {len(judged)} windows"
    if html is not None:
        try:
            write_report(data_docs(spec, judged, now), html)
        except OSError as error:
            raise ConfigError(f"The page cannot be written: {error}") from error
        click.echo(f"{said}. {html}")
        return None
    failed = [(w.key, found) for w in judged for found in w.results if not found["kept"]]
    rows = [{"window": key, **found} for key, found in failed]
    return Answer(EXPECTATIONS, rows, above=f"{said}.", text=None if rows else f"{said}.")
