import datetime as dt
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pytest

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from tests.conftest import make_events, make_spec, window
from tests.erased import note_erased

SPEC = make_spec()
T0 = dt.datetime(2024, 1, 1, 10, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
WINDOWS = [window(SPEC, f"2024-01-0{day}") for day in (1, 2, 3, 4)]


def predicted(id_: str, time: dt.datetime, hash_: int, **more: object) -> dict[str, object]:
    return {
        "prediction_id": id_,
        "dataset": "production",
        "event_time": time,
        "score": 0.5,
        "window_start": time.replace(hour=0, minute=0),
        "window_date": time.date().isoformat(),
        "row_hash": hash_,
        "file_sha": f"p{hash_}",
        **more,
    }


def known(id_: str, time: dt.datetime | None, hash_: int, **more: object) -> dict[str, object]:
    return {
        "prediction_id": id_,
        "dataset": None,
        "actual": 1,
        "actual_time": time,
        "revenue": None,
        "deleted": False,
        "row_hash": hash_,
        "file_sha": f"a{hash_}",
        **more,
    }


def append(
    store: Store, stream: Any, rows: Iterable[dict[str, object]], spec: ModelSpec = SPEC
) -> None:
    table = pa.Table.from_pylist(list(rows))
    for name in ("dataset",):
        if pa.types.is_null(table.schema.field(name).type):
            index = table.column_names.index(name)
            table = table.set_column(index, name, table[name].cast(pa.string()))
    store.event_log(spec).append(stream, table, table["file_sha"].to_pylist())


def records(store: Store, spec: ModelSpec = SPEC) -> list[dict[str, Any]]:
    table = store.inference_records(spec).read()
    return sorted(table.to_pylist(), key=lambda row: (row["dataset"], row["prediction_id"]))


def test_a_record_has_the_prediction_and_its_ground_truth(store: Store) -> None:
    predictions, actuals = make_events(SPEC, n=3)
    log, inference = store.event_log(SPEC), store.inference_records(SPEC)
    log.append("predictions", predictions, ["p"])
    log.append("actuals", actuals.slice(0, 2), ["a"])
    (counts,) = inference.rebuild(WINDOWS[:1])
    assert (counts.window_start, counts.dataset) == (WINDOWS[0].start, "production")
    assert (counts.n, counts.n_actual, counts.n_conflict) == (3, 2, 0)
    first = records(store)[0]
    assert first["age"] == predictions["age"][0].as_py()
    assert first["actual"] == actuals["actual"][0].as_py()
    assert first["revenue"] == actuals["revenue"][0].as_py()
    assert first["n_prediction_rows"] == 1
    assert records(store)[2]["actual"] is None


def test_rebuilding_again_changes_nothing(store: Store) -> None:
    predictions, actuals = make_events(SPEC)
    log, inference = store.event_log(SPEC), store.inference_records(SPEC)
    log.append("predictions", predictions, ["p"])
    log.append("actuals", actuals, ["a"])
    before = inference.rebuild(WINDOWS), records(store)
    assert (inference.rebuild(WINDOWS), records(store)) == before


def test_no_windows_are_rebuilt_to_nothing(store: Store) -> None:
    assert store.inference_records(SPEC).rebuild([]) == []


def test_a_window_without_events_has_no_records(store: Store) -> None:
    inference = store.inference_records(SPEC)
    counts = inference.rebuild(WINDOWS[:2])
    assert [(c.n, c.n_actual, c.dataset) for c in counts] == [(0, 0, "production")] * 2
    assert counts[0].data_version == counts[1].data_version
    assert inference.read().num_rows == 0
    assert "age" in inference.read().column_names


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_newest_actual_wins_whatever_its_arrival(order: tuple[int, ...], store: Store) -> None:
    append(store, "predictions", [predicted("x", T0, 1)])
    versions = [
        known("x", None, 9, actual=0, revenue=7.0),
        known("x", T0 + DAY, 2, actual=0, revenue=8.0),
        known("x", T0 + DAY, 3, actual=1, revenue=9.0),
    ]
    for index in order:
        append(store, "actuals", [versions[index]])
    store.inference_records(SPEC).rebuild(WINDOWS[:1])
    (record,) = records(store)
    assert (record["actual"], record["revenue"]) == (1, 9.0)


def test_erased_ids_are_gone_and_stay_gone(store: Store) -> None:
    rows = [predicted("x", T0, 1), predicted("y", T0, 2), predicted("y", T0, 3, dataset="shadow")]
    append(store, "predictions", rows)
    inference = store.inference_records(SPEC)
    inference.rebuild(WINDOWS[:1])
    note_erased(store.state, SPEC.model, ["x", "late"], now=T0)
    note_erased(store.state, SPEC.model, ["x"], now=T0)
    note_erased(store.state, SPEC.model, ["y"], now=T0, dataset="shadow")
    note_erased(store.state, "another_model", ["y"], now=T0)
    append(store, "predictions", [predicted("late", T0, 4)])
    (counts,) = (c for c in inference.rebuild(WINDOWS[:1]) if c.n)
    assert (counts.dataset, counts.n) == ("production", 1)
    assert [r["prediction_id"] for r in records(store)] == ["y"]


def test_a_window_that_becomes_empty_is_emptied(store: Store) -> None:
    append(store, "predictions", [predicted("x", T0, 1)])
    inference = store.inference_records(SPEC)
    inference.rebuild(WINDOWS[:1])
    note_erased(store.state, SPEC.model, ["x"], now=T0)
    assert [c.n for c in inference.rebuild(WINDOWS[:1])] == [0]
    assert records(store) == []


def test_rebuilding_one_dataset_leaves_the_others_alone(store: Store) -> None:
    append(store, "predictions", [predicted("x", T0, 1), predicted("x", T0, 2, dataset="shadow")])
    inference = store.inference_records(SPEC)
    inference.rebuild(WINDOWS[:1])
    note_erased(store.state, SPEC.model, ["x"], now=T0)
    counts = inference.rebuild(WINDOWS[:1], ["shadow", "canary"])
    assert [(c.dataset, c.n) for c in counts] == [("canary", 0), ("shadow", 0)]
    assert [r["dataset"] for r in records(store)] == ["production"]


def test_reading_picks_windows_datasets_columns_and_a_number_of_rows(store: Store) -> None:
    for day in ("2024-01-01", "2024-01-02"):
        for dataset in ("production", "shadow"):
            rows, _ = make_events(SPEC, day, 5, dataset=dataset, sha=day + dataset)
            store.event_log(SPEC).append("predictions", rows, [day + dataset])
    inference = store.inference_records(SPEC)
    inference.rebuild(WINDOWS[:2])
    assert inference.read().num_rows == 20
    assert inference.read(WINDOWS[:1]).num_rows == 10
    assert inference.read(WINDOWS[:1], ["shadow"], ["age"]).shape == (5, 1)
    assert inference.read(limit=3).num_rows == 3
    assert inference.read([]).num_rows == 0
    sql = inference.from_sql(WINDOWS[1:2], ["shadow"])
    assert store.query(f"SELECT COUNT(*) AS n FROM {sql}")["n"][0].as_py() == 5


def test_hours_of_one_day_are_told_apart(store: Store) -> None:
    spec = make_spec(time={"start": "2024-01-01", "granularity": "hour", "zone": "Asia/Kolkata"})
    rows, _ = make_events(spec, "2024-01-01", 48)
    store.event_log(spec).append("predictions", rows, ["p"])
    inference = store.inference_records(spec)
    hours = [window(spec, f"2024-01-01T{hour:02}:45") for hour in (3, 4)]
    first = inference.rebuild(hours)
    assert [c.n for c in first] == [2, 2]
    assert inference.read(hours[:1]).num_rows == 2
    assert inference.rebuild(hours[1:]) == first[1:]


def test_data_versions_differ_when_any_content_does(store: Store) -> None:
    inference = store.inference_records(SPEC)
    seen = set()
    for stream, row in (
        ("predictions", predicted("x", T0, 1)),
        ("predictions", predicted("y", T0, 2)),
        ("predictions", predicted("y", T0, 3)),
        ("actuals", known("x", T0, 1)),
        ("actuals", known("x", T0 + DAY, 2)),
        ("actuals", known("y", T0, 9)),
    ):
        append(store, stream, [row])
        seen.add(inference.rebuild(WINDOWS[:1])[0].data_version)
    assert len(seen) == 6


def test_data_versions_never_change_with_a_release(store: Store) -> None:
    append(store, "predictions", [predicted("x", T0, 1), predicted("y", T0, -(2**63))])
    append(store, "actuals", [known("x", T0, 5)])
    (counts,) = store.inference_records(SPEC).rebuild(WINDOWS[:1])
    assert counts.data_version == "fbb7f3b60d7ca96a8383e86800062af2"


def test_records_computed_in_groups_are_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in (1, 2, 3):
        rows, actuals = make_events(SPEC, f"2024-01-0{day}", 5, sha=f"{day}")
        store.event_log(SPEC).append("predictions", rows, [f"{day}"])
        store.event_log(SPEC).append("actuals", actuals, [f"{day}"])
    inference = store.inference_records(SPEC)
    whole = inference.rebuild(WINDOWS), records(store)
    monkeypatch.setattr("mlmon_dagster.store.tables.event_log.PinnedLog.rows_at_once", 5)
    assert (inference.rebuild(WINDOWS), records(store)) == whole
