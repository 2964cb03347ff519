"""``mlmon expectations``: what the spec's own Great Expectations found."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, period, spec_of
from mlmon_dagster.commands.tables import output_options, print_table
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.pipeline.asked import complete_period
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

_HEAD = ("window", "expectation", "columns", "severity", "found", "rows", "such as")


@click.command(epilog=examples("mlmon expectations churn --html expectations.html"))
@click.argument("model")
@period
@output_options()
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with all of it instead.",
)
@click.pass_obj
def expectations(
    project: Project,
    /,
    model: str,
    first: dt.date | None,
    last: dt.date | None,
    format_: str,
    output: Path | None,
    html: Path | None,
) -> None:
    """Show what the expectations of MODEL's spec found: those that failed, window by window."""
    from mlmon_dagster.report.data_docs import data_docs, judged_windows, said_of
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
        return
    failed = [(w.key, found) for w in judged for found in w.results if not found["kept"]]
    lines = [
        (
            key, found["expectation"], ", ".join(found["columns"]), found["severity"],
            found["error"] or said_of(found), f"{found['rows']:,}", "; ".join(found["values"]),
        )
        for key, found in failed
    ]  # fmt: skip
    table = text_table(_HEAD, lines, right={"rows"}) if lines else ""
    rows = [{"window": key, **found} for key, found in failed]
    print_table(f"{said}.\n{table}".strip(), rows, format_, output)
