"""New rows by a growing number or a time, for databases without PostgreSQL's snapshots.

Rows behind the newest one are looked at again, by a declared look-back, so that what commits late
is found; those that were taken are known by a hash of the whole row.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import SqlSource
from mlmon_dagster.spec.sources import PER_SECOND
from mlmon_dagster.store.sources.source_cursor import Position
from mlmon_dagster.store.sources.table import SourceTable, stream_rows


@dataclass
class Lookback:
    """A scan of what is newer than a position, minus its look-back.

    Attributes:
        position: The position after the scan; complete once all rows were taken.
        label: Names the scan.
    """

    conn: sa.Connection
    source: SqlSource
    table: SourceTable
    before: Position
    label: str = ""
    position: Position = field(default_factory=dict)

    def rows(self) -> Iterator[list[Sequence[Any]]]:
        """Yield the rows that were not taken before, in lists.

        Raises:
            ConfigError: If the cursor's column does not hold what its kind says.
        """
        column = self.table.clause.c[self.source.cursor.column]
        newest = self.conn.execute(sa.select(sa.func.max(column))).scalar()
        self.label = f"{self.source.cursor.kind}-{newest}"
        query = sa.select(*self.table.selected, column.label("mlmon_cursor"))
        if "value" in self.before:
            low = self._behind(_decoded(self.before["value"]))
            query = query.where(sa.or_(column >= low, column.is_(None)))
        zone = None if newest is None else self._behind(newest)
        taken = set(self.before.get("seen", ()))
        seen: set[str] = set()
        for rows in stream_rows(self.conn, query):
            fresh = []
            for row in rows:
                value = row[-1]
                stays = value is None or zone is None or value >= zone
                mark = _mark(row) if stays or taken else ""
                if stays:
                    seen.add(mark)
                if mark not in taken:
                    fresh.append(row[:-1])
            if fresh:
                yield fresh
        self.position = {"seen": sorted(seen)}
        if newest is not None:
            self.position = {"value": _encoded(newest), **self.position}

    def _behind(self, value: Any) -> Any:
        """Return the oldest value that is looked at again."""
        cursor = self.source.cursor
        if cursor.kind == "id":
            if isinstance(value, bool) or int(value) != value:
                raise self._wrong(value, "whole numbers")
            return int(value) - cursor.lookback_ids
        back = cursor.lookback_time
        if isinstance(value, dt.datetime):
            return value - back
        if isinstance(value, int | float | decimal.Decimal) and self.source.epoch:
            return int(value) - int(back.total_seconds()) * PER_SECOND[self.source.epoch]
        if isinstance(value, str):
            return self._text_behind(value, back)
        raise self._wrong(value, "times, or numbers with their unit under 'epoch'")

    def _text_behind(self, value: str, back: dt.timedelta) -> str:
        try:
            moment = dt.datetime.fromisoformat(value) - back
        except ValueError:
            raise self._wrong(value, "ISO 8601 times") from None
        # In the form of the column, without fractions and offset, which sort after it.
        return f"{moment:%Y-%m-%d}{value[10:11] or ' '}{moment:%H:%M:%S}"

    def _wrong(self, value: Any, expected: str) -> ConfigError:
        cursor = self.source.cursor
        return ConfigError(
            f"{self.source.label}: column {cursor.column!r} holds values of type "
            f"{type(value).__name__}; kind: {cursor.kind} expects {expected}."
        )


def _mark(row: Sequence[Any]) -> str:
    return hashlib.blake2b(repr(tuple(row)).encode(errors="replace"), digest_size=12).hexdigest()


def _encoded(value: Any) -> Any:
    if isinstance(value, dt.datetime):
        return {"time": value.isoformat()}
    return int(value) if isinstance(value, decimal.Decimal) else value


def _decoded(value: Any) -> Any:
    return dt.datetime.fromisoformat(value["time"]) if isinstance(value, dict) else value
