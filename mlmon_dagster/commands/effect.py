"""``mlmon effect``: what a logged cause, such as latency, goes with in the outcome."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, period, spec_of
from mlmon_dagster.pipeline.asked import complete_period, window_range
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project


@click.command(
    epilog=examples(
        "mlmon effect checkout --from 2024-03-01",
        "mlmon effect checkout --cause latency_ms --per 100 --within device,hour",
    )
)
@click.argument("model")
@period
@click.option("--cause", help="A logged number. [default: those of `effects`, or latency_ms]")
@click.option("--per", type=float, help="Units of the cause to speak of. [default: 100]")
@click.option("--within", help="Covariates to compare within, such as device,hour.")
@click.option("--of", "outcome", help="An outcome, or actual. [default: the first outcome]")
@click.pass_obj
def effect(
    project: Project,
    /,
    model: str,
    first: dt.date | None,
    last: dt.date | None,
    cause: str | None,
    per: float | None,
    within: str | None,
    outcome: str | None,
) -> None:
    """Say what 100 ms of latency, or another cause, goes with in the outcome of MODEL's requests.

    Rows are compared within a window and within the covariates of `effects` or --within. That is
    an association; of an experiment that the spec declares, the difference of its arms is told
    too, which is an effect. Exit code 0.
    """
    from mlmon_dagster.pipeline.asking.effect import asked_of, effect_in, tell

    spec = spec_of(project, model)
    windows = complete_period(spec, first, last, project.now())
    columns = None if within is None else tuple(filter(None, within.split(",")))
    asked = asked_of(spec, cause, per, columns, outcome)
    click.echo(f"{model}, {window_range(windows)}.")
    for one in asked:
        answer = effect_in(project.store, spec, windows, one)
        click.echo("")
        for line in tell(spec, one, answer):
            click.echo(line)
        if answer.effect is not None:
            click.echo(_table(answer.effect.ranges, one.cause))


def _table(ranges: pd.DataFrame, cause: str) -> str:
    def number(value: float) -> str:
        return "-" if value != value else f"{value:.4g}"

    lines = []
    for place, row in enumerate(ranges.to_dict("records")):
        low = "" if place == 0 else f"{row['low']:.4g}"
        high = "" if place == len(ranges) - 1 else f"{row['high']:.4g}"
        values = [number(row[name]) for name in ("mean", "adjusted", "lower", "upper")]
        lines.append((_between(low, high), f"{row['n']:,}", *values))
    head = (cause, "rows", "mean", "adjusted", "from", "to")
    return text_table(head, lines, right=head[1:])


def _between(low: str, high: str) -> str:
    if not low:
        return f"under {high}" if high else "all"
    return f"{low} to {high}" if high else f"{low} and more"
