"""Volume and silence on public holidays, of a declared country and without one."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.alerts.lifecycle.transitions import AlertState, Verdict, step
from mlmon_dagster.metrics.service import is_passing
from mlmon_dagster.spec import windows_between
from mlmon_dagster.spec.holidays import holiday_problem, name_holidays
from mlmon_dagster.spec.windows import holidays_of_windows
from tests.conftest import make_spec
from tests.monitors.calendars import COUNTRIES
from tests.monitors.cases import verdicts, window
from tests.monitors.test_volume_and_repeats import STEADY, volume

FIRST = dt.datetime(2023, 1, 2, tzinfo=dt.UTC)
DAYS = 700
# The one with the most holidays after each other; the others are in the proofs.
DRAWN = ["JP", *(pytest.param(c, marks=pytest.mark.proof) for c in COUNTRIES if c != "JP")]


def draw_volumes(country: str, seed: int) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Two years of days that grow, calmer on weekends, and nearly still on holidays."""
    rng = np.random.default_rng(seed)
    spec = make_spec(time={"start": FIRST.date(), "holidays": country})
    windows = windows_between(spec.time, FIRST, FIRST + dt.timedelta(days=DAYS))
    holidays = holidays_of_windows(spec.time, windows)
    days = np.arange(DAYS)
    mean = rng.uniform(300, 3_000) * np.exp(rng.uniform(-0.3, 1) * days / 365)
    mean *= np.where(days % 7 >= 5, rng.uniform(0.2, 1), 1) * np.exp(rng.normal(0, 0.08, DAYS))
    mean[list(holidays)] *= rng.uniform(0.05, 0.3, len(holidays))
    sizes = rng.poisson(mean) + 1
    return [
        window(pd.Timestamp(w.start), n=int(n), place=i % 7)
        for i, (w, n) in enumerate(zip(windows, sizes, strict=True))
    ], holidays


def judge(rows: list[dict[str, Any]], left_out: dict[int, str]) -> list[dict[str, Any]]:
    """Judge volumes as the pipeline hands them over: four weeks before each, without holidays."""
    for i, row in enumerate(rows):
        mine = [j for j in range(max(i - 28, 0), i) if j not in left_out]
        row |= {
            "earlier_places": np.array([rows[j]["place"] for j in mine], dtype=np.int64),
            "earlier_sizes": np.array([rows[j]["n"] for j in mine], dtype=np.int64),
            "holiday": left_out.get(i, ""),
        }
    return [r for r in verdicts("service", [], rows) if r["metric"] == "volume_drop"]


@pytest.mark.parametrize("country", DRAWN)
def test_holidays_of_a_declared_country_are_no_alert_of_volume(country: str) -> None:
    """Two drawn years each; what fails is nothing, and what would fail says which day it is."""
    rows, holidays = draw_volumes(country, 3)
    judged = judge(rows, holidays)
    assert {row["status"] for row in judged} == {"OK", "NO_DATA"}
    excused = [row for row in judged if row["status"] == "NO_DATA"]
    assert len(excused) > 0.5 * len(holidays)
    assert {row["reason"] for row in excused} == {"holiday"}
    assert all("it is a holiday (" in row["message"] for row in excused)


@pytest.mark.parametrize("country", DRAWN)
def test_without_a_country_the_next_usual_day_ends_what_a_holiday_began(country: str) -> None:
    """Also at Easter and at the end of the year, where holidays follow each other in a few days."""
    rows, holidays = draw_volumes(country, 4)
    start = {pd.Timestamp(row["window_start"]): i for i, row in enumerate(rows)}
    alert, n_opened = AlertState(), 0
    for number, row in enumerate(judge(rows, {})):
        day = start[pd.Timestamp(row["window_start"])]
        verdict = Verdict(
            row["window_start"], row["status"], number, row["excess"], row["excess_error"]
        )
        alert, events = step(alert, verdict)
        n_opened += "opened" in events
        if row["status"] == "ERROR":
            assert day in holidays
        elif day - 1 in holidays or day not in holidays:
            assert not alert.active, (country, row["window_start"])
    assert n_opened > 5


def test_what_is_low_every_other_day_is_one_condition_and_not_many() -> None:
    alternating = np.tile([0.0, 0.8], 14)
    assert not is_passing(alternating, 0.5)
    assert is_passing(alternating[:6], 0.5)
    assert is_passing(np.array([0.0, 0.1, 0.8, 0.8, 0.8]), 0.5)
    assert not is_passing(np.array([0.0, 0.6, 0.4]), 0.5)  # it hovers about the limit
    assert is_passing(np.full(3, 0.9), 0.5)


def test_a_drop_on_a_holiday_is_no_data_and_names_it() -> None:
    (row,) = volume(n=300, holiday="Easter Monday")
    assert (row["status"], row["reason"]) == ("NO_DATA", "holiday")
    assert row["message"] == (
        "300 predictions, 67 % fewer than the usual 900 of such a day; it is a holiday (Easter "
        "Monday), so that is no alert."
    )
    assert volume(n=890, holiday="Easter Monday")[0]["status"] == "OK"


def test_the_least_number_of_predictions_is_not_asked_for_on_a_holiday() -> None:
    model = make_spec(monitors={"service": {"n": {"below": 500}}})
    for holiday, status in (("", "ERROR"), ("Easter Monday", "NO_DATA")):
        rows = verdicts("service", [], [window(n=300, holiday=holiday)], model=model)
        (row,) = [r for r in rows if r["metric"] == "n"]
        assert row["status"] == status


@pytest.mark.parametrize(("covered", "status"), [(1.0, "ERROR"), (3 / 7, "OK")])
def test_the_last_week_of_an_export_is_as_long_as_its_events(covered: float, status: str) -> None:
    """Of a week of which three days are there, three sevenths are usual."""
    steady = STEADY | {"earlier_places": np.zeros(28, dtype=np.int64)}
    (row,) = volume(**(steady | {"n": 380, "covered": covered}))
    assert row["status"] == status
    assert row["message"].endswith(
        "usual 900 of such a day."
        if covered == 1
        else "usual 385 of such a day until its last event."
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("DE-BE", None),
        ("JP", None),
        ("2026-12-24", None),
        ("Germany", "no country whose holidays are known; write its two letters"),
        ("de", "did you mean 'DE'?"),
        ("2026-13-24", "or a date, 2026-12-24"),
        ("DE-BX", "DE has no region 'BX' with holidays; DE has BB, BE, BW"),
        ("DE-", "DE has no region ''"),
        ("VA-RO", "write VA alone"),
    ],
)
def test_a_country_or_day_that_is_not_known_is_refused_with_what_to_write(
    entry: str, said: str | None
) -> None:
    problem = holiday_problem(entry)
    assert problem is None if said is None else said in str(problem)


def test_holidays_of_several_regions_and_days_are_taken_together() -> None:
    """Names are English; a day of one's own has none."""
    found = name_holidays(["DE-BE", "US", "2024-12-24"], dt.date(2024, 3, 1), dt.date(2025, 1, 1))
    assert found[dt.date(2024, 4, 1)] == "Easter Monday"
    assert found[dt.date(2024, 7, 4)] == "Independence Day"
    assert found[dt.date(2024, 12, 24)] == "a declared day"
    assert found[dt.date(2025, 1, 1)] == "New Year's Day"
    assert dt.date(2024, 1, 1) not in found
