"""Tables of a lake: sets of Parquet files, of which every version names its own.

What changed between two versions is told by the rows of the files that only one of them has. Rows
that were arranged anew are in both, so compaction changes no window.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from operator import and_, or_
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs

from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.store.tables.engine import QueryEngine
from mlmon_dagster.store.tables.part_files import EVERY_ID, Bucket
from mlmon_dagster.warehouse.by_day import (
    HASH,
    ByDay,
    Moments,
    Places,
    Quarters,
    arrange_truth,
    list_days,
)
from mlmon_dagster.warehouse.owner import ARRIVED, ROWS, Changes, Wanted

if TYPE_CHECKING:
    from mlmon_dagster.store.sources import Position

_QUARTER = "INTERVAL 15 MINUTE"
_BATCH = 65_536
_MOMENT = pa.timestamp("us", "UTC")


class LakeTable(Protocol):
    """One version of a table."""

    @property
    def position(self) -> Position:
        """Which version."""

    @property
    def dataset(self) -> pads.FileSystemDataset:
        """Its rows."""

    def find_earlier(self, position: Position) -> LakeTable | str:
        """Return the table at an earlier position; in words why that cannot be read any more."""

    def list_arrivals(self) -> dict[str, dt.datetime]:
        """Return when each file came, by its path."""


def _choose_files(
    dataset: pads.FileSystemDataset, paths: set[str]
) -> pads.FileSystemDataset | None:
    """Return some files of a dataset as one; None without any."""
    files = [fragment for fragment in dataset.get_fragments() if fragment.path in paths]
    if not files:
        return None
    return pads.FileSystemDataset(files, dataset.schema, dataset.format, dataset.filesystem)


def has_lost_files(before: pads.FileSystemDataset, now: pads.FileSystemDataset) -> bool:
    """Whether files that only an earlier version has are there no longer."""
    there = before.filesystem.get_file_info(sorted(_list_paths(before) - _list_paths(now)))
    return any(info.type == pafs.FileType.NotFound for info in there)


def _list_paths(dataset: pads.FileSystemDataset) -> set[str]:
    return {fragment.path for fragment in dataset.get_fragments()}


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
        if not since:
            return Changes(now, None)
        earlier = table.find_earlier(since)
        if isinstance(earlier, str):
            return Changes(now, None, f"{earlier}; all windows are computed again.")
        mine, theirs = _list_paths(table.dataset), _list_paths(earlier.dataset)
        sides = {
            "came": _choose_files(table.dataset, mine - theirs),
            "went": _choose_files(earlier.dataset, theirs - mine),
        }
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

    def count_unmatched(self, ids: pa.Table | None) -> int:
        """Return how many of some ids of ground truth no prediction has; of all where None."""
        names, predictions = self.wanted["actuals"].ids, self.tables["predictions"].dataset
        mine, theirs = _spell_ids(names), _spell_ids(self.wanted["predictions"].ids)
        is_there = " OR ".join(f"{quote_identifier(name)} IS NOT NULL" for name in names)
        if ids is None:  # hashes, since all ids would not fit into memory
            keys = self.wanted["predictions"].ids
            places = Places.gather(
                self.queries.batches(
                    f"SELECT hash({theirs}) FROM found", _BATCH, {"found": _scan(predictions, keys)}
                ),
                Quarters(first=0, bits=0),
            )
            asked = self.queries.batches(
                f"SELECT hash({mine}) FROM found WHERE {is_there}",
                _BATCH,
                {"found": _scan(self.tables["actuals"].dataset, names)},
            )
            return places.count_others(table.column(0).to_numpy() for table in asked)
        # What is kept of the predictions' ids is at most as large as the ids that are asked for.
        known = f"SELECT {theirs} FROM predictions WHERE {_is_among(theirs, mine, 'ids')}"
        sql = f"SELECT COUNT(*) AS n FROM ids WHERE ({is_there}) AND {mine} NOT IN ({known})"
        tables = {"predictions": _scan(predictions, self.wanted["predictions"].ids), "ids": ids}
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
        names = [wanted.time]
        if wanted.dataset in dataset.schema.names:
            names.append(wanted.dataset)
            chosen.append(quote_identifier(wanted.dataset))
        tables: dict[str, object] = {}
        where = ""
        if ids is not None:
            names += wanted.ids
            tables["ids"] = ids
            asked = _spell_ids(ids.column_names)
            where = f"WHERE {_is_among(_spell_ids(wanted.ids), asked, 'ids')}"
        tables["predictions"] = _scan(dataset, dict.fromkeys(names))
        chosen.append(f"COUNT(*) AS {quote_identifier(ROWS)}")
        sql = f"SELECT {', '.join(chosen)} FROM predictions {where} GROUP BY ALL"
        return self.queries.query(sql, tables)

    def count_predictions(self, moments: Moments) -> int:
        """Return how many predictions there are, about."""
        return int(self.tables["predictions"].dataset.count_rows(filter=self._within([moments])))

    def arrange(self, spans: Sequence[Moments]) -> ByDay:
        """Arrange ground truth by the days of its predictions, and find ids that come again."""
        wanted, dataset = self.wanted["predictions"], self.tables["predictions"].dataset
        around = [span.with_neighbours() for span in spans]
        near, quarters = self._within(around), Quarters.around(around)
        time = quote_identifier(wanted.time)
        seconds = f"{time} / {self.per_second or 1}"
        if pa.types.is_temporal(self._find_kind()):
            seconds = f"epoch({time})"
        place = quarters.spell_place(_spell_ids(wanted.ids), seconds)
        found = {"found": _scan(dataset, dict.fromkeys((*wanted.ids, wanted.time)), near)}
        read = self.queries.batches(f"SELECT {place} FROM found", _BATCH, found)
        places = Places.gather(read, quarters)
        hash_ = quarters.spell_hash(_spell_ids(self.wanted["actuals"].ids))
        return arrange_truth(
            self.queries.folder / "by_day",
            self.queries.batches(
                f"SELECT *, {hash_} AS {quote_identifier(HASH)} FROM actuals",
                _BATCH,
                {"actuals": self._open_actuals()},
            ),
            self._lay_out_actuals(),
            places,
            set(chain.from_iterable(list_days(self._widen(span)) for span in spans)),
            self._read_repeated(places, near),
        )

    def _read_repeated(self, places: Places, near: pads.Expression) -> pads.Dataset:
        """Return the predictions of ids that come several times, and maybe a few others."""
        wanted, dataset = self.wanted["predictions"], self.tables["predictions"].dataset
        names = [name for name in wanted.names if name in dataset.schema.names]
        again = places.find_repeated()
        if not again.size:
            return pads.dataset(dataset.schema.empty_table().select(names))
        hash_ = places.quarters.spell_hash(_spell_ids(wanted.ids))
        where = _is_among(hash_, "id", "again")
        tables = {"found": _scan(dataset, names, near), "again": pa.table({"id": again})}
        return pads.dataset(self.queries.query(f"SELECT * FROM found WHERE {where}", tables))

    def read_predictions(
        self, spans: Sequence[Moments], bucket: Bucket, arranged: ByDay | None = None
    ) -> pa.Table:
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
        elsewhere = arranged.repeated if arranged else dataset
        is_mine = _is_among(_spell_ids(wanted.ids), _spell_ids(wanted.ids), "mine")
        ids = mine.select(wanted.ids)
        # Nearly always there are none, which the ids alone say.
        found = {"found": _scan(elsewhere, wanted.ids, others), "mine": ids}
        again = self.queries.query(f"SELECT DISTINCT * FROM found WHERE {is_mine}", found)
        if not again.num_rows:
            return mine
        found = {"found": _scan(elsewhere, names, others), "mine": again}
        return pa.concat_tables(
            [mine, self.queries.query(f"SELECT * FROM found WHERE {is_mine}", found)]
        )

    def read_actuals(
        self, ids: pa.Table, spans: Sequence[Moments], arranged: ByDay | None = None
    ) -> pa.Table:
        """Return the ground truth of some ids, and when its files came."""
        if arranged is None:
            source = self._open_actuals()
        else:
            truth = arranged.open_truth(map(self._widen, spans))
            source = _scan(truth, self._lay_out_actuals().names)
        mine, theirs = _spell_ids(self.wanted["actuals"].ids), _spell_ids(ids.column_names)
        sql = f"SELECT * FROM actuals WHERE {_is_among(mine, theirs, 'ids')}"
        return self.queries.query(sql, {"actuals": source, "ids": ids})

    def _lay_out_actuals(self) -> pa.Schema:
        """Return the columns that ground truth is read with."""
        there, names = self.tables["actuals"].dataset.schema, self.wanted["actuals"].names
        mine = [there.field(name) for name in names if name in there.names]
        return pa.schema([*mine, pa.field(ARRIVED, _MOMENT)])

    def _open_actuals(self) -> pa.RecordBatchReader:
        """Read all ground truth, each row with when its file came."""
        table, schema = self.tables["actuals"], self._lay_out_actuals()
        scanner, came = _make_scanner(table.dataset, schema.names[:-1]), table.list_arrivals()

        def read() -> Iterator[pa.RecordBatch]:
            for tagged in scanner.scan_batches():
                rows = tagged.record_batch
                moment = pa.scalar(came.get(tagged.fragment.path), _MOMENT)
                columns = [*rows.columns, pa.repeat(moment, rows.num_rows)]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

        return pa.RecordBatchReader.from_batches(schema, read())

    def _within(self, spans: Sequence[Moments]) -> pads.Expression:
        """Return the condition that a prediction may be of some times; files go by it, too."""
        time = pads.field(self.wanted["predictions"].time)
        limits = map(self._find_limits, spans)
        return reduce(or_, ((time >= start) & (time < end) for start, end in limits))

    def _widen(self, span: Moments) -> Moments:
        """Return a span with all that it may be where times have no zone."""
        kind = self._find_kind()
        has_zone = not pa.types.is_temporal(kind) or getattr(kind, "tz", None) is not None
        return span if has_zone else span.in_any_zone()

    def _find_limits(self, span: Moments) -> tuple[pa.Scalar, pa.Scalar]:
        kind = self._find_kind()
        if not pa.types.is_temporal(kind):
            start, end = span.count(self.per_second or 1)
            return pa.scalar(start), pa.scalar(end)
        span = self._widen(span)
        return _spell_time(kind, span.start), _spell_time(kind, span.end)


def _scan(
    dataset: pads.Dataset, names: Iterable[str], where: pads.Expression | None = None
) -> pa.RecordBatchReader:
    """Read columns of some rows, of which few are read ahead."""
    return _make_scanner(dataset, names, where).to_reader()


def _make_scanner(
    dataset: pads.Dataset, names: Iterable[str], where: pads.Expression | None = None
) -> pads.Scanner:
    return dataset.scanner(
        columns=list(names), filter=where, batch_size=_BATCH, batch_readahead=2,
        fragment_readahead=2,
    )  # fmt: skip


def _is_among(one: str, others: str, table: str) -> str:
    """Return the condition that a value is among those of another table, which is the small one.

    How many rows a reader has is not known, and the engine would hold all of them to search for
    the few; a condition that is no plain `IN` makes it hold the few.
    """
    return f"coalesce({one} IN (SELECT {others} FROM {table}), FALSE)"


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
