"""Ends Dagster's own old events, which it keeps for good, without what its pages say of partitions.

Of every asset, or partition of one, and of every check the newest event of each kind stays, however
old: which partitions are materialized and what the checks last said is read from these. Gone are
logs and steps of old runs, and what newer events have replaced. The runs themselves stay listed.
What was measured, judged and told is in the store, which is not touched.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from mlmon_dagster.defs.instance import UNFINISHED
from mlmon_dagster.defs.private_dagster import (
    AssetCheckExecutionRecordStatus,
    AssetCheckExecutionsTable,
    AssetEventTagsTable,
    SqlEventLogStorage,
    SqlEventLogStorageTable,
    SqliteEventLogStorage,
    is_known,
)
from mlmon_dagster.errors import ConfigError

_AT_ONCE = 20_000  # rows of a transaction, so that runs that write meanwhile do not wait for long
_RUNS_AT_ONCE = 1_000
_PLANNED = AssetCheckExecutionRecordStatus.PLANNED.value


@dataclass(frozen=True)
class EndedEvents:
    """What was removed, or would be.

    Attributes:
        n_events: Of the event log of all assets.
        n_checks: Evaluations of checks.
        n_runs: Whose own logs are files, which is so with SQLite.
        size: Bytes of these files.
    """

    n_events: int
    n_checks: int
    n_runs: int
    size: int


def end_old_events(
    instance: dg.DagsterInstance, before: dt.datetime, *, dry_run: bool = False
) -> EndedEvents:
    """Remove events from before a moment that nothing shows any more; those of running runs stay.

    Killed in between it goes on where it was the next time.

    Args:
        instance: Whose.
        before: The moment.
        dry_run: Only count.

    Raises:
        ConfigError: If this version of Dagster keeps its events in another way.
    """
    storage = instance.event_log_storage
    if not is_known() or not isinstance(storage, SqlEventLogStorage):
        raise ConfigError(
            f"Dagster {dg.__version__} keeps its events in {type(storage).__name__}, which is not "
            "known here; its own documentation says how old events are removed."
        )
    running = [
        record.dagster_run.run_id
        for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED))
    ]
    moment = before.astimezone(dt.UTC).replace(tzinfo=None)
    chosen = (
        (AssetCheckExecutionsTable, _list_replaced_checks(moment, running)),
        (SqlEventLogStorageTable, _list_replaced_events(moment, running)),
    )
    n_checks, n_events = (_remove(storage, *one, dry_run=dry_run) for one in chosen)
    n_runs = size = 0
    if isinstance(storage, SqliteEventLogStorage):
        for path in _list_run_files(instance, storage, before):
            n_runs, size = n_runs + 1, size + path.stat().st_size
            if not dry_run:
                path.unlink()
        if n_events + n_checks and not dry_run:
            _shrink(storage)
    return EndedEvents(n_events, n_checks, n_runs, size)


def _list_replaced_checks(moment: dt.datetime, running: list[str]) -> sa.Select[int]:
    """Select evaluations of checks of which there is a newer one, of the same partition."""
    old = AssetCheckExecutionsTable.alias("old")
    new = AssetCheckExecutionsTable.alias("new")
    is_planned = [table.c.execution_status == _PLANNED for table in (old, new)]
    newer = sa.exists().where(
        new.c.asset_key == old.c.asset_key,
        new.c.check_name == old.c.check_name,
        _are_same(new.c.partition, old.c.partition),
        new.c.id > old.c.id,
        # One that was only planned, by a run that died, replaces no evaluation.
        sa.or_(sa.not_(is_planned[1]), is_planned[0]),
    )
    is_old = sa.and_(old.c.evaluation_event_timestamp < moment, old.c.run_id.not_in(running))
    return sa.select(old.c.id).where(is_old, newer)


def _list_replaced_events(moment: dt.datetime, running: list[str]) -> sa.Select[int]:
    """Select events of no asset, and those of which there is a newer one of the same partition."""
    old, new = SqlEventLogStorageTable.alias("old"), SqlEventLogStorageTable.alias("new")
    checks = AssetCheckExecutionsTable.c
    newer = sa.exists().where(
        new.c.asset_key == old.c.asset_key,
        new.c.dagster_event_type == old.c.dagster_event_type,
        _are_same(new.c.partition, old.c.partition),
        new.c.id > old.c.id,
    )
    told = (checks.evaluation_event_storage_id, checks.materialization_event_storage_id)
    shown = sa.union_all(*(sa.select(column).where(column.is_not(None)) for column in told))
    return sa.select(old.c.id).where(
        old.c.timestamp < moment,
        old.c.run_id.not_in(running),
        sa.or_(old.c.asset_key.is_(None), newer),
        old.c.id.not_in(shown),
    )


def _are_same(one: sa.ColumnElement[str], other: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    # Two conditions, of which each has an index; IS NOT DISTINCT FROM has none.
    return sa.or_(one == other, sa.and_(one.is_(None), other.is_(None)))


def _remove(
    storage: SqlEventLogStorage, table: sa.Table, chosen: sa.Select[int], *, dry_run: bool
) -> int:
    """Remove the rows whose ids are chosen, many at a time; return how many."""
    if dry_run:
        with storage.index_connection() as conn:
            counted = sa.select(sa.func.count()).select_from(chosen.subquery())
            return int(conn.execute(counted).scalar_one())
    n = 0
    while True:
        with storage.index_transaction() as conn:
            ids = conn.execute(chosen.limit(_AT_ONCE)).scalars().all()
            if not ids:
                return n
            if table is SqlEventLogStorageTable:
                tags = AssetEventTagsTable
                conn.execute(tags.delete().where(tags.c.event_id.in_(ids)))
            conn.execute(table.delete().where(table.c.id.in_(ids)))
        n += len(ids)


def _list_run_files(
    instance: dg.DagsterInstance, storage: SqliteEventLogStorage, before: dt.datetime
) -> Iterator[Path]:
    """Yield the databases of runs that ended before a moment, as far as they are still there."""
    cursor = None
    ended = dg.RunsFilter(updated_before=before)
    while found := instance.get_run_records(ended, limit=_RUNS_AT_ONCE, cursor=cursor):
        for record in found:
            path = Path(storage.path_for_shard(record.dagster_run.run_id))
            if record.dagster_run.is_finished and path.exists():
                yield path
        cursor = found[-1].dagster_run.run_id


def _shrink(storage: SqliteEventLogStorage) -> None:
    """Give the space of what was removed back to the disk."""
    with storage.index_connection() as conn:
        path = conn.engine.url.database
    with closing(sa.create_engine(f"sqlite:///{path}").raw_connection()) as raw:
        raw.cursor().execute("VACUUM")
