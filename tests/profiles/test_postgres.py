"""The portable dialect on an engine of quite another kind."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import sqlalchemy as sa

from mlmon_dagster.profiles import build_profiles, fit_binnings
from mlmon_dagster.profiles.sql.bin_codes import POSTGRES
from tests.profiles.comparing import assert_equal
from tests.profiles.records import DuckEngine, make_records, make_spec

TYPES: dict[str, Any] = {
    "string": sa.Text, "double": sa.Double, "int64": sa.BigInteger, "bool": sa.Boolean,
    "timestamp[us, tz=UTC]": sa.DateTime(timezone=True), "list<item: string>": sa.ARRAY(sa.Text),
}  # fmt: skip


class PostgresEngine:
    """The few lines that make PostgreSQL an engine."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(
            url, poolclass=sa.NullPool, connect_args={"options": "-c timezone=UTC"}
        )

    def add(self, name: str, records: pa.Table) -> None:
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


@pytest.mark.slow
def test_postgres_gives_the_bins_and_statistics_that_duckdb_gives(pg_url: str) -> None:
    spec = make_spec()
    # Not a multiple of 20: where a share of the rows is a whole number, the engines round apart.
    baseline, records = make_records(401, seed=1), make_records(600, seed=2)
    unseen = pa.array(["new", *records.column("carrier").to_pylist()[1:]])
    place = records.column_names.index("carrier")
    records = records.set_column(place, "carrier", unseen)
    duck, postgres = DuckEngine(baseline=baseline, records=records), PostgresEngine(pg_url)
    postgres.add("baseline", baseline)
    postgres.add("records", records)

    binnings = fit_binnings(postgres, spec, "baseline", POSTGRES)
    fitted = fit_binnings(duck, spec, "baseline")
    names = {name: set(binning.categories) for name, binning in fitted.items()}
    assert {name: set(b.categories) for name, b in binnings.items()} == names
    assert {name: b.edges for name, b in binnings.items()} == {
        name: b.edges for name, b in fitted.items()
    }

    here = build_profiles(duck, spec, "records", binnings)
    there = build_profiles(postgres, spec, "records", binnings, POSTGRES)
    for name, stats in here.items():
        assert_equal(stats, there[name], sums=1e-9)
    assert {"new": 1} in here["carrier"].unseen
