"""``mlmon baseline``: what windows are compared with, and accepting a shift as the new normal."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import (
    Group,
    author_option,
    examples,
    period,
    prints_table,
    spec_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.tables.asked import complete_period

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.tables.table import AnyAnswer


@click.group(cls=Group)
def baseline() -> None:
    """Look at what windows are compared with, and change it."""


@baseline.command(
    "promote",
    epilog=examples(
        "mlmon baseline promote flight_delay --from 2013-09-01 --to 2013-09-30 "
        "--note 'autumn schedule'"
    ),
)
@click.argument("model")
@period
@click.option("--note", default="", help="Why, for those who look later.")
@author_option
@click.pass_obj
def promote_period(
    project: Project,
    model: str,
    first: dt.date | None,
    last: dt.date | None,
    note: str,
    author: str,
) -> None:
    """Accept what production did in a period as the new normal of MODEL.

    Windows after the period are compared with it from now on, and computed again. Those before it
    keep their baseline. Take it back with: mlmon baseline undo MODEL.
    """
    from mlmon_dagster.profiles import fit_period
    from mlmon_dagster.store import baselines

    if first is None or last is None:
        raise ConfigError("A period is needed: --from DAY --to DAY, both included.")
    spec, now = spec_of(project, model), project.now()
    windows = complete_period(spec, first, last, now)
    fitted = fit_period(project.store, spec, windows, now)
    with project.store.state.begin() as conn:
        number = baselines.promote(
            conn,
            spec.model,
            (windows[0].start, windows[-1].end),
            fitted.baseline_id,
            author=author,
            note=note,
            now=now,
        )
    click.echo(
        f"Promotion {number}: windows of {model} after {windows[-1].key} are compared with "
        f"{fitted.n:,} predictions from {windows[0].key} to {windows[-1].key}.\n"
        f"They are computed again by the planner, or at once by: mlmon run {model}\n"
        f"Take it back with: mlmon baseline undo {model}"
    )


@baseline.command("list", epilog=examples("mlmon baseline list flight_delay"))
@click.argument("model")
@prints_table
@click.pass_obj
def list_baselines(project: Project, model: str) -> AnyAnswer:
    """List what windows of MODEL are compared with, and what was taken back."""
    from mlmon_dagster.tables.changes import ask_baselines

    return ask_baselines(project.store, spec_of(project, model))


@baseline.command("undo", epilog=examples("mlmon baseline undo flight_delay"))
@click.argument("model")
@click.option("--id", "number", type=int, help="Which promotion. [default: the newest in force]")
@author_option
@click.pass_obj
def undo_promotion(project: Project, model: str, number: int | None, author: str) -> None:
    """Take a promotion of MODEL back; the windows it concerned are computed again."""
    from mlmon_dagster.store import baselines

    spec_of(project, model)
    rows = baselines.list_promotions(project.store.state, model)
    live = [row.id for row in rows if row.undone_at is None]
    chosen = number if number is not None else max(live, default=None)
    if chosen not in live:
        raise ConfigError(
            f"Model {model!r} has no promotion {'' if number is None else f'{number} '}in force. "
            f"In force are: {', '.join(map(str, live)) or 'none'}."
        )
    with project.store.state.begin() as conn:
        baselines.undo_promotion(conn, chosen, author=author, now=project.now())
    click.echo(f"Promotion {chosen} of {model} is taken back; run: mlmon run {model}")
