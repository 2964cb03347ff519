"""A model of weekdays through files, real tables and verdicts: weekends, Easter, a lost Monday."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.report.incident import show_days
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.state.schema import monitor_result
from tests.pipeline.looking import Place

pytestmark = pytest.mark.slow

FIRST = dt.date(2024, 3, 4)  # a Monday
SPEC = """
model: desk
task: regression
owners: [team:desk]
time: {zone: Europe/Berlin, start: 2024-03-04}
source:
  predictions: {path: landing/predictions/*.parquet, settle: 0s}
columns: {prediction_id: id, event_time: at, dataset: dataset, prediction: p}
features:
  age: {type: numeric}
monitors:
  drift: {columns: [age]}
"""


def land(desk: Place, day: dt.date, dataset: str = "production", n: int = 40) -> None:
    """Land a day's predictions, from 8:00 to 18:02 in Berlin."""
    rng = np.random.default_rng(day.toordinal())
    opens = pd.Timestamp(day, tz="Europe/Berlin") + pd.Timedelta(hours=8)
    at = [opens + pd.Timedelta(minutes=minute) for minute in np.linspace(0, 602, n)]
    frame = pd.DataFrame(
        {
            "id": [f"{dataset}{day}{i}" for i in range(n)], "at": at, "dataset": dataset,
            "p": rng.normal(size=n), "age": rng.normal(40, 9, n),
        }
    )  # fmt: skip
    desk.land("predictions", f"{dataset}{day}", frame)


class Desk(Place):
    """The project, looked at whenever a test says."""

    def __init__(self, folder: Path, spec: str = SPEC) -> None:
        super().__init__(folder, spec, dt.datetime(2024, 3, 4, tzinfo=dt.UTC))

    def land_weekdays(self, first: dt.date, last: dt.date, dataset: str = "production") -> None:
        for day in pd.date_range(first, last):
            if day.weekday() < 5:
                land(self, day.date(), dataset)

    def look_at(self, moment: str) -> dict[str, tuple[str, str]]:
        """Look at a moment; return by date what is said of the silence, and its sentence."""
        self.now = dt.datetime.fromisoformat(moment)
        self.look()
        newest = self.newest("freshness")
        mine = newest[newest["monitor"] == "freshness/no_data_for"]
        days = mine["window_start"].dt.tz_convert("Europe/Berlin").dt.strftime("%m-%d")
        said = zip(mine["status"], mine["message"], strict=True)
        return dict(zip(days, said, strict=True))


def test_weekends_are_no_silence_and_a_monday_without_predictions_is(tmp_path: Path) -> None:
    """The first weekend is known from the baseline, and the Monday at the first look after it."""
    desk = Desk(tmp_path)
    desk.land_weekdays(dt.date(2024, 1, 15), dt.date(2024, 2, 23), "validation")
    desk.land_weekdays(FIRST, dt.date(2024, 3, 8))
    desk.look_at("2024-03-09T06:00:00+01:00")
    found = desk.look_at("2024-03-11T06:00:00+01:00")
    assert [status for status, _ in found.values()] == ["OK"] * 5 + ["NO_DATA"] * 2
    assert found["03-09"][1] == (
        "No prediction is expected on this day: Saturdays are usually empty."
    )
    states = window_state.load(desk.project.store.state, "desk")
    friday = states[dt.datetime(2024, 3, 7, 23, tzinfo=dt.UTC)]
    assert friday.first_event_time == dt.datetime(2024, 3, 8, 7, 0, tzinfo=dt.UTC)
    assert friday.last_event_time == dt.datetime(2024, 3, 8, 17, 2, tzinfo=dt.UTC)

    desk.land_weekdays(dt.date(2024, 3, 11), dt.date(2024, 3, 15))
    assert "03-18" not in desk.look_at("2024-03-19T01:59:00+01:00")  # its rows may still come
    found = desk.look_at("2024-03-19T02:00:00+01:00")
    assert {day for day, (status, _) in found.items() if status == "ERROR"} == {"03-18"}
    assert found["03-18"][1] == (
        "No prediction since Friday 2024-03-15 18:02 (Europe/Berlin); weekends are usually empty; "
        "1 expected day had no row, 30 hours without pauses; the limit is 26 hours."
    )
    # The strip of the page shows that day, though no row came: it follows the list of alerts.
    store = desk.project.store
    states = window_state.load(store.state, "desk")
    days = show_days(store, desk.spec, states, ["freshness"], desk.now)
    assert days.labels[-1] == "2024-03-18"
    assert "ERROR in 1" in days.said["freshness"]
    desk.land_weekdays(dt.date(2024, 3, 19), dt.date(2024, 3, 22))
    found = desk.look_at("2024-03-25T06:00:00+01:00")
    assert [found[f"03-{day}"][0] for day in range(18, 25)] == [
        "ERROR", "OK", "OK", "OK", "OK", "NO_DATA", "NO_DATA",
    ]  # fmt: skip


def test_easter_is_no_silence_where_the_country_is_declared(tmp_path: Path) -> None:
    """And the Tuesday after it is one, told with what of the time does not count."""
    spec = SPEC.replace("start: 2024-03-04}", "start: 2024-03-18, holidays: DE-BE}")
    desk = Desk(tmp_path, spec)
    desk.land_weekdays(dt.date(2024, 1, 15), dt.date(2024, 2, 23), "validation")
    desk.land_weekdays(dt.date(2024, 3, 18), dt.date(2024, 3, 28))
    found = desk.look_at("2024-04-02T06:00:00+02:00")
    assert [found[f"03-{day}"][0] for day in range(28, 32)] == ["OK"] + ["NO_DATA"] * 3
    assert found["04-01"] == (
        "NO_DATA",
        "No prediction is expected on this day: it is a holiday (Easter Monday).",
    )
    assert desk.look_at("2024-04-03T06:00:00+02:00")["04-02"] == (
        "ERROR",
        "No prediction since Thursday 2024-03-28 18:02 (Europe/Berlin); weekends are usually "
        "empty; holidays: Good Friday, Easter Monday; 1 expected day had no row, 30 hours without "
        "pauses; the limit is 26 hours.",
    )


def test_the_first_look_at_a_history_knows_its_weekends(tmp_path: Path) -> None:
    """Eight weeks that land at once open no episode: they are counted before silence is judged."""
    desk = Desk(tmp_path)
    desk.land_weekdays(FIRST, dt.date(2024, 4, 26))

    found = desk.look_at("2024-04-29T06:00:00+02:00")

    weekends = [day.strftime("%m-%d") for day in pd.date_range("2024-03-30", "2024-04-28")]
    weekends = [day for day in weekends if dt.date.fromisoformat(f"2024-{day}").weekday() >= 5]
    assert {found[day][0] for day in weekends} == {"NO_DATA"}
    table = monitor_result
    failed = sa.select(table.c.window_start).where(table.c.status == "ERROR")
    with desk.project.store.state.connect() as conn:
        first_weeks = dt.datetime(2024, 3, 25, tzinfo=dt.UTC)  # before they could teach anything
        assert max(conn.scalars(failed), default=first_weeks) <= first_weeks


def land_hours(desk: Place, first: pd.Timestamp, last: pd.Timestamp) -> None:
    """Land the rows of some hours as one file, ten minutes apart."""
    at = pd.date_range(first, last, freq="10min", inclusive="left")
    rng = np.random.default_rng(int(first.timestamp()))
    frame = pd.DataFrame(
        {
            "id": [f"{moment:%d%H%M}" for moment in at], "at": at, "dataset": "production",
            "p": rng.normal(size=len(at)), "age": rng.normal(40, 9, len(at)),
        }
    )  # fmt: skip
    desk.land("predictions", f"{first:%d%H}", frame)


@pytest.mark.parametrize(
    ("declared", "limit"),
    [("", "9h"), pytest.param("  freshness: {no_data_for: 5h}\n", "5h", marks=pytest.mark.proof)],
)
def test_of_hours_a_silence_is_told_after_twice_the_wait_that_is_usual(
    tmp_path: Path, declared: str, limit: str
) -> None:
    """Rows come in files of four hours, ten minutes later: the last event is up to 4.4 h old."""
    spec = SPEC.replace("start: 2024-03-04}", "start: 2024-03-04, granularity: hour}") + declared
    desk = Desk(tmp_path, spec)
    moment = pd.Timestamp(FIRST, tz="Europe/Berlin")
    stop = moment + pd.Timedelta(days=6)
    while moment < stop:
        land_hours(desk, moment, moment + pd.Timedelta(hours=4))
        moment += pd.Timedelta(hours=4)
        desk.look_at((moment + pd.Timedelta(minutes=10)).isoformat())
    hours = int(limit.removesuffix("h"))

    def failing(later: pd.Timedelta) -> list[str]:
        desk.look_at((stop + later).isoformat())
        newest = desk.newest("freshness")
        found = newest[newest["status"] == "ERROR"]
        assert found["monitor"].unique().tolist() in ([], ["freshness/no_data_for"])
        return list(found["message"])

    assert failing(pd.Timedelta(hours=hours - 1, minutes=10)) == []
    told = failing(pd.Timedelta(hours=hours + 1, minutes=10))
    assert told[0] == (
        "No prediction since Saturday 2024-03-09 23:50 (Europe/Berlin); the limit is "
        f"{hours} hours."
    )
