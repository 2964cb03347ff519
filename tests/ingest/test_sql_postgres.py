"""A PostgreSQL table is read by transaction: whatever commits when, every row is taken once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store import sources as source_tables
from tests.ingest.sql_world import COLUMNS, XMIN, Sources, ids_of, insert, poll, sql_spec

SPEC = sql_spec(XMIN)
_numbers = itertools.count()


@pytest.fixture
def sources(pg_url: str) -> Iterator[Sources]:
    opened = Sources(pg_url)
    yield opened
    opened.engine.dispose()


# Each step: a session, and what it does next.
STEPS = st.lists(
    st.tuples(
        st.integers(0, 3), st.sampled_from(["write", "write", "savepoint", "end", "undo", "look"])
    ),
    max_size=14,
)


@pytest.mark.proof
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_transactions_may_commit_in_any_order_while_the_table_is_read(
    tmp_path: Path, sources: Sources, steps: list[tuple[int, str]]
) -> None:
    number = next(_numbers)
    table = f"scores_{number}"
    spec = sql_spec(XMIN, table)
    sources.create(table=table)
    store = open_store(tmp_path / f"store{number}")
    opened: dict[int, sa.Connection] = {}
    written: dict[int, list[str]] = {}
    committed: list[str] = []
    n_taken = 0
    for step, (session, action) in enumerate([*steps, *((s, "end") for s in range(4))]):
        if action in ("write", "savepoint"):
            conn = opened.setdefault(session, sources.begin() if session not in opened else None)
            if action == "savepoint":
                with conn.begin_nested():
                    insert(conn, f"{step}", table=table)
            else:
                insert(conn, f"{step}", table=table)
            written.setdefault(session, []).append(f"{step}")
        elif action == "look":
            n_taken += poll(store, spec, tmp_path, sources.url).total("n_new")
            assert set(ids_of(store, spec)) <= set(committed)
        elif session in opened:
            conn, ids = opened.pop(session), written.pop(session)
            conn.commit() if action == "end" else conn.rollback()
            conn.close()
            committed += ids if action == "end" else []

    last = [poll(store, spec, tmp_path, sources.url) for _ in range(2)]

    assert ids_of(store, spec) == sorted(committed)
    n_taken += sum(report.total("n_new") for report in last)
    assert n_taken == len(committed), "a row was taken twice"
    assert sum(report.total("n_duplicate") for report in last) == 0
    store.close()


@pytest.mark.parametrize("kind", ["xid8", "bigint"])
def test_a_column_with_the_transaction_is_as_good_and_can_be_indexed(
    store: Store, project: Path, sources: Sources, kind: str
) -> None:
    spec = sql_spec({"column": "txid", "kind": "xmin"})
    default = "pg_current_xact_id()" if kind == "xid8" else "pg_current_xact_id()::text::bigint"
    sources.create(f"{COLUMNS}, txid {kind} NOT NULL DEFAULT {default}")
    sources.run("CREATE INDEX ON scores (txid)")
    slow = sources.begin()
    insert(slow, "slow")
    sources.insert("quick")
    poll(store, spec, project, sources.url)
    slow.commit()
    slow.close()

    for _ in range(3):
        poll(store, spec, project, sources.url)

    assert ids_of(store, spec) == ["quick", "slow"]


def test_a_view_shows_the_transaction_under_a_name_of_its_own(
    store: Store, project: Path, sources: Sources
) -> None:
    spec = sql_spec({"column": "row_xmin", "kind": "xmin"}, "shown")
    sources.create()
    sources.run("CREATE VIEW shown AS SELECT s.*, s.xmin AS row_xmin FROM scores s WHERE age > 0")
    sources.insert("a", "b")
    poll(store, spec, project, sources.url)
    sources.insert("c")

    report = poll(store, spec, project, sources.url)

    assert (report.total("n_new"), ids_of(store, spec)) == (1, ["a", "b", "c"])


def test_a_new_partition_is_read_from_its_beginning(
    store: Store, project: Path, sources: Sources
) -> None:
    sources.run(
        f"CREATE TABLE scores ({COLUMNS}) PARTITION BY LIST (region)",
        "CREATE TABLE scores_south PARTITION OF scores FOR VALUES IN ('south')",
        f"CREATE TABLE filled ({COLUMNS})",
    )
    sources.insert("old", table="filled")
    poll(store, SPEC, project, sources.url)
    sources.run("ALTER TABLE scores ATTACH PARTITION filled FOR VALUES IN ('north')")
    sources.insert("new")

    poll(store, SPEC, project, sources.url)
    report = poll(store, SPEC, project, sources.url)

    assert (ids_of(store, SPEC), report.files) == (["new", "old"], ())


def test_another_server_behind_the_url_is_read_from_its_beginning(
    store: Store, project: Path, sources: Sources
) -> None:
    sources.create()
    sources.insert("a", "b")
    poll(store, SPEC, project, sources.url)
    poll(store, SPEC, project, sources.url)
    cursor = source_tables.load_cursor(store.state, "credit", "predictions")
    far = {**cursor.position, "horizon": cursor.position["horizon"] + 1_000_000}
    with store.state.begin() as conn:  # as if this server were a restored, younger one
        source_tables.save_cursor(
            conn, "credit", "predictions", far, cursor_time := _now(), pending=None
        )
    assert cursor_time
    sources.insert("c")

    poll(store, SPEC, project, sources.url)

    assert ids_of(store, SPEC) == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["TRUNCATE scores", "ALTER TABLE scores RENAME TO former"])
def test_a_table_that_was_emptied_or_replaced_is_told(
    store: Store, project: Path, sources: Sources, how: str
) -> None:
    sources.create()
    sources.insert("a")
    poll(store, SPEC, project, sources.url)
    sources.insert("never read")
    sources.run(how)
    if "RENAME" in how:
        sources.create()
    sources.insert("b")

    reports = [poll(store, SPEC, project, sources.url) for _ in range(2)]

    assert ids_of(store, SPEC) == ["a", "b"]
    told = [[f.message for f in r.files if f.status == "skipped"] for r in reports]
    assert "lost, an unknown number" in told[0][0]
    assert told[1] == []


def _now() -> object:
    from tests.ingest.landing import NOW

    return NOW


WRAP = 2**32


@pytest.mark.parametrize(
    ("written", "low", "horizon", "end", "is_read"),
    [
        (100, None, 200, 300, True),
        (100, 100, 200, 300, True),
        (199, 100, 200, 300, True),
        (200, 100, 200, 300, False),
        (99, 100, 200, 300, False),
        # across the wrap: ids are 64 bits, the column shows the low 32
        (WRAP - 5, WRAP - 10, WRAP + 10, WRAP + 20, True),
        (WRAP + 5, WRAP - 10, WRAP + 10, WRAP + 20, True),
        (WRAP + 15, WRAP - 10, WRAP + 10, WRAP + 20, False),
        (WRAP - 15, WRAP - 10, WRAP + 10, WRAP + 20, False),
        (5 * WRAP + 7, 5 * WRAP, 5 * WRAP + 8, 5 * WRAP + 9, True),
        # not looked at for a whole round: too much may be read, never too little
        (WRAP + 7, 100, 3 * WRAP, 3 * WRAP + 1, True),
    ],
)
def test_transaction_numbers_may_wrap_around(
    sources: Sources, written: int, low: int | None, horizon: int, end: int, is_read: bool
) -> None:
    column = sa.cast(sa.literal(str(written % WRAP), sa.Text), _Xid())
    where = source_tables._between(column, "xid", low, horizon, end, [])

    with sources.engine.connect() as conn:
        assert conn.execute(sa.select(where)).scalar() is is_read


class _Xid(sa.types.UserDefinedType[int]):
    cache_ok = True

    def get_col_spec(self, **_options: object) -> str:
        return "xid"


@pytest.mark.parametrize(
    ("columns", "cursor", "said"),
    [
        (COLUMNS.replace("score float8", "scroe float8"), XMIN, "Did you mean 'scroe'"),
        (COLUMNS, {"column": "txid", "kind": "xmin"}, "has no column 'txid'"),
        (COLUMNS, {"column": "region", "kind": "xmin"}, "'region' is text"),
        (f"{COLUMNS}, txid xid8", {"column": "txid", "kind": "xmin"}, "NULL in some rows"),
    ],
)
def test_a_table_that_cannot_be_read_says_what_is_wrong(
    store: Store,
    project: Path,
    sources: Sources,
    columns: str,
    cursor: dict[str, str],
    said: str,
) -> None:
    sources.create(columns)
    sources.run("INSERT INTO scores (id) VALUES ('a')")

    (file,) = poll(store, sql_spec(cursor), project, sources.url).files

    assert (file.status, file.reason) == ("failed", "source_failed")
    assert said in file.message


def test_times_beyond_python_and_values_beyond_tables_are_bad_rows(
    store: Store, project: Path, sources: Sources
) -> None:
    spec = sql_spec(XMIN, max_bad_rate=1.0)
    sources.create()
    sources.insert("good")
    for bad in ("infinity", "0044-03-15 BC", "12024-02-01"):
        sources.run(f"INSERT INTO scores VALUES ('b', '{bad}'::timestamptz, 'NaN', 1, 30, 'north')")

    (file,) = poll(store, spec, project, sources.url).files

    assert (file.n_new, file.n_bad) == (1, 3)
