"""Which windows people mean, and what they compare them with."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window, complete_windows

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

Against = str | tuple[dt.datetime, dt.datetime]  # the baseline, a version, or a period
_VERSION = "version:"


class Days(NamedTuple):
    """Days of a model's zone, both ends included; an end that is None is open."""

    first: dt.date | None = None
    last: dt.date | None = None


ALWAYS = Days()


def moments_of(spec: ModelSpec, days: Days) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the UTC start of the first day and the UTC end of the last, in the model's zone."""
    zone, (first, last) = ZoneInfo(spec.time.zone), days
    start = dt.datetime.combine(first, dt.time(), zone).astimezone(dt.UTC) if first else None
    if last is None:
        return start, None
    after = last + dt.timedelta(days=1)
    return start, dt.datetime.combine(after, dt.time(), zone).astimezone(dt.UTC)


def complete_period(spec: ModelSpec, days: Days, now: dt.datetime) -> tuple[Window, ...]:
    """Return the windows of a period that are over, oldest first.

    Raises:
        ConfigError: If there are none.
    """
    start, end = moments_of(spec, days)
    complete = complete_windows(spec.time, now)
    windows = tuple(
        w for w in complete if (not start or w.start >= start) and (not end or w.end <= end)
    )
    if not windows:
        known = window_range(complete) if complete else "none yet"
        raise ConfigError(
            f"Model {spec.model!r} has no complete window from {days.first or 'its start'} to "
            f"{days.last or 'now'}; complete by {now.isoformat(timespec='seconds')}: {known}."
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
    complete = complete_period(spec, ALWAYS, project.now())
    found = next((w for w in complete if w.key == key), None)
    if found is None:
        raise ConfigError(
            f"{spec.model} has no complete window {key!r}; they are called as "
            f"{window_range(complete)}."
        )
    return found


def period_asked(
    project: Project, spec: ModelSpec, window: str | None, days: Days
) -> tuple[Window, ...] | None:
    """Return the windows that somebody named by one key or by two days; None if by neither.

    Raises:
        ConfigError: If there are no such windows, or both were given.
    """
    if window is not None and days != ALWAYS:
        raise ConfigError(
            "Either --window, or --from and --to (in Python: window, or first, last)."
        )
    if window is not None:
        return (window_named(project, spec, window),)
    return None if days == ALWAYS else complete_period(spec, days, project.now())


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
        days = Days(dt.date.fromisoformat(first), dt.date.fromisoformat(last))
    except ValueError as error:
        raise ConfigError(
            f"{text!r}: expected baseline, a window, DAY..DAY or version:V."
        ) from error
    start, end = moments_of(spec, days)
    assert start is not None
    assert end is not None
    return (start, end), f"{first} to {last}"
