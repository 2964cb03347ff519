"""Is everything there that was kept? Tables, their logs and files, the state, and both together.

To look changes nothing and takes no lock; writers may go on. What a running ingest is about to
settle is no damage.

To repair a model, rows that are whole stay, and the others are read again. So are tables and a
state database that are not of the same moment, as one of them was restored: what the log lacks of
files that the manifest calls done is read again; what it has of files that the manifest does not
know is noted there; everything that is made of the log is made again. Nothing is deleted: what is
replaced is moved out of the store, to a folder beside it. Killed at any point, the next repair goes
on from what it finds.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.baseline import DATASETS, PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import STREAMS, Stream
from mlmon_dagster.spec.windows import Window, start_of_date, window_containing
from mlmon_dagster.store import baselines, moments
from mlmon_dagster.store.erasure import ledger
from mlmon_dagster.store.places.location import LocalPlace, Location, hash_file
from mlmon_dagster.store.places.objects import listed, place_at
from mlmon_dagster.store.state import erased_ids, manifest, model_history
from mlmon_dagster.store.state.schema import (
    baseline,
    erasure,
    ingest_file,
    ingest_path,
    metric_window,
    provenance,
    retention_mark,
    sample,
    sample_history,
    series,
)
from mlmon_dagster.store.state.sql import fetch_rows, fetch_value, fetch_values, literals
from mlmon_dagster.store.state.window_state import mark_inputs
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables.columns import PARTITION_BY, aliases_of, stream_schema
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    LiveFile,
    Snapshot,
    TableVersion,
    open_table,
    select_sql,
    why_commit_is_bad,
)
from mlmon_dagster.store.tables.event_log import MOVED_IDS
from mlmon_dagster.store.tables.id_index import forget_index

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


BASELINES = "baseline_profiles"
DERIVED = ("inference_records", "profiles", BASELINES)
LOG = "_delta_log/"
_COMMIT = re.compile(r"_delta_log/(\d{20})\.json")
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint(\.\d+\.\d+)?\.parquet")
# Names that the writer gives; those with a # or in tmp form are what a killed one left.
_OURS = (
    _COMMIT,
    _CHECKPOINT,
    re.compile(r"_delta_log/(_last_checkpoint|_commit_[^/]+|_staged_commits/.+|.*\.tmp|.*#\d+)"),
    re.compile(r"([^/=]+=[^/]*/)*part-[0-9a-f]+-[0-9a-f-]+(-c\d+)?\.(\w+\.)?parquet(#\d+)?"),
)


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it was kept.

    Attributes:
        place: Which table, file or database.
        found: What is wrong with it.
        cure: The next step.
        model: The model concerned; empty if it is not one.
        names: Files below the place that are no part of it.
        is_whole: Whether nothing is wrong with the table by itself.
    """

    place: str
    found: str
    cure: str
    model: str = ""
    names: tuple[str, ...] = ()
    is_whole: bool = False


def examine_store(store: Store) -> Iterator[Damage]:
    """Look at the state database, every table, and the files of baselines and refused files."""
    yield from examine_state(store)
    yield from _examine_samples(store)
    done = _load_done(store)
    for table in store.root.tables():
        yield from examine_table(store, table)
    yield from _examine_log(store, done)
    yield from _examine_baselines(store)
    yield from _examine_quarantine(store)


def examine_state(store: Store, seconds: float | None = None) -> Iterator[Damage]:
    """Have SQLite check its file; PostgreSQL looks after its own pages.

    Args:
        store: The store.
        seconds: Only look at the pages, not whether indexes fit their tables, and no longer.
    """
    if store.state.dialect.name != "sqlite":
        return
    cure = (
        "Restore a backup into a new store (mlmon restore); without one, see "
        "docs/inference-store.md#when-something-goes-wrong."
    )
    try:
        with store.state.connect() as conn:
            if seconds is None:
                told = list(conn.scalars(sa.text("PRAGMA integrity_check(5)")))
            else:
                told = _quick_check(conn, time.monotonic() + seconds)
    except sa.exc.DatabaseError as error:
        told = [str(error.orig)]
    if told != ["ok"]:
        place = str(store.state.url.database)
        yield Damage(place, f"the state database is damaged: {'; '.join(told)[:300]}", cure)


def _quick_check(conn: sa.Connection, ends: float) -> list[str]:
    """Have SQLite look at its pages until a moment of the monotonic clock."""
    raw: Any = conn.connection.dbapi_connection
    is_over = False

    def give_up() -> bool:
        nonlocal is_over
        is_over = time.monotonic() > ends
        return is_over

    raw.set_progress_handler(give_up, 10_000)
    try:
        return list(conn.scalars(sa.text("PRAGMA quick_check(5)")))
    except sa.exc.OperationalError:
        if not is_over:
            raise
        return ["ok"]  # as far as it came
    finally:
        raw.set_progress_handler(None, 0)


def _examine_samples(store: Store) -> Iterator[Damage]:
    """Find metrics of which it is not known what they are, when, or of what: no view shows them.

    Only numbers tie the tables together, since a foreign key would take an index more.
    """
    lost = (
        (sample, sample.c.series_id, series, "which metric they are"),
        (sample, sample.c.provenance_id, provenance, "what they were computed from"),
        (sample_history, sample_history.c.series_id, series, "which metric they were"),
        (sample_history, sample_history.c.provenance_id, provenance, "what they came from"),
        (provenance, provenance.c.window_id, metric_window, "which window they are of"),
    )
    for table, number, told_by, what in lost:
        numbers = sa.select(number).distinct().except_(sa.select(told_by.c.id)).subquery()
        missing = sa.select(sa.func.count()).where(number.in_(sa.select(numbers)))
        if n := fetch_value(store.state, missing.select_from(table)):
            yield Damage(
                table.name,
                f"{n:,} rows do not say {what}: the rows of {told_by.name} that they name are gone",
                "No view shows them. Restore a backup into a new store (mlmon restore), or "
                "compute the windows again: mlmon run MODEL --from DAY --to DAY.",
            )


def examine_table(store: Store, table: Location) -> Iterator[Damage]:
    """Look at one Delta table: its log, its checkpoints, its live files, and what is no part."""
    kind, model = _name_table(store, table)
    cure = f"Run mlmon store repair {model}." if model else "Move it away."
    sizes = measure_files(table)
    yield from (Damage(str(table), found, cure, model) for found in find_table_faults(table, sizes))
    if foreign := find_strangers(sizes):
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        yield Damage(
            str(table),
            f"{len(foreign)} files are no part of the table {kind}: {shown}",
            f"They are not read. Run mlmon store repair {model}, which moves them out.",
            model,
            foreign,
        )


def _name_table(store: Store, table: Location) -> tuple[str, str]:
    """Return the kind of a table, and its model; no model if the store has no such table."""
    kind, _, rest = str(table).removeprefix(f"{store.root}/").partition("/")
    known = kind in DERIVED or kind == "event_log"
    return rest.replace("/", " ") if kind == "event_log" else kind, (
        rest.split("/")[0] if known else ""
    )


def _load_done(store: Store) -> dict[tuple[str, str], dict[str, int]]:
    """Return (model, stream) -> content hash -> rows that the file added to the log."""
    c = ingest_file.c
    query = sa.select(c.model, c.stream, c.sha256, c.n_new + c.n_conflict).where(
        c.status == "done", manifest.IS_IN_LOG
    )
    found: dict[tuple[str, str], dict[str, int]] = {}
    for model, stream, sha, n in fetch_rows(store.state, query):
        found.setdefault((model, stream), {})[sha] = int(n)
    return found


# Hash of the landing file: rows that were refused at first have a longer name, see `Staged.log_id`.
CONTENT = "split_part(file_sha, '.', 1)"


def count_rows_by_file(store: Store, table: Location) -> dict[str, int]:
    """Count the rows of a table of the log by the file that they came from."""
    snapshot = DeltaFolder(table, pa.schema([])).snapshot()
    if snapshot is None or "file_sha" not in snapshot.schema.names or not snapshot.files:
        return {}
    return _count_by_file(store, snapshot.from_sql(["file_sha"]))


def _count_by_file(
    store: Store, source: str, tables: Mapping[str, pa.Table] | None = None
) -> dict[str, int]:
    counted = store.query(f"SELECT {CONTENT}, count(*) FROM {source} GROUP BY 1", tables)
    return dict(zip(*(column.to_pylist() for column in counted.columns), strict=True))


def _examine_log(store: Store, done: dict[tuple[str, str], dict[str, int]]) -> Iterator[Damage]:
    """Compare what the manifest says was added with what the log holds."""
    shrunk = _load_shrunk(store)
    places = {(t.url.split("/")[-2], t.name): t for t in (store.root / "event_log").tables()}
    for model, stream in sorted({*done, *(p for p in places if p[1] != "moved_ids")}):
        table = store.root / "event_log" / model / stream
        try:
            there = count_rows_by_file(store, table)
        except StoreError:
            continue  # told by examine_table
        said = done.get((model, stream), {})
        lost = [
            sha
            for sha, n in said.items()
            if n > there.get(sha, 0) and not (model in shrunk and _is_committed(table, sha))
        ]
        if lost:
            n_rows = sum(said[sha] - there.get(sha, 0) for sha in lost)
            yield Damage(
                str(table),
                f"{n_rows:,} rows of {len(lost)} files that the manifest calls done are missing",
                f"Run mlmon store repair {model}, then mlmon run {model}.",
                model,
            )
        if unknown := set(there) - _load_known(store, model, stream):
            yield Damage(
                str(table),
                f"the log has rows of {len(unknown)} files that the state database does not know "
                "(was it lost, or replaced by an older one?)",
                f"Restore its backup, or run mlmon store repair {model}, then mlmon run {model}.",
                model,
                is_whole=True,
            )


def _load_shrunk(store: Store) -> set[str]:
    """Return the models of which rows were deleted, on request or by age."""
    models = sa.select(erasure.c.model).union(sa.select(retention_mark.c.model))
    return set(fetch_values(store.state, models))


def _is_committed(table: Location, sha: str) -> bool:
    snapshot = DeltaFolder(table, pa.schema([])).snapshot()
    return snapshot is not None and snapshot.has_transaction(sha)


def _load_known(store: Store, model: str, stream: str) -> set[str]:
    c = ingest_file.c
    query = sa.select(c.sha256).where(c.model == model, c.stream == stream)
    return set(fetch_values(store.state, query))


def _examine_baselines(store: Store) -> Iterator[Damage]:
    c = baseline.c
    for model, baseline_id, payload in fetch_rows(
        store.state, sa.select(c.model, c.baseline_id, c.payload)
    ):
        if baselines.read_file(store, model, payload) is None:
            yield Damage(
                str(baselines.locate_file(store, model, payload)),
                f"the file of baseline {baseline_id} is missing or damaged",
                f"Copy it from a backup, or run mlmon run {model}; a promoted one: "
                f"mlmon baseline promote {model} again.",
                model,
            )


def _examine_quarantine(store: Store) -> Iterator[Damage]:
    c = ingest_file.c
    query = sa.select(c.model, c.sha256, c.path).where(c.status == "quarantined")
    kept: dict[str, set[str]] = {}
    for model, sha, path in fetch_rows(store.state, query):
        if model not in kept:
            below = (store.root / "quarantine" / model).below()
            kept[model] = {name.rpartition("/")[2].split(".")[0] for name in below}
        if sha not in kept[model]:
            yield Damage(
                str(store.root / "quarantine" / model),
                f"the copy of the refused file {path} is gone",
                "Land the corrected file; the copy itself only a backup has.",
                model,
            )


def find_table_faults(table: Location, sizes: dict[str, int]) -> Iterator[str]:
    """Say what is wrong with a table, a line each; nothing if it is whole."""
    of_log = list(_faults_of_log(table, sizes))
    yield from of_log
    yield from _faults_of_files(table, sizes, is_told=bool(of_log))


def find_strangers(sizes: dict[str, int]) -> tuple[str, ...]:
    """Return the files that no writer of tables makes, neither a living nor a killed one."""
    return tuple(name for name in sizes if not any(p.fullmatch(name) for p in _OURS))


def find_bad_commits(table: Location, sizes: dict[str, int]) -> dict[int, str]:
    """Return version -> what is wrong with its commit, of those that the newest version needs."""
    versions = sorted(int(m[1]) for name in sizes if (m := _COMMIT.fullmatch(name)))
    start = _newest_checkpoint(table, sizes) + 1
    needed = [version for version in versions if version >= start]
    bad = {version: why for version in needed if (why := _why_bad(table, version))}
    if needed:
        missing = sorted({*range(start, needed[-1])} - set(needed))
        bad |= dict.fromkeys(missing, "is missing")
    elif start == 0:
        bad[0] = "is missing"
    return dict(sorted(bad.items()))


def list_whole_log(table: Location, sizes: dict[str, int], before: int | None) -> list[str]:
    """Return the commits and readable checkpoints of a log, those before a version."""
    found = []
    for name in sizes:
        commit, checkpoint = _COMMIT.fullmatch(name), _CHECKPOINT.fullmatch(name)
        match = commit or checkpoint
        is_wanted = match is not None and (before is None or int(match[1]) < before)
        if is_wanted and not (checkpoint and _why_no_parquet(table / name)):
            found.append(name)
    return found


def list_whole_files(table: Location, files: Iterable[LiveFile]) -> list[LiveFile]:
    """Return those of a version's files that are there, and whose footer opens."""
    sizes = measure_files(table)
    return [file for file in files if _why_unreadable(table, file, sizes) == ""]


def measure_files(place: Location) -> dict[str, int]:
    """Return the files below a place with their sizes."""
    if not place.is_local:
        return {found.key: found.size for found in listed(place)}
    found = {}
    for name in place.below():
        try:
            found[name] = (place.path / name).stat().st_size
        except FileNotFoundError:
            continue  # a writer's own, gone meanwhile
    return found


def _faults_of_log(table: Location, sizes: dict[str, int]) -> Iterator[str]:
    for version, why in find_bad_commits(table, sizes).items():
        yield f"commit {version:020}.json {why}"
    for name in sizes:
        if (match := _CHECKPOINT.fullmatch(name)) and (why := _why_no_parquet(table / name)):
            yield f"checkpoint {match[1]} {why}"
    pointer = (table / f"{LOG}_last_checkpoint").read()
    if pointer is not None:
        named = _checkpoint_named(pointer)
        if named is None:
            yield "_last_checkpoint cannot be parsed"
        elif not any(n.startswith(f"{LOG}{named:020}.checkpoint") for n in sizes):
            yield f"_last_checkpoint names version {named}, whose checkpoint is missing"


def _why_bad(table: Location, version: int) -> str:
    content = (table / f"{LOG}{version:020}.json").read()
    return "is missing" if content is None else why_commit_is_bad(content)


def _newest_checkpoint(table: Location, sizes: dict[str, int]) -> int:
    """Return the version of the newest checkpoint that can be read, -1 for none."""
    found: dict[int, list[str]] = {}
    for name in sizes:
        if match := _CHECKPOINT.fullmatch(name):
            found.setdefault(int(match[1]), []).append(name)
    for version in sorted(found, reverse=True):
        if not any(_why_no_parquet(table / name) for name in found[version]):
            return version
    return -1


def _checkpoint_named(pointer: bytes) -> int | None:
    try:
        return int(json.loads(pointer)["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _why_no_parquet(place: Location) -> str:
    content = place.read()
    if content is None:
        return "is missing"
    try:
        pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError, ValueError):
        return "is cut off or damaged"
    return ""


def _faults_of_files(table: Location, sizes: dict[str, int], is_told: bool) -> Iterator[str]:
    try:
        snapshot = DeltaFolder(table, pa.schema([])).snapshot()
        files = () if snapshot is None else snapshot.files
    except StoreError as error:
        if not is_told:
            yield f"cannot be opened: {str(error).partition('cannot be read: ')[2] or error}"
        return
    for file in files:
        if why := _why_unreadable(table, file, sizes):
            yield f"data file {_name_below(table, file)} {why}"


def _name_below(table: Location, file: LiveFile) -> str:
    return file.path.removeprefix(f"{table}/")


def _why_unreadable(table: Location, file: LiveFile, sizes: dict[str, int]) -> str:
    size = sizes.get(_name_below(table, file))
    if size is None:
        return "is missing"
    if file.size is not None and size != file.size:
        return f"has {size:,} bytes, not {file.size:,}"
    try:
        source: Any = file.path
        if not table.is_local:
            source = pa.BufferReader(place_at(file.path, table.options).read() or b"")
        rows = pq.read_metadata(source).num_rows
    except (pa.ArrowException, OSError, ValueError):
        return "has no readable footer"
    return "" if rows == file.n_rows or not file.n_rows else f"has {rows:,} rows, not {file.n_rows}"


@dataclass
class Repaired:
    """What a repair did.

    Attributes:
        moved: Where what was replaced is now; empty if nothing was.
        done: What was done, a line each.
        lost: Landing files whose rows are missing and that are not there to be read again.
    """

    moved: str = ""
    done: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def repair_model(
    store: Store,
    spec: ModelSpec,
    project: Path,
    now: dt.datetime,
    *,
    dry_run: bool = False,
    landed: Callable[[], Collection[str]] = tuple,
) -> Repaired:
    """Mend whatever tables of a model are damaged or of another moment than the state database.

    The next ingest and run fill them.

    Args:
        store: The store; damaged tables must be on this machine.
        spec: The model.
        project: The folder that landing paths are relative to.
        now: Noted as the time at which windows have to be computed again.
        dry_run: Only say what would be done.
        landed: Finds the content hashes of the landing files that are there. Rows of other files
            that the state database does not know are noted in it; those of these are left to the
            next ingest, which counts refused rows, too.

    Raises:
        StoreError: If tables in object storage are damaged, another process holds the model, or
            the list of erasures and the state database do not belong together.
    """
    moved = _move_marks_back(store, spec, now, dry_run=dry_run)
    with writer_lock(store.state, f"ingest/{spec.model}"):
        mending = _Repair(store, spec, project, now, dry_run, landed, Repaired(done=moved))
        if store.root.is_local:
            return mending.run()
        if moments.find_difference(store, spec.model):
            return mending.join_in_bucket()
    if moved:
        return Repaired(done=moved)
    raise StoreError(
        f"The tables are in object storage ({store.root}); bring back what is damaged with the "
        "bucket's own versioning."
    )


def _move_marks_back(
    store: Store, spec: ModelSpec, now: dt.datetime, *, dry_run: bool
) -> list[str]:
    """Move marks of retention that lie ahead of now to the oldest rows that are left; say so."""
    ahead = model_history.find_marks_ahead(store.state, spec.model, now)
    if not ahead:
        return []
    oldest = _oldest_windows(store, spec)
    moved = {dataset: min(oldest.get(dataset, now), now) for dataset in ahead}
    if not dry_run:
        with store.state.begin() as conn:
            model_history.move_marks(conn, spec.model, moved, now)
    return [
        f"rows of {dataset} count as deleted before {moment:%Y-%m-%d}, no longer before "
        f"{ahead[dataset]:%Y-%m-%d}, which lies ahead of now"
        for dataset, moment in moved.items()
    ]


def _oldest_windows(store: Store, spec: ModelSpec) -> dict[str, dt.datetime]:
    """Return dataset -> start of the oldest window of which predictions are stored."""
    snapshot = store.event_log(spec).folders["predictions"].snapshot()
    dates: dict[str, str] = {}
    for file in snapshot.files if snapshot else ():
        dataset, date = file.partition["dataset"], file.partition["window_date"]
        dates[dataset] = min(date, dates.get(dataset, date))
    return {dataset: start_of_date(spec.time, date) for dataset, date in dates.items()}


@dataclass
class _Repair:
    store: Store
    spec: ModelSpec
    project: Path
    now: dt.datetime
    dry_run: bool
    landed: Callable[[], Collection[str]]
    told: Repaired = field(default_factory=Repaired)
    aside: Path | None = None

    def run(self) -> Repaired:
        difference = moments.find_difference(self.store, self.spec.model)
        if not self.dry_run:
            ledger.find_undone(self.store, self.spec.model)  # nobody's rows are read again
        damages = [d for d in examine_store(self.store) if d.model == self.spec.model]
        self._move_foreign([damage for damage in damages if damage.names])
        places = {d.place for d in damages if not d.names and not d.is_whole}
        log = self.store.root / "event_log" / self.spec.model
        for stream in STREAMS:
            if str(log / stream) in places:
                self._mend_stream(stream, log / stream)
        if str(log / "moved_ids") in places:
            self._mend_moved_ids(log)
        derived = [self.store.root / kind / self.spec.model for kind in DERIVED]
        if difference:
            for stream in STREAMS:
                if not self.dry_run or str(log / stream) not in places:
                    self._note_unknown(stream, log / stream)
            others = moments.find_other_tables(self.store, self.spec.model)
            places |= {str(self.store.root / place) for place in others}
            # Of the baseline's there are those of every rows that it ever had, under their names.
            places |= {str(table) for table in derived[:2] if table.path.exists()}
            if not self.dry_run:
                forget_index(self.store.queries, self.spec.model)
        self._mend_derived([table for table in derived if str(table) in places])
        if difference:
            self.told.done.append("tables and state database taken for one moment from now on")
        if (difference or damages) and not self.dry_run:
            reached("repair.mended")
            moments.join_moments(self.store, self.spec.model, self.now)
        self.told.moved = str(self.aside or "")
        return self.told

    def join_in_bucket(self) -> Repaired:
        """Let tables and state database belong together again where nothing can be moved.

        A log that went back lacks whole commits. Records and profiles are replaced as they are
        computed again.
        """
        if not self.dry_run:
            ledger.find_undone(self.store, self.spec.model)
        for stream in STREAMS:
            table = self.store.root / "event_log" / self.spec.model / stream
            counted = count_rows_by_file(self.store, table)
            files = [file for file in self._files(stream) if file[2] > counted.get(file[0], 0)]
            self.told.lost += [path for _, path, _, is_there in files if not is_there]
            again = [sha for sha, _, _, is_there in files if is_there]
            self.told.done.append(f"{table}: {len(again)} files to be read again")
            if not self.dry_run:
                self._forget(stream, again)
            self._note_unknown(stream, table)
        if not self.dry_run:
            forget_index(self.store.queries, self.spec.model)
            with self.store.state.begin() as conn:
                mark_inputs(conn, self.spec, self._windows(), self.now)
            moments.join_moments(self.store, self.spec.model, self.now)
        self.told.done.append("tables and state database taken for one moment from now on")
        return self.told

    def _move_foreign(self, damages: Sequence[Damage]) -> None:
        for damage in damages:
            self.told.done.append(f"{damage.place}: {len(damage.names)} foreign files moved out")
            for name in () if self.dry_run else damage.names:
                self._move(Path(damage.place) / name)

    def _mend_derived(self, tables: Sequence[Location]) -> None:
        """Move tables away that are made of others, and have their windows computed again."""
        if not tables:
            return
        for table in tables:
            self.told.done.append(f"{table}: moved out, its windows to be computed again")
        if self.dry_run:
            return
        windows = self._windows()
        with self.store.state.begin() as conn:  # first, so that nothing is missing unnoticed
            mark_inputs(conn, self.spec, windows, self.now)
        reached("repair.marked")
        for table in tables:
            if table.path.exists():
                self._move(table.path)
            files = self.store.root.path / "baselines" / self.spec.model
            if table.url.endswith(f"/{BASELINES}/{self.spec.model}") and files.exists():
                self._move(files)  # without them the baseline is fitted again

    def _note_unknown(self, stream: Stream, table: Location) -> None:
        """Let the next ingest settle files whose rows the log has and the manifest has not."""
        known = _load_known(self.store, self.spec.model, stream)
        unknown = count_rows_by_file(self.store, table).keys() - known
        if not unknown or not (unknown := unknown - set(self.landed())):
            return
        self.told.done.append(
            f"{table}: {len(unknown)} files that only the log has are noted in the state database"
        )
        if self.dry_run:
            return
        row = {"model": self.spec.model, "stream": stream, "status": "missing",
               "first_seen": self.now}  # fmt: skip
        with self.store.state.begin() as conn:
            manifest.note_discovered(
                conn, [{**row, "sha256": sha, "path": f"log:{sha[:12]}"} for sha in sorted(unknown)]
            )

    def _windows(self) -> list[Window]:
        """Return the windows that the log has rows of; of others the numbers stay."""
        log = self.store.records_log(self.spec)
        starts = {start for dataset in DATASETS for start in log.window_starts(dataset)}
        kept_from = model_history.load_rows_from(self.store.state, self.spec.model).get(PRODUCTION)
        return [
            window_containing(self.spec.time, start)
            for start in sorted(starts)
            if kept_from is None or start >= kept_from
        ]

    def _mend_stream(self, stream: Stream, table: Location) -> None:
        """Write the log of a stream anew from its whole rows; the other files are read again."""
        schema = stream_schema(self.spec, stream)
        rows = self._whole_rows(table, schema)
        counted = _count_by_file(self.store, "rows", {"rows": rows})
        again, kept = [], []
        for sha, path, n_added, is_there in self._files(stream):
            if n_added <= counted.get(sha, 0):
                kept.append(sha)
            elif is_there:
                again.append(sha)
            else:
                self.told.lost.append(path)  # not committed: it stays missing until it is back
        rows = self.store.query(
            f"SELECT * FROM rows WHERE {CONTENT} NOT IN ({literals([*again, ''])})",
            {"rows": rows},
        ).cast(rows.schema)
        self.told.done.append(
            f"{table}: {rows.num_rows:,} whole rows kept, {len(again)} files to be read again"
        )
        if self.dry_run:
            return
        with tempfile.TemporaryDirectory(dir=self._made_aside(), prefix=".new-") as work:
            new = LocalPlace(f"{work}/table")
            folder = DeltaFolder(new, schema, PARTITION_BY)
            snapshot = folder.ensure()
            if rows.num_rows or kept:
                snapshot.append(rows, kept)
            if table.path.exists():
                self._move(table.path)
            reached("repair.moved")
            table.path.parent.mkdir(parents=True, exist_ok=True)
            new.path.rename(table.path)
        reached("repair.replaced")
        forget_index(self.store.queries, self.spec.model)
        self._forget(stream, again)

    def _whole_rows(self, table: Location, schema: pa.Schema) -> pa.Table:
        """Return the rows of the newest version whose commits are whole, of files that open."""
        files: list[str] = []
        found = schema
        with tempfile.TemporaryDirectory() as work:
            snapshot = _open_last_whole(table, Path(work), schema, self.spec)
            if snapshot is not None:
                found = snapshot.schema
                files = [file.path for file in list_whole_files(table, snapshot.files)]
        gone = erased_ids.load_erased(self.store.state, self.spec.model)
        sql = f"SELECT r.* FROM {select_sql(files, found, None, None, aliases_of(self.spec))} AS r"
        tables = {}
        if gone:  # an older version may still have them
            sql += f" WHERE NOT {gone.matches_sql('r')}"
            tables = {"erased": gone.hashes}
        return self.store.query(sql, tables).select(schema.names).cast(schema)

    def _files(self, stream: Stream) -> list[tuple[str, str, int, bool]]:
        """Return content hash, path, rows added, and whether the landing file is still there."""
        c = ingest_file.c
        query = sa.select(c.sha256, c.path, c.n_new + c.n_conflict, c.size_bytes).where(
            c.model == self.spec.model, c.stream == stream, c.status == "done", manifest.IS_IN_LOG
        )
        return [
            (sha, path, int(n), _has_content(self.project / path, sha, size))
            for sha, path, n, size in fetch_rows(self.store.state, query)
        ]

    def _forget(self, stream: Stream, shas: Sequence[str]) -> None:
        """Let files be new again, so that the next ingest reads them."""
        with self.store.state.begin() as conn:
            for table in (ingest_path, ingest_file):
                mine = (table.c.model == self.spec.model, table.c.stream == stream)
                conn.execute(sa.delete(table).where(*mine, table.c.sha256.in_(shas)))

    def _mend_moved_ids(self, log: Location) -> None:
        self.told.done.append(f"{log / 'moved_ids'}: rewritten from the predictions")
        if self.dry_run:
            return
        if (log / "moved_ids").path.exists():
            self._move((log / "moved_ids").path)
        predictions = self.store.event_log(self.spec).folders["predictions"].snapshot()
        if predictions is None:
            return
        source = predictions.from_sql(["prediction_id", "window_date"])
        pairs = self.store.query(
            f"""WITH pairs AS (SELECT DISTINCT * FROM {source})
            SELECT prediction_id, window_date FROM pairs WHERE prediction_id IN (
                SELECT prediction_id FROM pairs GROUP BY prediction_id HAVING count(*) > 1)"""
        )
        if pairs.num_rows:
            DeltaFolder(log / "moved_ids", MOVED_IDS).ensure().append(pairs.cast(MOVED_IDS))

    def _made_aside(self) -> Path:
        if self.aside is None:
            home = Path(f"{self.store.root}.damaged")
            name, n = f"{self.now:%Y%m%dT%H%M%SZ}", 0
            while (home / f"{name}-{n}").exists():
                n += 1
            self.aside = home / f"{name}-{n}"
            self.aside.mkdir(parents=True)
        return self.aside

    def _move(self, path: Path) -> None:
        target = self._made_aside() / path.relative_to(self.store.root.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)


def _open_last_whole(
    table: Location, work: Path, schema: pa.Schema, spec: ModelSpec
) -> Snapshot | None:
    """Open the newest version before the first damaged commit, from a copy of the log."""
    sizes = measure_files(table)
    bad = find_bad_commits(table, sizes)
    copy = work / "_delta_log"
    copy.mkdir()
    for name in list_whole_log(table, sizes, before=min(bad, default=None)):
        shutil.copyfile(table.path / name, work / name)
    try:
        opened = open_table(LocalPlace(str(work)))
        return Snapshot(TableVersion(opened, table), schema, aliases_of(spec))
    except (TableNotFoundError, DeltaError, StoreError, OSError):
        return None


def _has_content(path: Path, sha: str, size: int) -> bool:
    """Tell whether a file has the content that was taken in; another may have its name and size."""
    try:
        return path.stat().st_size == size and hash_file(path) == sha
    except OSError:
        return False
