"""Events find the window that the spec's own calendar gives them, also where clocks change."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.ingest.rows.canonical import as_times, place
from mlmon_dagster.spec import window_containing, window_date
from mlmon_dagster.spec.declaration import TimeSpec

YEARS = (dt.datetime(2023, 1, 1), dt.datetime(2025, 1, 1))  # noqa: DTZ001
moments = st.datetimes(*YEARS, timezones=st.just(dt.UTC))


ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu",
    "Pacific/Chatham",
)  # fmt: skip
# The spec refuses hours where clocks change by half an hour.
CALENDARS = [
    (zone, grain)
    for zone in ZONES
    for grain in ("hour", "day", "week", "month")
    if (zone, grain) != ("Australia/Lord_Howe", "hour")
]


@pytest.mark.parametrize(("zone", "grain"), CALENDARS)
@settings(max_examples=15, deadline=None)
@given(found=st.lists(moments, min_size=1, max_size=6))
def test_placing_many_equals_placing_each(
    zone: str, grain: Literal["hour", "day", "week", "month"], found: list[dt.datetime]
) -> None:
    time = TimeSpec(zone=zone, granularity=grain, start=dt.date(2023, 1, 1))

    placed = place(time, as_times(found))

    expected = [window_containing(time, moment) for moment in found]
    assert [placed.windows[i] for i in placed.positions] == expected
    assert placed.starts().tolist() == [w.start.replace(tzinfo=None) for w in expected]
    assert placed.dates(time).tolist() == [window_date(time, w) for w in expected]
    assert len(set(placed.windows)) == len(placed.windows)


def test_long_and_short_days_hold_their_edges() -> None:
    time = TimeSpec(zone="Europe/Berlin", start=dt.date(2024, 1, 1))
    edges = ["2024-03-30T23:00", "2024-03-31T21:59:59.999999", "2024-03-31T22:00",
             "2024-10-26T22:00", "2024-10-27T22:59:59.999999", "2024-10-27T23:00"]  # fmt: skip

    placed = place(time, np.array(edges, dtype="datetime64[us]"))

    assert [placed.windows[i].key for i in placed.positions] == [
        "2024-03-31", "2024-03-31", "2024-04-01", "2024-10-27", "2024-10-27", "2024-10-28",
    ]  # fmt: skip


def test_stray_events_of_other_centuries_list_no_windows_between() -> None:
    time = TimeSpec(granularity="hour", start=dt.date(2024, 1, 1))
    far = np.array(["0100-01-01", "2024-01-01", "9000-01-01"], dtype="datetime64[us]")

    assert len(place(time, far).windows) == 3


def test_no_events_have_no_windows() -> None:
    placed = place(TimeSpec(start=dt.date(2024, 1, 1)), np.array([], dtype="datetime64[us]"))

    assert (placed.windows, placed.positions.tolist()) == ((), [])
