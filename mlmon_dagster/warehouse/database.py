"""Tables of a database that an owner's rows stay in, read in one transaction with one view of them.

What changed is found as for tables that are copied (see `store.sources`): by the transactions that
wrote rows, or by a growing number or time. No database tells of rows that were deleted.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.ingest.sources.polling import needed
from mlmon_dagster.ingest.sources.sql import as_table
from mlmon_dagster.spec.sources import SqlSource, Stream
from mlmon_dagster.store.sources import (
    RangeScan,
    SourceTable,
    find_table,
    source_connection,
    stream_rows,
    take_snapshot,
)
from mlmon_dagster.store.tables.part_files import EVERY_ID, Bucket
from mlmon_dagster.warehouse.by_day import ByDay, Moments
from mlmon_dagster.warehouse.owner import (
    ARRIVED,
    ROWS,
    Changes,
    Owner,
    OwnerTables,
    Wanted,
)

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position

_IDS_AT_ONCE = 5_000  # of a statement
Condition = sa.ColumnElement[bool]


@contextmanager
def open_tables(owner: Owner, _at: Mapping[Stream, Position]) -> Iterator[OwnerTables]:
    """Open the tables of a database as they are now, see `Owner.opened`."""
    sources = owner.find_sources(SqlSource)
    events = sources["predictions"]
    what = f"the URL of the database with the table {events.sql}"
    url = needed(owner.around.variables, events.url_env, what)
    with source_connection(url, events.url_env) as conn:
        tables = {
            stream: find_table(conn, sources[stream], wanted.names, wanted.required, wanted.ids)
            for stream, wanted in owner.wanted.items()
        }
        yield _Database(conn, sources, tables, owner.wanted, owner.per_second)


@dataclass(frozen=True)
class _Database:
    """See `OwnerTables`."""

    conn: sa.Connection
    sources: Mapping[Stream, SqlSource]
    tables: Mapping[Stream, SourceTable]
    wanted: Mapping[Stream, Wanted]
    per_second: int | None

    def __post_init__(self) -> None:
        kind = self._find_kind()
        is_number = isinstance(kind, sa.Integer | sa.Numeric) and self.per_second
        if not isinstance(kind, sa.DateTime | sa.Date) and not is_number:
            raise self.wanted["predictions"].refuse_time(kind, "Show it as one in a view")

    def _find_kind(self) -> object:
        return self.tables["predictions"].kinds[self.wanted["predictions"].time]

    def find_changes(self, stream: Stream, since: Position) -> Changes:
        """Return what changed in a table since a position; {} is before it had any rows."""
        source, table, wanted = self.sources[stream], self.tables[stream], self.wanted[stream]
        names = wanted.ids if stream == "actuals" else (wanted.time,)
        chosen = self._select(stream, names)
        if source.cursor.kind == "xmin":
            snapshot = take_snapshot(self.conn, source, table, since)
            if snapshot.notice or not since:
                notice = f"{snapshot.notice} All windows are computed again." if since else ""
                return Changes(snapshot.position, None, notice)
            if snapshot.where is None:
                return Changes(snapshot.position, as_table(names, []))
            found = self._read(names, chosen.where(snapshot.where).distinct())
            return Changes(snapshot.position, found)
        scan = RangeScan(self.conn, source, table, since)
        every = [str(column.key) for column in table.selected]
        places = [every.index(name) for name in names]
        read = [[row[place] for place in places] for rows in scan.rows() for row in rows]
        found = as_table(names, [list(row) for row in dict.fromkeys(map(tuple, read))])
        return Changes(scan.position, found, scan.notice)

    def find_schema(self, stream: Stream) -> pa.Schema:
        """Return the names and types of all columns of a table."""
        kinds = self.tables[stream].kinds
        return pa.schema([pa.field(name, _find_arrow_type(kind)) for name, kind in kinds.items()])

    def read_times(self, ids: pa.Table | None = None) -> pa.Table:
        """Return the distinct times and datasets of predictions; by default of all of them."""
        wanted = self.wanted["predictions"]
        there = {str(column.key) for column in self.tables["predictions"].selected}
        names = [name for name in (wanted.time, wanted.dataset) if name in there]
        query = self._select("predictions", names)
        query = query.add_columns(sa.func.count().label(ROWS)).group_by(*query.selected_columns)
        names = [*names, ROWS]
        if ids is None:
            return self._read(names, query)
        return _join(
            names, (self._read(names, query.where(c)) for c in self._any_of("predictions", ids))
        )

    def count_nameless(self) -> int:
        """Return how many rows of ground truth have no id."""
        clause, ids = self.tables["actuals"].clause, self.wanted["actuals"].ids
        query = sa.select(sa.func.count()).select_from(clause)
        return int(self.conn.scalar(query.where(*(clause.c[name].is_(None) for name in ids))) or 0)

    def count_unmatched(self, ids: pa.Table | None) -> int:
        """Return how many of some ids of ground truth no prediction has; of all where None."""
        if ids is None:
            names = self.wanted["actuals"].ids
            ids = self._read(names, self._select("actuals", names).distinct())
        n_asked = sum(any(value is not None for value in row.values()) for row in ids.to_pylist())
        chosen = self._select("predictions", self.wanted["predictions"].ids).distinct()
        n_known = 0
        for condition in self._any_of("predictions", ids):
            known = chosen.where(condition).subquery()
            n_known += self.conn.scalar(sa.select(sa.func.count()).select_from(known)) or 0
        return n_asked - n_known

    def count_predictions(self, moments: Moments) -> int:
        """Return how many predictions there are, about."""
        counted = sa.select(sa.func.count()).select_from(self.tables["predictions"].clause)
        return int(self.conn.execute(counted.where(self._within([moments]))).scalar_one())

    def arrange(self, _spans: Sequence[Moments]) -> None:
        """Return nothing: the database's own index finds the rows of ids."""

    def read_predictions(
        self, spans: Sequence[Moments], bucket: Bucket, _arranged: ByDay | None = None
    ) -> pa.Table:
        """Return the predictions of some times, and those of the same ids at other times."""
        wanted, table = self.wanted["predictions"], self.tables["predictions"]
        names = [str(column.key) for column in table.selected]
        within = self._within(spans)
        if bucket != EVERY_ID and self.conn.dialect.name == "postgresql":
            text = sa.cast(table.clause.c[wanted.ids[0]], sa.Text)
            digits = sa.func.substr(sa.func.md5(text), 1, 3)
            within = sa.and_(within, digits.between(f"{bucket.first:03x}", f"{bucket.last:03x}"))
        ids = [table.clause.c[name] for name in wanted.ids]
        one = ids[0] if len(ids) == 1 else sa.tuple_(*ids)
        around = self._within([span.with_neighbours() for span in spans])
        mine = sa.select(*ids).where(within)
        chosen = self._select("predictions", names)
        both = (within, sa.and_(around, sa.not_(within), one.in_(mine)))
        return _join(names, (self._read(names, chosen.where(which)) for which in both))

    def read_actuals(
        self, ids: pa.Table, _spans: Sequence[Moments], _arranged: ByDay | None = None
    ) -> pa.Table:
        """Return the ground truth of some ids, with the time of its row where the cursor has it."""
        table, cursor = self.tables["actuals"], self.sources["actuals"].cursor
        names = [str(column.key) for column in table.selected]
        chosen = self._select("actuals", names)
        if cursor.kind == "time":
            chosen = chosen.add_columns(table.clause.c[cursor.column].label(ARRIVED))
            names = [*names, ARRIVED]
        rows = _join(
            names, (self._read(names, chosen.where(c)) for c in self._any_of("actuals", ids))
        )
        if ARRIVED not in names:
            return rows
        moments = rows[ARRIVED].cast(pa.timestamp("us")).cast(pa.timestamp("us", "UTC"))
        return rows.set_column(rows.schema.get_field_index(ARRIVED), ARRIVED, moments)

    def _select(self, stream: Stream, names: Sequence[str]) -> sa.Select[Any]:
        table = self.tables[stream]
        by_name = {str(column.key): column for column in table.selected}
        return sa.select(*(by_name[name] for name in names)).select_from(table.clause)

    def _read(self, names: Sequence[str], query: sa.Select[Any]) -> pa.Table:
        rows = [list(row) for some in stream_rows(self.conn, query) for row in some]
        return as_table(names, rows)

    def _any_of(self, stream: Stream, ids: pa.Table) -> Iterator[Condition]:
        """Return conditions that a row has one of some ids, a part of them each."""
        columns: list[Any] = [self.tables[stream].clause.c[n] for n in self.wanted[stream].ids]
        columns = [sa.cast(column, sa.Text) if _is_text(values) else column
                   for column, values in zip(columns, ids.columns, strict=True)]  # fmt: skip
        one = columns[0] if len(columns) == 1 else sa.tuple_(*columns)
        values = (column.to_pylist() for column in ids.columns)
        rows = list(dict.fromkeys(zip(*values, strict=True)))
        for first in range(0, len(rows), _IDS_AT_ONCE):
            some = rows[first : first + _IDS_AT_ONCE]
            yield one.in_([row[0] for row in some] if len(columns) == 1 else some)

    def _within(self, spans: Sequence[Moments]) -> Condition:
        """Return the condition that a prediction may be of some times."""
        time = self.tables["predictions"].clause.c[self.wanted["predictions"].time]
        return sa.or_(
            *(sa.and_(time >= start, time < end) for start, end in map(self._find_limits, spans))
        )

    def _find_limits(self, span: Moments) -> tuple[object, object]:
        kind = self._find_kind()
        if not isinstance(kind, sa.DateTime | sa.Date):
            return span.count(self.per_second or 1)
        if getattr(kind, "timezone", False):
            return span.start.astimezone(dt.UTC), span.end.astimezone(dt.UTC)
        wide = span.in_any_zone()
        start, end = (m.astimezone(dt.UTC).replace(tzinfo=None) for m in (wide.start, wide.end))
        return start, end


def _join(names: Sequence[str], parts: Iterable[pa.Table]) -> pa.Table:
    """Put the rows of several statements together; a column without values has any type."""
    found = [part for part in parts if part.num_rows] or [as_table(names, [])]
    return pa.concat_tables(found, promote_options="permissive")


def _find_arrow_type(kind: object) -> pa.DataType:
    """Return the type that says how a column is written; text for what can be anything."""
    tests: dict[pa.DataType, type[sa.types.TypeEngine[Any]]] = {
        pa.bool_(): sa.Boolean, pa.int64(): sa.Integer, pa.float64(): sa.Numeric,
        pa.timestamp("us"): sa.DateTime, pa.date32(): sa.Date,
    }  # fmt: skip
    if getattr(kind, "timezone", False):
        return pa.timestamp("us", "UTC")
    return next((arrow for arrow, test in tests.items() if isinstance(kind, test)), pa.string())


def _is_text(values: pa.ChunkedArray) -> bool:
    return bool(pa.types.is_string(values.type))
