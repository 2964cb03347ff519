"""``mlmon drill``: which faults of a model would be noticed, from which size on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import spec_of
from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.drill.drill import Subject
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec


def _listed(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@click.command(epilog="Example: mlmon drill flight_delay --columns temp,dest --faults nulls,shift")
@click.argument("model")
@click.option("--columns", callback=_listed, metavar="NAMES", help="Only these, by comma.")
@click.option("--faults", callback=_listed, metavar="NAMES", help="Only these, by comma.")
@click.option(
    "--windows",
    "n_windows",
    type=click.IntRange(3, 60),
    default=14,
    show_default=True,
    help="Healthy windows that each fault is tried in, at most.",
)
@click.option("--seed", default=0, show_default=True, help="Of which rows a fault hits.")
@click.option("--json", "is_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def drill(
    project: Project,
    model: str,
    columns: list[str],
    faults: list[str],
    n_windows: int,
    seed: int,
    is_json: bool,
) -> None:
    """Show how small a fault MODEL's monitors would notice, and how fast.

    Standard faults (nulls, values out of range, codes never seen, a shift, another unit, exchanged
    codes, a stuck value, wrong ground truth, slow or failing requests, missing rows, a late feed)
    are put in growing size into copies of the model's newest healthy windows, and judged by its
    own monitors and baseline as they are declared now. Nothing is stored or sent, so edit a
    threshold, look, and edit again.
    """
    from mlmon_dagster.drill.listing import as_dict, headline, render

    spec = spec_of(project, model)
    subjects = _subjects(project, spec, columns, faults, n_windows, seed)
    if is_json:
        found = [as_dict(spec, subject) for subject in subjects]
        click.echo(json.dumps({"model": spec.model, "subjects": found}, indent=2))
        return
    click.echo(headline(spec, n_windows))
    for subject in subjects:
        click.echo(render(spec, subject))


def _subjects(
    project: Project,
    spec: ModelSpec,
    columns: list[str],
    faults: list[str],
    n_windows: int,
    seed: int,
) -> Iterator[Subject]:
    from mlmon_dagster.drill.drill import Drill
    from mlmon_dagster.drill.faults import NAMES
    from mlmon_dagster.pipeline.work import Work

    _refuse_unknown(columns, list(spec.features), f"feature of {spec.model}")
    _refuse_unknown(faults, list(NAMES), "fault")
    work = Work(project, spec, (), project.now(), "drill", is_backfill=True)
    drill = Drill(work, n_windows, seed, faults)
    wanted = columns or list(spec.features)
    for i, name in enumerate(wanted):
        click.echo(f"  {name} ({i + 1} of {len(wanted)})", err=True)
        yield from drill.columns([name])
    if not columns:
        click.echo("  ground truth, service and feed", err=True)
        yield from drill.whole()


def _refuse_unknown(names: list[str], known: list[str], what: str) -> None:
    from mlmon_dagster.spec.names import did_you_mean

    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or "."
            raise ConfigError(f"No {what} {name!r}{hint} There are: {', '.join(known)}.")
