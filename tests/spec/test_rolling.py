"""Which earlier windows a window is compared with."""

from __future__ import annotations

import datetime as dt

from mlmon_dagster.spec import complete_windows
from mlmon_dagster.spec.baseline import BaselineSpec
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.spec.windows import EarlierWindows
from tests.conftest import make_spec

DAYS = TimeSpec(zone="America/New_York", granularity="day", start=dt.date(2024, 1, 1))
HOURS = TimeSpec(zone="America/New_York", granularity="hour", start=dt.date(2024, 3, 1))
ALL_DAYS = complete_windows(DAYS, dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC))


def keys(time, choice, key, windows=None):
    windows = ALL_DAYS if windows is None else windows
    start = next(w.start for w in ALL_DAYS if w.key == key)
    return [w.key for w in EarlierWindows(choice, time, windows).before(start)]


def test_a_moving_baseline_spans_the_days_before_its_gap_across_a_change_of_clocks():
    found = keys(
        DAYS, BaselineSpec(moving=dt.timedelta(days=28), gap=dt.timedelta(days=2)), "2024-03-20"
    )
    assert (found[0], found[-1], len(found)) == ("2024-02-19", "2024-03-17", 28)


def test_previous_is_the_last_window_that_has_rows():
    without = [w for w in ALL_DAYS if w.key not in ("2024-04-08", "2024-04-09")]
    assert keys(DAYS, BaselineSpec(previous=True), "2024-04-10", without) == ["2024-04-07"]


def test_the_same_weekday_is_that_of_the_weeks_before():
    found = keys(DAYS, BaselineSpec(same="weekday", weeks=3), "2024-04-10")
    assert found == ["2024-03-20", "2024-03-27", "2024-04-03"]


def test_the_same_hour_follows_the_clock_and_not_utc():
    hours = complete_windows(HOURS, dt.datetime(2024, 3, 13, tzinfo=dt.UTC))
    noon = next(w for w in hours if w.start == dt.datetime(2024, 3, 12, 16, tzinfo=dt.UTC))
    found = EarlierWindows(BaselineSpec(same="hour", weeks=1), HOURS, hours).before(noon.start)
    assert [w.start.hour for w in found] == [
        17,
        17,
        17,
        17,
        17,
        16,
        16,
    ]  # clocks changed on the 10th


def test_a_window_is_never_compared_with_itself_or_a_later_one():
    for choice in (
        BaselineSpec(moving=dt.timedelta(days=7)),
        BaselineSpec(previous=True),
        BaselineSpec(same="weekday"),
        BaselineSpec(model_version="3"),
    ):
        earlier = EarlierWindows(choice, DAYS, ALL_DAYS)
        for window in ALL_DAYS:
            assert all(w.end <= window.start for w in earlier.before(window.start))


def test_a_model_whose_events_name_no_dataset_is_compared_with_its_last_28_days():
    spec = make_spec(
        columns={"prediction_id": "id", "event_time": "at", "score": "score"},
        source={"predictions": {"path": "x/*.parquet"}},
        monitors={},
    )
    assert spec.baseline.moving == dt.timedelta(days=28)
    assert spec.baseline.windows_needed("day") == 14
