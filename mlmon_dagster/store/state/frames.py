"""Rows of the state database as data frames."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

from mlmon_dagster.store.state.column_types import UtcDateTime

if TYPE_CHECKING:
    import pandas as pd


def read_frame(engine: sa.Engine, query: sa.Select[Any]) -> pd.DataFrame:
    """Run a query and return its rows.

    Returns:
        Texts as ``object``, times as ``datetime64[us, UTC]``, numbers as int64 or float64 (NaN
        for NULL). The dtypes do not depend on the rows, so no rows at all have them too.
    """
    with engine.connect() as conn:
        return frame_of(conn, query)


def frame_of(conn: sa.Connection, query: sa.Select[Any]) -> pd.DataFrame:
    """As `read_frame`, inside of a transaction."""
    import pandas as pd

    # Raw values: parsing times one by one would take most of the time of a large result.
    rows = conn.execute(_raw(query, conn.dialect.name)).all()
    columns = list(query.selected_columns)
    values = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    return pd.DataFrame(
        {c.name: _series(c.type, v, pd) for c, v in zip(columns, values, strict=True)}
    )


def _raw(query: sa.Select[Any], dialect: str) -> sa.Select[Any]:
    if dialect != "sqlite":
        return query
    columns = [
        sa.type_coerce(c, sa.String()).label(c.name) if isinstance(c.type, UtcDateTime) else c
        for c in query.selected_columns
    ]
    return query.with_only_columns(*columns, maintain_column_froms=True)


def _series(type_: sa.types.TypeEngine[Any], values: Any, pd: ModuleType) -> Any:
    if isinstance(type_, UtcDateTime):
        return pd.Series(pd.to_datetime(list(values), utc=True)).astype("datetime64[us, UTC]")
    dtype = "object"
    if isinstance(type_, sa.Float):
        dtype = "float64"
    elif isinstance(type_, sa.Boolean):
        dtype = "bool"
    elif isinstance(type_, sa.Integer):
        dtype = "float64" if None in values else "int64"
    return pd.Series(values, dtype=dtype)


Row = Mapping[str, Any]


def fetch(conn: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    """Run a query and return its rows by column name."""
    return cast("list[Row]", list(conn.execute(query).mappings()))
