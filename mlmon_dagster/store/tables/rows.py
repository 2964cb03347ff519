"""Looking into a store from any shell or notebook: rows of one kind, as they are or were.

    open_store(".mlmon/store").records("flight_delay", dataset="production").to_pandas()

No spec is needed: columns are those of the tables.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict, get_args

import pyarrow as pa
from deltalake import DeltaTable

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.sql import literal, quote_identifier
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    LiveFile,
    Partition,
    Snapshot,
    TableVersion,
    open_table,
)

if TYPE_CHECKING:
    import pandas as pd


Kind = Literal["predictions", "actuals", "records", "profiles", "spans"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_PLACES: dict[str, tuple[str, ...]] = {
    "predictions": ("event_log", "{model}", "predictions"),
    "actuals": ("event_log", "{model}", "actuals"),
    "records": ("inference_records", "{model}"),
    "profiles": ("profiles", "{model}"),
    "spans": ("event_log", "{model}", "spans"),
}
_TIMES: dict[Kind, str] = {"actuals": "actual_time", "spans": "start_time"}
_DAY = dt.timedelta(days=1)


class Readable(Protocol):
    """What is needed of a store to look into it."""

    @property
    def root(self) -> Location:
        """Where its tables are."""

    def query(self, sql: str) -> pa.Table:
        """Answer a query."""


@dataclass(frozen=True)
class Rows:
    """Rows of one table that meet some conditions; nothing is read before a ``to_``-method.

    Attributes:
        store: The store.
        kind: Which table.
        model: The model's name.
        conditions: SQL conditions, made by this class.
        names: Columns wanted; None for all.
        limit: At most so many rows.
        as_of: The moment whose version is read; None for the newest.
        keep: Which partitions can have such rows, None for all.
    """

    store: Readable
    kind: Kind
    model: str
    conditions: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    limit: int | None = None
    as_of: dt.datetime | None = None
    keep: Callable[[Partition], bool] | None = None

    def select(self, *names: str) -> Rows:
        """Return the same rows with these columns only."""
        return replace(self, names=names)

    def head(self, n: int = 10) -> Rows:
        """Return at most n of the rows."""
        return replace(self, limit=n)

    def sql(self) -> str:
        """Return the query, to be used soon: it names the files of one version.

        Raises:
            StoreError: If there is no such table, column or version.
        """
        folder = folder_of(self.store, self.kind, self.model)
        snapshot = (
            folder.snapshot()
            if self.as_of is None
            else snapshot_as_of(folder, self.as_of, self.keep)
        )
        if snapshot is None:
            moment = "" if self.as_of is None else f" as of {self.as_of.isoformat()}"
            raise StoreError(
                f"The store {self.store.root} has no {self.kind} of a model {self.model!r}{moment}."
                f" Models with rows: {', '.join(models_of(self.store)) or 'none'}."
            )
        known = snapshot.schema.names
        if unknown := [name for name in self.names or () if name not in known]:
            raise StoreError(
                f"No columns {unknown} in {self.kind} of {self.model!r}. "
                f"Present: {', '.join(known)}."
            )
        names = ", ".join(map(quote_identifier, self.names or known))
        where = f" WHERE {' AND '.join(self.conditions)}" if self.conditions else ""
        tail = "" if self.limit is None else f" LIMIT {int(self.limit)}"
        return f"SELECT {names} FROM {snapshot.from_sql(None, self.keep)}{where}{tail}"

    def to_arrow(self) -> pa.Table:
        """Read the rows as an Arrow table, in no particular order; times are in UTC."""
        return self.store.query(self.sql())

    def to_pandas(self) -> pd.DataFrame:
        """Read the rows as a data frame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame


class Chosen(TypedDict, total=False):
    """Which rows.

    Attributes:
        dataset: All by default.
        since: Windows that start at or after this moment; without a zone it is UTC. Ground truth
            goes by ``actual_time``, spans by when they began.
        until: Windows that start before this moment.
        as_of: As the table was at this moment, within ``retention.versions``.
    """

    dataset: str | None
    since: dt.datetime | dt.date | None
    until: dt.datetime | dt.date | None
    as_of: dt.datetime | None


def rows_of(store: Readable, kind: Kind, model: str, chosen: Chosen) -> Rows:
    """Choose rows of a table of a model."""
    conditions = []
    time = _TIMES.get(kind, "window_start")
    dataset, since, until = chosen.get("dataset"), chosen.get("since"), chosen.get("until")
    if dataset is not None:
        conditions.append(f"dataset = {literal(dataset)}")
    if since is not None:
        conditions.append(f"{time} >= {literal(_moment(since))}")
    if until is not None:
        conditions.append(f"{time} < {literal(_moment(until))}")
    keep = _partitions(kind, dataset, since, until)
    return Rows(store, kind, model, tuple(conditions), as_of=chosen.get("as_of"), keep=keep)


def _partitions(
    kind: Kind,
    dataset: str | None,
    since: dt.datetime | dt.date | None,
    until: dt.datetime | dt.date | None,
) -> Callable[[Partition], bool]:
    """Return which partitions can have rows of a dataset and of windows that start in a period."""
    # Local dates, of whatever zone.
    first = None if since is None else f"{_moment(since).astimezone(dt.UTC) - _DAY:%Y-%m-%d}"
    last = None if until is None else f"{_moment(until).astimezone(dt.UTC) + _DAY:%Y-%m-%d}"

    def keep(partition: Partition) -> bool:
        if dataset is not None and partition.get("dataset", dataset) != dataset:
            return False
        date = partition.get("window_date")
        if date is None or kind == "actuals":  # these are chosen by when they became known
            return True
        return (first is None or date >= first) and (last is None or date <= last)

    return keep


def _moment(moment: dt.datetime | dt.date) -> dt.datetime:
    if not isinstance(moment, dt.datetime):
        moment = dt.datetime.combine(moment, dt.time())
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def folder_of(store: Readable, kind: Kind, model: str) -> DeltaFolder:
    """Return a table by kind and model, with whatever columns it has."""
    place = store.root
    for part in _PLACES[kind]:
        place = place / part.format(model=model)
    return DeltaFolder(place, pa.schema([]))


def models_of(store: Readable) -> list[str]:
    """Return the models that have predictions in the store, sorted."""
    found: Sequence[Any] = (store.root / "event_log").tables()
    names = {t.url.rstrip("/").split("/")[-2] for t in found if t.name == "predictions"}
    return sorted(names)


def snapshot_as_of(
    folder: DeltaFolder, moment: dt.datetime, keep: Callable[[Partition], bool] | None = None
) -> Snapshot | None:
    """Pin the version that was the newest at a moment; None if there was no table yet.

    Moments are those of the commits, by the clock of the machine that made them.

    Args:
        folder: The table.
        moment: A past moment, aware.
        keep: Which partitions will be read, all by default.

    Raises:
        StoreError: If the version is not kept any more, or a file of these partitions is not.
    """
    if folder.snapshot() is None:
        return None
    commits = {c["version"]: c["timestamp"] for c in open_table(folder.path).history()}
    at = moment.timestamp() * 1000
    known = [version for version, timestamp in commits.items() if timestamp <= at]
    if not known:
        if 0 in commits:
            return None
        raise StoreError(_too_old(folder.path, moment, min(commits.values(), default=None)))
    version = max(known)
    table = DeltaTable(folder.path.url, version, storage_options=dict(folder.path.options))
    snapshot = Snapshot(TableVersion(table, folder.path), folder.schema)
    there = {f"{folder.path}/{name}" for name in folder.path.below()}
    wanted = [file for file in snapshot.files if keep is None or keep(file.partition)]
    gone = [file for file in wanted if file.path not in there]
    if gone:
        raise StoreError(_too_old(folder.path, moment, None, gone))
    return snapshot


def _too_old(
    path: Location, moment: dt.datetime, oldest: int | None, gone: Sequence[LiveFile] = ()
) -> str:
    known = ""
    if dates := sorted({file.partition.get("window_date", "") for file in gone}):
        more = f" and {len(dates) - 3:,} more" if len(dates) > 3 else ""
        known = f" Gone are files of {', '.join(dates[:3])}{more}."
    if oldest is not None:
        first = dt.datetime.fromtimestamp(oldest / 1000, dt.UTC)
        known = f" The oldest version still kept is of {first:%Y-%m-%dT%H:%M:%SZ}."
    return (
        f"Rows as of {moment:%Y-%m-%dT%H:%M:%SZ} are not kept any more in {path}: old versions "
        f"were removed after retention.versions, or by an erasure.{known} Metrics as of then still "
        "are: "
        "mlmon metrics MODEL --as-of TIME."
    )
