"""``mlmon expectations``: what the spec's own Great Expectations found, and its suite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.commands.options import examples, file_option, of_model, period, prints_table
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.names import SCHEMA
from mlmon_dagster.spec.sources import STREAMS, Stream
from mlmon_dagster.tables.asked import Days, complete_period
from mlmon_dagster.tables.table import Answer, AnyAnswer, Column, Table

if TYPE_CHECKING:
    import sqlalchemy as sa

    from mlmon_dagster.ingest.rows.expectations import Result
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec, Window

EXPECTATIONS: Table[Any] = Table(
    "expectations",
    (
        Column("window", "window"),
        Column("expectation", "expectation"),
        Column("columns", lambda row: ", ".join(row["columns"])),
        Column("severity", "severity"),
        Column("found", lambda row: describe_result(row)),
        Column("rows", "rows", "{:,}", is_number=True),
        Column("such as", lambda row: "; ".join(row["values"])),
    ),
)


@dataclass(frozen=True)
class Judged:
    """What the expectations found in the files of one window."""

    window: Window
    results: tuple[Result, ...]


@click.command(
    epilog=examples(
        "mlmon expectations churn --data-docs docs",
        "mlmon expectations churn --export gx/expectations/churn/predictions.json",
    )
)
@of_model
@period
@click.option(
    "--data-docs",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write the Data Docs of Great Expectations, a page a window.",
)
@file_option(
    "--export", "Write the suite that Great Expectations loads: the spec's rules and its own."
)
@click.option(
    "--stream",
    type=click.Choice(STREAMS),
    default="predictions",
    show_default=True,
    help="What the exported suite is about.",
)
@prints_table
def expectations(
    project: Project,
    spec: ModelSpec,
    days: Days,
    data_docs: Path | None,
    export: Path | None,
    stream: Stream,
) -> AnyAnswer | None:
    """Show what the expectations of MODEL's spec found: those that failed, window by window."""
    from mlmon_dagster.ingest.rows.expectations import export_suite, write_data_docs

    if export is not None:
        _export(export_suite(spec, stream), export)
        return None
    windows = complete_period(spec, days, project.now())
    judged = judged_windows(project.store.state, spec, windows)
    n_judged = sum(len(window.results) for window in judged)
    n_kept = sum(result["kept"] for window in judged for result in window.results)
    said = f"{spec.model}: {n_kept} of {n_judged} held in {len(judged)} windows"
    if data_docs is not None:
        shown = [(one.window.key, one.window.start, one.results) for one in judged]
        click.echo(f"{said}. {write_data_docs(spec, shown, data_docs)}")
        return None
    rows = [
        {"window": one.window.key, **found}
        for one in judged
        for found in one.results
        if not found["kept"]
    ]
    return Answer(EXPECTATIONS, rows, above=f"{said}.", text=None if rows else f"{said}.")


def judged_windows(engine: sa.Engine, spec: ModelSpec, windows: Sequence[Window]) -> list[Judged]:
    """Return what was found in some windows, newest first; windows without any are left out.

    Args:
        engine: The state database.
        spec: The model.
        windows: The windows, oldest first.
    """
    from mlmon_dagster.store.state import monitor_results

    if not windows:
        return []
    by_start = {window.start: window for window in windows}
    found = monitor_results.newest(
        engine, spec.model, windows[0].start, windows[-1].end, family=SCHEMA
    )
    rows = found[found["metric"] == "expectations"]
    judged = [
        Judged(by_start[start.to_pydatetime()], tuple(json.loads(details)["expectations"]))
        for start, details in zip(rows["window_start"], rows["details"], strict=True)
        if start.to_pydatetime() in by_start
    ]
    return sorted(judged, key=lambda one: one.window.start, reverse=True)


def describe_result(result: Result) -> str:
    """Say in a few words what an expectation found."""
    if result["error"]:
        return result["error"]
    if result["unexpected"] is None or not result["rows"]:
        return "holds" if result["kept"] else "fails"
    return f"{result['unexpected'] / result['rows']:.2%} unexpected"


def _export(suite: dict[str, object], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(suite, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The suite cannot be written: {error}") from error
    click.echo(f"{suite['name']}: {len(suite['expectations'])} expectations. {file}")  # type: ignore[arg-type]
