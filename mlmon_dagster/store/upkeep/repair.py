"""Mending the damaged tables of a model: rows that are whole stay, the others are read again.

So are tables and a state database that are not of the same moment, as one of them was restored.
What the log lacks of files that the manifest calls done is read again; what it has of files that
the manifest does not know is noted there; everything that is made of the log is made again.

Nothing is deleted: what is replaced is moved out of the store, to a folder beside it. Killed at
any point, the next repair goes on from what it finds.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import sqlalchemy as sa
from deltalake.exceptions import DeltaError, TableNotFoundError

from mlmon_dagster.errors import StoreError
from mlmon_dagster.spec.baseline import DATASETS, PRODUCTION
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.sources import STREAMS, Stream
from mlmon_dagster.spec.windows import Window, start_of_date, window_containing
from mlmon_dagster.store import moments
from mlmon_dagster.store.erasure import ledger
from mlmon_dagster.store.places.location import LocalPlace, Location
from mlmon_dagster.store.state import erased_ids, manifest, state_marks
from mlmon_dagster.store.state.schema import ingest_file, ingest_path
from mlmon_dagster.store.state.sql import literals
from mlmon_dagster.store.state.window_state import mark_inputs
from mlmon_dagster.store.state.writing import reached, writer_lock
from mlmon_dagster.store.tables.columns import PARTITION_BY, aliases_of, stream_schema
from mlmon_dagster.store.tables.delta import (
    DeltaFolder,
    Snapshot,
    TableVersion,
    open_table,
    select_sql,
)
from mlmon_dagster.store.tables.event_log import MOVED_IDS
from mlmon_dagster.store.tables.id_index import forget_index
from mlmon_dagster.store.upkeep import integrity
from mlmon_dagster.store.upkeep.integrity import BASELINES, DERIVED, Damage

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store


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


def repair(
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
    ahead = state_marks.marks_ahead(store.state, spec.model, now)
    if not ahead:
        return []
    oldest = _oldest_windows(store, spec)
    moved = {dataset: min(oldest.get(dataset, now), now) for dataset in ahead}
    if not dry_run:
        with store.state.begin() as conn:
            state_marks.move_marks(conn, spec.model, moved, now)
    return [
        f"rows of {dataset} count as deleted before {moment:%Y-%m-%d}, no longer before "
        f"{ahead[dataset]:%Y-%m-%d}, which lies ahead of now"
        for dataset, moment in moved.items()
    ]


def _oldest_windows(store: Store, spec: ModelSpec) -> dict[str, dt.datetime]:
    """Return dataset -> start of the oldest window of which predictions are stored."""
    snapshot = store.event_log(spec).table("predictions").snapshot()
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
        damages = [d for d in integrity.examine_store(self.store) if d.model == self.spec.model]
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
            counted = integrity.rows_by_file(self.store, table)
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
        c = ingest_file.c
        query = sa.select(c.sha256).where(c.model == self.spec.model, c.stream == stream)
        with self.store.state.connect() as conn:
            known = set(conn.scalars(query))
        unknown = integrity.rows_by_file(self.store, table).keys() - known
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
            manifest.discover(
                conn, [{**row, "sha256": sha, "path": f"log:{sha[:12]}"} for sha in sorted(unknown)]
            )

    def _windows(self) -> list[Window]:
        """Return the windows that the log has rows of; of others the numbers stay."""
        log = self.store.event_log(self.spec)
        starts = {start for dataset in DATASETS for start in log.window_starts(dataset)}
        kept_from = state_marks.rows_from(self.store.state, self.spec.model).get(PRODUCTION)
        return [
            window_containing(self.spec.time, start)
            for start in sorted(starts)
            if kept_from is None or start >= kept_from
        ]

    def _mend_stream(self, stream: Stream, table: Location) -> None:
        """Write the log of a stream anew from its whole rows; the other files are read again."""
        schema = stream_schema(self.spec, stream)
        rows = self._whole_rows(table, schema)
        counted = _count(self.store, rows)
        again, kept = [], []
        for sha, path, n_added, is_there in self._files(stream):
            if n_added <= counted.get(sha, 0):
                kept.append(sha)
            elif is_there:
                again.append(sha)
            else:
                self.told.lost.append(path)  # not committed: it stays missing until it is back
        rows = self.store.query(
            f"SELECT * FROM rows WHERE {integrity.CONTENT} NOT IN ({literals([*again, ''])})",
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
            snapshot = _last_whole(table, Path(work), schema, self.spec)
            if snapshot is not None:
                found = snapshot.schema
                files = [file.path for file in integrity.whole_files(table, snapshot.files)]
        gone = erased_ids.erased(self.store.state, self.spec.model)
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
            c.model == self.spec.model, c.stream == stream, c.status == "done"
        )
        with self.store.state.connect() as conn:
            return [
                (sha, path, int(n), _is_there(self.project / path, sha, size))
                for sha, path, n, size in conn.execute(query)
            ]

    def _forget(self, stream: Stream, shas: Sequence[str]) -> None:
        """Let files be new again, so that the next ingest reads them."""
        with self.store.state.begin() as conn:
            for table in (ingest_path, ingest_file):
                mine = (table.c.model == self.spec.model, table.c.stream == stream)
                conn.execute(sa.delete(table).where(*mine, table.c.sha256.in_(shas)))

    def _mend_moved_ids(self, log: Location) -> None:
        self.told.done.append(f"{log / 'moved_ids'}: written anew from the predictions")
        if self.dry_run:
            return
        if (log / "moved_ids").path.exists():
            self._move((log / "moved_ids").path)
        predictions = self.store.event_log(self.spec).table("predictions").snapshot()
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


def _last_whole(table: Location, work: Path, schema: pa.Schema, spec: ModelSpec) -> Snapshot | None:
    """Open the newest version before the first damaged commit, from a copy of the log."""
    sizes = integrity.sizes_below(table)
    bad = integrity.bad_commits(table, sizes)
    copy = work / "_delta_log"
    copy.mkdir()
    for name in integrity.whole_log(table, sizes, before=min(bad, default=None)):
        shutil.copyfile(table.path / name, work / name)
    try:
        opened = open_table(LocalPlace(str(work)))
        return Snapshot(TableVersion(opened, table), schema, aliases_of(spec))
    except (TableNotFoundError, DeltaError, StoreError, OSError):
        return None


def _count(store: Store, rows: pa.Table) -> dict[str, int]:
    counted = store.query(
        f"SELECT {integrity.CONTENT} AS sha, count(*) AS n FROM rows GROUP BY 1", {"rows": rows}
    )
    return dict(zip(*(counted.column(c).to_pylist() for c in ("sha", "n")), strict=True))


def _is_there(path: Path, sha: str, size: int) -> bool:
    """Tell whether a file has the content that was taken in; another may have its name and size."""
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha
    except OSError:
        return False
