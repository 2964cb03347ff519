"""Events that people know of: on which days they are, once or again and again."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.known_events import KnownEvent, find_known, list_days
from tests.conftest import make_spec

DAY = dt.timedelta(days=1)
days = st.dates(dt.date(2000, 1, 1), dt.date(2060, 12, 31))


def event(first: dt.date, n: int = 1, every: str | None = None) -> KnownEvent:
    last = first + (n - 1) * DAY
    return KnownEvent.model_validate({"name": "promo", "from": first, "to": last, "every": every})


@given(days, st.integers(1, 60), st.integers(-100, 100))
def test_an_event_that_happens_once_is_on_its_days_alone(first: dt.date, n: int, away: int) -> None:
    found = event(first, n).find_start(first + away * DAY)
    assert found == (first if 0 <= away < n else None)


@given(days, st.integers(1, 7), days)
def test_a_weekly_event_is_on_its_weekdays(first: dt.date, n: int, day: dt.date) -> None:
    is_on = day >= first and (day - first).days % 7 < n
    assert (event(first, n, "week").find_start(day) is not None) == is_on


@given(days, st.integers(1, 20), st.integers(0, 40))
def test_a_yearly_event_comes_again_on_the_same_day_of_the_year(
    first: dt.date, n: int, years: int
) -> None:
    if (first.month, first.day) == (2, 29):
        first -= DAY
    again = first.replace(year=first.year + years)
    known = event(first, n, "year")
    assert known.find_start(again) == known.find_start(again + (n - 1) * DAY) == again
    assert known.find_start(again - DAY) is None
    assert known.find_start(again + n * DAY) is None


def test_a_day_that_a_month_does_not_have_is_its_last_one() -> None:
    paid = event(dt.date(2026, 1, 31), 2, "month")
    on = [dt.date(2026, 2, 28), dt.date(2026, 3, 1), dt.date(2026, 4, 30), dt.date(2028, 2, 29)]
    assert [paid.find_start(day) is not None for day in on] == [True] * 4
    assert paid.find_start(dt.date(2026, 3, 2)) is None
    leap = event(dt.date(2024, 2, 29), 1, "year")
    assert leap.find_start(dt.date(2025, 2, 28)) == dt.date(2025, 2, 28)


def test_a_window_is_of_the_local_days_that_it_has_a_part_of() -> None:
    start = dt.datetime(2026, 11, 26, 23, tzinfo=dt.UTC)  # midnight in Berlin
    assert list_days(start, start + DAY, "Europe/Berlin") == [dt.date(2026, 11, 27)]
    assert len(list_days(start, start + DAY, "UTC")) == 2
    known = [event(dt.date(2026, 11, 27))]
    assert find_known(known, "drift", [dt.date(2026, 11, 27)]) == known[0]
    assert find_known(known, "service", [dt.date(2026, 11, 27)]) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"to": "2026-11-01"}, "is before from"),
        ({"to": "2028-11-01"}, "new baseline"),
        ({"explains": ["drfit"]}, "did you mean 'drift'"),
        ({"name": "a/b"}, "pattern"),
        ({"every": "day"}, "'week', 'month' or 'year'"),
    ],
)
def test_an_event_that_cannot_be_is_refused_in_words(changes: dict[str, object], said: str) -> None:
    one = {"name": "promo", "from": "2026-11-27", "to": "2026-11-30", **changes}
    with pytest.raises((ConfigError, ValueError), match=said):
        make_spec(events=[one])
