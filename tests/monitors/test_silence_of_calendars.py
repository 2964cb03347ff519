"""Silence in drawn calendars: weekends, nights, shifts and one-day weeks in zones of all kinds."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from tests.monitors.calendars import Drawn, draw_year, judge_year

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
    from mlmon_dagster.spec import windows_between
    from tests.conftest import make_spec

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
        "Friday 18:00 to Monday 08:00; 6 expected hours are missing; the limit is 4 hours."
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
    assert said.endswith(" expected hours are missing; the limit is 26 hours.")
    assert judged["message"].iloc[-2] == (
        "No prediction is expected on this day: Sundays are usually empty."
    )
