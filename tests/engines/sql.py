"""Databases that run the portable statements: the few lines that make each of them an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.profiles.bin_codes import spelled_for_spark

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
