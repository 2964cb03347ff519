"""Keeping the tables of a model fit: rows past their age, many small files, old versions.

Safe beside writers and readers. Merging small files is a commit of its own, after which a writer
decides anew; the files it replaces stay until no version of ``retention.versions`` needs them.

Letting rows go by age: whole window dates at a time, and never their numbers. Before rows are
deleted, a mark says from which window on they are kept. Windows before it are neither planned nor
computed again, so that profiles and metrics stay what they were. A clock alone deletes nothing:
ages are counted from the newest events, and from what the clock said at the upkeep before, if that
is earlier (`clocks.count_ages`).

Removing a model: its declaration, its rows and its folders, for good. Forgetting what was read of
it: only what can be read again and computed again.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from deltalake.exceptions import CommitFailedError

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.baseline import DATASETS, PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.windows import start_of_date, window_containing
from mlmon_dagster.store import baselines
from mlmon_dagster.store.clocks import count_ages, read_machine_clock
from mlmon_dagster.store.erasure import erase, ledger
from mlmon_dagster.store.moments import begin_moment, check_tables
from mlmon_dagster.store.state import manifest, metric_log, model_history, window_state
from mlmon_dagster.store.state.schema import (
    METADATA,
    alert,
    alert_event,
    dead_letter,
    ingest_file,
    silence,
)
from mlmon_dagster.store.state.sql import fetch_rows, fetch_value, literal
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables import kept_rows, spans
from mlmon_dagster.store.tables.columns import EXPIRED, UNMATCHED, actual_schema, conform
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    LiveFile,
    Snapshot,
    in_partitions,
    open_table,
    retry,
)

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


SMALL = 32 * 1024**2
MANY = 4  # small files of one partition
_TARGET = 128 * 1024**2
_USUAL_GAIN = dt.timedelta(days=2)  # of the clock, from one daily upkeep to the next
_SET_ASIDE = (UNMATCHED, EXPIRED)
_IDENTITY = ("prediction_id", "dataset", "actual_time", "row_hash", "file_sha", "row_number")


def maintain(
    store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool = False
) -> list[Removal]:
    """Finish interrupted erasures, delete by age, merge small files, remove old versions.

    Args:
        store: The store.
        spec: The model.
        now: What ages are counted from. Versions are aged by the clock of the machine.
        dry_run: Only say what would be done.

    Returns:
        What was removed or merged; steps with nothing to do are left out.

    Raises:
        StoreError: If tables and state database do not belong together: nothing is deleted then.
    """
    if not dry_run:
        check_tables(store, spec)
        erase.resume_erasures(store, spec, now)
        begin_moment(store, spec.model, now)
    machine, before = read_machine_clock(), model_history.load_last_upkeep(store.state, spec.model)
    with writer_lock(store.state, f"ingest/{spec.model}"):
        # Not beside an ingest, which reads refused rows and writes what is left of them.
        removals = delete_by_age(store, spec, now, dry_run=dry_run)
        if not dry_run:
            model_history.note_upkeep(store.state, spec.model, now, machine)
            n_swept = kept_rows.sweep_settled(store, spec.model)
            removals.append(Removal("refused files and rows stored meanwhile", files=n_swept))
    # The table format goes by the machine's clock: what that gained since the last upkeep, whether
    # it is right or not, versions are kept for longer.
    gained = machine - before[1] if before and machine > before[1] else dt.timedelta()
    for name, folder in open_tables(store, spec).items():
        if folder.snapshot() is None:
            continue
        removals.append(_merge(name, folder, dry_run=dry_run))
        kept = spec.retention.versions
        removals.append(_remove_versions(name, folder, kept, gained, dry_run=dry_run))
    unnamed = baselines.tidy_files(store, spec.model, dry_run=dry_run)
    removals.append(Removal("files of baselines that nothing names", files=len(unnamed)))
    return _drop_idle(removals)


def _drop_idle(removals: Sequence[Removal]) -> list[Removal]:
    return [removal for removal in removals if removal.rows or removal.files or removal.why]


def open_tables(store: Store, spec: ModelSpec) -> dict[str, DeltaFolder]:
    """Return a model's tables by name."""
    return {
        **store.event_log(spec).folders,
        "records": store.inference_records(spec).folder,
        "profiles": store.table("profiles", spec.model),
        "spans": spans.folder_of(store.root, spec.model),
    }


def _merge(name: str, folder: DeltaFolder, *, dry_run: bool) -> Removal:
    small: dict[tuple[str, ...], list[int]] = {}
    for file in _live_files(folder):
        if (size := file.size or 0) < SMALL:
            small.setdefault(tuple(file.partition.values()), []).append(size)
    crowded = [sizes for sizes in small.values() if len(sizes) >= MANY]
    what = f"small files of {name}, merged"
    removal = Removal(what, 0, sum(len(s) - 1 for s in crowded), sum(map(sum, crowded)))
    if crowded and not dry_run:
        try:
            open_table(folder.path).optimize.compact(target_size=_TARGET, max_concurrent_tasks=2)
        except CommitFailedError:
            return Removal(what)  # a writer replaced the same files meanwhile; the next time
    return removal


def _live_files(folder: DeltaFolder) -> tuple[LiveFile, ...]:
    """Return the newest version's files; none without a table."""
    snapshot = folder.snapshot()
    return () if snapshot is None else snapshot.files


def _remove_versions(
    name: str, folder: DeltaFolder, kept: dt.timedelta, gained: dt.timedelta, *, dry_run: bool
) -> Removal:
    hours = int(kept.total_seconds() // 3600)
    if not dry_run:
        _set_retention(folder, hours)
    table = open_table(folder.path)
    if not dry_run:
        table.create_checkpoint()
        if gained <= _USUAL_GAIN:
            table.cleanup_metadata()
    hours += math.ceil(gained.total_seconds() / 3600)
    unused = table.vacuum(retention_hours=hours, dry_run=True, enforce_retention_duration=False)
    local = [folder.path.path / name for name in unused] if folder.path.is_local else []
    size = sum(path.stat().st_size for path in local if path.is_file())
    if unused and not dry_run:
        table.vacuum(retention_hours=hours, dry_run=False, enforce_retention_duration=False)
    return Removal(f"old versions of {name}", 0, len(unused), size)


def _set_retention(folder: DeltaFolder, hours: int) -> None:
    """Write into the table what it is to keep, so that other programs keep it too."""
    wanted = {
        "delta.logRetentionDuration": f"interval {hours} hours",
        "delta.deletedFileRetentionDuration": f"interval {hours} hours",
        "delta.dataSkippingNumIndexedCols": "0",
    }
    table = open_table(folder.path)
    known = table.metadata().configuration
    if any(known.get(key) != value for key, value in wanted.items()):
        try:
            table.alter.set_table_properties(wanted)
        except CommitFailedError:
            return  # the next time


@dataclass(frozen=True)
class Removal:
    """What one step of maintenance removes, or would remove.

    Attributes:
        what: Such as ``predictions of production before 2024-01-05``.
        rows: Rows, where there are any.
        files: Files.
        size: Bytes of those files; of rows in the state database, 0.
        why: Why nothing, or less than the clock says, is removed; empty otherwise.
    """

    what: str
    rows: int = 0
    files: int = 0
    size: int = 0
    why: str = ""


def find_first_dates(spec: ModelSpec, now: dt.datetime) -> dict[str, str]:
    """Return dataset -> the first local date whose rows are kept; absent ones are kept for ever."""
    ages = {dataset: spec.retention.of_dataset(dataset) for dataset in DATASETS}
    return {d: _first_date(spec, now, age) for d, age in ages.items() if age is not None}


def _first_date(spec: ModelSpec, now: dt.datetime, age: dt.timedelta) -> str:
    # The window that holds the moment is kept whole, and so is its date.
    start = window_containing(spec.time, now - age).start
    return start.astimezone(ZoneInfo(spec.time.zone)).date().isoformat()


def delete_by_age(
    store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool
) -> list[Removal]:
    """Delete what is older than the spec says; with ``dry_run`` only say what that is."""
    earlier = _earlier_look(store, spec)
    ages = count_ages(now, _newest_events(store, spec, now) or earlier, earlier)
    if ages is None:
        why = "this is the first look at the clock, and a clock alone deletes nothing"
        return [Removal("rows past their age", why=why)]
    held_back = ages.why if now - ages.now > _USUAL_GAIN else ""
    mine = _Ageing(store, spec, ages.now, dry_run)
    dates = find_first_dates(spec, ages.now)
    kept = spec.retention
    removals = [
        Removal("rows past their age", why=held_back),
        *mine.delete_events(dates),
        # Not longer than the events whose requests they tell about.
        *mine.delete_table(
            "spans", spans.folder_of(store.root, spec.model), kept.spans, kept.production
        ),
        *mine.delete_table("profiles", store.table("profiles", spec.model), kept.profiles),
        mine.delete_letters(),
        mine.delete_quarantine(),
        mine.delete_refused_rows(dates),
    ]
    return _drop_idle(removals)


def _newest_events(store: Store, spec: ModelSpec, now: dt.datetime) -> dt.datetime | None:
    """Return the end of the newest window with events, of this model or any other of the store.

    Events of other models say as well that time has passed, where this one has ended.
    """
    files = _live_files(store.event_log(spec).folders["predictions"])
    dates = {file.partition["window_date"] for file in files}
    own = window_containing(spec.time, start_of_date(spec.time, max(dates))).end if dates else None
    if own is not None and own >= now:
        return own  # as of every model that goes on
    others = window_state.find_newest_touched(store.state)
    return max([end for end in (own, others) if end is not None], default=None)


def _earlier_look(store: Store, spec: ModelSpec) -> dt.datetime | None:
    """Return what the clock said at the upkeep before; before the first, at the last ingest."""
    known = model_history.load_last_upkeep(store.state, spec.model)
    return known[0] if known else manifest.load_last_finished(store.state, spec.model)


@dataclass(frozen=True)
class _Ageing:
    """What goes by age of one model; only told with ``dry_run``."""

    store: Store
    spec: ModelSpec
    now: dt.datetime
    dry_run: bool

    def delete_events(self, dates: Mapping[str, str]) -> list[Removal]:
        """Delete events, ground truth and records of each dataset before its first date."""
        folders = self.store.event_log(self.spec).folders
        tables = {
            "predictions": folders["predictions"],
            "actuals": folders["actuals"],
            "records": self.store.inference_records(self.spec).folder,
        }
        present = {file.partition["dataset"] for file in _live_files(folders["predictions"])}
        # Ground truth for all datasets is kept as long as the one kept longest.
        is_known = bool(present) and present <= set(dates)
        everywhere = min(dates[dataset] for dataset in present) if is_known else None
        removals = []
        for dataset, date in [*dates.items(), *([(ALL, everywhere)] if everywhere else [])]:
            if not self.dry_run and dataset != ALL:
                first = start_of_date(self.spec.time, date)
                with self.store.state.begin() as conn:
                    model_history.move_rows_from(conn, self.spec.model, dataset, first, self.now)
            removals += [
                self._delete_dates(folder, f"{name} of {dataset}", date, dataset)
                for name, folder in tables.items()
            ]
        if everywhere and not self.dry_run:
            _forget_moves(self.store, folders["moved_ids"], everywhere)
        return removals

    def delete_table(
        self, name: str, folder: DeltaFolder, *ages: dt.timedelta | None
    ) -> list[Removal]:
        """Delete rows of a table of all datasets that are older than the least of some ages."""
        age = _least(ages)
        if age is None:
            return []
        return [self._delete_dates(folder, name, _first_date(self.spec, self.now, age))]

    def _delete_dates(
        self, folder: DeltaFolder, what: str, date: str, dataset: str | None = None
    ) -> Removal:
        files = [
            file
            for file in _live_files(folder)
            if file.partition["window_date"] < date  # "unmatched" sorts after every date
            and dataset in (None, file.partition.get("dataset"))
        ]
        rows, size = sum(file.n_rows for file in files), sum(file.size or 0 for file in files)
        if files and not self.dry_run:
            predicate = f"window_date < {literal(date)}"
            if dataset is not None:
                predicate += f" AND dataset = {literal(dataset)}"
            # On partition columns alone: files leave the newest version, none is rewritten.
            retry(lambda: open_table(folder.path).delete(predicate), "Deleting by age")
        return Removal(f"{what} before {date}", rows, len(files), size)

    def delete_letters(self) -> Removal:
        """Delete notes of refused rows."""
        age = self.spec.retention.dead_letter
        if age is None:
            return Removal("notes of refused rows")
        c, limit = dead_letter.c, self.now - age
        # By both times: a clock that was behind may have written one of them.
        is_of_old = sa.or_(c.window_start.is_(None), c.window_start < limit)
        old = (c.model == self.spec.model, c.created_at < limit, is_of_old)
        with self.store.state.begin() as conn:
            count = sa.select(sa.func.count()).select_from(dead_letter).where(*old)
            n = fetch_value(conn, count) or 0
            if n and not self.dry_run:
                conn.execute(sa.delete(dead_letter).where(*old))
        return Removal(f"notes of refused rows before {limit:%Y-%m-%d}", rows=n)

    def delete_quarantine(self) -> Removal:
        """Delete refused files, and files of refused rows."""
        # They hold people's data as the rows do, and are not kept any longer than these.
        age = _least((self.spec.retention.quarantine, self.spec.retention.production))
        if age is None:
            return Removal("refused files and rows")
        c, limit = ingest_file.c, self.now - age
        refused = sa.or_(c.status == "quarantined", c.kept != "")
        query = sa.select(c.sha256, c.size_bytes).where(
            c.model == self.spec.model, refused, c.finished_at < limit, c.first_seen < limit
        )
        sizes = {row.sha256: row.size_bytes for row in fetch_rows(self.store.state, query)}
        folder = kept_rows.locate_folder(self.store, self.spec.model)
        shas = {name: name.split(".")[0] for name in folder.below()}
        old = {name: sizes[sha] for name, sha in shas.items() if sha in sizes}
        for name in [] if self.dry_run else old:
            (folder / name).delete()
        what = f"refused files and rows before {limit:%Y-%m-%d}"
        return Removal(what, files=len(old), size=sum(old.values()))

    def delete_refused_rows(self, dates: Mapping[str, str]) -> Removal:
        """Let refused rows go with the rows of their windows, however late they came."""
        if PRODUCTION not in dates:
            return Removal("refused rows")
        first = start_of_date(self.spec.time, dates[PRODUCTION])
        n_rows = 0
        for place in kept_rows.list_places(self.store, self.spec.model):
            kept = kept_rows.read_rows(place)
            if kept is None:
                continue
            left = kept.without(kept.before(first))
            n_rows += kept.n_refused - left.n_refused
            if not self.dry_run:
                kept_rows.replace_rows(place, kept, left)
        return Removal(f"refused rows of windows before {first:%Y-%m-%d}", rows=n_rows)


def _least(ages: Iterable[dt.timedelta | None]) -> dt.timedelta | None:
    """Return the shortest of some ages; None if nothing goes by age."""
    return min((age for age in ages if age is not None), default=None)


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
    files = _live_files(store.event_log(spec).folders["actuals"])
    n_of = Counter[str]()
    for file in files:
        n_of[file.partition["window_date"]] += file.n_rows
    return Unmatched(n_of[UNMATCHED], n_of[EXPIRED])


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
    folder = log.folders["actuals"]
    rows = store.query(f"SELECT * FROM {folder.ensure().from_sql(None, in_partitions(_SET_ASIDE))}")
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
    moved = _drop_moved(store, folder.ensure(), placed.filter(is_placed))
    if moved.num_rows:
        folder.ensure().append(moved)
    names = ", ".join(literal(name) for name in _SET_ASIDE)
    folder.ensure().overwrite(rest, f"window_date IN ({names})")
    return n_placed


def _drop_moved(store: Store, snapshot: Snapshot, rows: pa.Table) -> pa.Table:
    """Leave out rows that an interrupted call has already moved."""
    if not rows.num_rows:
        return rows
    dates = set(rows.column("window_date").to_pylist())
    there = snapshot.from_sql(None, in_partitions(dates))
    same = " AND ".join(f"t.{name} IS NOT DISTINCT FROM m.{name}" for name in _IDENTITY)
    return store.query(
        f"SELECT m.* FROM moved AS m WHERE NOT EXISTS (SELECT 1 FROM {there} AS t WHERE {same})",
        {"moved": rows},
    ).cast(rows.schema)


def find_declaration(models: Path, model: str) -> Path:
    """Return the file that declares a model.

    Raises:
        ConfigError: If no file of the folder is named after it.
    """
    for ending in (".yaml", ".yml"):
        if (path := models / f"{model}{ending}").is_file():
            return path
    raise ConfigError(
        f"{models} has no {model}.yaml. This command deletes the declaration too, so the file must "
        "be named after its model. Delete one that is elsewhere by hand first."
    )


def list_folders(store: Store, model: str) -> list[Path]:
    """Return the folders that belong to a model: tables, quarantine, staging, index.

    Raises:
        StoreError: If the tables are in object storage, where this program deletes no model.
    """
    if not store.root.is_local:
        raise StoreError(
            f"The tables are in object storage ({store.root}), where this command deletes nothing. "
            f"Delete its declaration by hand, and the folders named {model} there with the "
            "bucket's own means."
        )
    kinds = {p for place in (store.root.path, store.folder) for p in place.iterdir() if p.is_dir()}
    kinds.add(ledger.folder_beside(store))
    return sorted(kind / model for kind in kinds if (kind / model).is_dir())


def count_rows(store: Store, model: str) -> dict[str, int]:
    """Return how many rows of the state database are a model's, by table; none left out."""
    counts = {
        table.name: fetch_value(
            store.state, sa.select(sa.func.count()).select_from(table).where(mine)
        )
        for table, mine in _select_rows(model)
    }
    return {name: int(n) for name, n in counts.items() if n}


def remove_model(
    store: Store, declaration: Path, model: str, *, landed: Path, author: str, now: datetime
) -> None:
    """Delete everything of a model, or what an interrupted removal has left of it.

    Its alerts have been ended by then. Silences that name it end.

    Args:
        store: The store.
        declaration: The model's file, which may be gone.
        model: Its name.
        landed: The folder where its spans land, which nothing else reads; it may not exist.
        author: Who removes it.
        now: When.
    """
    declaration.unlink(missing_ok=True)
    reached("remove.declaration")
    with store.state.begin() as conn:
        metric_log.forget_model(conn, model)
        for table, mine in _select_rows(model):
            conn.execute(sa.delete(table).where(mine))
        for number in _silences_naming(conn, model):
            active = (silence.c.id == number, silence.c.ends_at > now)
            conn.execute(sa.update(silence).where(*active).values(ends_at=now, ended_by=author))
    reached("remove.rows")
    for folder in (landed, *list_folders(store, model)):
        if not folder.is_dir():
            continue
        shutil.rmtree(folder)
        reached("remove.folder")


# What is no product of reading files: history, alerts and their threads, people's decisions.
_NOT_READ = frozenset({
    "alert", "alert_event", "alert_group", "collect_token", "erasure", "erasure_key",
    "erasure_request", "known_event", "model_event", "outbox", "registry_state", "retention_mark",
    "schema_change",
})  # fmt: skip


def forget_read(store: Store, model: str, kept: Collection[str]) -> None:
    """Delete all that was made of a model's files, so that these are read again as if new.

    The folders go first. Killed in between, the state database still has every file, so that a
    run refuses to go on and doing it again ends it. Erasures, refused copies and spans stay.

    Args:
        store: The store.
        model: The model; the lock of its ingest must be held.
        kept: Content hashes of the files that stay in the manifest.
    """
    stays = {ledger.FOLDER, ledger.folder_beside(store).name, "quarantine", "event_log"}
    folders = [path for path in list_folders(store, model) if path.parent.name not in stays]
    log = store.root.path / "event_log" / model
    tables = [path for path in log.glob("*") if path.name != spans.KIND]
    for folder in (*tables, *folders):
        shutil.rmtree(folder)
        reached("forget.folder")
    with store.state.begin() as conn:
        metric_log.forget_model(conn, model)
        for table, mine in _select_rows(model):
            if table.name in _NOT_READ:
                continue
            if table.name in ("ingest_file", "ingest_path", "dead_letter"):
                mine = mine & table.c.sha256.not_in(kept)
            conn.execute(sa.delete(table).where(mine))
        # Ended by now, they know no window: the next verdicts are the first, and no late news.
        conn.execute(sa.update(alert).where(alert.c.model == model).values(recent="[]"))
        again = {"read_with": "", "attempts": 0}
        conn.execute(sa.update(ingest_file).where(ingest_file.c.model == model).values(again))


def _select_rows(model: str) -> list[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Return the tables with rows of models, and which are this one's; events before alerts."""
    alerts = sa.select(alert.c.fingerprint).where(alert.c.model == model)
    tables = [METADATA.tables[name] for name in sorted(METADATA.tables)]
    return [
        (alert_event, alert_event.c.fingerprint.in_(alerts)),
        *((table, table.c.model == model) for table in tables if "model" in table.c),
    ]


def _silences_naming(conn: sa.Connection, model: str) -> list[int]:
    """Return the silences that name exactly this model."""
    rows = fetch_rows(conn, sa.select(silence.c.id, silence.c.matcher))
    return [number for number, matcher in rows if json.loads(matcher).get("model") == model]
