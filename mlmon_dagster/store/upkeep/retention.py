"""Letting rows go by age: whole window dates at a time, and never their numbers.

Before rows are deleted, a mark says from which window on they are kept. Windows before it are
neither planned nor computed again, so that profiles and metrics stay what they were.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import sqlalchemy as sa

from mlmon_dagster.spec.model import DATASETS, PRODUCTION, ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.windows import window_containing
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.state import retention_marks
from mlmon_dagster.store.state.schema import dead_letter, ingest_file
from mlmon_dagster.store.state.sql import literal
from mlmon_dagster.store.tables import kept_rows
from mlmon_dagster.store.tables.delta import DeltaFolder, open_table, retry

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


@dataclass(frozen=True)
class Removal:
    """What one step of maintenance removes, or would remove.

    Attributes:
        what: Such as ``predictions of production before 2024-01-05``.
        rows: Rows, where there are any.
        files: Files.
        size: Bytes of those files; of rows in the state database, 0.
    """

    what: str
    rows: int = 0
    files: int = 0
    size: int = 0


def first_dates(spec: ModelSpec, now: dt.datetime) -> dict[str, str]:
    """Return dataset -> the first local date whose rows are kept; absent ones are kept for ever."""
    found = {}
    for dataset in DATASETS:
        age = spec.retention.of_dataset(dataset)
        if age is not None:
            found[dataset] = _first_date(spec, now, age)
    return found


def _first_date(spec: ModelSpec, now: dt.datetime, age: dt.timedelta) -> str:
    # The window that holds the moment is kept whole, and so is its date.
    start = window_containing(spec.time, now - age).start
    return start.astimezone(ZoneInfo(spec.time.zone)).date().isoformat()


def _start_of(spec: ModelSpec, date: str) -> dt.datetime:
    local = dt.datetime.combine(dt.date.fromisoformat(date), dt.time(), ZoneInfo(spec.time.zone))
    return window_containing(spec.time, local.astimezone(dt.UTC)).start


def let_go(store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool) -> list[Removal]:
    """Delete what is older than the spec says; with ``dry_run`` only say what that is."""
    dates = first_dates(spec, now)
    removals = [
        *_rows(store, spec, dates, now, dry_run=dry_run),
        *_profiles(store, spec, now, dry_run=dry_run),
        _letters(store, spec, now, dry_run=dry_run),
        _quarantine(store, spec, now, dry_run=dry_run),
        _refused_rows(store, spec, dates, dry_run=dry_run),
    ]
    return [removal for removal in removals if removal.rows or removal.files]


def _rows(
    store: Store, spec: ModelSpec, dates: Mapping[str, str], now: dt.datetime, *, dry_run: bool
) -> list[Removal]:
    folders = store.event_log(spec).folders
    tables = {
        "predictions": folders["predictions"],
        "actuals": folders["actuals"],
        "records": store.inference_records(spec).folder,
    }
    everywhere = _date_of_all(folders["predictions"], dates)
    removals = []
    for dataset, date in [*dates.items(), *([(ALL, everywhere)] if everywhere else [])]:
        if not dry_run and dataset != ALL:
            with store.state.begin() as conn:
                retention_marks.move(conn, spec.model, dataset, _start_of(spec, date), now)
        for name, folder in tables.items():
            what = f"{name} of {dataset} before {date}"
            where = {"dataset": dataset}
            removals.append(_delete(folder, what, date, where, dry_run=dry_run))
    if everywhere and not dry_run:
        _forget_moves(store, folders["moved_ids"], everywhere)
    return removals


def _date_of_all(predictions: DeltaFolder, dates: Mapping[str, str]) -> str | None:
    """Return the first date kept of ground truth for all datasets: that of the one kept longest."""
    snapshot = predictions.snapshot()
    if snapshot is None:
        return None
    present = {file.partition["dataset"] for file in snapshot.files}
    return min(dates[d] for d in present) if present and present <= set(dates) else None


def _delete(
    folder: DeltaFolder, what: str, date: str, where: Mapping[str, str], *, dry_run: bool
) -> Removal:
    files = [
        file
        for file in live_files(folder)
        if file["partition.window_date"] < date  # "unmatched" sorts after every date
        and all(file[f"partition.{key}"] == value for key, value in where.items())
    ]
    rows = sum(file["num_records"] or 0 for file in files)
    removal = Removal(what, rows, len(files), sum(file["size_bytes"] for file in files))
    if files and not dry_run:
        parts = [f"{key} = {literal(value)}" for key, value in where.items()]
        predicate = " AND ".join([*parts, f"window_date < {literal(date)}"])
        # On partition columns alone: files leave the newest version, none is rewritten.
        retry(lambda: open_table(folder.path).delete(predicate), "Deleting by age")
    return removal


def live_files(folder: DeltaFolder) -> list[dict[str, Any]]:
    """Return the newest version's files as the log describes them; none without a table."""
    if folder.snapshot() is None:
        return []
    found: list[dict[str, Any]] = pa.table(
        open_table(folder.path).get_add_actions(flatten=True)
    ).to_pylist()
    return found


def _forget_moves(store: Store, folder: DeltaFolder, date: str) -> None:
    def attempt() -> None:
        snapshot = folder.snapshot()
        if snapshot is None:
            return
        old = f"SELECT count(*) AS n FROM {snapshot.from_sql()} WHERE window_date < {literal(date)}"
        if store.query(old).column("n")[0].as_py():
            kept = f"SELECT * FROM {snapshot.from_sql()} WHERE window_date >= {literal(date)}"
            snapshot.overwrite(store.query(kept).cast(snapshot.schema), "TRUE")

    retry(attempt, "Forgetting moved ids")


def _profiles(store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool) -> list[Removal]:
    age = spec.retention.profiles
    if age is None:
        return []
    date = _first_date(spec, now, age)
    folder = store.table("profiles", spec.model).folder
    return [_delete(folder, f"profiles before {date}", date, {}, dry_run=dry_run)]


def _letters(store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool) -> Removal:
    age = spec.retention.dead_letter
    if age is None:
        return Removal("notes of refused rows")
    old = (dead_letter.c.model == spec.model, dead_letter.c.created_at < now - age)
    with store.state.begin() as conn:
        n = conn.scalar(sa.select(sa.func.count()).select_from(dead_letter).where(*old)) or 0
        if n and not dry_run:
            conn.execute(sa.delete(dead_letter).where(*old))
    return Removal(f"notes of refused rows before {now - age:%Y-%m-%d}", rows=n)


def _quarantine(store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool) -> Removal:
    # What was refused holds people's data as the rows do, and is not kept any longer than these.
    ages = [a for a in (spec.retention.quarantine, spec.retention.production) if a is not None]
    if not ages:
        return Removal("refused files and rows")
    age = min(ages)
    c = ingest_file.c
    refused = sa.or_(c.status == "quarantined", c.kept != "")
    query = sa.select(c.sha256, c.size_bytes).where(
        c.model == spec.model, refused, c.finished_at < now - age
    )
    with store.state.connect() as conn:
        sizes = {row.sha256: row.size_bytes for row in conn.execute(query)}
    folder: Location = kept_rows.folder_of(store, spec.model)
    old = {name: sizes[sha] for name in folder.below() if (sha := name.split(".")[0]) in sizes}
    for name in [] if dry_run else old:
        (folder / name).delete()
    what = f"refused files and rows before {now - age:%Y-%m-%d}"
    return Removal(what, files=len(old), size=sum(old.values()))


def _refused_rows(
    store: Store, spec: ModelSpec, dates: Mapping[str, str], *, dry_run: bool
) -> Removal:
    """Let refused rows go with the rows of their windows, however late they came."""
    if PRODUCTION not in dates:
        return Removal("refused rows")
    first = _start_of(spec, dates[PRODUCTION])
    n_rows = 0
    for place in kept_rows.places_of(store, spec.model):
        kept = kept_rows.read(place)
        if kept is None:
            continue
        left = kept.without(kept.before(first))
        n_rows += kept.n_refused - left.n_refused
        if not dry_run:
            kept_rows.replace(place, kept, left)
    return Removal(f"refused rows of windows before {first:%Y-%m-%d}", rows=n_rows)
