"""From files of events to the text of a spec that loads."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.scaffold.roles import Roles, guess_roles, with_actuals
from mlmon_dagster.scaffold.sample import facts_of, read_sample, split_streams
from mlmon_dagster.scaffold.spec_text import Scaffold, spec_text
from mlmon_dagster.spec import PRODUCTION, parse_model
from mlmon_dagster.spec.names import RESERVED_MODELS

if TYPE_CHECKING:
    import pyarrow as pa

_ENDED = dt.timedelta(days=30)  # without events for so long, the files are history
_STREAMS = ("predictions", "actuals", "landing", "data")  # folders that are named after no model
_BUSY_DAY = 50  # fewer events a day than this make daily windows too small to judge


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


def model_name(file: Path) -> str:
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
        return f"landing/{model_name(first)}/*{suffix}"
    return f"{inside}/*{suffix}" if inside != "." else f"*{suffix}"


def _in_production(table: pa.Table, roles: Roles) -> pa.Table:
    """Return the rows of production, which windows start with; all where none are named so."""
    import pyarrow.compute as pc

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
