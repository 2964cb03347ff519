"""A table with an id or a time: wherever a row appears, it is seen, read and, if it must, told."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, oracle

from mlmon_dagster.ingest import IngestReport
from mlmon_dagster.spec.sources import SqlSource
from mlmon_dagster.store import Store
from mlmon_dagster.store import sources as reading
from mlmon_dagster.store.sources import RangeScan, SourceTable, load_cursor
from mlmon_dagster.store.state.schema import source_cursor
from tests.ingest.landing import NOW, dying_at
from tests.ingest.sql_world import Sources, ids_of, poll, sql_spec

COLUMNS = (
    "n bigint, changed {time}, id text, at text, score {number}, decision int, age {number}, "
    "region text"
)
BY = {"id": "n", "time": "changed"}


@pytest.fixture(params=["sqlite", "postgres"])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sources]:
    if request.param == "postgres":
        opened = Sources(request.getfixturevalue("pg_url"))
        columns = COLUMNS.format(time="timestamptz", number="float8")
    else:
        (tmp_path / "source.db").touch()
        opened = Sources(f"sqlite:///{tmp_path / 'source.db'}")
        columns = COLUMNS.format(time="text", number="real")
    opened.create(columns)
    yield opened
    opened.engine.dispose()


def moment(n: int) -> str:
    return f"2024-02-{1 + n // 1440:02d} {n // 60 % 24:02d}:{n % 60:02d}:00"


def add(sources: Sources, *numbers: int, prefix: str = "p", **changed: Any) -> None:
    """Insert rows whose id and time of change grow with their number."""
    with sources.engine.begin() as conn:
        for n in numbers:
            row = {"n": n, "changed": moment(n), "score": 0.5, **changed}
            conn.execute(
                sa.text(
                    f"INSERT INTO scores VALUES (:n, :changed, '{prefix}{n}', "
                    "'2024-02-01T08:00:00Z', :score, 1, 30, 'north')"
                ),
                row,
            )


def told(report: IngestReport) -> str:
    return " ".join(file.message for file in report.files if file.status == "skipped")


def cursor_rows(store: Store) -> list[Any]:
    with store.state.connect() as conn:
        return list(conn.execute(sa.select(source_cursor)))


def names(*numbers: int, prefix: str = "p") -> list[str]:
    return [f"{prefix}{n}" for n in numbers]


@pytest.mark.parametrize("step", ["source.staged", "source.noted", "ingest.staged"])
def test_what_a_killed_look_found_is_told_by_the_next_one_and_then_no_more(
    store: Store, project: Path, sources: Sources, step: str
) -> None:
    spec = sql_spec({"column": "n", "kind": "id"})
    add(sources, *range(35))
    poll(store, spec, project, sources.url)
    sources.run("DELETE FROM scores")
    add(sources, *range(24), prefix="q")

    with dying_at(step):
        poll(store, spec, project, sources.url)
    reports = [poll(store, spec, project, sources.url) for _ in range(3)]

    assert len(ids_of(store, spec)) == 35 + 24
    gone = ["at least 35 rows" in told(report) for report in reports]
    assert sum(gone) == 1
    assert told(reports[-1]) == ""


@pytest.mark.parametrize("kind", BY)
def test_as_many_rows_in_place_of_those_that_were_read_are_seen(
    store: Store, project: Path, sources: Sources, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_MARKS", 0)  # by count and sum alone
    spec = sql_spec({"column": BY[kind], "kind": kind})
    add(sources, 1, 3, 5, 7)
    poll(store, spec, project, sources.url)
    sources.run("DELETE FROM scores WHERE n IN (3, 5)")
    add(sources, 2, 6)  # the sum is the same

    poll(store, spec, project, sources.url)

    assert ids_of(store, spec) == names(1, 2, 3, 5, 6, 7)


@pytest.mark.parametrize("kind", BY)
def test_a_row_with_the_very_id_or_time_of_one_that_was_deleted_is_seen_however_far_behind(
    store: Store, project: Path, sources: Sources, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LEAST_ROWS", 10)
    monkeypatch.setattr(reading, "MOST_MARKS", 20)
    sources.run("CREATE VIEW shown AS SELECT * FROM scores")  # it shows no transactions
    spec = sql_spec({"column": BY[kind], "kind": kind}, "shown")
    add(sources, *range(200))
    poll(store, spec, project, sources.url)
    sources.run("DELETE FROM scores WHERE n = 7")
    add(sources, 7, prefix="q")

    report = poll(store, spec, project, sources.url)

    assert report.total("n_new") == 1
    assert 0 < report.total("n_duplicate") <= 20, "the range around it alone is read again"
    assert "q7" in ids_of(store, spec)


@pytest.mark.parametrize("dialect", [mysql, mssql, oracle])
def test_other_databases_hash_the_id_with_a_function_of_their_own(dialect: Any) -> None:
    name = sa.column("id")
    table = SourceTable(sa.table("scores", name, sa.column("changed")), (name,), ids=(name,))
    source = SqlSource(sql="scores", url_env="X", cursor={"column": "changed", "kind": "time"})
    conn: Any = SimpleNamespace(dialect=dialect.dialect())

    [hashed] = RangeScan(conn, source, table, {})._hashes()

    function = {"mysql": "crc32", "mssql": "checksum", "oracle": "ora_hash"}[conn.dialect.name]
    assert str(hashed.compile(dialect=conn.dialect)).startswith(f"CAST({function}(scores.id) AS ")


@pytest.mark.parametrize("kind", BY)
def test_a_row_that_commits_late_is_found_however_far_behind(
    store: Store, project: Path, sources: Sources, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LEAST_ROWS", 10)
    monkeypatch.setattr(reading, "MOST_MARKS", 20)
    spec = sql_spec({"column": BY[kind], "kind": kind})
    add(sources, *range(0, 400, 2))
    poll(store, spec, project, sources.url)
    add(sources, 31)

    report = poll(store, spec, project, sources.url)

    assert report.total("n_new") == 1
    assert 0 < report.total("n_duplicate") <= 20, "the range around it alone is read again"
    assert "rows around them are read again" in told(report)
    assert told(poll(store, spec, project, sources.url)) == ""


def test_what_changed_all_over_a_table_is_read_again_in_turns(
    store: Store, project: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEAST_ROWS": 5, "MOST_MARKS": 10, "MOST_AGAIN": 30}.items():
        monkeypatch.setattr(reading, name, value)
    spec = sql_spec({"column": "n", "kind": "id"})
    add(sources, *range(0, 400, 2))
    poll(store, spec, project, sources.url)
    add(sources, *range(1, 400, 20))

    reports = [poll(store, spec, project, sources.url) for _ in range(9)]

    assert len(ids_of(store, spec)) == 220
    assert all(report.total("n_duplicate") <= 30 + 2 * 10 for report in reports)
    assert "more are read again at the next looks" in told(reports[0])
    assert told(reports[-1]) == ""


def test_what_is_noted_of_a_table_stays_small(
    store: Store, project: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEAST_ROWS": 2, "MOST_RANGES": 20, "MOST_MARKS": 10}.items():
        monkeypatch.setattr(reading, name, value)
    spec = sql_spec({"column": "n", "kind": "id"})
    for first in range(0, 300, 30):
        add(sources, *range(first, first + 30))
        poll(store, spec, project, sources.url)
    poll(store, spec, project, sources.url)

    position = load_cursor(store.state, spec.model, "predictions").position

    assert len(position["ranges"]) <= 2 * 20 + 10
    assert sum(tally[0] for _, tally, *_ in position["ranges"]) == 300
    assert len(json.dumps(position)) < 5_000


def test_a_look_at_a_table_where_nothing_changed_writes_nothing(
    store: Store, project: Path, sources: Sources
) -> None:
    spec = sql_spec({"column": "n", "kind": "id"})
    add(sources, *range(5))
    for _ in range(2):
        poll(store, spec, project, sources.url)
    before = cursor_rows(store)
    tomorrow = NOW + dt.timedelta(days=1)

    report = poll(store, spec, project, sources.url, now=tomorrow)

    assert report.files == ()
    assert cursor_rows(store) == before
