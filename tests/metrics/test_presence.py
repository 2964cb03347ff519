"""When predictions usually come, learnt from windows, and how long a silence is in such time."""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.metrics.windows.presence import (
    Calendar,
    expected_windows,
    learn_limit,
    served_places,
)

HOUR = 3600.0
DAY = 24 * HOUR


def learn(weeks: list[str], **fields) -> list[str]:
    """What is expected of each week, of weeks written as ``xxxxx..``."""
    served = np.array([mark == "x" for mark in "".join(weeks)])
    places = np.tile(np.arange(7), len(weeks))
    numbers = np.repeat(np.arange(len(weeks)), 7)
    found = expected_windows(places, numbers, served, **fields)
    return ["".join("x" if day else "." for day in week) for week in found.reshape(-1, 7)]


def test_a_weekend_is_known_after_three_weeks_and_every_day_is_expected_before():
    """Two weeks could be chance, and nothing is excused that is not known."""
    assert learn(["xxxxx.."] * 5) == ["xxxxxxx"] * 3 + ["xxxxx.."] * 2


def test_a_baseline_tells_of_the_weekend_from_the_first_week_on():
    weekdays = np.arange(7) < 5
    assert learn(["xxxxx.."] * 2, before=weekdays) == ["xxxxx.."] * 2


def test_a_few_exceptions_change_nothing():
    """Three empty Mondays of twelve, and a Saturday on which somebody works; or one early on."""
    weeks = ["xxxxx.."] * 7 + [".xxxx..", "xxxxxx."] * 3 + ["xxxxx.."] * 4
    assert learn(weeks)[3:] == ["xxxxx.."] * 14
    assert learn(["xxxxx..", "x....x.", "xxxxx..", "xxxxx.."])[3] == "xxxxx.."


def test_a_saturday_that_begins_to_be_served_is_expected_after_three_weeks():
    found = learn(["xxxxx.."] * 6 + ["xxxxxx."] * 5)
    assert found[8:] == ["xxxxx..", "xxxxxx.", "xxxxxx."]


def test_a_saturday_that_ends_is_not_expected_any_more_after_some_weeks():
    found = learn(["xxxxxx."] * 12 + ["xxxxx.."] * 5)
    assert found[12:] == ["xxxxxx."] * 4 + ["xxxxx.."]


def test_an_outage_of_weeks_teaches_nothing():
    """Days on which nothing was expected stay so, and all others stay expected."""
    found = learn(["xxxxx.."] * 4 + ["......."] * 6 + ["xxxxx.."])
    assert found[4:] == ["xxxxx.."] * 7


def test_windows_that_do_not_teach_are_left_out():
    """Holidays, and the days before the first prediction of all."""
    weeks = ["..xxx.."] + ["xxxxx.."] * 2
    teaches = np.ones(21, dtype=bool)
    teaches[:2] = False
    assert learn([*weeks, "xxxxx.."], teaches=np.append(teaches, [True] * 7))[3] == "xxxxx.."
    assert learn(weeks)[2] == "xxxxxxx"


@pytest.mark.parametrize("skipped", [[], [1]])
def test_an_hour_that_a_week_does_not_have_is_as_the_one_before_it(skipped):
    """Clocks are put forward on a Sunday at two, in the second of three weeks without nights."""
    hour, week = np.tile(np.arange(168), 4), np.repeat(np.arange(4), 168)
    served = (hour % 24 >= 7) & (hour % 24 < 19)
    there = ~(np.isin(week, skipped) & (hour == 146))
    found = expected_windows(hour[there], week[there], served[there])
    last = week[there] == 3
    assert (found[last] == served[there][last]).all()


def test_no_windows_have_no_expectations():
    nothing = np.zeros(0, dtype=np.int64)
    assert expected_windows(nothing, nothing, nothing.astype(bool)).tolist() == []


def test_a_baseline_tells_of_a_weekday_from_two_of_it_on_and_else_of_like_days():
    """Of nothing it tells: with a single weekend, weekends are told by their two days together."""
    day, week = np.tile(np.arange(5), 4), np.repeat(np.arange(4), 5)
    for n_rows in (20, 10):  # four weeks, and two with one weekend between them
        told = served_places(day[:n_rows], week[:n_rows], 7)
        assert told is not None
        assert told.tolist() == [True] * 5 + [False] * 2
    one_week = served_places(day[:5], week[:5], 7)
    assert one_week is not None
    assert one_week.all()


def test_three_days_of_a_baseline_tell_of_nights_and_one_day_does_not():
    """From Tuesday to Thursday, between 8 and 20; the weekend is told by the hours of any day."""
    hour = np.concatenate([np.arange(8, 20) + 24 * day for day in (1, 2, 3)])
    week = np.zeros(len(hour), dtype=np.int64)
    told = served_places(hour, week, 168)
    assert told is not None
    assert (told.reshape(7, 24) == ((np.arange(24) >= 8) & (np.arange(24) < 20))).all()
    one_day = served_places(hour[:12], week[:12], 168)
    assert one_day is not None
    assert one_day.all()


def test_a_sample_of_a_few_rows_tells_nothing():
    day, week = np.tile(np.arange(5), 4), np.repeat(np.arange(4), 5)
    few = np.arange(0, 20, 2)
    assert served_places(day[few], week[few], 7) is None
    assert served_places(day[:0], week[:0], 7) is None


def hours(pattern: str, holidays: dict[int, str] | None = None) -> Calendar:
    """Hours in which predictions are expected and come, ``x``, or neither, ``.``."""
    came = np.array([mark == "x" for mark in pattern])
    edges = np.arange(len(pattern) + 1) * HOUR
    first = np.where(came, edges[:-1] + 0.1 * HOUR, np.nan)
    last = np.where(came, edges[1:] - 0.1 * HOUR, np.nan)
    return Calendar(edges, came, came, first, last, holidays or {})


def test_a_silence_counts_expected_time_and_pauses_up_to_what_the_limit_covers():
    calendar = hours("xx....xx..xx")
    assert calendar.count(1.5 * HOUR, 12 * HOUR, 0) == 4.5 * HOUR
    assert calendar.count(1.5 * HOUR, 12 * HOUR, 2 * HOUR) == 8.5 * HOUR
    assert calendar.count(3 * HOUR, 4 * HOUR, 0) == 0
    assert calendar.count(-2 * HOUR, 14 * HOUR, 0) == 10 * HOUR  # beyond its windows all counts
    assert calendar.paused(3 * HOUR, 9 * HOUR) == [(3 * HOUR, 6 * HOUR), (8 * HOUR, 9 * HOUR)]
    assert [calendar.next_expected(hour * HOUR) for hour in (1, 2, 6, 12)] == [
        HOUR, 6 * HOUR, 6 * HOUR, 12 * HOUR,
    ]  # fmt: skip


@pytest.mark.parametrize(("limit", "covered"), [(3.1, 0), (3.3, 3), (5.1, 3), (5.3, 5)])
def test_a_limit_covers_the_pauses_whose_whole_silence_is_shorter(limit, covered):
    """A pause of three hours is 3.2 hours without an event, by the tenths around it."""
    pauses = hours("x..." * 4 + "x....." * 4 + "x").pauses
    assert pauses.longest_within(limit * HOUR, 1e9) == covered * HOUR


def test_a_pause_is_usual_once_it_has_been_there_three_times():
    pauses = hours("x..." * 4 + "x").pauses
    assert pauses.longest_within(10 * HOUR, 1e9) == 3 * HOUR
    assert pauses.longest_within(10 * HOUR, 9 * HOUR) == 0


def test_one_outage_after_a_pause_makes_no_pause_of_it():
    """The ninth of ten says how long one lasts."""
    calendar = hours("x..." * 12 + "x")
    served = calendar.served.copy()
    served[8] = False  # the hour after the second
    first, last = (np.where(served, times, np.nan) for times in (calendar.first, calendar.last))
    broken = Calendar(calendar.edges, calendar.expected, served, first, last)
    assert broken.pauses.longest_within(4 * HOUR, 1e9) == 3 * HOUR


def test_a_pause_with_a_holiday_says_nothing_of_usual_ones():
    assert hours("x..." * 3 + "x", {2: "Labour Day"}).pauses.longest_within(9 * HOUR, 1e9) == 0


@pytest.mark.parametrize(
    ("wait", "limit"), [(0.2, 3), (1.4, 3), (1.6, 4), (6.5, 13), (12.9, 26), (24, 26)]
)
def test_a_silence_is_unusual_from_twice_the_longest_usual_wait_on(wait, limit):
    """Rows of every hour, four times a day, or once a night; never beyond the limit of a day."""
    days = np.repeat(np.arange(8), 3)
    waits = np.tile([0.1, wait, 0.2], 8) * HOUR
    assert learn_limit(waits, days, HOUR, 26 * HOUR) == limit * HOUR


def test_one_outage_among_some_days_does_not_make_silence_usual_and_two_do():
    waits = np.full(10, 1.2 * HOUR)
    waits[4] = 11 * HOUR
    assert learn_limit(waits, np.arange(10), HOUR, 26 * HOUR) == 3 * HOUR
    waits[7] = 11 * HOUR
    assert learn_limit(waits, np.arange(10), HOUR, 26 * HOUR) == 22 * HOUR


def test_four_days_and_days_long_ago_tell_no_limit():
    for waits, days in ((np.full(4, HOUR), np.arange(4)), (np.zeros(0), np.zeros(0, dtype=int))):
        assert learn_limit(waits, days, HOUR, 26 * HOUR) == 26 * HOUR
    waits = np.repeat([10 * HOUR, HOUR], [20, 28])
    assert learn_limit(waits, np.arange(48), HOUR, 26 * HOUR) == 3 * HOUR


def test_expected_time_between_moments_leaves_pauses_out():
    calendar = hours("xx....xx..xx")
    start, end = (np.array(each) * HOUR for each in ([0.5, 1.9, 3, 7.5], [1.5, 6.2, 4, 11]))
    found = calendar.count_expected(start, end)
    assert found == pytest.approx(np.array([1.0, 0.3, 0.0, 1.5]) * HOUR)
