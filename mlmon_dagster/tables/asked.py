"""What people ask of a model: which windows they mean, what with, and metrics as a table."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window, complete_windows
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.declaration import Granularity
from mlmon_dagster.spec.names import ALL, did_you_mean, listed

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project

Against = str | tuple[dt.datetime, dt.datetime]  # the baseline, a version, or a period
_VERSION = "version:"
_DAYS_AT_A_TIME = 16


def moments_of(
    spec: ModelSpec, first: dt.date | None, last: dt.date | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the UTC start of the first day and the UTC end of the last, in the model's zone."""
    zone = ZoneInfo(spec.time.zone)
    start = dt.datetime.combine(first, dt.time(), zone).astimezone(dt.UTC) if first else None
    if last is None:
        return start, None
    after = last + dt.timedelta(days=1)
    return start, dt.datetime.combine(after, dt.time(), zone).astimezone(dt.UTC)


def complete_period(
    spec: ModelSpec, first: dt.date | None, last: dt.date | None, now: dt.datetime
) -> tuple[Window, ...]:
    """Return the windows of a period that are over, oldest first; an end left out is open.

    Raises:
        ConfigError: If there are none.
    """
    start, end = moments_of(spec, first, last)
    complete = complete_windows(spec.time, now)
    windows = tuple(
        w for w in complete if (not start or w.start >= start) and (not end or w.end <= end)
    )
    if not windows:
        known = window_range(complete) if complete else "none yet"
        raise ConfigError(
            f"Model {spec.model!r} has no complete window from {first or 'its start'} to "
            f"{last or 'now'}; complete by {now.isoformat(timespec='seconds')}: {known}."
        )
    return windows


def window_range(windows: Sequence[Window]) -> str:
    """Name the first and the last of some windows."""
    return f"{windows[0].key} to {windows[-1].key}"


def window_named(project: Project, spec: ModelSpec, key: str) -> Window:
    """Return the window of a name such as ``2013-04-22`` that is over.

    Raises:
        ConfigError: If there is none.
    """
    complete = complete_period(spec, None, None, project.now())
    found = next((w for w in complete if w.key == key), None)
    if found is None:
        raise ConfigError(
            f"{spec.model} has no complete window {key!r}; they are called as "
            f"{window_range(complete)}."
        )
    return found


def period_asked(
    project: Project,
    spec: ModelSpec,
    window: str | None,
    first: dt.date | None,
    last: dt.date | None,
) -> tuple[Window, ...] | None:
    """Return the windows that somebody named by one key or by two days; None if by neither.

    Raises:
        ConfigError: If there are no such windows, or both were given.
    """
    if window is not None and (first is not None or last is not None):
        raise ConfigError(
            "Either --window, or --from and --to (in Python: window, or first, last)."
        )
    if window is not None:
        return (window_named(project, spec, window),)
    if first is None and last is None:
        return None
    return complete_period(spec, first, last, project.now())


def against_asked(project: Project, spec: ModelSpec, text: str) -> tuple[Against, str]:
    """Return what windows are compared with, and what people call it.

    Args:
        project: The project.
        spec: The model.
        text: ``baseline``, the name of a window, ``DAY..DAY``, or ``version:V``.

    Raises:
        ConfigError: If it is none of these.
    """
    if text == "baseline":
        return text, "the baseline"
    if text.startswith(_VERSION):
        if not spec.has_versions:
            raise ConfigError("version:V needs columns.model_version; declare it.")
        version = text.removeprefix(_VERSION)
        return version, f"version {version}"
    first, separator, last = text.partition("..")
    if not separator:
        one = window_named(project, spec, text)
        return (one.start, one.end), one.key
    try:
        days = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    except ValueError as error:
        raise ConfigError(
            f"{text!r}: expected baseline, a window, DAY..DAY or version:V."
        ) from error
    start, end = moments_of(spec, *days)
    assert start is not None
    assert end is not None
    return (start, end), f"{first} to {last}"


def query_metrics(
    project: Project,
    spec: ModelSpec,
    *,
    metric: tuple[str, ...] = (),
    column: tuple[str, ...] = (),
    dataset: str = PRODUCTION,
    model_version: str = ALL,
    slice_: str | None = None,
    granularity: Granularity | None = None,
    first: dt.date | None = None,
    last: dt.date | None = None,
    as_of: dt.datetime | None = None,
) -> pd.DataFrame:
    """Return the metrics that match, one row each, ordered by window.

    Windows of the model's own length come from the metric table, longer ones are merged from the
    stored profiles. Estimates of the former have the bands that the model's record asks for, see
    `with_learnt_bands`.

    Raises:
        ConfigError: If the slice is not KEY=VALUE, the windows asked for are too short, or longer
            windows are asked for as of a past moment.
    """
    slice_key, slice_value = _slice(slice_)
    start, end = moments_of(spec, first, last)
    if granularity in (None, spec.time.granularity):
        from mlmon_dagster.profiles.estimates import with_learnt_bands
        from mlmon_dagster.store.state import metric_log

        frame = metric_log.newest(
            project.store.state,
            spec.model,
            metric=metric or None,
            column=column or None,
            slice_key=slice_key,
            slice_value=slice_value,
            dataset=dataset,
            model_version=model_version,
            start=start,
            end=end,
            as_of=as_of,
        )
        frame = with_learnt_bands(project.store, spec, frame, as_of)
    else:
        if as_of is not None:
            own = spec.time.granularity
            raise ConfigError(
                f"--as-of with --granularity {granularity}: longer windows are merged from the "
                "newest profiles, and what they were made with then is not kept for ever. "
                f"Numbers of then are kept for windows of a {own}: leave --granularity out."
            )
        from mlmon_dagster.tables.periods import rolled_up_metrics

        frame = rolled_up_metrics(project.store, spec, granularity, start, end)
        wanted = {
            "metric": metric,
            "column_name": column,
            "slice_key": (slice_key,) if slice_key else (),
            "slice_value": (slice_value,) if slice_value else (),
        }
        for name, values in wanted.items():
            if values:
                frame = frame[frame[name].isin(values)]
    zone = ZoneInfo(spec.time.zone)
    local = frame["window_start"].dt.tz_convert(zone)
    frame = frame.assign(
        window=hours_of(local)
        if (granularity or spec.time.granularity) == "hour"
        else local.dt.strftime("%Y-%m-%d")
    )
    order = ["window_start", "slice_key", "slice_value", "column_name", "metric"]
    return frame.sort_values(order, ignore_index=True)


def hours_of(local: pd.Series) -> pd.Series:
    """Name hours by the clock; of one that comes twice, as clocks go back, with its offset."""
    plain = local.dt.strftime("%Y-%m-%d %H:%M")
    is_twice = local.groupby(plain).transform("nunique") > 1
    named: pd.Series = plain.where(~is_twice, local.dt.strftime("%Y-%m-%d %H:%M%z"))
    return named


def metrics_by_days(
    project: Project,
    spec: ModelSpec,
    *,
    first: dt.date | None = None,
    last: dt.date | None = None,
    granularity: Granularity | None = None,
    newest_first: bool = False,
    **wanted: Any,
) -> Iterator[pd.DataFrame]:
    """Yield what `query_metrics` returns in parts of whole days, so that years fit in memory.

    Parts have a row or more; there is none where nothing matches. Longer windows than the model's
    own are one part, since they are made together.

    Args:
        project: The project.
        spec: The model.
        first: First day.
        last: Last day.
        granularity: As of `query_metrics`.
        newest_first: Begin with the newest days, a few, then more at a time; rows within a part
            keep their order.
        **wanted: What else `query_metrics` takes.
    """
    if granularity not in (None, spec.time.granularity):
        frame = query_metrics(
            project, spec, first=first, last=last, granularity=granularity, **wanted
        )
        if len(frame):
            yield frame
        return
    from mlmon_dagster.store.state import metric_log

    zone = ZoneInfo(spec.time.zone)
    starts = metric_log.window_starts(
        project.store.state, spec.model, *moments_of(spec, first, last)
    )
    days = list(dict.fromkeys(start.astimezone(zone).date() for start in starts))
    size = 1 if newest_first else _DAYS_AT_A_TIME
    while days:
        if newest_first:
            part, days = days[-size:], days[:-size]
        else:
            part, days = days[:size], days[size:]
        frame = query_metrics(project, spec, first=part[0], last=part[-1], **wanted)
        if len(frame):
            yield frame
        size = min(size * 3, _DAYS_AT_A_TIME)


def refuse_unknown_metrics(
    project: Project, spec: ModelSpec, metrics: Sequence[str], columns: Sequence[str]
) -> None:
    """Refuse metrics and columns that no window of a model has; before any is computed, nothing.

    Raises:
        ConfigError: With the nearest name that there is.
    """
    from mlmon_dagster.store.state import metric_log

    series = metric_log.list_series(project.store.state, spec.model)
    for what, asked, known in (
        ("metric", metrics, {metric for metric, _ in series}),
        ("column with a metric", columns, {column for _, column in series}),
    ):
        for name in asked:
            if known and name not in known:
                hint = did_you_mean(name, known) or "."
                raise ConfigError(
                    f"{spec.model} has no {what} {name!r}{hint} There are: {listed(sorted(known))}."
                )


def _slice(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    if text == ALL:  # as the tables call everything
        return ALL, ALL
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"--slice {text!r}: expected KEY=VALUE, such as origin=JFK.")
    return key, value
