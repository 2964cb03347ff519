"""Rows of an owner's tables that are of no window: how many there are, and what is noted of them.

Every look that finds a change counts those that the whole table has now. What is more than at the
look before came with this one; what is less was mended or deleted by the owner and is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from mlmon_dagster.ingest.commit import letter_rows
from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.ingest.report import Fault, FileReport, mask_of
from mlmon_dagster.ingest.rows.canonical import known_datasets
from mlmon_dagster.ingest.rows.judge import MAX_LETTERS, Letter
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.state import manifest
from mlmon_dagster.warehouse.log import draft_raw, make_entry
from mlmon_dagster.warehouse.owner import ROWS, Owner, OwnerTables

_LIE_AHEAD: Final = "future_time"  # such rows are of a window, once it has come


@dataclass(frozen=True)
class Unplaced:
    """Rows of no window, for one reason.

    Attributes:
        fault: What is wrong with them.
        n: How many they are.
    """

    fault: Fault
    n: int

    @property
    def key(self) -> str:
        """Reason and column."""
        return f"{self.fault.reason}:{self.fault.name}"


def find_unplaced(owner: Owner, tables: OwnerTables, stream: Stream) -> list[Unplaced]:
    """Count the rows of a table that are of no window, each for one reason."""
    by_name = {column.name: column for column in columns_of(owner.spec, stream)}
    if stream == "actuals":
        n = tables.count_nameless()
        [fault] = Fault.of(np.arange(1), "null_required", by_name["prediction_id"])
        return [Unplaced(fault, n)] if n else []
    wanted, times = owner.wanted[stream], tables.read_times()
    if not times.num_rows:
        return []
    draft = draft_raw(times.drop_columns([ROWS]), owner.spec, stream, wanted.label, owner.now())
    faults = [fault for fault in draft.faults if fault.reason != _LIE_AHEAD]
    nulls = mask_of(draft.columns["event_time"].is_null())
    faults += Fault.where(nulls, "null_required", by_name["event_time"])
    if "dataset" in by_name:
        is_known = pc.is_in(draft.columns["dataset"], pa.array(known_datasets(stream)))
        faults += Fault.where(~mask_of(is_known), "bad_dataset", by_name["dataset"])
    left = times[ROWS].to_numpy().astype(np.int64)
    found = []
    for fault in faults:
        if n := int(left[fault.rows].sum()):
            found.append(Unplaced(fault, n))
        left[fault.rows] = 0
    return found


def note_unplaced(
    conn: sa.Connection,
    owner: Owner,
    stream: Stream,
    before: Mapping[str, int],
    found: Sequence[Unplaced],
) -> None:
    """Note what came since the look before as refused rows, and forget what is gone."""
    gone = dict(before)
    for one in found:
        if (n := one.n - gone.pop(one.key, 0)) > 0:
            _refuse(conn, owner, stream, one, n)
        elif n < 0:
            _forget(conn, owner, stream, one.key, -n)
    for key, n in gone.items():
        _forget(conn, owner, stream, key, n)


def _refuse(conn: sa.Connection, owner: Owner, stream: Stream, what: Unplaced, n: int) -> None:
    spec, label, now = owner.spec, owner.wanted[stream].label, owner.now()
    name = hashlib.sha256(f"{spec.model}/{label}/{what.key}/{now.isoformat()}".encode())
    sha = f"{manifest.IN_PLACE}{name.hexdigest()}"
    report = FileReport(stream, label, "done", sha, rows_in=n, n_bad=n)
    manifest.note_discovered(conn, [make_entry(spec, report, now)])
    manifest.update_file(conn, spec.model, stream, sha, status="done", finished_at=now,
                         rows_in=n, n_bad=n)  # fmt: skip
    letters: list[Letter] = [
        {
            "row_number": row, "reason": what.fault.reason, "column_name": what.fault.name,
            "message": what.fault.message(label), "row_hash": "", "prediction_id": None,
            "window_start": None,
        }
        for row in range(min(n, MAX_LETTERS))
    ]  # fmt: skip
    manifest.refuse_rows(conn, letter_rows(conn, spec, report, letters, now))


def _forget(conn: sa.Connection, owner: Owner, stream: Stream, key: str, n: int) -> None:
    """Forget rows, those that came last first."""
    model, (reason, _, column) = owner.spec.model, key.partition(":")
    for sha, n_noted in manifest.load_unplaced_in_place(conn, model, stream, reason, column):
        n_gone = min(n, n_noted)
        manifest.forget_rows(conn, model, stream, sha, range(n_noted - n_gone, n_noted))
        less = {"rows_in": n_noted - n_gone, "n_bad": n_noted - n_gone}
        manifest.update_file(conn, model, stream, sha, **less)
        n -= n_gone
