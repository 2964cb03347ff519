"""Column types and column builders of the state database."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

METADATA = sa.MetaData()
SQLITE_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"


class UtcDateTime(sa.TypeDecorator[dt.datetime]):
    """A timezone-aware UTC instant; ISO text on SQLite, timestamptz on PostgreSQL."""

    impl = sa.String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> sa.types.TypeEngine[Any]:
        """Pick the column type of the dialect."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(sa.String(32))

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        """Refuse naive times; write fixed-width text on SQLite so that it sorts."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"naive time {value!r} given to the state database; pass UTC")
        value = value.astimezone(dt.UTC)
        return value if dialect.name == "postgresql" else value.strftime(SQLITE_TIME)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        """Return an aware UTC datetime."""
        if value is None or isinstance(value, dt.datetime):
            return value if value is None else value.astimezone(dt.UTC)
        return dt.datetime.strptime(value, SQLITE_TIME).replace(tzinfo=dt.UTC)


# An id that counts up on both databases; only INTEGER does so on SQLite.
Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def text(name: str, default: str = "", **kw: Any) -> sa.Column[str]:
    """A text column that is never null."""
    return sa.Column(name, sa.Text, nullable=False, server_default=default, **kw)


def time(name: str, nullable: bool = True, **kw: Any) -> sa.Column[Any]:
    """A UTC time."""
    return sa.Column(name, UtcDateTime, nullable=nullable, **kw)


def count(name: str) -> sa.Column[int]:
    """A whole number that starts at 0."""
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
