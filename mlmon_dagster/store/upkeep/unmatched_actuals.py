"""Ground truth that came before its prediction: moved to it when it comes, set aside when not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.state.writer_lock import writer_lock
from mlmon_dagster.store.tables.columns import EXPIRED, UNMATCHED, actual_schema, conform
from mlmon_dagster.store.tables.delta import Snapshot, retry

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

_SET_ASIDE = (UNMATCHED, EXPIRED)
_IDENTITY = ("prediction_id", "dataset", "actual_time", "row_hash", "file_sha", "row_number")


@dataclass(frozen=True)
class Unmatched:
    """Ground truth without a prediction.

    Attributes:
        n_waiting: Rows whose prediction may still come.
        n_expired: Rows that waited longer than ``actuals.unmatched_after``.
        n_placed: Rows whose prediction came since the last time.
    """

    n_waiting: int
    n_expired: int
    n_placed: int = 0


def count_unmatched(store: Store, spec: ModelSpec) -> Unmatched:
    """Count the ground truth without a prediction; reads no rows."""
    snapshot = store.event_log(spec).table("actuals").snapshot()
    files = snapshot.files if snapshot else []
    waiting, expired = (
        sum(file.n_rows for file in files if file.partition["window_date"] == name)
        for name in _SET_ASIDE
    )
    return Unmatched(waiting, expired)


def settle_unmatched(store: Store, spec: ModelSpec, now: datetime) -> Unmatched:
    """Move ground truth to the window of its prediction, and set aside what waited too long.

    What is set aside is kept, and placed if its prediction comes after all; it only is not read
    any more by every rebuild. Killed in between, some rows are in two places, which changes no
    record, and the next call removes them.

    Args:
        store: The store.
        spec: The model.
        now: Rows that arrived ``actuals.unmatched_after`` before it are set aside.
    """
    before = count_unmatched(store, spec)
    if not before.n_waiting and not before.n_expired:
        return before
    with writer_lock(store.state, f"ingest/{spec.model}"):
        n_placed = retry(lambda: _settle_once(store, spec, now), "Placing actuals")
    after = count_unmatched(store, spec)
    return Unmatched(after.n_waiting, after.n_expired, n_placed)


def _settle_once(store: Store, spec: ModelSpec, now: datetime) -> int:
    log = store.event_log(spec)
    folder = log.table("actuals")
    rows = store.query(f"SELECT * FROM {_sql(folder.ensure(), set(_SET_ASIDE))}")
    held = rows.column("window_date")
    placed = log.place(rows.drop_columns(["window_date"]))
    placed = conform(placed, actual_schema(spec), f"{spec.model}/actuals")
    is_placed = pc.not_equal(placed.column("window_date"), UNMATCHED)
    n_placed = int(pc.sum(is_placed).as_py() or 0)
    limit = pa.scalar(now - spec.actuals.unmatched_after, placed.schema.field("ingested_at").type)
    rest = placed.filter(pc.invert(is_placed))
    is_old = pc.less(rest.column("ingested_at"), limit)
    place = pc.if_else(is_old, EXPIRED, UNMATCHED)
    rest = rest.set_column(
        rest.schema.get_field_index("window_date"), rest.schema.field("window_date"), place
    )
    n_expired_before = int(pc.sum(pc.equal(held, EXPIRED)).as_py() or 0)
    if not n_placed and int(pc.sum(is_old).as_py() or 0) == n_expired_before:
        return 0
    moved = _not_there(store, folder.ensure(), placed.filter(is_placed))
    if moved.num_rows:
        folder.ensure().append(moved)
    names = ", ".join(literal(name) for name in _SET_ASIDE)
    folder.ensure().overwrite(rest, f"window_date IN ({names})")
    return n_placed


def _not_there(store: Store, snapshot: Snapshot, rows: pa.Table) -> pa.Table:
    """Leave out rows that an interrupted call has already moved."""
    if not rows.num_rows:
        return rows
    there = _sql(snapshot, set(rows.column("window_date").to_pylist()))
    same = " AND ".join(f"t.{name} IS NOT DISTINCT FROM m.{name}" for name in _IDENTITY)
    return store.query(
        f"SELECT m.* FROM moved AS m WHERE NOT EXISTS (SELECT 1 FROM {there} AS t WHERE {same})",
        {"moved": rows},
    ).cast(rows.schema)


def _sql(snapshot: Snapshot, dates: set[str]) -> str:
    return snapshot.from_sql(None, lambda partition: partition["window_date"] in dates)
