"""A clock that is wrong deletes nothing, and keeps nothing from being taken in or computed."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.ingest import may_have_work
from mlmon_dagster.pipeline.plan import is_up_to_date, plan
from mlmon_dagster.project import Project
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state import model_history, window_state
from mlmon_dagster.store.upkeep.integrity import repair_model
from mlmon_dagster.store.upkeep.maintenance import maintain
from tests.conftest import make_events, make_spec, window
from tests.ingest.landing import credit_spec, events, ingest, land

SPEC = make_spec(
    actuals={"closed_after": "5d"},
    retention={"production": "10d", "versions": "2d", "dead_letter": "2d"},
)
NOW = dt.datetime(2024, 1, 15, 12, tzinfo=dt.UTC)
DAY, YEAR = dt.timedelta(days=1), dt.timedelta(days=365)
DAYS = ["2024-01-02", "2024-01-08", "2024-01-14"]


def fill(store: Store, days: list[str] = DAYS) -> None:
    """Store some days, the first of them past its age."""
    log = store.event_log(SPEC)
    for day in days:
        predictions, _ = make_events(SPEC, day, 4)
        log.append("predictions", predictions, [day])
        with store.state.begin() as conn:
            window_state.mark_inputs(conn, SPEC, [window(SPEC, day)], NOW)


def dates(store: Store) -> list[str]:
    found = store.event_log(SPEC).rows("predictions", ["window_date"])["window_date"]
    return sorted(set(found.to_pylist()))


def test_upkeep_under_a_clock_a_year_ahead_deletes_nothing_young_and_says_why(
    store: Store,
) -> None:
    fill(store)
    maintain(store, SPEC, NOW - DAY)
    told = maintain(store, SPEC, NOW + YEAR)
    again = maintain(store, SPEC, NOW + YEAR)  # now the look before was ahead, too

    assert dates(store) == DAYS[1:]
    assert "when the look at the clock before this was" in next(r.why for r in told if r.why)
    assert "when the newest events was" in next(r.why for r in again if r.why)
    assert model_history.load_rows_from(store.state, SPEC.model)["production"] < NOW


def test_the_first_look_at_the_clock_deletes_nothing(store: Store) -> None:
    fill(store)
    told = maintain(store, SPEC, NOW + YEAR)

    assert dates(store) == DAYS
    assert "first look at the clock" in told[0].why


def test_rows_of_a_model_that_ended_go_by_the_events_of_the_others(store: Store) -> None:
    fill(store)
    maintain(store, SPEC, NOW - DAY)
    maintain(store, SPEC, NOW + YEAR - DAY)
    before = dates(store)
    other = make_spec(model="other")
    with store.state.begin() as conn:
        window_state.mark_inputs(conn, other, [window(other, "2025-01-14")], NOW + YEAR)
    maintain(store, SPEC, NOW + YEAR)

    assert (before, dates(store)) == (DAYS[1:], [])


def test_a_mark_of_retention_ahead_of_now_is_an_error_until_repair_moves_it_back(
    store: Store, tmp_path: Path
) -> None:
    fill(store)
    with store.state.begin() as conn:
        mark = window(SPEC, "2025-01-04").start
        model_history.move_rows_from(conn, SPEC.model, "production", mark, NOW)
    project = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    project.__dict__["store"] = store
    with pytest.raises(StoreError, match="mlmon store repair credit"):
        plan(project, SPEC, NOW)
    noticed = not is_up_to_date(project, SPEC, NOW)
    would = repair_model(store, SPEC, tmp_path, NOW, dry_run=True).done
    done = repair_model(store, SPEC, tmp_path, NOW).done
    fill(store, ["2024-01-13"])
    planned = {w.key for request in plan(project, SPEC, NOW) for w in request.windows}

    assert noticed
    assert would == done
    assert "count as deleted before 2024-01-02, no longer before 2025-01-04" in done[0]
    assert {"2024-01-13", "2024-01-14"} <= planned


def test_rows_refused_under_a_clock_that_was_behind_are_taken_in_once_it_is_right(
    store: Store, tmp_path: Path
) -> None:
    land(tmp_path, "landing/predictions/a.parquet", events(30))
    spec = credit_spec()
    right = dt.datetime(2024, 2, 10, tzinfo=dt.UTC)
    refused = ingest(store, spec, tmp_path, now=right - YEAR)
    soon = ingest(store, spec, tmp_path, now=right - YEAR + dt.timedelta(minutes=1))
    noticed = may_have_work(store, spec, tmp_path, right)
    taken = ingest(store, spec, tmp_path, now=right)

    assert sum(file.n_new for file in (*refused.files, *soon.files)) == 0
    assert (soon.files, noticed) == ((), True)
    assert sum(file.n_new for file in taken.files) == 30


@pytest.mark.parametrize("days", [0, 8])
def test_rows_for_a_window_that_a_clock_ahead_held_for_closed_are_computed_afterwards(
    store: Store, tmp_path: Path, days: int
) -> None:
    """Also if it has closed in the meantime: nobody knows that they were not in time."""
    now = NOW + days * DAY
    project = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    project.__dict__["store"] = store
    late = window(SPEC, "2024-01-14")
    with store.state.begin() as conn:
        window_state.mark_inputs(conn, SPEC, [late], NOW)
        window_state.mark_arrivals(conn, SPEC, {late: 7}, NOW + YEAR)
    before = window_state.load(store.state, SPEC.model)[late.start]
    noticed = not is_up_to_date(project, SPEC, now)
    plan(project, SPEC, now)
    after = window_state.load(store.state, SPEC.model)[late.start]

    assert noticed
    assert (before.input_revision, before.n_late_after_close) == (1, 7)
    assert (after.input_revision, after.n_late_after_close) == (2, 0)


def test_a_file_that_changed_ahead_of_the_clock_is_not_waited_for(tmp_path: Path) -> None:
    """Both of its times are of a clock that has been put back since."""
    land(tmp_path, "landing/predictions/a.parquet", events(5))
    os.utime(tmp_path / "landing/predictions/a.parquet")
    spec = credit_spec(source__predictions__settle="10m")
    counts = []
    for ago in (dt.timedelta(0), DAY):
        clock = lambda ago=ago: dt.datetime.now(dt.UTC) - ago  # noqa: E731
        store = open_store(tmp_path / f"store {ago.days}", clock=clock)
        report = ingest(store, spec, tmp_path)
        counts.append((report.n_waiting, sum(file.n_new for file in report.files)))
        store.close()

    assert counts == [(1, 0), (0, 5)]
