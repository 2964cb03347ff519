"""Ground truth that is late, early, never expected, or too late."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence

import pyarrow as pa
import pytest

from mlmon_dagster.spec.windows import is_imported
from mlmon_dagster.store import Store
from mlmon_dagster.store.reading import measure_lags
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.upkeep.maintenance import count_unmatched, settle_unmatched
from tests.conftest import make_events, make_spec, window

NOW = dt.datetime(2024, 1, 3, tzinfo=dt.UTC)
CLOSED = NOW + dt.timedelta(days=40)
ACTUALS = {"closed_after": "30d"}


def arrive(store: Store, day: str, n: int, now: dt.datetime) -> None:
    spec = make_spec(actuals=ACTUALS)
    with store.state.begin() as conn:
        window_state.mark_arrivals(conn, spec, {window(spec, day): n}, now)


def state_of(store: Store, day: str) -> window_state.WindowInputs:
    spec = make_spec()
    return window_state.load(store.state, spec.model)[window(spec, day).start]


def test_what_arrives_after_a_window_closed_is_counted_and_changes_nothing(
    any_store: Store,
) -> None:
    arrive(any_store, "2024-01-01", 10, NOW)
    arrive(any_store, "2024-01-01", 3, CLOSED)
    arrive(any_store, "2024-01-01", 4, CLOSED)
    state = state_of(any_store, "2024-01-01")
    assert (state.input_revision, state.n_late_after_close) == (1, 7)


def test_history_that_is_imported_late_has_as_much_time_as_what_was_watched_live(
    store: Store,
) -> None:
    arrive(store, "2024-01-01", 10, CLOSED)
    arrive(store, "2024-01-01", 3, CLOSED + dt.timedelta(days=29))
    assert state_of(store, "2024-01-01").input_revision == 2
    arrive(store, "2024-01-01", 3, CLOSED + dt.timedelta(days=30))
    assert state_of(store, "2024-01-01").input_revision == 2


def test_a_reopened_window_takes_in_what_came_late_until_it_is_closed_again(
    any_store: Store,
) -> None:
    spec = make_spec(actuals=ACTUALS)
    day = window(spec, "2024-01-01")
    arrive(any_store, "2024-01-01", 10, NOW)
    arrive(any_store, "2024-01-01", 3, CLOSED)
    with any_store.state.begin() as conn:
        assert window_state.reopen_windows(conn, spec, [day], CLOSED) == 1
    assert state_of(any_store, "2024-01-01").input_revision == 2
    arrive(any_store, "2024-01-01", 1, CLOSED)
    assert state_of(any_store, "2024-01-01").input_revision == 3
    with any_store.state.begin() as conn:
        assert window_state.close_windows(conn, spec, [day]) == 1
    arrive(any_store, "2024-01-01", 1, CLOSED)
    assert state_of(any_store, "2024-01-01").input_revision == 3


def test_windows_of_the_baseline_never_freeze(store: Store) -> None:
    arrive(store, "2023-11-01", 10, NOW)
    arrive(store, "2023-11-01", 10, CLOSED)
    assert state_of(store, "2023-11-01").input_revision == 2


@pytest.mark.parametrize("at_once", [1_000_000, 10])
def test_lags_tell_when_ground_truth_was_known_and_when_it_arrived(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("mlmon_dagster.store.reading.LAGS_AT_ONCE", at_once)
    spec = make_spec(actuals={"no_actual_when": "region = 'north' and status = 'ok'"})
    predictions, actuals = make_events(spec, n=40)
    log = store.event_log(spec)
    log.append("predictions", predictions, ["p"])
    log.append("actuals", actuals.slice(0, 20), ["a"])
    day = window(spec, "2024-01-01")
    store.inference_records(spec).rebuild([day])
    found = measure_lags(store, spec, [day], NOW + dt.timedelta(days=30))[day.start]
    north = sum(r == "north" for r in predictions.column("region").to_pylist()[20:])
    assert found.n_exempt == north
    lags = json.loads(found.lags)
    assert lags["known_hours"] == {"p50": 24.0, "p90": 24.0, "p99": 24.0, "max": 24.0}
    assert set(lags["arrived_hours"]) == {"p50", "p90", "p99", "max"}


def test_early_ground_truth_moves_to_its_prediction_when_that_comes(store: Store) -> None:
    spec = make_spec()
    predictions, actuals = make_events(spec)
    log = store.event_log(spec)
    log.append("actuals", actuals, ["a"])
    assert count_unmatched(store, spec).n_waiting == 20
    log.append("predictions", predictions.slice(0, 15), ["p"])
    settled = settle_unmatched(store, spec, NOW)
    assert (settled.n_waiting, settled.n_placed, settled.n_expired) == (5, 15, 0)
    day = window(spec, "2024-01-01")
    (counts,) = store.inference_records(spec).rebuild([day])
    assert (counts.n, counts.n_actual) == (15, 15)
    assert log.rows("actuals").num_rows == 20


def test_a_move_that_was_interrupted_leaves_no_row_twice(store: Store) -> None:
    spec = make_spec()
    predictions, actuals = make_events(spec)
    log = store.event_log(spec)
    log.append("actuals", actuals, ["a"])
    log.append("predictions", predictions, ["p"])
    stored = log.rows("actuals")
    placed = stored.set_column(
        stored.schema.get_field_index("window_date"),
        "window_date",
        pa.array(["2024-01-01"] * stored.num_rows),
    )
    log.folders["actuals"].ensure().append(placed)  # as a process killed in between leaves it
    settle_unmatched(store, spec, NOW)
    assert log.rows("actuals").num_rows == 20
    assert count_unmatched(store, spec).n_waiting == 0


def test_ground_truth_that_waited_too_long_is_set_aside_and_still_found(store: Store) -> None:
    spec = make_spec()
    predictions, actuals = make_events(spec)
    log = store.event_log(spec)
    log.append("actuals", actuals, ["a"])
    late = NOW + dt.timedelta(days=91)
    settled = settle_unmatched(store, spec, late)
    assert (settled.n_waiting, settled.n_expired) == (0, 20)
    assert settle_unmatched(store, spec, late) == settled
    log.append("predictions", predictions, ["p"])
    assert settle_unmatched(store, spec, late).n_placed == 20
    (counts,) = store.inference_records(spec).rebuild([window(spec, "2024-01-01")])
    assert counts.n_actual == 20


# Whether a window is history


def history_of(
    store: Store, arrivals: dict[str, dt.datetime], *, asked_for: Sequence[str] = ()
) -> list[str]:
    """Let the first rows of days come at some moments; return the days that are history."""
    spec = make_spec(actuals=ACTUALS)
    for day, now in sorted(arrivals.items(), key=lambda item: item[1]):
        arrive(store, day, 10, now)
    windows = {day: window(spec, day) for day in sorted(arrivals)}
    with store.state.begin() as conn:
        asked = [windows[day] for day in asked_for]
        window_state.note_history(conn, spec, list(windows.values()), asked)
        found = window_state.find_imported(conn, spec, list(windows.values()))
    return [day for day, one in windows.items() if one.start in found]


def after(day: str, days: float) -> dt.datetime:
    return window(make_spec(), day).end + dt.timedelta(days=days)


def test_a_year_that_is_imported_is_history_up_to_the_day_before(any_store: Store) -> None:
    """Also its last days, whose rows came within a week: nobody watched then."""
    import_day = after("2024-03-10", 0.5)
    days = {f"2024-03-{n:02d}": import_day for n in range(1, 11)}
    days |= {"2024-03-11": after("2024-03-11", 0.1)}

    assert history_of(any_store, days) == [f"2024-03-{n:02d}" for n in range(1, 11)]


def test_a_week_taken_in_at_once_or_a_job_that_was_down_for_three_days_is_no_history(
    store: Store,
) -> None:
    week = {f"2024-03-{n:02d}": after("2024-03-07", 0.5) for n in range(1, 8)}
    down = {f"2024-03-{n:02d}": after("2024-03-11", 0.5) for n in range(8, 12)}

    assert history_of(store, week | down) == []


def test_rows_that_come_weeks_after_their_day_are_imported(store: Store) -> None:
    """With a declared lateness they are only late."""
    days = {"2024-03-01": after("2024-03-01", 0.1), "2024-03-02": after("2024-03-02", 20)}

    assert history_of(store, days) == ["2024-03-02"]
    patient = make_spec(time={"start": "2024-01-01", "allowed_lateness": "14d"})
    assert not is_imported(patient, after("2024-03-02", 0), after("2024-03-02", 20), None)


def test_a_window_stays_what_it_was_when_it_was_first_computed(store: Store) -> None:
    """Late truth, or older windows that are imported later, make no history of it."""
    assert history_of(store, {"2024-03-01": after("2024-03-01", 0.1)}) == []
    later = {"2024-01-05": after("2024-03-02", 0), "2024-03-01": after("2024-03-20", 0)}
    assert history_of(store, later) == ["2024-01-05"]


def test_windows_that_a_person_asked_for_first_are_history(store: Store) -> None:
    days = {f"2024-03-{n:02d}": after(f"2024-03-{n:02d}", 0.1) for n in (1, 2, 3)}

    assert history_of(store, days, asked_for=["2024-03-01"]) == ["2024-03-01"]
    assert history_of(store, days, asked_for=["2024-03-02"]) == ["2024-03-01"]
