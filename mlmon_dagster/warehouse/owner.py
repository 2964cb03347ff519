"""What is asked of the tables of an owner, whatever keeps them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Final, Protocol, TypeVar

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.errors import ConfigError, StoreError, quote_error
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.sources.polling import Surroundings, id_names, wanted_names
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import (
    PER_SECOND,
    STREAMS,
    DeltaSource,
    FileSource,
    IcebergSource,
    SqlSource,
    Stream,
)
from mlmon_dagster.store import Store
from mlmon_dagster.store.sources import Position, load_cursor, save_cursor
from mlmon_dagster.store.tables.part_files import Bucket
from mlmon_dagster.warehouse.by_day import ByDay, Moments

ARRIVED: Final = "mlmon arrived"  # a column beside the owner's: when a row of ground truth came
ROWS: Final = "mlmon rows"  # a column beside the owner's: how many rows have the same times
_LOOK: Final = "look"  # key beside those of a position: what else was noted
_ROOMS: Final = {"delta": "delta", "iceberg": "iceberg", "sql": "database"}  # kind -> module
S = TypeVar("S", DeltaSource, IcebergSource, SqlSource)


@dataclass(frozen=True)
class Wanted:
    """The columns of one stream that are read.

    Attributes:
        stream: Which.
        label: What people call the table.
        names: The names that the table may have, aliases among them.
        required: Those that it must have.
        ids: Those that identify a row.
        time: That of a prediction's time.
        dataset: That of its dataset; empty without one.
    """

    stream: Stream
    label: str
    names: tuple[str, ...]
    required: tuple[str, ...]
    ids: tuple[str, ...]
    time: str
    dataset: str

    def refuse_time(self, kind: object, cure: str) -> ConfigError:
        """Return the error of a time of predictions by which no windows can be found."""
        return ConfigError(
            f"{self.label}: column {self.time!r} is {kind}; in place windows are found by a column "
            f"of times (timestamp, date, or a number with 'epoch'). {cure}, or leave out in_place."
        )


@dataclass(frozen=True)
class Changes:
    """What is different in a table since a position.

    Attributes:
        position: Where it stands now.
        rows: Times of predictions, or ids of ground truth, of the rows that came, went or changed;
            None if it is not known which, so that all may have.
        notice: What a person has to know; empty if nothing.
    """

    position: Position
    rows: pa.Table | None
    notice: str = ""

    @property
    def are_any(self) -> bool:
        """Whether rows came, went or changed."""
        return self.rows is None or self.rows.num_rows > 0


class OwnerTables(Protocol):
    """The tables of one model, all of them at one position each."""

    def find_changes(self, stream: Stream, since: Position) -> Changes:
        """Return what changed in a table since a position; {} is before it had any rows."""

    def find_schema(self, stream: Stream) -> pa.Schema:
        """Return the names and types of all columns of a table."""

    def read_times(self, ids: pa.Table | None = None) -> pa.Table:
        """Return the distinct times and datasets of predictions; by default of all of them.

        Times may be rounded down to a quarter of an hour. The column `ROWS` says how many
        predictions have them.
        """

    def count_nameless(self) -> int:
        """Return how many rows of ground truth have no id."""

    def count_unmatched(self, ids: pa.Table | None) -> int:
        """Return how many of some ids of ground truth no prediction has; of all where None."""

    def count_predictions(self, moments: Moments) -> int:
        """Return how many predictions there are, about."""

    def arrange(self, spans: Sequence[Moments]) -> ByDay | None:
        """Arrange what is read of some times in several groups; None where that is of no use."""

    def read_predictions(
        self, spans: Sequence[Moments], bucket: Bucket, arranged: ByDay | None = None
    ) -> pa.Table:
        """Return the predictions of some times, and those of the same ids at other times.

        Only ids of a bucket, where the owner's ids are those of the store.
        """

    def read_actuals(
        self, ids: pa.Table, spans: Sequence[Moments], arranged: ByDay | None = None
    ) -> pa.Table:
        """Return the ground truth of some ids, whose predictions are of some times.

        With the column `ARRIVED` where that is known.
        """


@dataclass(frozen=True)
class Owner:
    """The tables of a model, not opened yet.

    Attributes:
        store: Whose engine runs queries.
        spec: The model.
        around: What the tables are reached with.
        now: Returns the present moment.
    """

    store: Store
    spec: ModelSpec
    around: Surroundings
    now: Callable[[], dt.datetime]

    @cached_property
    def wanted(self) -> dict[Stream, Wanted]:
        """The columns of each stream."""
        return {stream: want_columns(self.spec, stream) for stream in list_streams(self.spec)}

    def find_sources(self, kind: type[S]) -> dict[Stream, S]:
        """Return the source of each stream; all of them are of one kind, as specs are checked."""
        found: dict[Stream, S] = {}
        for stream in self.wanted:
            source = self.spec.source.of(stream)
            assert isinstance(source, kind)
            found[stream] = source
        return found

    @property
    def per_second(self) -> int | None:
        """What a second is in a time of predictions that is a number; None where none is."""
        epoch = self.spec.source.predictions.epoch
        return PER_SECOND[epoch] if epoch else None

    @contextmanager
    def opened(self, at: Mapping[Stream, Position] | None = None) -> Iterator[OwnerTables]:
        """Open the tables.

        Args:
            at: At these positions, where they are kept; at the newest ones by default.

        Raises:
            ConfigError: If a table or a column of it does not exist.
            StoreError: If it cannot be read.
        """
        source = self.spec.source.predictions
        assert not isinstance(source, FileSource)  # they are in no table
        room = import_module(f"mlmon_dagster.warehouse.{_ROOMS[source.kind]}")
        try:
            with room.open_tables(self, at or {}) as tables:
                yield tables
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"{source.label} cannot be read: {quote_error(error)}. Check that its files are "
                "all there, and that this user may read them."
            ) from error


def list_streams(spec: ModelSpec) -> tuple[Stream, ...]:
    """Return the streams that a model has."""
    return tuple(s for s in STREAMS if s == "predictions" or spec.has_actuals)


def want_columns(spec: ModelSpec, stream: Stream) -> Wanted:
    """Return which columns of a stream are read."""
    names, required = wanted_names(spec, stream)
    by_name = {column.name: column.source for column in columns_of(spec, stream)}
    source = spec.source.of(stream)
    assert source is not None
    return Wanted(
        stream, source.label, tuple(names), tuple(required), id_names(spec, stream),
        by_name.get("event_time", ""), by_name.get("dataset", ""),
    )  # fmt: skip


@dataclass(frozen=True)
class Noted:
    """What a look noted of a table.

    Attributes:
        position: Where it stood; {} before the first look.
        ahead: From when on rows were there that lay ahead of the look; None without any.
        unplaced: Reason and column -> rows that were of no window.
        reading: How rows were read, see `reading_of`.
    """

    position: Position
    ahead: dt.datetime | None = None
    unplaced: Mapping[str, int] = field(default_factory=dict)
    reading: str = ""

    def save(self, conn: sa.Connection, spec: ModelSpec, stream: Stream, now: dt.datetime) -> None:
        """Write it down."""
        ahead = self.ahead.isoformat() if self.ahead else None
        look = {"ahead": ahead, "unplaced": self.unplaced, "reading": self.reading}
        save_cursor(conn, spec.model, stream, {**self.position, _LOOK: look}, now)


def load_noted(engine: sa.Engine, spec: ModelSpec, stream: Stream) -> Noted:
    """Return what the last look noted of a table."""
    position = dict(load_cursor(engine, spec.model, stream).position)
    look = position.pop(_LOOK, {"ahead": None, "unplaced": {}, "reading": ""})
    ahead = dt.datetime.fromisoformat(look["ahead"]) if look["ahead"] else None
    return Noted(position, ahead, look["unplaced"], look["reading"])


def load_positions(engine: sa.Engine, spec: ModelSpec) -> dict[Stream, Position]:
    """Return where the tables of a model stood at the last look; empty before the first."""
    found = {s: load_noted(engine, spec, s).position for s in list_streams(spec)}
    return {stream: position for stream, position in found.items() if position}
