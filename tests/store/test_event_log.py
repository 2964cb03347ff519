import pyarrow as pa
import pytest

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store
from tests.conftest import make_events, make_spec, window

SPEC = make_spec()


def null_out(rows: pa.Table, name: str) -> pa.Table:
    index = rows.column_names.index(name)
    return rows.set_column(index, name, pa.nulls(rows.num_rows, rows.schema.field(name).type))


def test_a_file_is_appended_once(store: Store) -> None:
    log = store.event_log(SPEC)
    predictions, _ = make_events(SPEC)
    assert not log.committed("predictions", ["a"])
    assert log.append("predictions", predictions, ["a"])
    assert not log.append("predictions", predictions, ["a"])
    assert log.committed("predictions", ["a", "b"]) == {"a"}
    assert not log.committed("actuals", ["a"])
    assert log.rows("predictions").num_rows == 20


def test_of_a_batch_only_the_files_not_yet_committed_are_appended(store: Store) -> None:
    log = store.event_log(SPEC)
    one, _ = make_events(SPEC, "2024-01-01", sha="one")
    two, _ = make_events(SPEC, "2024-01-02", sha="two")
    log.append("predictions", one, ["one"])
    assert log.append("predictions", pa.concat_tables([one, two]), ["one", "two"])
    assert log.rows("predictions").num_rows == 40


def test_a_file_without_accepted_rows_is_committed_too(store: Store) -> None:
    log = store.event_log(SPEC)
    predictions, actuals = make_events(SPEC, n=1)
    assert log.append("predictions", predictions.slice(0, 0), ["empty"])
    assert log.append("actuals", actuals.slice(0, 0), ["empty"])
    assert log.committed("predictions", ["empty"])
    assert not log.append("predictions", predictions.slice(0, 0), ["empty"])


@pytest.mark.parametrize("name", ["prediction_id", "dataset", "window_date", "row_hash"])
def test_rows_without_a_key_are_refused(name: str, store: Store) -> None:
    predictions, _ = make_events(SPEC)
    with pytest.raises(StoreError, match=f"have a null '{name}'"):
        store.event_log(SPEC).append("predictions", null_out(predictions, name), ["a"])


def test_unknown_columns_are_refused(store: Store) -> None:
    predictions, _ = make_events(SPEC)
    extra = predictions.append_column("surprise", predictions["age"])
    with pytest.raises(StoreError, match=r"Unknown columns \['surprise'\]"):
        store.event_log(SPEC).append("predictions", extra, ["a"])


def test_values_of_another_type_are_refused(store: Store) -> None:
    predictions, _ = make_events(SPEC)
    index = predictions.column_names.index("age")
    wrong = predictions.set_column(index, "age", predictions["region"])
    with pytest.raises(StoreError, match=r"Column 'age' .* cannot become double"):
        store.event_log(SPEC).append("predictions", wrong, ["a"])


def test_a_feature_added_later_is_null_in_older_rows(store: Store) -> None:
    predictions, _ = make_events(SPEC, "2024-01-01")
    store.event_log(SPEC).append("predictions", predictions, ["old"])
    wider = make_spec(
        features={
            "age": {"type": "numeric"},
            "region": {"type": "categorical"},
            "b": {"type": "boolean"},
        }
    )
    log = store.event_log(wider)
    assert log.rows("predictions", ["b"])["b"].null_count == 20
    newer, _ = make_events(wider, "2024-01-02")
    log.append("predictions", newer.append_column("b", pa.array([True] * 20)), ["new"])
    assert log.rows("predictions", ["b"])["b"].null_count == 20
    assert store.event_log(SPEC).rows("predictions").num_rows == 40
    store.event_log(SPEC).append("predictions", make_events(SPEC, "2024-01-03")[0], ["narrow"])
    windows = [window(SPEC, f"2024-01-0{day}") for day in (1, 2, 3)]
    assert [c.n for c in store.inference_records(wider).rebuild(windows)] == [20, 20, 20]
    assert store.inference_records(wider).read(columns=["b"])["b"].null_count == 40


def test_a_feature_whose_type_changed_is_refused(store: Store) -> None:
    predictions, _ = make_events(SPEC)
    store.event_log(SPEC).append("predictions", predictions, ["old"])
    changed = make_spec(
        features={"age": {"type": "categorical"}, "region": {"type": "categorical"}}
    )
    with pytest.raises(StoreError, match=r"'age' .* holds DOUBLE, not VARCHAR"):
        store.event_log(changed).append("predictions", predictions, ["new"])


def test_actuals_find_the_windows_of_their_predictions(store: Store) -> None:
    log = store.event_log(SPEC)
    log.append("predictions", make_events(SPEC, "2024-01-01", 2, prefix="x")[0], ["a"])
    training = make_events(SPEC, "2023-06-01", 2, dataset="training", prefix="x2024-01-01-")[0]
    ids = pa.array(["x2024-01-01-0", "only-training"])
    log.append("predictions", training.set_column(0, "prediction_id", ids), ["b"])

    def found(*asked: tuple[str, str | None]) -> list[tuple[str, str, str]]:
        table = pa.table(
            {
                "prediction_id": [a[0] for a in asked],
                "dataset": pa.array([a[1] for a in asked], pa.string()),
            }
        )
        answer = log.windows_of_actuals(table).to_pylist()
        return sorted((r["prediction_id"], r["dataset"], r["window_date"]) for r in answer)

    everywhere = [
        ("x2024-01-01-0", "production", "2024-01-01"),
        ("x2024-01-01-0", "training", "2023-06-01"),
    ]
    assert found(("x2024-01-01-0", None)) == everywhere
    assert found(("x2024-01-01-0", "all")) == everywhere
    assert found(("x2024-01-01-0", "training")) == everywhere[1:]
    assert found(("x2024-01-01-1", "training"), ("nobody", None)) == []


def test_a_prediction_that_comes_between_two_questions_is_found(store: Store) -> None:
    spec = make_spec()
    events, _ = make_events(spec, "2024-01-01", 3)
    log = store.event_log(spec)
    asked = pa.table({"prediction_id": events["prediction_id"], "dataset": ["production"] * 3})
    assert log.windows_of_actuals(asked).num_rows == 0
    store.event_log(spec).append("predictions", events.slice(0, 2), ["first"])
    assert log.windows_of_actuals(asked).num_rows == 2
    assert log.windows_of_actuals(asked.slice(1)).num_rows == 1
    store.event_log(spec).append("predictions", events.slice(2), ["second"])
    assert log.windows_of_actuals(asked.slice(1)).num_rows == 2
    assert log.windows_of_actuals(asked).num_rows == 3
