import datetime as dt
import platform
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import Store
from mlmon_dagster.store.places.location import LocalPlace
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.engine import HELD, HeldRows, Limits, QueryEngine

ENGINE = QueryEngine(LocalPlace("/nonexistent"), Path("/nonexistent"), Limits(memory="256MB"))
texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"))
times = st.datetimes(
    min_value=dt.datetime(1900, 1, 1),  # noqa: DTZ001
    max_value=dt.datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.just(dt.UTC),
)


@given(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | times
)
def test_literals_keep_their_value(value: str | float | dt.datetime | None) -> None:
    assert ENGINE.query(f"SELECT {literal(value)} AS v")["v"][0].as_py() == value


@given(texts.filter(bool))
def test_identifiers_may_have_any_characters(name: str) -> None:
    assert ENGINE.query(f"SELECT 1 AS {quote_identifier(name)}").column_names == [name]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a\0b", dt.datetime(2024, 1, 1)])  # noqa: DTZ001
def test_what_sql_cannot_spell_is_refused(value: float | str | dt.datetime) -> None:
    with pytest.raises(ValueError, match=r"literal|naive"):
        literal(value)


def test_queries_run_in_utc(store: Store) -> None:
    found = store.query("SELECT TIMESTAMPTZ '2024-07-01 00:00:00+02' AS t")
    assert found.schema.field("t").type == pa.timestamp("us", tz="UTC")
    assert found["t"][0].as_py() == dt.datetime(2024, 6, 30, 22, tzinfo=dt.UTC)


def test_queries_see_the_tables_they_are_given_and_no_others(store: Store) -> None:
    assert (
        store.query("SELECT SUM(a) AS s FROM t", {"t": pa.table({"a": [1, 2]})})["s"][0].as_py()
        == 3
    )
    with pytest.raises(StoreError, match="does not exist"):
        store.query("SELECT * FROM t")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY (SELECT 1) TO '/tmp/leak.csv'",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "ATTACH '/tmp/other.duckdb'",
    ],
)
def test_queries_reach_nothing_outside_the_store(store: Store, statement: str) -> None:
    with pytest.raises(StoreError):
        store.query(statement)


def test_python_variables_are_out_of_reach(store: Store) -> None:
    secret = pa.table({"a": [1]})
    with pytest.raises(StoreError):
        store.query("SELECT * FROM secret")
    assert secret.num_rows == 1


def test_threads_may_query_at_once(store: Store) -> None:
    sums: list[int] = []

    def ask(n: int) -> None:
        table = pa.table({"a": range(n)})
        sums.append(int(store.query("SELECT SUM(a) AS s FROM t", {"t": table})["s"][0].as_py()))

    threads = [threading.Thread(target=ask, args=(1000 + i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sums) == [sum(range(1000 + i)) for i in range(8)]


def test_rows_come_in_batches_with_tables_in_memory_and_in_their_order() -> None:
    table = pa.table({"i": range(10_000)})
    batches = list(ENGINE.batches("SELECT i FROM numbers", 3_000, {"numbers": table}))
    assert max(map(len, batches)) <= 3_000
    assert pa.concat_tables(batches)["i"].to_pylist() == list(range(10_000))


def test_rows_that_are_held_are_seen_by_their_own_engine_alone() -> None:
    few = HeldRows(ENGINE, "SELECT 1 AS i")
    many = HeldRows(ENGINE, "SELECT i FROM range(10000) t(i)")

    assert few.query(f"SELECT SUM(i) AS n FROM {HELD}")["n"].to_pylist() == [1]
    batches = list(many.batches(f"SELECT i FROM {HELD}", 3_000))
    assert max(map(len, batches)) <= 3_000
    assert pa.concat_tables(batches)["i"].to_pylist() == list(range(10_000))
    with pytest.raises(StoreError, match="does not exist"):
        ENGINE.query(f"SELECT * FROM {HELD}")
    with pytest.raises(StoreError, match="column_that_is_not_there"):
        many.query(f"SELECT column_that_is_not_there FROM {HELD}")
    with pytest.raises(StoreError, match="no_such_table"):
        HeldRows(ENGINE, "SELECT * FROM no_such_table")


def test_a_statement_that_fails_on_a_late_row_is_an_error_of_the_store() -> None:
    sql = "SELECT CASE WHEN i > 900000 THEN error('late') ELSE i END AS v FROM range(1000000) t(i)"
    with pytest.raises(StoreError, match="late"):
        list(ENGINE.batches(sql, 1_000))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries take no notice")
def test_what_a_query_freed_is_used_again_and_not_asked_of_the_system() -> None:
    """Twenty megabytes in ten blocks, five times over: 25,000 pages where nobody says so."""
    code = """
        import resource
        import numpy as np
        from mlmon_dagster.store.tables.engine import keep_freed_memory

        def pages():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(5):
                [np.ones(2**21, np.uint8) for _ in range(10)]
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        keep_freed_memory()
        pages()
        print(pages())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 100
