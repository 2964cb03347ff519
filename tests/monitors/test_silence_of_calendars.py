"""Silence in drawn calendars: weekends, nights, shifts and one-day weeks in zones of all kinds."""

from __future__ import annotations

import datetime as dt
import re
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from mlmon_dagster.spec import Window, windows_between
from tests.conftest import make_spec
from tests.monitors.calendars import ZONES, Drawn, draw_year, judge_year

# Without a baseline: three whole weeks with predictions, after a first one that may be cut. A
# holiday may empty one of them, of a model of one day a week.
LEARNING = dt.timedelta(days=36)
SEEDS = [*range(12), *(pytest.param(s, marks=pytest.mark.proof) for s in range(12, 200))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_healthy_year_has_no_silence(seed: int) -> None:
    """Whatever the calendar, with a few exceptions of either kind, changes of clocks and growth."""
    drawn = draw_year(seed)
    judged = judge_year(drawn, drawn.served, seed)
    known_from = drawn.windows[0].start + (dt.timedelta() if drawn.before else LEARNING)
    failed = judged[(judged["status"] == "ERROR") & (judged["window_start"] >= known_from)]
    assert failed.empty, (drawn.name, drawn.limit, failed.iloc[0].to_dict())
    excused = judged["status"].eq("NO_DATA").to_numpy()
    assert not excused[drawn.served].any()
    closed = np.flatnonzero(~drawn.open_ & ~drawn.served)
    later = closed[len(closed) // 2 :]
    assert excused[later].sum() >= 0.9 * len(later)


def find_deadline(drawn: Drawn, first: int) -> dt.datetime:
    """When a silence that begins with a window must be known: the limit and one expected window."""
    left, i = drawn.limit, first
    while left > dt.timedelta():
        if drawn.open_[i]:
            left -= drawn.windows[i].end - drawn.windows[i].start
        i += 1
    return drawn.windows[i + int(np.argmax(drawn.open_[i:]))].end


@pytest.mark.parametrize("seed", SEEDS)
def test_an_outage_is_found_within_the_limit_and_one_expected_window(seed: int) -> None:
    """Wherever it begins; and it does not end before predictions come again."""
    drawn = draw_year(seed, days=230)
    starts = np.array([window.start for window in drawn.windows])
    since = starts[0] + np.array([45, 140]) * dt.timedelta(days=1)
    drawable = np.flatnonzero(drawn.open_ & (starts >= since[0]) & (starts < since[1]))
    first = int(np.random.default_rng(seed + 1_000).choice(drawable))
    begins, deadline = starts[first], find_deadline(drawn, first)
    served = drawn.silenced(begins, drawn.windows[-1].end)
    for now in (deadline, deadline + dt.timedelta(days=9)):
        judged = judge_year(drawn, served, seed, now)
        found = judged[judged["window_start"] >= begins]
        failed = found["status"].eq("ERROR").to_numpy()
        assert failed.any(), (drawn.name, drawn.limit, begins, deadline)
        assert "OK" not in set(found["status"].iloc[int(np.argmax(failed)) :])


@pytest.mark.parametrize("seed", [*range(20, 24), *(
    pytest.param(s, marks=pytest.mark.proof) for s in range(24, 80)
)])  # fmt: skip
def test_a_week_without_predictions_leaves_the_calendar_as_it_is(seed: int) -> None:
    """After an outage that takes a weekend in, nothing fires, and the next outage is found."""
    drawn = draw_year(seed, days=200)
    day = dt.timedelta(days=1)
    begins = drawn.windows[0].start + 60 * day
    served = drawn.silenced(begins, begins + 8 * day)
    judged = judge_year(drawn, served, seed)
    failed = judged[judged["status"].eq("ERROR") & (judged["window_end"] > begins + 9 * day)]
    # The window that is open when it ends, or the days until a model of one day a week runs.
    assert (failed["window_start"] < begins + 15 * day).all(), drawn.name
    second = next(i for i, w in enumerate(drawn.windows)
                  if w.start >= begins + 30 * day and drawn.open_[i])  # fmt: skip
    served &= drawn.silenced(drawn.windows[second].start, drawn.windows[-1].end)
    judged = judge_year(drawn, served, seed, find_deadline(drawn, second))
    found = judged[judged["window_start"] >= drawn.windows[second].start]
    assert "ERROR" in set(found["status"])


def weekdays(hour_from: int, hour_to: int, limit: str, grain: str) -> Drawn:
    """A model in Berlin that is served on weekdays, between two hours."""
    zone = ZoneInfo("Europe/Berlin")
    spec = make_spec(
        time={"zone": zone.key, "granularity": grain, "start": dt.date(2024, 1, 1)},
        monitors={"freshness": {"no_data_for": limit}},
    )
    first = dt.datetime(2023, 12, 31, 23, tzinfo=dt.UTC)
    windows = windows_between(spec.time, first, first + dt.timedelta(days=70))
    local = [window.start.astimezone(zone) for window in windows]
    is_open = np.array(
        [
            at.weekday() < 5 and (grain == "day" or hour_from <= at.hour < hour_to)
            for at in local
        ]
    )  # fmt: skip
    return Drawn(spec, windows, is_open, is_open.copy(), [], "weekdays")


@pytest.mark.parametrize(
    ("grain", "limit"), [("day", "26h"), ("hour", "26h"), ("hour", "4h"), ("day", "3d")]
)
def test_an_outage_of_friday_evening_is_found_on_monday(grain: str, limit: str) -> None:
    """Of a model that is served from 8 to 18 on weekdays; Monday's window counts as Monday."""
    drawn = weekdays(8, 18, limit, grain)
    friday = dt.datetime(2024, 2, 23, 17, tzinfo=dt.UTC)
    monday_ends = dt.datetime(2024, 2, 26, 23, tzinfo=dt.UTC)
    # Of a limit of days the rows of Monday have theirs to come.
    slack = dt.timedelta(hours=2) if grain == "day" else dt.timedelta()
    served = drawn.silenced(friday, drawn.windows[-1].end)
    judged = judge_year(drawn, served, 5, monday_ends + slack)
    since = judged[judged["window_end"] > friday]
    failed = since[since["status"] == "ERROR"]
    assert len(failed) >= 1
    assert failed["window_end"].max() <= monday_ends


def test_a_silence_names_the_last_event_the_pause_and_the_hours_that_are_missing() -> None:
    """In the model's zone."""
    drawn = weekdays(8, 18, "4h", "hour")
    friday = dt.datetime(2024, 2, 23, 17, tzinfo=dt.UTC)
    served = drawn.silenced(friday, drawn.windows[-1].end)
    judged = judge_year(drawn, served, 5, dt.datetime(2024, 2, 26, 12, tzinfo=dt.UTC))
    assert judged[judged["status"] == "ERROR"]["message"].iloc[-1] == (
        "No prediction since Friday 2024-02-23 17:20 (Europe/Berlin); nothing is expected from "
        "Friday 18:00 to Monday 08:00; 5 expected hours had no row; the limit is 4 hours."
    )
    assert judged[judged["status"] == "NO_DATA"]["message"].iloc[-1] == (
        "No prediction is expected in this hour: Mondays at 07:00 are usually empty."
    )


def test_a_silence_of_days_names_the_weekend() -> None:
    """A day is expected whole, or not at all."""
    drawn = weekdays(0, 24, "26h", "day")
    friday = dt.datetime(2024, 2, 23, 23, tzinfo=dt.UTC)
    served = drawn.silenced(friday, drawn.windows[-1].end)
    judged = judge_year(drawn, served, 5, friday + dt.timedelta(days=3, hours=3))
    said = judged["message"].iloc[-1]
    assert "; weekends are usually empty; " in said
    assert said.startswith("No prediction since Friday 2024-02-23 ")
    assert said.endswith(
        "; 1 expected day had no row, 35 hours without pauses; the limit is 26 hours."
    )
    assert judged["message"].iloc[-2] == (
        "No prediction is expected on this day: Sundays are usually empty."
    )


def draw_short_world(seed: int) -> Drawn:
    """Two weeks of hours after a baseline of some days: nights, or weekends too, without rows."""
    rng = np.random.default_rng(seed)
    zone = ZoneInfo(str(rng.choice(ZONES)))
    # Around the weekends in which clocks change, in either half of the world.
    change = dt.date(2024, int(rng.choice([3, 4, 10, 11])), 1)
    start = change + dt.timedelta(days=int(rng.integers(0, 30)))
    n_days = int(rng.choice([1, 2, 4, 6, 9, 12, 20, 40]))
    opens, closes = int(rng.integers(5, 10)), int(rng.integers(15, 23))
    is_daily = bool(rng.random() < 0.5)
    spec = make_spec(
        time={"zone": zone.key, "granularity": "hour", "start": start},
        monitors={"freshness": {"no_data_for": str(rng.choice(["3h", "12h", "26h"]))}},
    )
    first = dt.datetime.combine(start, dt.time(), zone).astimezone(dt.UTC)
    day = dt.timedelta(days=1)

    def is_open(window: Window) -> bool:
        local = window.start.astimezone(zone)
        return (is_daily or local.weekday() < 5) and opens <= local.hour < closes

    early = windows_between(spec.time, first - n_days * day, first)
    windows = windows_between(spec.time, first, first + 14 * day)
    open_ = np.array([is_open(window) for window in windows])
    served = open_.copy()
    broken = int(rng.integers(24, 150))
    served[broken : broken + int(rng.integers(20, 110))] = False
    before = [window.start for window in early if is_open(window)]
    return Drawn(spec, windows, open_, served, before, "short")


def find_expected_by_hand(drawn: Drawn) -> list[bool]:
    """Say of each window whether the baseline had rows then, looked up day by day."""
    if not drawn.before:  # a baseline of one day of the weekend
        return [True] * len(drawn.windows)
    zone = ZoneInfo(drawn.spec.time.zone)
    filled = {start.astimezone(zone).replace(tzinfo=None, fold=0) for start in drawn.before}
    hours = [min(filled)]
    while hours[-1] < max(filled):
        hours.append(hours[-1] + dt.timedelta(hours=1))
    by_hour = {hour: [one for one in hours if one.hour == hour] for hour in range(24)}
    found = []
    for window in drawn.windows:
        local = window.start.astimezone(zone)
        same_hour = by_hour[local.hour]
        same_kind = [one for one in same_hour if (one.weekday() < 5) == (local.weekday() < 5)]
        same_day = [one for one in same_hour if one.weekday() == local.weekday()]
        alike = next((days for days in (same_day, same_kind, same_hour) if len(days) > 1), [])
        found.append(not alike or any(one in filled for one in alike))
    return found


def check_hours_told(seed: int) -> int:
    """Compare each sentence of a world with the hours that were looked up; return how many."""
    drawn = draw_short_world(seed)
    judged = judge_year(drawn, drawn.served, seed)
    expected = find_expected_by_hand(drawn)
    place_of = {window.start: i for i, window in enumerate(drawn.windows)}
    n_told = 0
    for row in judged.itertuples():
        told = re.search(r"; ([\d,]+) expected hours? had no row", row.message)
        i = place_of[row.window_start.to_pydatetime()]
        if told is None or not drawn.served[:i].any():
            continue
        last = int(np.flatnonzero(drawn.served[:i])[-1])
        assert int(told[1]) == sum(expected[last + 1 : i + 1]) <= i - last, seed
        n_told += 1
    return n_told


@pytest.mark.parametrize("seeds", [range(5), pytest.param(range(5, 300), marks=pytest.mark.proof)])
def test_hours_without_a_row_are_those_in_which_the_baseline_had_rows(seeds: range) -> None:
    """Never more than the hours without a row; short baselines, and changes of clocks, too."""
    assert sum(map(check_hours_told, seeds)) > 10 * len(seeds)  # so that it is not empty
