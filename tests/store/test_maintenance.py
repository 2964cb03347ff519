"""Rows go by age, small files are merged, old versions are removed; numbers stay."""

import datetime as dt

from mlmon_dagster.store import Store
from mlmon_dagster.store.state import model_history
from mlmon_dagster.store.upkeep.maintenance import maintain
from tests.conftest import make_events, make_spec, window

SPEC = make_spec(
    actuals={"closed_after": "5d"},
    retention={"production": "10d", "versions": "1d", "quarantine": "1d", "dead_letter": "1d"},
)
NOW = dt.datetime(2024, 1, 15, 12, tzinfo=dt.UTC)
DAYS = ["2024-01-01", "2024-01-04", "2024-01-05", "2024-01-14"]


def fill(store: Store) -> None:
    """Store four days in small files; the first two are past their age."""
    log = store.event_log(SPEC)
    for day in DAYS:
        for number in range(5):
            predictions, actuals = make_events(SPEC, day, 4, prefix=f"{number}-")
            log.append("predictions", predictions, [f"{day}-{number}"])
            log.append("actuals", actuals, [f"{day}-{number}"])
    store.inference_records(SPEC).rebuild([window(SPEC, day) for day in DAYS])
    model_history.note_upkeep(store.state, SPEC.model, NOW, NOW)


def days_of(store: Store) -> list[str]:
    dates = store.inference_records(SPEC).read(columns=["window_date"]).column(0).to_pylist()
    return sorted(set(dates))


def test_a_dry_run_tells_all_and_changes_nothing(store: Store) -> None:
    fill(store)
    told = maintain(store, SPEC, NOW, dry_run=True)
    assert days_of(store) == DAYS
    assert model_history.load_rows_from(store.state, SPEC.model) == {}
    rows = {removal.what: removal.rows for removal in told}
    assert rows["predictions of production before 2024-01-05"] == 40
    assert rows["records of production before 2024-01-05"] == 40
    assert {r.what: r.rows for r in maintain(store, SPEC, NOW)} == rows


def test_rows_past_their_age_go_and_the_rest_stays(store: Store) -> None:
    fill(store)
    maintain(store, SPEC, NOW)
    assert days_of(store) == DAYS[2:]
    marks = model_history.load_rows_from(store.state, SPEC.model)
    assert marks == {"production": window(SPEC, "2024-01-05").start}
    log = store.event_log(SPEC)
    assert log.rows("predictions").num_rows == 40
    assert log.committed("predictions", ["2024-01-01-0"])  # a file of then is still known
    again = [r.what for r in maintain(store, SPEC, NOW)]
    assert not [what for what in again if "before" in what]


def test_merging_small_files_changes_no_row_and_pinned_readers_go_on(store: Store) -> None:
    fill(store)
    log = store.event_log(SPEC)
    pinned = log.pinned().sql("predictions", ["prediction_id"], {"2024-01-05"})
    before = store.inference_records(SPEC).rebuild([window(SPEC, "2024-01-05")])
    maintain(store, SPEC, NOW)
    snapshot = log.folders["predictions"].snapshot()
    assert snapshot is not None
    assert len(snapshot.files) == 2  # one per day that is left
    assert store.query(f"SELECT count(*) AS n FROM {pinned}").column("n")[0].as_py() == 20
    assert store.inference_records(SPEC).rebuild([window(SPEC, "2024-01-05")]) == before
    predictions, _ = make_events(SPEC, "2024-01-05", 4, prefix="more-")
    assert log.append("predictions", predictions, ["more"])


def test_ages_count_whole_windows_of_the_models_zone(store: Store) -> None:
    from mlmon_dagster.store.upkeep.maintenance import find_first_dates

    spec = make_spec(
        time={"start": "2024-01-01", "zone": "America/New_York"},
        actuals={"closed_after": "5d"},
        retention={"production": "10d"},
    )
    late = dt.datetime(2024, 1, 15, 3, tzinfo=dt.UTC)  # still the 14th in New York
    assert find_first_dates(spec, late) == {"production": "2024-01-04"}
