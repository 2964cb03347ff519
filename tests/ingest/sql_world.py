"""A table of a source database, real sessions that write to it, and a model that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.ingest import IngestReport, readers
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from tests.ingest.landing import credit_spec, ingest

VARIABLE = "SCORES_DB_URL"
XMIN = {"column": "xmin", "kind": "xmin"}
COLUMNS = "id text, at timestamptz, score float8, decision int, age float8, region text"


def sql_spec(cursor: dict[str, Any], table: str = "scores", **changes: Any) -> ModelSpec:
    """Return the credit model with its predictions in a table."""
    source = {"sql": table, "url_env": VARIABLE, "cursor": cursor, **changes}
    columns = {
        "prediction_id": "id", "event_time": "at", "score": "score", "prediction": "decision",
        "actual": "defaulted", "actual_time": "known_at",
    }  # fmt: skip
    features = {
        "age": {"type": "numeric", "nullable": True},
        "region": {"type": "categorical"},
    }
    return credit_spec(source__predictions=source, columns=columns, features=features)


class Sources:
    """A source database with sessions of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = sa.create_engine(url, poolclass=sa.NullPool)

    def run(self, *statements: str) -> None:
        """Run statements, each in a transaction of its own."""
        for statement in statements:
            with self.engine.begin() as conn:
                conn.exec_driver_sql(statement)

    def create(self, columns: str = COLUMNS, table: str = "scores") -> None:
        """Create the table of predictions."""
        self.run(f"CREATE TABLE {table} ({columns})")

    def begin(self) -> sa.Connection:
        """Open a session with a transaction."""
        conn = self.engine.connect()
        conn.begin()
        return conn

    def insert(self, *ids: str, table: str = "scores") -> None:
        """Insert good rows and commit."""
        with self.engine.begin() as conn:
            insert(conn, *ids, table=table)


def insert(conn: sa.Connection, *ids: str, table: str = "scores") -> None:
    """Insert good rows in an open transaction."""
    for prediction_id in ids:
        conn.execute(
            sa.text(
                f"INSERT INTO {table} (id, at, score, decision, age, region) "
                "VALUES (:id, '2024-02-01 08:00:00+00', 0.5, 1, 30, 'north')"
            ),
            {"id": prediction_id},
        )


def poll(
    store: Store, spec: ModelSpec, project: Path, url: str | None, **options: Any
) -> IngestReport:
    """Ingest, with the database's URL in the environment variable."""
    return ingest(store, spec, project, readers=readers({VARIABLE: url}.get), **options)


def ids_of(store: Store, spec: ModelSpec) -> list[str]:
    """Return the ids in the log, sorted; an id that was taken twice is there twice."""
    rows: Sequence[Any] = store.event_log(spec).rows("predictions")["prediction_id"].to_pylist()
    return sorted(rows)
