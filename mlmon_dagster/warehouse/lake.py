"""Tables of a lake: sets of Parquet files, of which every version names its own.

What changed between two versions is told by the rows of the files that only one of them has. Rows
that were arranged anew are in both, so compaction changes no window.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.dataset as pads

from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import EVERY_ID, Bucket
from mlmon_dagster.warehouse.owner import ARRIVED, ROWS, Changes, Moments, Wanted

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position

_QUARTER = "INTERVAL 15 MINUTE"
_BATCH = 65_536
_FILE = "__filename"  # what Arrow calls the file that a row is of


class LakeTable(Protocol):
    """One version of a table."""

    @property
    def position(self) -> Position:
        """Which version."""

    @property
    def dataset(self) -> pads.FileSystemDataset:
        """Its rows."""

    def find_difference(self, since: Position) -> Difference | str:
        """Return what another version does not share; in words why that is not known."""

    def list_arrivals(self) -> pa.Table:
        """Return the columns ``file`` and ``moment``: when each file came."""


@dataclass(frozen=True)
class Difference:
    """The files that one of two versions has alone: ``came`` the newer one, ``went`` the older."""

    came: pads.FileSystemDataset | None
    went: pads.FileSystemDataset | None


def choose_files(dataset: pads.FileSystemDataset, paths: set[str]) -> pads.FileSystemDataset | None:
    """Return some files of a dataset as one; None without any."""
    files = [fragment for fragment in dataset.get_fragments() if fragment.path in paths]
    if not files:
        return None
    return pads.FileSystemDataset(files, dataset.schema, dataset.format, dataset.filesystem)


@dataclass(frozen=True)
class Lake:
    """See `OwnerTables`."""

    queries: QueryEngine
    tables: Mapping[Stream, LakeTable]
    wanted: Mapping[Stream, Wanted]
    per_second: int | None

    def __post_init__(self) -> None:
        kind = self._find_kind()
        is_time = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
        is_number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        if not is_time and not (is_number and self.per_second):
            raise self.wanted["predictions"].refuse_time(kind, "Write it as one")

    def find_changes(self, stream: Stream, since: Position) -> Changes:
        """Return what changed in a table since a position; {} is before it had any rows."""
        table, wanted = self.tables[stream], self.wanted[stream]
        now = table.position
        asked = self._list_asked(wanted)
        nothing = table.dataset.schema.empty_table().select([name for name, _ in asked])
        if since == now:
            return Changes(now, nothing)
        found = table.find_difference(since) if since else Difference(table.dataset, None)
        if isinstance(found, str):
            return Changes(now, None, found)
        sides = {"came": found.came, "went": found.went}
        there = {name: side for name, side in sides.items() if side is not None}
        if not there:
            return Changes(now, nothing)
        if len(there) == 1:
            source = next(iter(there))
        else:
            came, went = (_select_all(wanted.names, name, there) for name in sides)
            source = f"(({came} EXCEPT ALL {went}) UNION ALL ({went} EXCEPT ALL {came}))"
        chosen = ", ".join(f"{sql} AS {quote_identifier(name)}" for name, sql in asked)
        return Changes(now, self.queries.query(f"SELECT DISTINCT {chosen} FROM {source}", there))

    def find_schema(self, stream: Stream) -> pa.Schema:
        """Return the names and types of all columns of a table."""
        return self.tables[stream].dataset.schema

    def count_nameless(self) -> int:
        """Return how many rows of ground truth have no id."""
        nulls = (pads.field(name).is_null() for name in self.wanted["actuals"].ids)
        return int(self.tables["actuals"].dataset.count_rows(filter=reduce(and_, nulls)))

    def count_unmatched(self, ids: pa.Table) -> int:
        """Return how many of some ids of ground truth no prediction has."""
        mine, theirs = _spell_ids(ids.column_names), _spell_ids(self.wanted["predictions"].ids)
        # What is kept of the predictions' ids is at most as large as the ids that are asked for.
        known = f"SELECT {theirs} FROM predictions WHERE {theirs} IN (SELECT {mine} FROM ids)"
        is_there = " OR ".join(f"{quote_identifier(n)} IS NOT NULL" for n in ids.column_names)
        sql = f"SELECT COUNT(*) AS n FROM ids WHERE ({is_there}) AND {mine} NOT IN ({known})"
        tables = {"predictions": self.tables["predictions"].dataset, "ids": ids}
        return int(self.queries.query(sql, tables)["n"][0].as_py())

    def _list_asked(self, wanted: Wanted) -> list[tuple[str, str]]:
        """Return the columns that tell which windows rows touch, and how they are read."""
        if wanted.stream == "actuals":
            return [(name, quote_identifier(name)) for name in wanted.ids]
        time = quote_identifier(wanted.time)
        if not pa.types.is_temporal(self._find_kind()):
            return [(wanted.time, time)]
        return [(wanted.time, f"time_bucket({_QUARTER}, {time})")]

    def _find_kind(self) -> pa.DataType:
        dataset, wanted = self.tables["predictions"].dataset, self.wanted["predictions"]
        return dataset.schema.field(wanted.time).type

    def read_times(self, ids: pa.Table | None = None) -> pa.Table:
        """Return the distinct times and datasets of predictions; by default of all of them."""
        wanted = self.wanted["predictions"]
        dataset = self.tables["predictions"].dataset
        chosen = [f"{sql} AS {quote_identifier(name)}" for name, sql in self._list_asked(wanted)]
        if wanted.dataset in dataset.schema.names:
            chosen.append(quote_identifier(wanted.dataset))
        tables: dict[str, object] = {"predictions": dataset}
        where = ""
        if ids is not None:
            tables["ids"] = ids
            asked = f"SELECT {_spell_ids(ids.column_names)} FROM ids"
            where = f"WHERE {_spell_ids(wanted.ids)} IN ({asked})"
        chosen.append(f"COUNT(*) AS {quote_identifier(ROWS)}")
        sql = f"SELECT {', '.join(chosen)} FROM predictions {where} GROUP BY ALL"
        return self.queries.query(sql, tables)

    def count_predictions(self, moments: Moments) -> int:
        """Return how many predictions there are, about."""
        return int(self.tables["predictions"].dataset.count_rows(filter=self._within([moments])))

    def read_predictions(self, spans: Sequence[Moments], bucket: Bucket) -> pa.Table:
        """Return the predictions of some times, and those of the same ids at other times."""
        wanted = self.wanted["predictions"]
        dataset = self.tables["predictions"].dataset
        names = [name for name in wanted.names if name in dataset.schema.names]
        within = self._within(spans)
        where = "TRUE" if bucket == EVERY_ID else bucket.sql(_spell_ids(wanted.ids))
        mine = self.queries.query(
            f"SELECT * FROM found WHERE {where}", {"found": _scan(dataset, names, within)}
        )
        others = self._within([span.with_neighbours() for span in spans]) & ~within
        is_mine = f"{_spell_ids(wanted.ids)} IN (SELECT {_spell_ids(wanted.ids)} FROM mine)"
        ids = mine.select(wanted.ids)
        # Nearly always there are none, which the ids alone say.
        found = {"found": _scan(dataset, wanted.ids, others), "mine": ids}
        again = self.queries.query(f"SELECT DISTINCT * FROM found WHERE {is_mine}", found)
        if not again.num_rows:
            return mine
        found = {"found": _scan(dataset, names, others), "mine": again}
        return pa.concat_tables(
            [mine, self.queries.query(f"SELECT * FROM found WHERE {is_mine}", found)]
        )

    def read_actuals(self, ids: pa.Table) -> pa.Table:
        """Return the ground truth of some ids, and when its files came."""
        wanted, table = self.wanted["actuals"], self.tables["actuals"]
        names = [n for n in wanted.names if n in table.dataset.schema.names]
        chosen = ", ".join(f"a.{quote_identifier(name)}" for name in names)
        reader = _scan(table.dataset, [*names, _FILE])
        asked = f"SELECT {_spell_ids(ids.column_names)} FROM ids"
        return self.queries.query(
            f"""SELECT {chosen}, f.moment AS {quote_identifier(ARRIVED)}
            FROM actuals AS a LEFT JOIN files AS f ON f.file = a.{quote_identifier(_FILE)}
            WHERE {_spell_ids(wanted.ids, "a.")} IN ({asked})""",
            {"actuals": reader, "files": table.list_arrivals(), "ids": ids},
        )

    def _within(self, spans: Sequence[Moments]) -> pads.Expression:
        """Return the condition that a prediction may be of some times; files go by it, too."""
        time = pads.field(self.wanted["predictions"].time)
        limits = map(self._find_limits, spans)
        return reduce(or_, ((time >= start) & (time < end) for start, end in limits))

    def _find_limits(self, span: Moments) -> tuple[pa.Scalar, pa.Scalar]:
        kind = self._find_kind()
        if not pa.types.is_temporal(kind):
            start, end = span.count(self.per_second or 1)
            return pa.scalar(start), pa.scalar(end)
        if getattr(kind, "tz", None) is None:
            span = span.in_any_zone()
        return _spell_time(kind, span.start), _spell_time(kind, span.end)


def _scan(
    dataset: pads.Dataset, names: Sequence[str], where: pads.Expression | None = None
) -> pa.RecordBatchReader:
    """Read columns of some rows, of which few are read ahead."""
    scanner = dataset.scanner(
        columns=list(names), filter=where, batch_size=_BATCH, batch_readahead=2,
        fragment_readahead=2,
    )  # fmt: skip
    return scanner.to_reader()


def _select_all(names: Sequence[str], of: str, tables: Mapping[str, pads.Dataset]) -> str:
    """Return the statement that reads columns of a table; null where it lacks one that others have.

    A column that only the newer version has would not be compared otherwise.
    """
    has = {name: set(table.schema.names) for name, table in tables.items()}
    known = [name for name in names if any(name in there for there in has.values())]
    columns = (
        quote_identifier(name) if name in has[of] else f"NULL AS {quote_identifier(name)}"
        for name in known
    )  # fmt: skip
    return f"SELECT {', '.join(columns)} FROM {of}"


def _spell_time(kind: pa.DataType, moment: dt.datetime) -> pa.Scalar:
    utc = moment.astimezone(dt.UTC)
    if pa.types.is_date(kind):
        return pa.scalar(utc.date(), kind)
    return pa.scalar(utc if kind.tz is not None else utc.replace(tzinfo=None), kind)


def _spell_ids(names: Sequence[str], of: str = "") -> str:
    """Return the ids of a row as texts, since two tables may have them as other types."""
    cast = [f"CAST({of}{quote_identifier(name)} AS VARCHAR)" for name in names]
    return cast[0] if len(cast) == 1 else f"({', '.join(cast)})"
