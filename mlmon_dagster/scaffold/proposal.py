"""From files of events to the text of a spec that loads."""

from __future__ import annotations

import datetime as dt
import os
import re
from calendar import day_name
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import numpy as np
import pandas as pd

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.scaffold.label_lag import measure_label_lag
from mlmon_dagster.scaffold.roles import (
    Roles,
    guess_roles,
    percent_score,
    positive_share,
    with_actuals,
    with_labels,
    with_outputs,
    with_truth,
)
from mlmon_dagster.scaffold.sample import (
    ColumnFacts,
    Sample,
    Streams,
    datasets_of_files,
    ending_of,
    facts_of,
    match_ids,
    moments_of,
    offsets_of,
    read_sample,
    split_streams,
)
from mlmon_dagster.scaffold.spec_text import Files, Scaffold, feature_names, spec_text
from mlmon_dagster.spec import parse_model, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Datasets, Granularity, TimeSpec
from mlmon_dagster.spec.names import RESERVED_MODELS, did_you_mean, listed

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

_ENDED = dt.timedelta(days=30)  # without events for so long, the files are history
_STREAMS = ("predictions", "actuals", "landing", "data")  # folders that are named after no model
_MOMENTS = 300  # of the times, by which a zone is told
_LIKELY_ZONES = (  # of several that fit
    "Europe/Berlin", "Europe/London", "Europe/Athens", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "America/Sao_Paulo", "Asia/Kolkata", "Asia/Shanghai",
    "Asia/Tokyo", "Australia/Sydney", "Australia/Lord_Howe",
)  # fmt: skip
_SURE = 3  # weeks, or days with events, that tell a rhythm
_WEEKLY, _MONTHLY = 5, 20  # days from one with events to the next
_ENOUGH = 10  # events that a weekday or an hour would have were they spread evenly
_NIGHT = 3  # hours without events that are worth a word
_QUIET_DAY = 16  # such hours, from which those with events are named instead
_MONTH = dt.timedelta(days=28)  # of events, after which windows are still judged beside a gap
_BUSY_DAY = 50  # fewer events a day than this make daily windows too small to judge


def propose(
    folder: Path,
    files: tuple[Path, ...],
    model: str,
    zone: str | None,
    owner: str,
    now: dt.datetime,
    actuals: tuple[Path, ...] = (),
    given: Mapping[str, str] | None = None,
) -> str:
    """Return the spec's text, which loads; without a zone that of the times is taken, or UTC.

    ``given`` names the columns of roles that somebody says, so that they are not guessed.

    Raises:
        ConfigError: If the files cannot be read, have no column of time, or the spec that they
            suggest would not load (every reason is listed).
    """
    full = tuple(file for file in files if not file.is_file() or file.stat().st_size)
    streams = split_streams(full or files, actuals)
    sample = read_sample(streams.predictions)
    truths, key = _truth_of(sample, streams) if streams.actuals else (None, "")
    shared = [n for n in sample.table.column_names if truths and n in truths.table.column_names]
    facts = facts_of(sample.table)
    roles = guess_roles(sample.table, facts, shared if truths else None, given)
    if "event_time" not in roles.found:
        raise ConfigError(
            f"{streams.predictions[0]}: no column of times. Every event needs the moment of its "
            "prediction, as a timestamp or ISO 8601 text."
        )
    if not feature_names(roles, facts):
        raise ConfigError(
            f"{streams.predictions[0]}: no column is left for a feature, and a model needs one at "
            f"least. Its columns are {listed([f.name for f in facts])}: taken for roles, or the "
            "same in every row, or different in every row. Add a column that the model reads."
        )
    predictions = _files(folder, streams.predictions, sample)
    truth = predictions if "actual" in roles.found else None
    of_truth: list[ColumnFacts] = []
    events = labelled = sample.table
    if truths is not None:
        labelled = truths.table
        of_truth = facts_of(truths.table)
        roles = with_actuals(roles, facts, of_truth, given)
        events = with_truth(sample.table, truths.table, roles)
        truth = replace(_files(folder, streams.actuals, truths), key=key)
    for role, name in (given or {}).items():
        # Of a decision that has decimals the score is made.
        taken = {role, "score"} if role == "prediction" else {role}
        if not any(name in roles.found[r].columns for r in taken & roles.found.keys()):
            known = [f.name for f in (*facts, *of_truth)]
            raise ConfigError(
                f"--role {name}={role}: no file has a column {name!r}, or it has another role"
                f"{did_you_mean(name, known) or '.'} Columns: {listed(known)}"
            )
    roles = with_outputs(roles, events, facts)
    roles = with_labels(roles, events, [*facts, *of_truth])
    time = roles.found["event_time"].columns[0]
    served = _served(streams.predictions, sample, facts, roles)
    times = moments_of(served.table.column(time))
    first, last = times.min().to_pydatetime(), times.max().to_pydatetime()
    per_day = served.n_rows / max((last - first) / dt.timedelta(days=1), 1)
    notes = [*_key_note(roles, shared if truths else None), *_percent_note(roles, facts)]
    zone_reason = ""
    if zone is None:
        zone, zone_reason = _zone_of(sample.table, time)
        notes += _zone_note(sample.table, time) if zone == "UTC" else []
        if not next(f for f in facts if f.name == time).is_utc:
            notes.append(
                f"{time} has no offset and is read as UTC. If clocks of another zone wrote it: "
                "mlmon init --force --zone ZONE with the same files, or time.zone below"
            )
    # A time without an offset is one of the zone already.
    local = zone if next(f for f in facts if f.name == time).is_utc else "UTC"
    days = times.dt.tz_convert(local)
    granularity = _granularity(per_day, days)
    start = first.astimezone(ZoneInfo(local)).date()
    if served.others:
        start = last.astimezone(ZoneInfo(local)).date() + dt.timedelta(days=1)
        notes.append(
            f"every event of the sample is of the dataset {listed(served.others)}, none of "
            f"production. Windows begin the day after the last of them; write the first day of "
            "production under time.start"
        )
    end = None if served.others else _end(last, now, local, granularity)
    if end:
        notes.append(
            f"the events stop before {end}, so time.end says that the model was retired. Events "
            "from then on are refused; delete that line for a model that goes on"
        )
    text = spec_text(
        Scaffold(
            model=model,
            predictions=predictions,
            actuals=truth,
            start=start,
            end=end,
            zone=zone,
            granularity=granularity,
            owner=owner,
            n_rows=sample.n_rows,
            zone_reason=zone_reason,
            per_day=per_day,
            quiet=quiet_times(days),
            positives=positive_share(events, roles),
            notes=tuple(notes),
            datasets=served.datasets,
            datasets_reason=served.reason,
            label_lag=measure_label_lag(sample.table, labelled, roles),
            has_month=granularity == "day" and not served.others and last - first >= _MONTH,
        ),
        roles,
        facts,
        of_truth,
    )
    try:
        parse_model(text, f"the spec of {model}")
    except ConfigError as error:
        free = [f.name for f in (*facts, *of_truth) if f.name not in roles.used()]
        raise ConfigError(
            f"{error}\nNothing was written: names and values do not say which column that is. "
            f"Not used for anything yet: {listed(free)}. Say which it is, such as "
            f"--role {free[0] if free else 'COLUMN'}=prediction (or score, or actual)."
        ) from error
    return text


def model_name(file: Path) -> str:
    """Name a model after its file, or after the folder of files that are named by day."""
    own = file.name.lower().removesuffix(ending_of(file))
    names = [
        re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
        for name in (own, *(folder.name for folder in file.absolute().parents[:2]))
    ]
    taken = {*_STREAMS, *RESERVED_MODELS}
    told = (name for name in names if name[:1].isalpha() and name not in taken)
    return next(told, f"model_{names[0]}")


def _glob(folder: Path, files: tuple[Path, ...]) -> str:
    """Return the glob of the files' folder, relative to the project if they are inside."""
    first = Path(os.path.normpath(files[0].absolute()))
    suffix = ending_of(first)
    try:
        inside = first.parent.relative_to(os.path.normpath(folder.absolute())).as_posix()
    except ValueError:
        return f"{first.parent.as_posix()}/*{suffix}"
    return f"{inside}/*{suffix}" if inside != "." else f"*{suffix}"


def _truth_of(sample: Sample, streams: Streams) -> tuple[Sample, str]:
    """Read ground truth, its id under the name that predictions have for it.

    Returns:
        A sample, and the name of the id in these files if that is another one; else "".

    Raises:
        ConfigError: If no column has ids of the predictions.
    """
    read = read_sample(streams.actuals)
    matched = match_ids(sample.table, read.table)
    if matched is not None:
        mine, theirs = matched
        names = [mine if name == theirs else name for name in read.table.column_names]
        if len({*names}) == len(names):
            return replace(read, table=read.table.rename_columns(names)), theirs
    if not streams.shared:
        wide, narrow = (", ".join(t.column_names[:10]) for t in (sample.table, read.table))
        raise ConfigError(
            f"{streams.predictions[0]} and {streams.actuals[0]} have no column in common, and no "
            "two columns with the same ids in them, so ground truth cannot find its prediction. "
            f"Columns: {wide}; and {narrow}. Write the id of the prediction into both."
        )
    return read, ""


class _Served(NamedTuple):
    """The events of production, which windows start with.

    Attributes:
        table: Rows of the sample.
        n_rows: How many there are in all files.
        datasets: Dataset -> the words that mean it; empty if none are told.
        reason: Where these words stand.
        others: The datasets of the rows, where none of them is of production.
    """

    table: pa.Table
    n_rows: float
    datasets: Mapping[str, list[str]]
    reason: str
    others: tuple[str, ...] = ()


def _served(
    files: tuple[Path, ...], sample: Sample, facts: list[ColumnFacts], roles: Roles
) -> _Served:
    """Tell production by a column of datasets, else by the files' names; all if neither does."""
    guess = roles.found.get("dataset")
    column = next((f for f in facts if guess and f.name == guess.columns[0]), None)
    if column is not None:
        kept = _in_production(sample.table, column)
        reason = f"what {column.name} says"
        if not kept.num_rows:
            others = tuple(column.datasets or column.values)
            return _Served(sample.table, sample.n_rows, column.datasets, reason, others)
        n_rows = sample.n_rows * len(kept) / len(sample.table)
        return _Served(kept, n_rows, column.datasets, reason)
    datasets, reason = datasets_of_files(files), "words of the files' names"
    if not datasets:
        return _Served(sample.table, sample.n_rows, {}, "")
    told = Datasets.model_validate(datasets)
    live = tuple(f for f in files if told.of_path(f.name) in (None, PRODUCTION))
    if not live:
        return _Served(sample.table, sample.n_rows, datasets, reason, tuple(datasets))
    read = read_sample(live)
    return _Served(read.table, read.n_rows, datasets, reason)


def _in_production(table: pa.Table, column: ColumnFacts) -> pa.Table:
    """Return the rows of production, those of no dataset among them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = column.datasets.get(PRODUCTION, [PRODUCTION])
    named = table.column(column.name)
    return table.filter(pc.or_(pc.is_in(named, pa.array(words)), pc.is_null(named)))


def _files(folder: Path, files: tuple[Path, ...], sample: Sample) -> Files:
    return Files(
        _glob(folder, files), sample.delimiter, sample.multiline, sample.epoch, sample.notation
    )


def _zone_of(table: pa.Table, column: str) -> tuple[str, str]:
    """Return the zone that a column of times is written in, and why; UTC if it names none."""
    named = str(getattr(table.schema.field(column).type, "tz", None) or "")
    if "/" in named and named in available_timezones():
        return named, f"{column} is in it"
    return "UTC", "no other is named; --zone sets it"


def _zone_note(table: pa.Table, column: str) -> list[str]:
    """Say where clocks show what the times are written in, if that is not UTC."""
    offsets = offsets_of(table.column(column))
    if not any(offsets.values()):
        return []
    # Some of each day tell when clocks changed; all of them would take seconds.
    moments = sorted(offsets)[:: max(len(offsets) // _MOMENTS, 1)]
    known = sorted(z for z in available_timezones() if "/" in z and not z.startswith("Etc/"))
    fitting = (
        name
        for name in (*_LIKELY_ZONES, *known)
        if all(
            m.astimezone(ZoneInfo(name)).utcoffset() == dt.timedelta(seconds=offsets[m])
            for m in moments
        )
    )
    written = " and ".join(_shown_offset(one) for one in sorted({offsets[m] for m in moments}))
    zone = next(fitting, None)
    as_in = f", as clocks show in {zone} (and perhaps elsewhere)" if zone else ""
    return [
        f"{column} is written at {written}{as_in}; windows follow UTC. For days of there: mlmon "
        f"init --force --zone {zone or 'ZONE'} with the same files, or time.zone below"
    ]


def _shown_offset(seconds: int) -> str:
    sign, minutes = "-" if seconds < 0 else "+", abs(seconds) // 60
    return f"{sign}{minutes // 60:02}:{minutes % 60:02}"


def _key_note(roles: Roles, shared: list[str] | None) -> list[str]:
    """Say which columns of the key the files of ground truth do not have."""
    if shared is None:
        return []
    missing = [c for c in roles.found["prediction_id"].columns if c not in shared]
    if not missing:
        return []
    return [
        f"ground truth cannot find its prediction, and its files will be refused: they have no "
        f"{listed(missing)}, and {listed(shared)} alone "
        f"{'is' if len(shared) == 1 else 'are'} not different in every row. Write an id of "
        "the prediction into both kinds of files"
    ]


def _percent_note(roles: Roles, facts: list[ColumnFacts]) -> list[str]:
    found = percent_score(roles, facts)
    if found is None:
        return []
    return [
        f"{found.name} is from {found.lower} to {found.upper} and a feature below. If it is the "
        "score in percent, write it as a share from 0 to 1 and name it columns.score: drift of the "
        "score, ROC AUC and estimates need it"
    ]


def _granularity(per_day: float, times: pd.Series) -> Granularity:
    """Return the shortest windows that the rate of events fills, and each job that writes them.

    A job of once a week fills one day of seven, so its windows are weeks.
    """
    gaps = pd.Series(times.dt.normalize().unique()).sort_values().diff().dt.days
    usual = float(gaps.median()) if len(gaps) > _SURE else 0.0
    if per_day >= _BUSY_DAY and usual < _WEEKLY:
        return "day"
    return "week" if 7 * per_day >= _BUSY_DAY and usual < _MONTHLY else "month"


def quiet_times(times: pd.Series) -> str:
    """Say on which weekdays and between which hours no event happened; empty if that says nothing.

    Args:
        times: Of events, in the zone in which windows are cut. They tell if they reach over three
            weeks and if each weekday, and each hour, would have ten were they spread evenly.
    """
    if times.max() - times.min() < _SURE * pd.Timedelta(weeks=1):
        return ""
    by_day = np.bincount(times.dt.day_of_week, minlength=7)
    by_hour = np.bincount(times.dt.hour, minlength=24)
    said = []
    if len(times) >= 7 * _ENOUGH and not by_day.all():
        empty = np.flatnonzero(by_day == 0)
        if len(empty) > len(by_day) / 2:
            said.append(
                f"events on {_joined(day_name[int(i)] for i in np.flatnonzero(by_day))} only"
            )
        else:
            said.append(f"no events on {_joined(day_name[int(i)] for i in empty)}")
    first, last = _longest_run(by_hour == 0)
    if len(times) >= 24 * _ENOUGH and last - first >= _NIGHT:
        which, ends = ("none" if said else "no events"), (first, last)
        if last - first > _QUIET_DAY:  # said the other way round it would be hard to read
            which, ends = ("all" if said else "all events"), (last, first)
        said.append(f"{which} between {ends[0] % 24:02}:00 and {ends[1] % 24:02}:00")
    return ", ".join(said)


def _joined(names: Iterable[str]) -> str:
    *others, last = (f"{name}s" for name in names)
    return f"{', '.join(others)} and {last}" if others else last


def _longest_run(flags: NDArray[np.bool_]) -> tuple[int, int]:
    """Return start and end of the longest run of true on a circle; the end may lie beyond it."""
    best, start = (0, 0), 0
    for i, flag in enumerate(np.append(flags, flags)):
        start = start if flag else i + 1
        if best[1] - best[0] < i + 1 - start <= len(flags):
            best = start, i + 1
    return best


def _end(
    last: dt.datetime, now: dt.datetime, zone: str, granularity: Granularity
) -> dt.date | None:
    """Return the first day after the window of the last event; None for data that goes on."""
    if now - last < _ENDED:
        return None
    time = TimeSpec(zone=zone, start=last.date(), granularity=granularity)
    return window_containing(time, last).end.astimezone(ZoneInfo(zone)).date()
