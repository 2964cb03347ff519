"""Windows are the zone's own hours, days, weeks and months, and Dagster's partitions."""

from __future__ import annotations

import datetime as dt
import itertools
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import (
    check_window_count,
    complete_windows,
    first_window,
    granularity_windows,
    production_end,
    window_containing,
    window_date,
    window_from_key,
    windows_between,
)
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.tables.metrics import hours_of
from tests.spec.specs import UTC, time_spec

ZONES = ["UTC", "America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Santiago",
         "America/Havana", "Asia/Kolkata", "Asia/Kathmandu", "Pacific/Chatham",
         "Africa/Cairo"]  # fmt: skip
MOMENTS = st.timedeltas(dt.timedelta(0), dt.timedelta(days=40 * 365)).map(
    dt.datetime(1995, 1, 1, tzinfo=UTC).__add__
)


def dagster_partitions(time: TimeSpec) -> dg.TimeWindowPartitionsDefinition:
    end = time.end.isoformat() if time.end else None
    start = first_window(time).key
    match time.granularity:
        case "hour":
            return dg.HourlyPartitionsDefinition(
                f"{time.start}-00:00", end and f"{end}-00:00", timezone=time.zone
            )
        case "day":
            return dg.DailyPartitionsDefinition(time.start.isoformat(), end, timezone=time.zone)
        case "week":
            return dg.WeeklyPartitionsDefinition(start, end, timezone=time.zone, day_offset=1)
        case "month":
            return dg.MonthlyPartitionsDefinition(start, end, timezone=time.zone)


# Hours of Lord Howe are refused by the spec: Dagster's drift off the clock there.
@pytest.mark.parametrize(
    ("zone", "granularity"),
    [
        (zone, granularity)
        for zone in ZONES
        for granularity in ("hour", "day", "week", "month")
        if (zone, granularity) != ("Australia/Lord_Howe", "hour")
    ],
)
@pytest.mark.parametrize("end", [None, "2025-01-01", "2024-12-18"])
def test_complete_windows_are_the_partitions_of_dagster(
    zone: str, granularity: str, end: str | None
) -> None:
    start = "2024-02-20" if granularity != "hour" else "2024-10-01"
    time = time_spec(zone, granularity, start, end=end)
    now = dt.datetime(2024, 12, 24, 13, 30, tzinfo=UTC)
    partitions = dagster_partitions(time)

    ours = complete_windows(time, now)

    keys = partitions.get_partition_keys(current_time=now)
    assert [window.key for window in ours] == keys
    for window in ours[:: max(1, len(ours) // 50)]:
        theirs = partitions.time_window_for_partition_key(window.key)
        assert window.start.timestamp() == theirs.start.timestamp()
        assert window.end.timestamp() == theirs.end.timestamp()


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "America/Havana"])
def test_hourly_keys_equal_dagsters_through_both_clock_changes(zone: str) -> None:
    for start, end in [("2024-03-09", "2024-04-02"), ("2024-10-26", "2024-11-05")]:
        time = time_spec(zone, "hour", start, end=end)
        now = dt.datetime(2025, 1, 1, tzinfo=UTC)

        assert [w.key for w in complete_windows(time, now)] == dagster_partitions(
            time
        ).get_partition_keys(current_time=now)


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("America/New_York", "2024-03-10", 23),
        ("America/New_York", "2024-11-03", 25),
        ("Europe/Berlin", "2024-03-31", 23),
        ("Europe/Berlin", "2024-10-27", 25),
        ("Australia/Lord_Howe", "2024-04-07", 24.5),
        ("Australia/Lord_Howe", "2024-10-06", 23.5),
        ("America/Santiago", "2024-09-08", 23),
    ],
)
def test_days_are_shorter_and_longer_when_clocks_change(zone: str, day: str, hours: float) -> None:
    window = window_from_key(time_spec(zone), day)

    assert (window.end - window.start) == dt.timedelta(hours=hours)


def test_the_repeated_hour_is_two_windows_and_the_second_names_its_offset() -> None:
    time = time_spec("America/New_York", "hour")
    day = window_from_key(time_spec("America/New_York"), "2024-11-03")

    keys = [window.key for window in windows_between(time, day.start, day.end)]

    assert len(keys) == len(set(keys)) == 25
    assert keys[:4] == [
        "2024-11-03-00:00",
        "2024-11-03-01:00",
        "2024-11-03-01:00-0500",
        "2024-11-03-02:00",
    ]


@pytest.mark.parametrize(
    ("granularity", "first"),
    [("day", "2024-02-21"), ("week", "2024-02-19"), ("month", "2024-02-01")],
)
def test_the_first_window_holds_the_first_day_of_production(granularity: str, first: str) -> None:
    time = time_spec("Europe/Berlin", granularity, "2024-02-21")
    assert first_window(time).key == first
    assert complete_windows(time, dt.datetime(2024, 4, 1, tzinfo=UTC))[0].key == first


def test_weeks_begin_on_monday() -> None:
    window = window_containing(
        time_spec(granularity="week"), dt.datetime(2024, 5, 5, 23, tzinfo=UTC)
    )

    assert window.key == "2024-04-29"
    assert window.end == dt.datetime(2024, 5, 6, tzinfo=UTC)


@given(
    moment=MOMENTS,
    zone=st.sampled_from(ZONES),
    granularity=st.sampled_from(["hour", "day", "week", "month"]),
)
def test_every_moment_is_in_exactly_one_window(
    moment: dt.datetime, zone: str, granularity: str
) -> None:
    time = time_spec(zone, granularity)

    window = window_containing(time, moment)

    assert window.start <= moment < window.end
    assert window_containing(time, window.start) == window
    assert window_containing(time, window.end).start == window.end
    assert windows_between(time, window.start, window.end) == [window]


@given(moment=MOMENTS, zone=st.sampled_from([z for z in ZONES if z != "Australia/Lord_Howe"]),
       granularity=st.sampled_from(["hour", "day", "week", "month"]))  # fmt: skip
def test_a_key_leads_back_to_its_window(moment: dt.datetime, zone: str, granularity: str) -> None:
    time = time_spec(zone, granularity)
    window = window_containing(time, moment)

    assert window_from_key(time, window.key) == window


@given(start=MOMENTS, hours=st.integers(0, 24 * 120), zone=st.sampled_from(ZONES))
def test_windows_between_touch_and_start_within_the_bounds(
    start: dt.datetime, hours: int, zone: str
) -> None:
    time, end = time_spec(zone), start + dt.timedelta(hours=hours)

    windows = windows_between(time, start, end)

    assert all(start <= window.start < end for window in windows)
    assert all(a.end == b.start for a, b in itertools.pairwise(windows))
    assert window_containing(time, end).start <= (windows[-1].end if windows else end)


def test_a_day_that_a_zone_skipped_is_no_window() -> None:
    # Samoa went from 29 to 31 December 2011 when it crossed the date line.
    time = time_spec("Pacific/Apia", start="2011-12-28")
    start = dt.datetime(2011, 12, 29, tzinfo=ZoneInfo("Pacific/Apia"))

    keys = [w.key for w in windows_between(time, start, start + dt.timedelta(days=4))]

    assert "2011-12-30" not in keys
    assert {"2011-12-29", "2011-12-31", "2012-01-01"} <= set(keys)


@pytest.mark.parametrize(
    ("granularity", "key"),
    [
        ("day", "2024-02-30"),
        ("day", "2024-2-3"),
        ("day", "2024-02-03-00:00"),
        ("day", "20240203"),
        ("day", ""),
        ("day", "../../etc"),
        ("week", "2024-05-01"),
        ("month", "2024-05-02"),
        ("hour", "2024-05-01"),
        ("hour", "2024-05-01-00:30"),
        ("hour", "2024-05-01-00:00+0000"),
        ("hour", "2024-05-01-00:00+junk"),
        ("day", "0001-01-01"),
    ],
)
def test_a_key_of_another_form_is_refused(granularity: str, key: str) -> None:
    with pytest.raises(ConfigError, match="is not the key of a"):
        window_from_key(time_spec(granularity=granularity), key)


def test_an_hour_that_the_clock_skips_has_no_key() -> None:
    with pytest.raises(ConfigError, match="is not the key"):
        window_from_key(time_spec("America/New_York", "hour"), "2024-03-10-02:00")


@pytest.mark.parametrize(
    "moment",
    [
        dt.datetime(2024, 1, 1),  # noqa: DTZ001
        dt.datetime.max.replace(tzinfo=UTC),
        dt.datetime.min.replace(tzinfo=UTC),
    ],
)
def test_a_moment_without_zone_or_year_is_refused(moment: dt.datetime) -> None:
    with pytest.raises((ValueError, OverflowError)):
        window_containing(time_spec("America/New_York"), moment)


def test_production_windows_end_before_time_end() -> None:
    time = time_spec("America/New_York", start="2013-04-01", end="2014-01-01")

    windows = complete_windows(time, dt.datetime(2026, 1, 1, tzinfo=UTC))

    assert len(windows) == 275
    assert windows[0] == first_window(time)
    assert windows[-1].end == production_end(time)


def test_a_window_that_still_runs_is_not_complete() -> None:
    time = time_spec(start="2024-01-01")
    end = dt.datetime(2024, 1, 3, tzinfo=UTC)

    assert [w.key for w in complete_windows(time, end)] == ["2024-01-01", "2024-01-02"]
    assert len(complete_windows(time, end - dt.timedelta(microseconds=1))) == 1
    assert complete_windows(time, dt.datetime(2023, 1, 1, tzinfo=UTC)) == []


def test_a_roll_up_contains_the_whole_month_that_a_day_falls_into() -> None:
    time = time_spec("Europe/Berlin")
    start = dt.datetime(2024, 3, 20, tzinfo=UTC)

    months = granularity_windows(time, "month", start, start + dt.timedelta(days=20))

    assert [m.key for m in months] == ["2024-03-01", "2024-04-01"]
    assert granularity_windows(time, "month", start, start) == []


def test_window_date_is_the_local_date_of_the_start() -> None:
    time = time_spec("America/New_York", "hour")
    late_evening = window_containing(time, dt.datetime(2024, 1, 2, 3, tzinfo=UTC))
    gap = time_spec("America/Santiago")

    assert window_date(time, late_evening) == "2024-01-01"
    assert window_date(gap, window_from_key(gap, "2024-09-08")) == "2024-09-08"


def test_too_many_hours_are_refused_with_a_start_that_works() -> None:
    now = dt.datetime(2026, 1, 1, tzinfo=UTC)
    time = time_spec(granularity="hour", start="2020-01-01")
    with pytest.raises(ConfigError, match=r"more than 25,000\. Move time\.start to 2023-02-2\d"):
        check_window_count(time, now)

    check_window_count(time_spec(granularity="hour", start="2023-02-26"), now)
    check_window_count(time_spec(granularity="day", start="1990-01-01"), now)


def test_an_hour_that_comes_twice_is_named_with_its_offset() -> None:
    hours = pd.Series(pd.date_range("2026-10-25T00:00Z", periods=3, freq="h"))
    assert list(hours_of(hours.dt.tz_convert("Europe/Berlin"))) == [
        "2026-10-25 02:00+0200", "2026-10-25 02:00+0100", "2026-10-25 03:00",
    ]  # fmt: skip


def test_windows_sort_by_time() -> None:
    windows = complete_windows(time_spec(), dt.datetime(2024, 2, 1, tzinfo=UTC))

    assert sorted(reversed(windows)) == windows
