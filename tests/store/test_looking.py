"""Looking into a store without a spec, as of a moment, and with SQL of one's own."""

import datetime as dt
import time

import pytest

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.store import Store
from mlmon_dagster.store.reading import describe_state, describe_tables, select
from mlmon_dagster.store.tables.delta import open_table
from mlmon_dagster.store.upkeep.maintenance import open_tables
from tests.conftest import make_events, make_spec, window

SPEC = make_spec()
MODEL = SPEC.model


def fill(store: Store, day: str, n: int = 4) -> None:
    predictions, actuals = make_events(SPEC, day, n)
    store.event_log(SPEC).append("predictions", predictions, [f"p{day}"])
    store.event_log(SPEC).append("actuals", actuals, [f"a{day}"])
    store.inference_records(SPEC).rebuild([window(SPEC, day)])


def test_rows_are_chosen_by_model_dataset_and_time_without_a_spec(store: Store) -> None:
    fill(store, "2024-01-01")
    fill(store, "2024-01-02")
    rows = store.records(MODEL, dataset="production", since=dt.date(2024, 1, 2))
    assert rows.to_arrow().num_rows == 4
    assert list(rows.select("prediction_id", "score").head(2).to_pandas().columns) == [
        "prediction_id",
        "score",
    ]
    assert store.predictions(MODEL, until=dt.date(2024, 1, 2)).to_arrow().num_rows == 4
    assert store.actuals(MODEL).to_arrow().num_rows == 8
    with pytest.raises(StoreError, match=r"Models with rows: credit"):
        store.records("other").to_arrow()
    with pytest.raises(StoreError, match=r"Present: prediction_id"):
        rows.select("nothing").to_arrow()


def test_rows_of_a_removed_version_are_said_to_be_gone(store: Store) -> None:
    fill(store, "2024-01-01")
    then = dt.datetime.now(dt.UTC)
    time.sleep(0.01)
    fill(store, "2024-01-01", n=4)
    predictions, _ = make_events(SPEC, "2024-01-01", 6, prefix="x", sha="more")
    store.event_log(SPEC).append("predictions", predictions, ["more"])
    store.inference_records(SPEC).rebuild([window(SPEC, "2024-01-01")])
    for folder in open_tables(store, SPEC).values():
        if folder.snapshot() is not None:
            open_table(folder.path).vacuum(0, dry_run=False, enforce_retention_duration=False)
    with pytest.raises(StoreError, match=r"not kept any more.*mlmon metrics MODEL --as-of"):
        store.records(MODEL, as_of=then).to_arrow()


def test_one_select_over_the_views_is_answered(store: Store) -> None:
    fill(store, "2024-01-01")
    query = "WITH a AS (SELECT * FROM actuals) SELECT count(*) AS n FROM records, metrics"
    assert select(store, MODEL, query).column_names == ["n"]
    found = select(store, MODEL, "SELECT prediction_id FROM predictions ORDER BY 1;", limit=2)
    assert found.num_rows == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "SELECT 1; SELECT 2",
        "DROP VIEW records",
        "DELETE FROM records",
        "INSERT INTO records SELECT * FROM records",
        "COPY (SELECT 1) TO 'x.csv'",
        "COPY records TO '{root}/event_log/credit/predictions/x.parquet'",
        "ATTACH '{root}/state.db' AS s (TYPE sqlite)",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM read_blob('{root}/state.db')",
        "SELECT * FROM read_text('{root}/event_log/credit/predictions/../../../state.db')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "SELECT * FROM sqlite_scan('{root}/state.db', 'metric')",
        "SELECT * FROM store",
        "SELECT 1 -- \n; DROP VIEW records",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'x.csv'",
        "CALL pragma_version()",
        "CREATE TABLE t AS SELECT 1",
    ],
)
def test_anything_else_is_refused(text: str, store: Store) -> None:
    fill(store, "2024-01-01")
    with pytest.raises(ConfigError):
        select(store, MODEL, text.replace("{root}", str(store.root)))
    assert store.records(MODEL).to_arrow().num_rows == 4


def test_a_store_is_described_in_numbers(store: Store) -> None:
    assert describe_tables(store, MODEL) == []
    fill(store, "2024-01-01")
    fill(store, "2024-01-03")
    tables = {row["table"]: row for row in describe_tables(store, MODEL)}
    assert tables["records"]["rows"] == 8
    assert (tables["records"]["oldest"], tables["records"]["newest"]) == (
        "2024-01-01",
        "2024-01-03",
    )
    assert tables["predictions"]["datasets"] == "production 8"
    assert describe_state(store, MODEL)["computed_at"] is None


def test_a_query_is_broken_off_when_its_time_is_over(store: Store) -> None:
    many = "range(10000000)"
    endless = f"SELECT count(*) FROM {many} AS a, {many} AS b WHERE a.range * b.range = 7"
    with pytest.raises(ConfigError, match=r"broken off after 0\.3 seconds.*--timeout"):
        select(store, "credit", endless, 10, 0.3)
    assert select(store, "credit", "SELECT 1 AS one", 10, 60).to_pylist() == [{"one": 1}]
