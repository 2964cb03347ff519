"""Family freshness: predictions that stopped coming, and overdue ground truth."""

from __future__ import annotations

import datetime as dt
from calendar import day_name
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mlmon_dagster.families.family import Facts, Family
from mlmon_dagster.families.ground_truth import judge_ground_truth
from mlmon_dagster.families.reported_files import refusals_behind
from mlmon_dagster.families.silence import (
    ARRIVED,
    SILENT,
    arrived,
    silence_facts,
    unjudged_windows,
    unread_files,
)
from mlmon_dagster.metrics.windows.presence import Calendar
from mlmon_dagster.monitors.evidence import (
    NO_DATA,
    OK,
    Evidence,
    Window,
    production,
    result_row,
)
from mlmon_dagster.monitors.wording import name_span, no_verdict
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec import Window as Span
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import FRESHNESS, counted, listed
from mlmon_dagster.spec.scalars import format_duration, name_duration
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    import pandas as pd

UNREAD = "unread"  # data version: judged while files waited that may hold the window's rows


def judge(evidence: Evidence) -> list[MonitorResult]:
    """Fail empty production windows when the silence has lasted `no_data_for`.

    A silence lasts from the last event before a window (`last_event_time` of the last window that
    has data, else that window's start; before the first window, from `last_before`) to the window's
    end. Only time in which predictions are expected counts, see `Calendar.count`: a window in which
    none are is NO_DATA, and never fails.

    Of a limit below two windows one empty window is the business, so its silence may reach the
    limit in the window after it, and so may one that ends in a usual pause. Such a window has no
    row until that is decided: by the next event (`first_event_time`, `next_after`), or by its not
    having come. A window fails only once as much time has passed since the silent windows began, so
    that rows on their way have their chance; before that there is no row for it either. Where
    landing files are not read yet that may hold its rows (`n_unread`), it is NO_DATA. It is, too,
    where such a file was refused (`refused_because`) and an alert of the schema, no less severe,
    tells of it.
    After rows that are not counted yet there is no row, either.
    Late ground truth: see `judge_ground_truth`.
    """
    windows = list(production(evidence))
    silences = _find_silences(windows)
    rows = []
    for window, around in zip(windows, silences, strict=True):
        row = _judge_silence(evidence, window, around) if around else _fresh(evidence, window)
        rows += [row] if row else []
    return rows + judge_ground_truth(evidence)


@dataclass(frozen=True)
class _Silence:
    """What surrounds an empty window.

    Attributes:
        last_event: The last event before it; None if there was none.
        since: Start of the first empty window since then.
        next_event: The first event after it; None if none is known.
        is_followed: Whether rows have come after it whose times are not known yet.
        is_after_uncounted: Whether the rows before it are not counted yet, so that neither the last
            event nor what is usual is known.
        refused_because: What a refused file says that may hold its rows: one that is reported in
            it, or in a later window of the same silence without a date in its name. Empty if there
            is none.
        refused_before: The same of the windows before it in the same silence.
    """

    last_event: pd.Timestamp | None
    since: pd.Timestamp
    next_event: pd.Timestamp | None
    is_followed: bool
    is_after_uncounted: bool
    refused_because: str
    refused_before: str


def _find_silences(windows: Sequence[Window]) -> list[_Silence | None]:
    """Return what surrounds each empty window, None for one with rows."""
    ahead: list[tuple[pd.Timestamp | None, bool, str]] = []
    next_event = _known(windows[-1].get("next_after")) if windows else None
    is_followed = bool(windows) and windows[-1].get("is_followed") is True
    refused = ""
    for window in reversed(windows):
        ahead.append((next_event, is_followed, window["refused_because"] or refused))
        if window["refused_because"] and not window["refused_is_dated"]:
            refused = window["refused_because"]
        if window["n"] > 0:
            refused = ""
            next_event = _known(window.get("first_event_time"))
            is_followed = next_event is None and window["is_waiting"]
            if next_event is None and not is_followed:
                next_event = window["window_start"]
    last_event = _known(windows[0].get("last_before")) if windows else None
    since: pd.Timestamp | None = None
    is_uncounted, refused_before = False, ""
    found: list[_Silence | None] = []
    for window, (following, is_followed, refused) in zip(windows, reversed(ahead), strict=True):
        if window["n"] > 0:
            last_event, since = _known(window.get("last_event_time")), None
            refused_before = ""
            is_uncounted = last_event is None and window["is_waiting"]
            last_event = window["window_start"] if last_event is None else last_event
            found.append(None)
            continue
        since = window["window_start"] if since is None else since
        around = (last_event, since, following, is_followed, is_uncounted)
        found.append(_Silence(*around, refused, refused_before))
        refused_before = refused_before or window["refused_because"]
    return found


def _known(moment: Any) -> pd.Timestamp | None:
    import pandas as pd

    return None if moment is None or pd.isna(moment) else pd.Timestamp(moment)


def _fresh(evidence: Evidence, window: Window) -> MonitorResult:
    return _of_predictions(evidence, window, status=OK, message="Predictions arrived.", value=0.0)


def _of_predictions(evidence: Evidence, window: Window, **fields: Any) -> MonitorResult:
    monitor = evidence.spec.monitors.freshness
    threshold = format_duration(_limit(evidence, window))
    return result_row(
        evidence,
        window,
        monitor,
        metric="no_data_for",
        threshold=threshold,
        **fields,
    )


def _limit(evidence: Evidence, window: Window) -> dt.timedelta:
    """Return the longest silence: learnt, or declared, or the default."""
    import pandas as pd

    learnt = window.get("silence_limit")
    if learnt is None or pd.isna(learnt):
        return evidence.spec.monitors.freshness.no_data_for
    return dt.timedelta(seconds=float(learnt))


class _Count:
    """Counts how long a silence lasts, in the time in which predictions are expected."""

    def __init__(self, calendar: Calendar | None, limit: dt.timedelta, window: Window) -> None:
        self.calendar, self.limit = calendar, limit.total_seconds()
        self.start, self.end = (window[name].timestamp() for name in ("window_start", "window_end"))

    @cached_property
    def _covered(self) -> float:
        assert self.calendar is not None
        return self.calendar.pauses.longest_within(self.limit, self.start)

    def seconds(self, start: pd.Timestamp, end: float | None = None) -> float:
        """Count from a moment to the window's end, or to another."""
        until = self.end if end is None else end
        if self.calendar is None:
            return until - start.timestamp()
        return self.calendar.count(start.timestamp(), until, self._covered)

    def room(self) -> float:
        """Return how much longer a silence may become before another window speaks of it."""
        length = self.end - self.start
        grace = length if 2 * length > self.limit else 0.0
        if self.calendar is None:
            return grace
        resumed = self.calendar.next_expected(self.end)
        return max(grace, self.calendar.count(self.end, resumed, self._covered))


def _judge_silence(evidence: Evidence, window: Window, silence: _Silence) -> MonitorResult | None:
    monitor = evidence.spec.monitors.freshness
    if silence.is_after_uncounted:
        return None  # the first look at a history comes before any of it is counted
    count = _Count(window.get("calendar") or None, _limit(evidence, window), window)
    if count.calendar is not None and not count.calendar.is_expected(count.start):
        return _not_expected(evidence, window, count.calendar)
    waited = count.seconds(silence.since) + (evidence.now.timestamp() - count.end)
    if waited < count.limit:
        return None
    start = silence.since if silence.last_event is None else silence.last_event
    lasted = count.seconds(start)
    missing = count.limit - lasted
    if silence.last_event is None:
        # It was silent for longer: as many whole windows as the limit has are enough.
        failed = missing < count.end - count.start
    elif 0 < missing <= count.room():
        reached = _moment(count.end + missing)
        if silence.next_event is None and (silence.is_followed or evidence.now < reached):
            return None
        failed = silence.next_event is None or silence.next_event >= reached
    else:
        failed = missing <= 0
    if failed and window["n_unread"]:
        return _of_predictions(
            evidence,
            window,
            status=NO_DATA,
            reason="files_unread",
            message=no_verdict("freshness", "files_unread", 0),
            data_version=UNREAD,
            details={"unread_until": window["unread_until"]},
        )
    is_told = evidence.spec.monitors.schema_.severity in ("ERROR", monitor.severity)
    if failed and silence.refused_because and is_told:
        reason = no_verdict("freshness", "files_refused", 0)
        return _of_predictions(
            evidence,
            window,
            status=NO_DATA,
            reason="files_refused",
            message=f"{reason} {silence.refused_because}",
        )
    return _of_predictions(
        evidence,
        window,
        status=monitor.severity if failed else OK,
        message=_tell_silence(evidence, window, silence, count, start, lasted),
        value=lasted / 3600,
        details={"silent_since": f"{start:%Y-%m-%dT%H:%M:%SZ}"},
    )


def _not_expected(evidence: Evidence, window: Window, calendar: Calendar) -> MonitorResult:
    start = window["window_start"].tz_convert(evidence.spec.time.zone)
    named = f"{start:%A}s" + (f" at {start:%H:%M}" if _is_hourly(evidence) else "")
    holiday = calendar.holiday(window["window_start"].timestamp())
    grain = evidence.spec.time.granularity
    why = f"it is a holiday ({holiday})" if holiday else f"{named} are usually empty"
    return _of_predictions(
        evidence,
        window,
        status=NO_DATA,
        reason="holiday" if holiday else "not_expected",
        message=f"No prediction is expected {name_span(1, grain)}: {why}.",
    )


def _tell_silence(
    evidence: Evidence,
    window: Window,
    silence: _Silence,
    count: _Count,
    start: pd.Timestamp,
    lasted: float,
) -> str:
    """Say since when it is silent, what of that time is not expected, and the limit."""
    limit = name_duration(_limit(evidence, window))
    refused = silence.refused_because or silence.refused_before
    if silence.last_event is None and not refused:
        here = name_span(1, evidence.spec.time.granularity)
        parts = [f"No prediction {here}, and none was taken in before it"]
    elif not refused:
        parts = [f"No prediction since {_when(evidence, start)}"]
    else:
        since = "" if silence.last_event is None else f" since {_when(evidence, start)}"
        parts = [f"No prediction was taken in{since}", "a file was refused"]
    whole = count.end - start.timestamp()
    if count.calendar is not None and lasted < whole:
        parts += _tell_pauses(evidence, count.calendar, start.timestamp(), count.end)
        parts.append(_tell_missing(evidence, count.calendar, start.timestamp(), count.end, lasted))
    told = "; ".join([*parts, f"the limit is {limit}."])
    return f"{told} {refused}".rstrip()


def _tell_missing(
    evidence: Evidence, calendar: Calendar, start: float, end: float, lasted: float
) -> str:
    """Say how many expected windows had no row, and what else of the silence is counted.

    Expected are windows in whose place of the week there usually are rows, as `Calendar` knows
    them. Pauses that the limit covers count as silence, but nothing was missing in them.
    """
    n_missing = calendar.count_missing(start, end)
    told = f"{counted(n_missing, f'expected {evidence.spec.time.granularity}')} had no row"
    hours = f"{round(lasted / 3600):,} hours"
    if lasted > calendar.count(start, end, 0):
        return f"{told}, with the pauses that the limit covers {hours}"
    return told if _is_hourly(evidence) else f"{told}, {hours} without pauses"


def _tell_pauses(evidence: Evidence, calendar: Calendar, start: float, end: float) -> list[str]:
    """Name the weekdays, or the longest stretch of hours, and holidays without an expectation."""
    import pandas as pd

    zone = evidence.spec.time.zone
    runs = [
        (_moment(first).tz_convert(zone), _moment(last).tz_convert(zone))
        for first, last in calendar.paused(start, end)
    ]
    told: list[str] = []
    if runs and _is_hourly(evidence):
        first, last = max(runs, key=lambda run: run[1] - run[0])
        told = [f"nothing is expected from {first:%A %H:%M} to {last:%A %H:%M}"]
    elif runs:
        days = [
            day
            for first, last in runs
            for day in pd.date_range(first, last, freq="D", inclusive="left")
        ]
        usual = {day.weekday() for day in days if not calendar.holiday(day.timestamp())}
        names = "weekends" if usual == {5, 6} else listed(f"{day_name[day]}s" for day in usual)
        told = [f"{names} are usually empty"] if usual else []
    holidays = calendar.holidays_within(start, end)
    return told + ([f"holidays: {listed(holidays)}"] if holidays else [])


def _moment(seconds: float) -> pd.Timestamp:
    import pandas as pd

    return pd.Timestamp(seconds, unit="s", tz="UTC")


def _is_hourly(evidence: Evidence) -> bool:
    return evidence.spec.time.granularity == "hour"


def _when(evidence: Evidence, moment: pd.Timestamp) -> str:
    """Name a moment in the zone in which windows are cut."""
    zone = evidence.spec.time.zone
    return f"{moment.tz_convert(zone):%A %Y-%m-%d %H:%M} ({zone})"


def _facts(work: Work, windows: Sequence[Span]) -> list[Facts]:
    unread = unread_files(work, windows)
    around, refused = silence_facts(work, windows), refusals_behind(work, windows)
    return [
        {**own, **unread.get(window.start, {}), **files}
        for window, own, files in zip(windows, around, refused, strict=True)
    ]


def _version(_: str, state: WindowInputs, facts: Facts) -> str:
    return ARRIVED if arrived(state) else SILENT


def _limits(spec: ModelSpec) -> str:
    monitor = spec.monitors.freshness
    hours = monitor.no_data_for.total_seconds() / 3600
    is_learnt = spec.time.granularity == "hour" and "no_data_for" not in monitor.model_fields_set
    length = f"{hours:g} hours" + (" (fewer once learnt)" if is_learnt else "")
    missing = spec.monitors.freshness.actuals_missing
    late = f", or if over {missing.bound:.0%} of the usual actuals is overdue" if missing else ""
    return f"Fails after {length} without data{late}."


def _learn_timing(work: Work) -> None:
    from mlmon_dagster.profiles.arrivals import learn_timing

    learn_timing(work.project.store.state, work.spec, work.now)


FAMILY = Family(
    FAMILIES[FRESHNESS],
    judge,
    _limits,
    facts=_facts,
    counted=arrived,
    version=_version,
    chosen=unjudged_windows,
    prepare=_learn_timing,
)
