"""Baselines as they are kept: fitted, promoted, and the files that hold what they are made of.

Rows of the state database name the files. Bins hold values of rows: names of categories, values of
numbers, edges between them. Values of rows belong into the store's own files, so a row of the
table ``baseline`` has only the SHA-256 of a file beside the tables, named by it.

A file never changes. It is there before the row that names it, and goes after it; whatever does
either holds one lock, so that nobody deletes a file that is about to be named.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.store.moments import begin_moment, note_commits
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state.database import overwrite_deleted
from mlmon_dagster.store.state.schema import baseline, baseline_promotion
from mlmon_dagster.store.state.sql import Bind, fetch_row, fetch_rows, fetch_value, upsert
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables.derived_columns import EXEMPLAR

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

PROMOTED = "promoted"
FIRST_WINDOWS = "first_windows"  # bins only: windows are compared with earlier ones
_BEGINNING = datetime.min.replace(tzinfo=UTC)
REDACTED = "[erased]"
_FOLDER = "baselines"
Json = dict[str, "Json"] | list["Json"] | str | float | bool | None


@dataclass(frozen=True)
class StoredBaseline:
    """A row of the table ``baseline``; what its ``payload`` stands for, `read_payload` reads."""

    model: str
    baseline_id: str
    kind: str
    dataset: str
    payload: str
    n: int
    data_version: str
    created_at: datetime


def save_baseline(
    store: Store,
    model: str,
    baseline_id: str,
    kind: str,
    payload_json: str,
    now: datetime,
    *,
    dataset: str = "",
    n: int = 0,
    data_version: str = "",
) -> None:
    """Store a baseline and make it the newest, also if it was stored before.

    First its file, then the row that names the file; killed in between, the file is deleted by
    the next upkeep.
    """
    row: dict[str, object] = {
        "model": model, "baseline_id": baseline_id, "kind": kind, "dataset": dataset, "n": n,
        "data_version": data_version, "created_at": now,
    }  # fmt: skip
    with hold_lock(store, model):
        begin_moment(store, model, now)
        row["payload"] = write_file(store, model, payload_json)
        reached("baseline.written")
        with store.state.begin() as conn:
            c = baseline.c
            others = sa.select(sa.func.max(c.created_at))
            others = others.where(c.model == model, c.baseline_id != baseline_id)
            last: datetime | None = fetch_value(conn, others)
            if last is not None and last >= now:  # at one moment, or the clock went back
                row["created_at"] = last + timedelta(microseconds=1)
            upsert(conn, baseline, [row])
            note_commits(conn, store, model, [store.root / "baseline_profiles" / model])
    reached("baseline.named")


def read_payload(store: Store, stored: StoredBaseline) -> str:
    """Return what profiles wrote.

    Raises:
        StoreError: If the file is gone, or has other content than it was written with.
    """
    payload = read_whole_payload(store, stored)
    if payload is not None:
        return payload
    place = locate_file(store, stored.model, stored.payload)
    found = "there is none" if place.read() is None else "its content is not what was written"
    again = f"materialize the asset 'baseline' again (mlmon run {stored.model} does)"
    if stored.kind == PROMOTED:
        again = (
            f"promote its period once more (mlmon baseline list {stored.model} shows it, "
            f"mlmon baseline promote {stored.model} --from DAY --to DAY takes it)"
        )
    raise StoreError(
        f"The bins of baseline {stored.baseline_id} of model {stored.model!r} cannot be read. "
        f"Expected the file {place}: {found}. Bring that file back from a backup, or {again}."
    )


def read_whole_payload(store: Store, stored: StoredBaseline | None) -> str | None:
    """Return what profiles wrote; None if there is no such baseline, or its file is not whole."""
    return None if stored is None else read_file(store, stored.model, stored.payload)


def load_newest(
    bind: Bind, model: str, baseline_id: str | None = None, **chosen: str | None
) -> StoredBaseline | None:
    """Return the newest baseline of a model; None if there is none.

    Args:
        bind: The state database.
        model: The model's name.
        baseline_id: The one with this id.
        chosen: Columns of the table, such as ``kind``, and their values.
    """
    c = baseline.c
    query = sa.select(*(c[field.name] for field in fields(StoredBaseline)))
    query = query.where(c.model == model, *(c[name] == value for name, value in chosen.items()))
    if baseline_id is not None:
        query = query.where(c.baseline_id == baseline_id)
    row = fetch_row(bind, query.order_by(c.created_at.desc(), c.baseline_id).limit(1))
    return None if row is None else StoredBaseline(*row)


def load_newest_declared(bind: Bind, spec: ModelSpec) -> str | None:
    """Return the id of the newest baseline that the spec declares, not one that was promoted.

    One that an earlier spec declared, of another dataset or of earlier windows, is none.
    """
    if spec.baseline.is_rolling:
        found = load_newest(bind, spec.model, kind=FIRST_WINDOWS)
    else:
        found = load_newest(bind, spec.model, kind="dataset", dataset=spec.baseline.dataset)
    return None if found is None else found.baseline_id


@dataclass(frozen=True)
class Promotion:
    """A row of the table ``baseline_promotion``."""

    id: int
    model: str
    period_start: datetime
    period_end: datetime
    baseline_id: str
    author: str
    note: str
    promoted_at: datetime
    undone_at: datetime | None
    undone_by: str


def promote_baseline(
    conn: sa.Connection,
    model: str,
    period: tuple[datetime, datetime],
    baseline_id: str,
    *,
    author: str,
    note: str,
    now: datetime,
) -> int:
    """Note that windows from the end of a period on are compared with it; return the row's id."""
    statement = baseline_promotion.insert().values(
        model=model,
        period_start=period[0],
        period_end=period[1],
        baseline_id=baseline_id,
        author=author,
        note=note,
        promoted_at=now,
    )
    return int(conn.execute(statement.returning(baseline_promotion.c.id)).scalar_one())


def undo_promotion(conn: sa.Connection, promotion_id: int, *, author: str, now: datetime) -> bool:
    """Take a promotion back; return whether it was in force."""
    c = baseline_promotion.c
    statement = baseline_promotion.update().where(c.id == promotion_id, c.undone_at.is_(None))
    return conn.execute(statement.values(undone_at=now, undone_by=author)).rowcount == 1


def list_promotions(bind: Bind, model: str) -> list[Promotion]:
    """Return every promotion of a model, undone ones too, oldest first."""
    c = baseline_promotion.c
    query = sa.select(*(c[field.name] for field in fields(Promotion))).where(c.model == model)
    return [Promotion(*row) for row in fetch_rows(bind, query.order_by(c.id))]


class BaselinesInForce:
    """Which baseline each window of a model is compared with.

    Before the first promotion that is the one the spec declares; after the end of a promoted
    period, that period. Of two promotions that end at the same time the later one counts.
    """

    def __init__(self, declared: str | None, promotions: Sequence[Promotion]) -> None:
        ends = {p.period_end: p.baseline_id for p in promotions if p.undone_at is None}
        self.declared = declared
        self._from = [_BEGINNING, *sorted(ends)]
        self._ids = [declared, *(ends[end] for end in sorted(ends))]

    def at(self, window_start: datetime) -> str | None:
        """Return the id of the baseline of a window; None while there is none."""
        return self._ids[bisect_right(self._from, window_start) - 1]

    @property
    def newest(self) -> str | None:
        """The id of the baseline of windows to come."""
        return self._ids[-1]


def baselines_in_force(engine: sa.Engine, spec: ModelSpec) -> BaselinesInForce:
    """Return which baseline each window of a model is compared with."""
    with engine.connect() as conn:
        return BaselinesInForce(load_newest_declared(conn, spec), list_promotions(conn, spec.model))


@contextmanager
def hold_lock(store: Store, model: str) -> Iterator[None]:
    """Hold the lock under which files and the rows that name them are written and deleted."""
    with writer_lock(store.state, f"baseline/{model}"):
        yield


def write_file(store: Store, model: str, text: str) -> str:
    """Write a file, to be named by a row while the lock is still held; return the row's payload."""
    content = text.encode()
    payload = json.dumps({"sha256": hashlib.sha256(content).hexdigest()})
    locate_file(store, model, payload).write(content)
    return payload


def locate_file(store: Store, model: str, payload: str) -> Location:
    """Return where the file is that a payload names."""
    return _locate_folder(store, model) / f"{json.loads(payload)['sha256']}.json"


def read_file(store: Store, model: str, payload: str) -> str | None:
    """Return what a row's payload stands for; None if its file is gone or has other content."""
    content = locate_file(store, model, payload).read()
    if content is None or hashlib.sha256(content).hexdigest() != json.loads(payload)["sha256"]:
        return None
    return content.decode()


def tidy_files(store: Store, model: str, *, dry_run: bool = False) -> list[str]:
    """Delete files that no row names.

    Returns:
        The deleted files' names; with ``dry_run`` those that would be, and nothing is changed.
    """
    with nullcontext() if dry_run else hold_lock(store, model):
        return _delete_unnamed(store, model, dry_run=dry_run)


def redact_names(
    store: Store, model: str, datasets: Collection[str], names: Collection[str]
) -> int:
    """Replace names in all baselines that were fitted on some datasets; return how many baselines.

    Whole list entries only: keys and columns may be called like somebody's value. What the old
    files held is deleted with them. Safe to repeat.
    """
    if not names:
        return 0
    changed = 0
    with hold_lock(store, model):
        for baseline_id, payload in _load_rows(store, model, datasets):
            text = read_file(store, model, payload)
            before = None if text is None else json.loads(text)
            after = _redact_json(before, frozenset(names))
            if after != before:
                new = json.dumps(after, ensure_ascii=False)
                _replace_payload(store, model, baseline_id, write_file(store, model, new))
                changed += 1
        _delete_unnamed(store, model)
    return changed


def _locate_folder(store: Store, model: str) -> Location:
    return store.root / _FOLDER / model


def _load_rows(
    store: Store, model: str, datasets: Collection[str] | None = None
) -> list[tuple[str, str]]:
    c = baseline.c
    query = sa.select(c.baseline_id, c.payload).where(c.model == model)
    if datasets is not None:
        query = query.where(c.dataset.in_(datasets))
    return [(row.baseline_id, row.payload) for row in fetch_rows(store.state, query)]


def _replace_payload(store: Store, model: str, baseline_id: str, payload: str) -> None:
    c = baseline.c
    with store.state.begin() as conn:
        overwrite_deleted(conn)
        mine = (c.model == model, c.baseline_id == baseline_id)
        conn.execute(sa.update(baseline).where(*mine).values(payload=payload))


def _delete_unnamed(store: Store, model: str, *, dry_run: bool = False) -> list[str]:
    folder = _locate_folder(store, model)
    there = folder.below()
    named = {locate_file(store, model, payload).name for _, payload in _load_rows(store, model)}
    names = [name for name in there if name not in named]
    for name in [] if dry_run else names:
        (folder / name).delete()
    return names


def _redact_json(content: Json, names: frozenset[str]) -> Json:
    if isinstance(content, dict):
        return {key: _redact_json(value, names) for key, value in content.items()}
    if not isinstance(content, list):
        return content
    n = sum(isinstance(entry, str) and entry.startswith(REDACTED[:-1]) for entry in content)
    kept: list[Json] = []
    for entry in content:
        # What is kept of a single row stands behind the row's name.
        if isinstance(entry, str) and (entry in names or entry.partition(EXEMPLAR)[0] in names):
            n += 1  # names of a list differ, since they become the values of a type
            kept.append(REDACTED if n == 1 else f"{REDACTED[:-1]} {n}]")
        else:
            kept.append(_redact_json(entry, names))
    return kept
