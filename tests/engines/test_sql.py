"""The portable statements give what DuckDB gives, in databases of quite another kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.bin_codes import NARROW, POSTGRES, Dialect, spelled_for_spark
from mlmon_dagster.profiles.compiler import Engine
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.spec.names import ROWS
from tests.engines import needs
from tests.profiles.comparing import assert_equal
from tests.profiles.records import DuckEngine, make_records, make_spec

TYPES: dict[str, Any] = {
    "string": sa.Text, "double": sa.Double, "int64": sa.BigInteger, "bool": sa.Boolean,
    "timestamp[us, tz=UTC]": sa.DateTime(timezone=True), "list<item: string>": sa.ARRAY(sa.Text),
}  # fmt: skip


class PostgresEngine:
    def __init__(self, url: str, **tables: pa.Table) -> None:
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool, connect_args={"options": "-c timezone=UTC"}
        )
        for name, records in tables.items():
            columns = [sa.Column(field.name, TYPES[str(field.type)]) for field in records.schema]
            table = sa.Table(name, sa.MetaData(), *columns)
            with self._engine.begin() as connection:
                table.create(connection)
                connection.execute(table.insert(), records.to_pylist())

    def query(self, sql: str, /) -> pa.Table:
        with self._engine.connect() as connection:
            result = connection.exec_driver_sql(sql.replace("%", "%%"))
            columns = zip(*result.all(), strict=True)
            return pa.table(dict(zip(result.keys(), map(pa.array, columns), strict=True)))


class DataFusionEngine:
    def __init__(self, **tables: pa.Table) -> None:
        import datafusion

        self._context = datafusion.SessionContext()
        for name, records in tables.items():
            self._context.from_arrow(records, name=name)

    def query(self, sql: str, /) -> pa.Table:
        return self._context.sql(sql).to_arrow_table()


@contextmanager
def spark_session() -> Iterator[Any]:
    """Start Spark in this process, unless it runs here already."""
    from pyspark.sql import SparkSession

    before = SparkSession.getActiveSession()
    settings = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1"}
    session = before or SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
    try:
        yield session
    finally:
        if before is None:
            session.stop()


class SparkEngine:
    """Spark itself, or Sail, which speaks its language."""

    def __init__(self, session: Any, **tables: pa.Table) -> None:
        self._session = session
        session.conf.set("spark.sql.session.timeZone", "UTC")
        for name, records in tables.items():
            session.createDataFrame(records).createOrReplaceTempView(name)

    def query(self, sql: str, /) -> pa.Table:
        return self._session.sql(spelled_for_spark(sql)).toArrow()


MOST_CHARS = 30_000  # Spark's generator of code breaks at ten times as many


def with_unseen(records: pa.Table) -> pa.Table:
    """Return the records with a category in the first that no baseline has."""
    unseen = pa.array(["new", *records.column("carrier").to_pylist()[1:]])
    return records.set_column(records.column_names.index("carrier"), "carrier", unseen)


# Not a multiple of 20: where a share of the rows is a whole number, the engines round apart.
BASELINE, RECORDS = make_records(401, seed=1), with_unseen(make_records(600, seed=2))
SPEC = make_spec()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[tuple[Engine, Dialect]]:
    """A database with the records, and how it wants its SQL."""
    if request.param == "postgres":
        yield PostgresEngine(request.getfixturevalue("pg_url"), records=RECORDS), POSTGRES
    elif request.param == "datafusion":
        pytest.importorskip("datafusion", reason="needs the package datafusion")
        yield DataFusionEngine(records=RECORDS), NARROW
    else:
        needs("spark")
        with spark_session() as session:
            yield SparkEngine(session, records=RECORDS), NARROW


SPARK = pytest.param("spark", marks=[pytest.mark.proof, pytest.mark.xdist_group("engines")])


@pytest.mark.parametrize("database", ["postgres", "datafusion", SPARK], indirect=True)
def test_a_database_gives_the_statistics_that_duckdb_gives(
    database: tuple[Engine, Dialect], monkeypatch: pytest.MonkeyPatch
) -> None:
    duck = DuckEngine(baseline=BASELINE, records=RECORDS)
    binnings = fit_binnings(duck, SPEC, "baseline")
    engine, dialect = database
    query, lengths = engine.query, list[int]()

    def counted(sql: str) -> pa.Table:
        lengths.append(len(sql))
        return query(sql)

    monkeypatch.setattr(engine, "query", counted)
    here = build_profiles(duck, SPEC, "records", binnings)
    there = build_profiles(engine, SPEC, "records", binnings, dialect)

    assert here.pop(ROWS) is not None  # of DuckDB alone
    for column, stats in here.items():
        assert_equal(stats, there[column], sums=1e-9)
    assert {"new": 1} in here["carrier"].unseen
    assert max(lengths) < MOST_CHARS


@pytest.mark.slow
def test_postgres_chooses_the_bins_that_duckdb_chooses(pg_url: str) -> None:
    postgres = PostgresEngine(pg_url, baseline=BASELINE)

    binnings = fit_binnings(postgres, SPEC, "baseline", POSTGRES)

    fitted = fit_binnings(DuckEngine(baseline=BASELINE), SPEC, "baseline")
    assert fitted.pop(ROWS) is not None
    for name, binning in fitted.items():
        assert binnings[name].edges == binning.edges
        assert set(binnings[name].categories) == set(binning.categories)


def test_names_texts_and_times_are_spelled_for_spark() -> None:
    sql = """SELECT "q""t", 'it''s \\ "x"', CAST("a" AS VARCHAR), EXTRACT(EPOCH FROM "b)")"""

    assert spelled_for_spark(sql) == (
        r"""SELECT `q"t`, 'it\'s \\ "x"', CAST(`a` AS STRING), (UNIX_MICROS(`b)`) / 1e6)"""
    )
