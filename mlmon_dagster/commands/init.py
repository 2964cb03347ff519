"""``mlmon init``: a spec from data."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from mlmon_dagster.defs.resources import Project

_ENDED = dt.timedelta(days=30)  # without events for so long, the files are history
_STREAMS = ("predictions", "actuals", "landing", "data")  # folders that are named after no model
_BUSY_DAY = 50  # fewer events a day than this make daily windows too small to judge


@click.command(epilog="Example: mlmon init landing/churn/predictions/*.parquet --model churn")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
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
    model: str | None,
    zone: str,
    owner: str,
    out: Path | None,
    force: bool,
) -> None:
    """Write the spec of a model from FILES of its events.

    Roles, types, categories and personal columns are guessed from names and values; each guess
    is written with its reason. Parquet, CSV and JSON Lines are read. Ground truth in the same
    files is used from there; for separate files, complete source.actuals by hand.
    """
    name = model or _model_name(files[0])
    target = out or project.models_folder / f"{name}.yaml"
    if str(target) != "-" and target.exists() and not force:
        raise ConfigError(f"{target} exists. Use --force to replace it, or --out for another file.")
    text = propose(project.folder, files, name, zone, owner, project.now())
    if str(target) == "-":
        click.echo(text, nl=False)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    click.echo(f"Wrote {target}. Read the comments, then: mlmon validate && mlmon run {name}")


def propose(
    folder: Path, files: tuple[Path, ...], model: str, zone: str, owner: str, now: dt.datetime
) -> str:
    """Return the spec's text, which loads.

    Raises:
        ConfigError: If the files cannot be read, have no column of time, or the spec that they
            suggest would not load (every reason is listed).
    """
    from mlmon_dagster.scaffold.columns import facts_of
    from mlmon_dagster.scaffold.roles import guess_roles
    from mlmon_dagster.scaffold.sample import read_sample
    from mlmon_dagster.scaffold.spec_text import Scaffold, spec_text
    from mlmon_dagster.spec import parse_model

    sample = read_sample(files)
    facts = facts_of(sample.table)
    roles = guess_roles(sample.table, facts)
    if "event_time" not in roles.found:
        raise ConfigError(
            f"{files[0]}: no column of times. Every event needs the moment of its prediction, as "
            "a timestamp or ISO 8601 text."
        )
    path = _glob(folder, files)
    first, last = _ends(sample.table, roles.found["event_time"].columns[0])
    text = spec_text(
        Scaffold(
            model=model,
            predictions=path,
            actuals=path if "actual" in roles.found else None,
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
    told = (name for name in names if name[:1].isalpha() and name not in _STREAMS)
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
