"""Rows of a table of any database become batches: nothing lost, nothing twice, errors in words."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.ingest import render_report, replay_file
from mlmon_dagster.ingest.sources.sql import cells_of
from mlmon_dagster.spec import spec_from_mapping
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import parse_source_url, source_connection
from tests.ingest.landing import (
    ACTUALS,
    NOW,
    land,
    letters_of,
    truths,
)
from tests.ingest.sql_world import VARIABLE, Sources, ids_of, poll, sql_spec

COLUMNS = "n integer primary key, id text, at text, score real, decision int, age real, region text"
ID = {"column": "n", "kind": "id"}
SPEC = sql_spec(ID)


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Sources]:
    path = tmp_path / "source.db"
    path.touch()
    opened = Sources(f"sqlite:///{path}")
    opened.create(COLUMNS)
    yield opened
    opened.engine.dispose()


def add(
    sources: Sources,
    *numbers: int,
    at: str = "2024-02-01T08:00:00Z",
    score: Any = 0.5,
    table: str = "scores",
) -> None:
    for n in numbers:
        row = f"{n}, 'p{n}', '{at}', {score}, 1, 30, 'north'"
        sources.run(f"INSERT INTO {table} VALUES ({row})")


def test_rows_stay_known_when_the_spec_lists_its_columns_in_another_order(
    store: Store, project: Path, sources: Sources
) -> None:
    add(sources, *range(4))
    poll(store, SPEC, project, sources.url)
    values = SPEC.model_dump(exclude_unset=True)
    features = dict(reversed(values["features"].items()))
    columns = dict(reversed(values["columns"].items()))

    other = spec_from_mapping(values | {"features": features, "columns": columns})
    again = poll(store, other, project, sources.url)

    assert list(other.features) == ["region", "age"]
    assert again.files == ()


def test_a_time_may_be_a_number_with_its_unit(
    store: Store, project: Path, sources: Sources
) -> None:
    spec = sql_spec({"column": "at", "kind": "time"}, "epochs", epoch="s")
    sources.create(COLUMNS.replace("at text", "at integer"), "epochs")
    add(sources, 1, 2, at="1706774400", table="epochs")
    poll(store, spec, project, sources.url)
    add(sources, 3, at="1706774000", table="epochs")

    poll(store, spec, project, sources.url)

    assert ids_of(store, spec) == ["p1", "p2", "p3"]


def test_many_rows_become_several_batches(store: Store, project: Path, sources: Sources) -> None:
    spec = sql_spec(ID, batch_rows=4)
    add(sources, *range(10))

    report = poll(store, spec, project, sources.url)

    assert sorted(file.rows_in for file in report.files) == [2, 4, 4]
    assert min(file.path for file in report.files) == "sql:scores/id-9/1.parquet"
    assert len(ids_of(store, spec)) == 10


def test_a_limit_of_files_holds_and_loses_nothing(
    store: Store, project: Path, sources: Sources
) -> None:
    spec = sql_spec(ID, batch_rows=2)
    add(sources, *range(7))

    reports = [poll(store, spec, project, sources.url, max_files=1) for _ in range(5)]
    add(sources, 7)
    poll(store, spec, project, sources.url)

    assert [r.total("n_new") for r in reports] == [2, 2, 2, 1, 0]
    assert len(ids_of(store, spec)) == 8


def test_bad_rows_and_bad_batches_are_kept_like_those_of_files(
    store: Store, project: Path, sources: Sources
) -> None:
    add(sources, *range(20), score=7)
    refused = poll(store, SPEC, project, sources.url)
    add(sources, 100, score=7)
    add(sources, *range(101, 105))
    mixed = poll(store, SPEC, project, sources.url)

    (batch,) = refused.of("quarantined")
    assert batch.reason == "too_many_bad"
    assert (mixed.total("n_new"), mixed.total("n_bad")) == (4, 1)
    place = "sql:scores/id-104/1.parquet, row 1"
    assert any(place in letter["message"] for letter in letters_of(store, SPEC))

    lenient = sql_spec(ID, max_bad_rate=1.0)
    again = poll(store, lenient, project, sources.url)

    assert (again.total("n_bad"), len(again.files)) == (21, 2)
    replay_file(store, lenient, batch.sha256[:12], now=NOW)
    assert poll(store, lenient, project, sources.url).total("n_bad") == 20


def test_a_source_that_fails_does_not_stop_the_other_stream(store: Store, project: Path) -> None:
    land(project, f"{ACTUALS}/a.parquet", truths(3))

    report = poll(store, SPEC, project, None)

    assert [(f.stream, f.status) for f in report.files] == [
        ("predictions", "failed"),
        ("actuals", "done"),
    ]
    assert f"{VARIABLE} is not set" in render_report(report)


@pytest.mark.parametrize(
    ("cursor", "table", "said"),
    [
        (ID, "score", "Did you mean 'scores'"),
        ({"column": "m", "kind": "id"}, "scores", "has no column 'm'"),
        ({"column": "xmin", "kind": "xmin"}, "scores", "is for PostgreSQL"),
    ],
)
def test_a_wrong_declaration_is_told_with_the_next_step(
    store: Store, project: Path, sources: Sources, cursor: dict[str, Any], table: str, said: str
) -> None:
    add(sources, 1, 2)

    (file,) = poll(store, sql_spec(cursor, table), project, sources.url).files

    assert (file.status, file.reason) == ("failed", "source_failed")
    assert said in file.message


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("not a url", ConfigError, "is not a database URL"),
        ("sqlite:////nowhere/at/all.db", ConfigError, "does not exist"),
        ("klingon://user:hunter2@host/db", ConfigError, "does not know"),
        ("postgresql://user:hunter2@127.0.0.1:1/db", StoreError, "Connection refused"),
    ],
)
def test_a_database_that_cannot_be_used_is_told_without_its_password(
    url: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as raised, source_connection(url, VARIABLE):
        pass

    assert said in str(raised.value)
    assert VARIABLE in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_postgres_urls_need_no_driver() -> None:
    url = parse_source_url("postgres://u:p@h/d", VARIABLE)

    assert url.drivername == "postgresql+psycopg2"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None, 3], pa.array([1, None, 3])),
        ([1, 2**70], pa.array(["1", str(2**70)])),
        ([1, 2.5], pa.array(["1", "2.5"])),
        ([decimal.Decimal("1.10"), None], pa.array(["1.10", None])),
        ([True, None], pa.array([True, None])),
        ([b"abc", b"\xff"], pa.array(["abc", "\0"])),
        ([{"a": 1}], pa.array(["\0"])),
        ([uuid.UUID(int=1)], pa.array(["00000000-0000-0000-0000-000000000001"])),
        ([dt.date(2024, 1, 2)], pa.array([dt.date(2024, 1, 2)])),
        ([None, None], pa.array([None, None], pa.string())),
    ],
)
def test_cells_keep_their_type_or_all_their_digits(values: list[Any], expected: pa.Array) -> None:
    assert cells_of(values).equals(expected)


def test_times_are_kept_in_utc_and_naive_ones_stay_naive() -> None:
    berlin = dt.timezone(dt.timedelta(hours=1))
    aware = cells_of([dt.datetime(2024, 1, 1, 1, tzinfo=berlin), None])
    naive = cells_of([dt.datetime(2024, 1, 1, 1)])  # noqa: DTZ001 - it is what is tested

    assert aware.to_pylist()[0].isoformat() == "2024-01-01T00:00:00+00:00"
    assert naive.type.tz is None


def test_the_example_of_a_table_is_a_valid_source() -> None:
    import yaml

    page = (Path(__file__).parents[2] / "docs/sources.md").read_text()
    block = page.split("## Tables")[1].split("```")[1]
    spec = spec_from_mapping(
        {**SPEC.model_dump(by_alias=True, exclude_unset=True), **yaml.safe_load(block)}
    )

    assert spec.source.predictions.label == "table serving.scores (database of SCORES_DB_URL)"
