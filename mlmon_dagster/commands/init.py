"""``mlmon init``: a spec from data."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.names import RESERVED_MODELS

if TYPE_CHECKING:
    import pyarrow as pa

    from mlmon_dagster.project import Project
    from mlmon_dagster.scaffold.roles import Roles

_ENDED = dt.timedelta(days=30)  # without events for so long, the files are history
_STREAMS = ("predictions", "actuals", "landing", "data")  # folders that are named after no model
_BUSY_DAY = 50  # fewer events a day than this make daily windows too small to judge


@click.command(epilog="Example: mlmon init landing/churn/predictions/*.parquet --model churn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--actuals",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file of ground truth; repeat for more. [default: told from FILES by their columns]",
)
@click.option("--model", help="The model's name. [default: from the name of the file]")
@click.option("--zone", default="UTC", show_default=True, help="Time zone of the windows.")
@click.option("--owner", default="team:ml", show_default=True, help="Who is told of alerts.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to; - for the terminal. [default: models/MODEL.yaml of the project]",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.pass_obj
def init(
    project: Project,
    files: tuple[Path, ...],
    actuals: tuple[Path, ...],
    model: str | None,
    zone: str,
    owner: str,
    out: Path | None,
    force: bool,
) -> None:
    """Write the spec of a model from FILES of its events, and of their ground truth.

    Roles, types, categories and personal columns are guessed from names and values; each guess
    is written with its reason. Parquet, CSV and JSON Lines are read. Ground truth is used from the
    same files, or from files of its own, which are told by their columns.
    """
    name = model or _model_name(files[0])
    target = out or project.models_folder / f"{name}.yaml"
    if str(target) != "-" and target.exists() and not force:
        raise ConfigError(f"{target} exists. Use --force to replace it, or --out for another file.")
    text = propose(project.folder, files, name, zone, owner, project.now(), actuals)
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    click.echo(f"Wrote {target}. Read the comments, then: mlmon validate && mlmon run {name}")


def propose(
    folder: Path,
    files: tuple[Path, ...],
    model: str,
    zone: str,
    owner: str,
    now: dt.datetime,
    actuals: tuple[Path, ...] = (),
) -> str:
    """Return the spec's text, which loads.

    Raises:
        ConfigError: If the files cannot be read, have no column of time, or the spec that they
            suggest would not load (every reason is listed).
    """
    from mlmon_dagster.scaffold.roles import guess_roles, with_actuals
    from mlmon_dagster.scaffold.sample import facts_of, read_sample, split_streams
    from mlmon_dagster.scaffold.spec_text import Scaffold, spec_text
    from mlmon_dagster.spec import parse_model

    streams = split_streams(files, actuals)
    sample = read_sample(streams.predictions)
    facts = facts_of(sample.table)
    roles = guess_roles(sample.table, facts, streams.shared if streams.actuals else None)
    if "event_time" not in roles.found:
        raise ConfigError(
            f"{streams.predictions[0]}: no column of times. Every event needs the moment of its "
            "prediction, as a timestamp or ISO 8601 text."
        )
    path = _glob(folder, streams.predictions)
    truth = path if "actual" in roles.found else None
    if streams.actuals:
        roles = with_actuals(roles, facts_of(read_sample(streams.actuals).table))
        truth = _glob(folder, streams.actuals)
    time = roles.found["event_time"].columns[0]
    first, last = _ends(_in_production(sample.table, roles), time)
    text = spec_text(
        Scaffold(
            model=model,
            predictions=path,
            actuals=truth,
            start=first.astimezone(ZoneInfo(zone)).date(),
            end=_end(last, now, zone),
            zone=zone,
            granularity=_granularity(first, last, sample.n_rows),
            owner=owner,
            n_rows=sample.n_rows,
        ),
        roles,
        facts,
    )
    parse_model(text, f"the spec of {model}")
    return text


def _model_name(file: Path) -> str:
    """Name a model after its file, or after the folder of files that are named by day."""
    names = [
        re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        for name in (file.stem, *(folder.name for folder in file.absolute().parents[:2]))
    ]
    taken = {*_STREAMS, *RESERVED_MODELS}
    told = (name for name in names if name[:1].isalpha() and name not in taken)
    return next(told, f"model_{names[0]}")


def _glob(folder: Path, files: tuple[Path, ...]) -> str:
    """Return the glob of the files' folder, relative to the project if they are inside."""
    first = files[0].absolute()
    suffix = first.suffix.lower()
    try:
        inside = first.parent.relative_to(folder.absolute()).as_posix()
    except ValueError:
        return f"landing/{_model_name(first)}/*{suffix}"
    return f"{inside}/*{suffix}" if inside != "." else f"*{suffix}"


def _in_production(table: pa.Table, roles: Roles) -> pa.Table:
    """Return the rows of production, which windows start with; all where none are named so."""
    import pyarrow.compute as pc

    from mlmon_dagster.spec import PRODUCTION

    if "dataset" not in roles.found:
        return table
    kept = table.filter(pc.equal(table.column(roles.found["dataset"].columns[0]), PRODUCTION))
    return kept if kept.num_rows else table


def _ends(table: pa.Table, column: str) -> tuple[dt.datetime, dt.datetime]:
    """Return the times of the first and the last event."""
    import pandas as pd

    times = pd.to_datetime(table.column(column).to_pandas(), utc=True).dt.floor("us")
    return times.min().to_pydatetime(), times.max().to_pydatetime()


def _granularity(first: dt.datetime, last: dt.datetime, n_rows: int) -> str:
    """Return the shortest windows that the rate of events fills."""
    per_day = n_rows / max((last - first) / dt.timedelta(days=1), 1)
    if per_day >= _BUSY_DAY:
        return "day"
    return "week" if 7 * per_day >= _BUSY_DAY else "month"


def _end(last: dt.datetime, now: dt.datetime, zone: str) -> dt.date | None:
    if now - last < _ENDED:
        return None
    return last.astimezone(ZoneInfo(zone)).date() + dt.timedelta(days=1)
