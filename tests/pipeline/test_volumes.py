"""What volumes are compared with: whole windows, and the last one until its last event."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mlmon_dagster.families.requests import volumes
from mlmon_dagster.spec import windows_between
from mlmon_dagster.store import Store
from mlmon_dagster.store.state.schema import window_state
from mlmon_dagster.store.state.sql import insert
from mlmon_dagster.work import Work
from tests.conftest import make_spec

FIRST, DAY, WEEK = dt.datetime(2024, 1, 1, tzinfo=dt.UTC), dt.timedelta(days=1), dt.timedelta(7)
SPEC = make_spec(time={"start": FIRST.date(), "granularity": "week"})


def described(
    store: Store, first: dt.datetime, last: dt.datetime, came: str, closed: dt.timedelta = 0 * DAY
) -> list[Any]:
    """Fill twenty weeks between a first and a last event; describe them."""
    windows = windows_between(SPEC.time, FIRST, FIRST + 20 * WEEK)
    rows = [
        {
            "model": SPEC.model, "window_start": w.start, "window_end": w.end, "n": 10,
            "first_event_time": max(first, w.start), "last_event_time": min(last, w.end - closed),
            "first_input_at": (w.end if came == "live" else windows[-1].end + 30 * DAY),
            "input_revision": 1, "computed_revision": 1,
        }
        for w in windows if w.start < last and w.end > first
    ]  # fmt: skip
    with store.state.begin() as conn:
        conn.execute(insert(conn, window_state), rows)
    work = SimpleNamespace(spec=SPEC, project=SimpleNamespace(store=store))
    return volumes(cast("Work", work), windows)


@pytest.mark.parametrize(
    ("came", "short", "closed", "covered"),
    [
        ("imported", 4 * DAY, 0 * DAY, 3 / 7),
        ("live", 4 * DAY, 0 * DAY, 1.0),  # what is missing in a week that was watched is a drop
        ("imported", 2 * DAY, 2 * DAY, 1.0),  # it closes early, as all do
        ("imported", DAY / 2, 0 * DAY, 1.0),  # it all but ends with its events
    ],
)
def test_the_last_week_of_an_import_is_as_long_as_its_events(
    store: Store, came: str, short: dt.timedelta, closed: dt.timedelta, covered: float
) -> None:
    found = described(store, FIRST, FIRST + 20 * WEEK - short, came, closed)

    assert found[-1]["covered"] == pytest.approx(covered)
    assert {one["covered"] for one in found[:-1]} == {1.0}
    assert len(found[-1]["earlier_sizes"]) == 19


def test_a_first_week_that_begins_late_is_nothing_to_compare_with(store: Store) -> None:
    found = described(store, FIRST + 2 * DAY, FIRST + 20 * WEEK, "live")

    assert len(found[-1]["earlier_sizes"]) == 18
