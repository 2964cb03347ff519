"""Backups: the rows of the state database and every table at one version, with checksums."""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import socket
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from mlmon_dagster.errors import StoreError
from mlmon_dagster.store import moments
from mlmon_dagster.store.erasure import ledger
from mlmon_dagster.store.places.location import Location, hash_file, whole_file
from mlmon_dagster.store.state.database import HEAD
from mlmon_dagster.store.state.sql import export_rows, exported_tables, fetch_row, import_rows
from mlmon_dagster.store.state.writing import process_died, reached
from mlmon_dagster.store.store import RESTORING
from mlmon_dagster.store.tables.delta import open_table

if TYPE_CHECKING:
    from mlmon_dagster.store.store import Store

MANIFEST = "backup.json"
_WORKING = ".backing-up-"
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_KEPT_FILES = ("quarantine", "baselines", ledger.FOLDER)  # folders of files beside the tables


@dataclass(frozen=True)
class Manifest:
    """What a backup holds.

    Attributes:
        created_at: ISO 8601, UTC.
        schema_version: Of the state database.
        n_rows: Rows of the state database.
        tables: Table -> its version.
        files: Name -> size and SHA-256 of each file, the manifest not among them.
        format: Of the backup.
    """

    created_at: str
    schema_version: str
    n_rows: int
    tables: dict[str, int]
    files: dict[str, list[int | str]]
    format: int = 1

    def text(self) -> str:
        """Describe it in one line."""
        n_bytes = sum(int(size) for size, _ in self.files.values())
        return (
            f"{self.n_rows:,} rows of state (schema {self.schema_version}) and "
            f"{len(self.tables)} tables in {len(self.files):,} files, {n_bytes / 1e6:.1f} MB, "
            f"of {self.created_at}"
        )


def make_backup(store: Store, target: Path, now: datetime, models: Path | None) -> Manifest:
    """Copy a store as it is at one moment, while others go on using it.

    The state is read first, in one transaction; then each table is pinned. The tables may be a
    little ahead of the state, which a crash between the two also leaves and the next ingest mends.

    Args:
        store: The store; its tables must be on this machine.
        target: A folder that does not exist yet, or a file ending in .tar, .tar.gz or .tgz.
        now: Noted as the time of the backup.
        models: The folder of the declarations, copied too.

    Raises:
        StoreError: If the target exists, the tables are in object storage, or tables and state
            database are not of the same moment.
    """
    if target.exists():
        raise StoreError(f"{target} exists already; name a file or folder that does not.")
    if not store.root.is_local:
        raise StoreError(
            f"The tables are in object storage ({store.root}); back that bucket up with its own "
            "versioning or replication, and the state database with pg_dump."
        )
    for model in moments.models_with_moments(store):
        moments.check_moment(store, model)
    target.parent.mkdir(parents=True, exist_ok=True)
    for killed in find_killed(store.folder):
        killed.remove()
    with _working_folder(store, target, now) as work:
        folder = Path(work) / "backup"
        summary = _fill_backup(store, folder, now, models)
        reached("backup.filled")
        if target.name.endswith(_ARCHIVES):
            partial = Path(work) / "archive"
            with tarfile.open(partial, "w:gz" if target.name.endswith("gz") else "w") as tar:
                for path in sorted(folder.rglob("*")):
                    if path.is_file():
                        tar.add(path, path.relative_to(folder).as_posix())
            partial.rename(target)
        else:
            folder.rename(target)
    return summary


@dataclass(frozen=True)
class KilledBackup:
    """A backup whose process died, and what it left.

    Attributes:
        note: The file in the store's folder that names it.
        work: The folder with what it had copied.
        text: What it was to become, and when it was begun.
    """

    note: Path
    work: Path
    text: str

    def remove(self) -> None:
        """Delete what it left."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.note.unlink(missing_ok=True)


def find_killed(folder: Path) -> list[KilledBackup]:
    """Return the backups of a store, by its folder on this machine, that were killed."""
    found = []
    for note in sorted(folder.glob(f"{_WORKING}*")):
        host, pid, work, text = note.read_text().split("\n", 3)
        if process_died(host, int(pid)):
            found.append(KilledBackup(note, Path(work), text))
    return found


@contextmanager
def _working_folder(store: Store, target: Path, now: datetime) -> Iterator[str]:
    """Make a folder beside the target; while it is there, a note in the store's folder says so."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".mlmon-backup-") as work:
        note = store.folder / f"{_WORKING}{Path(work).name}"
        text = f"{target}, begun {now.isoformat(timespec='seconds')}"
        with whole_file(note) as draft:
            draft.write_text(f"{socket.gethostname()}\n{os.getpid()}\n{work}\n{text}")
        try:
            yield work
        finally:
            note.unlink(missing_ok=True)


def _fill_backup(store: Store, folder: Path, now: datetime, models: Path | None) -> Manifest:
    state = folder / "state"
    state.mkdir(parents=True)
    options = {"isolation_level": "REPEATABLE READ"} if _is_postgres(store) else {}
    with store.state.connect().execution_options(**options) as conn:
        n_rows = sum(export_rows(conn, t, state / f"{t.name}.jsonl") for t in exported_tables())
    versions = {}
    for table in sorted(store.root.tables(), key=_log_order):
        name = table.path.relative_to(store.root.path).as_posix()
        versions[name] = _copy_table(table, folder / "tables" / name)
    for kept in _KEPT_FILES:
        if (store.root.path / kept).is_dir():
            unfinished = shutil.ignore_patterns(".*.partial")
            shutil.copytree(store.root.path / kept, folder / "files" / kept, ignore=unfinished)
    if models is not None and models.is_dir():
        shutil.copytree(models, folder / "models")
    files: dict[str, list[int | str]] = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, hash_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    manifest = Manifest(now.isoformat(timespec="seconds"), HEAD, n_rows, versions, files)
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1))
    return manifest


def _is_postgres(store: Store) -> bool:
    return store.state.dialect.name == "postgresql"


def _log_order(table: Location) -> tuple[bool, str]:
    """Pin moved ids after the predictions that they were noted for."""
    return table.name == "moved_ids", table.url


def _copy_table(table: Location, target: Path) -> int:
    """Copy the live files of the newest version and the log up to it; return the version."""
    source = table.path
    pinned = open_table(table)
    version: int = pinned.version()
    for uri in pinned.file_uris():
        path = Path(uri.removeprefix("file://"))
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
    (target / "_delta_log").mkdir(parents=True, exist_ok=True)
    for entry in sorted((source / "_delta_log").iterdir()):
        number = entry.name.split(".")[0]
        if number.isdigit() and int(number) <= version:
            shutil.copy2(entry, target / "_delta_log" / entry.name)
    return version


def verify_backup(source: Path) -> Manifest:
    """Read every file of a backup and compare it with its checksum.

    Raises:
        StoreError: If it is no backup, or a file is missing, added or changed.
    """
    with _unpack(source) as folder:
        return _verify(folder, source)


def _verify(folder: Path, source: Path) -> Manifest:
    try:
        told = json.loads((folder / MANIFEST).read_text())
        if told["format"] != 1:
            raise ValueError(f"its format is {told['format']}, not 1")
        manifest = Manifest(**told)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise StoreError(f"{source} is no backup: {error}. Use another one.") from error
    there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    wrong = sorted(there ^ {MANIFEST, *manifest.files})
    wrong += [
        name
        for name, (_, expected) in manifest.files.items()
        if name in there and hash_file(folder / name) != expected
    ]
    if wrong:
        raise StoreError(
            f"{source} is damaged: {len(wrong)} files are missing, added or changed, such as "
            f"{wrong[0]}. Use another backup."
        )
    return manifest


def restore_backup(store: Store, source: Path, models: Path | None, now: datetime) -> Manifest:
    """Fill an empty store from a backup, whichever database it was made of.

    Erasures that are younger than the backup are done again by the next ingest, if the folder
    beside the store still has their lists, see `ledger`.

    Args:
        store: A store without any rows and tables.
        source: What `make_backup` wrote.
        models: Where declarations go that are not there yet.
        now: Noted as the moment since which tables and state database belong together.

    Raises:
        StoreError: If the backup is damaged or of a newer program, or the store is not empty.
    """
    marker = store.folder / RESTORING
    with _unpack(source) as folder:
        manifest = _verify(folder, source)
        if manifest.schema_version > HEAD:
            raise StoreError(
                f"{source} was made by a newer mlmon-dagster (schema "
                f"{manifest.schema_version}, this one knows {HEAD}). Install that first."
            )
        which = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        begun = marker.read_text().partition(" ")[0] if marker.exists() else ""
        if begun and begun != which:
            raise StoreError(
                f"The store at {store.root} is half filled from another backup than {source}. "
                "Restore that one again, or empty the store and its database first."
            )
        if not begun and not _is_empty(store):
            raise StoreError(
                f"The store at {store.root} is not empty, and a restore replaces nothing. Name an "
                "empty one with MLMON_STORE (and MLMON_DB_URL), or move this one away."
            )
        with whole_file(marker) as draft:  # a restore that was killed may be repeated
            draft.write_text(f"{which} {source}, a backup of {manifest.created_at}")
        reached("restore.begun")
        for part, target in (("tables", store.root.path), ("files", store.root.path)):
            if (folder / part).is_dir():
                shutil.copytree(folder / part, target, dirs_exist_ok=True)
                reached("restore.copied")
        with store.state.begin() as conn:
            for table in exported_tables():
                import_rows(conn, table, folder / "state" / f"{table.name}.jsonl")
        reached("restore.imported")
        for model in moments.models_with_moments(store):
            moments.join_moments(store, model, now)
        if models is not None and (folder / "models").is_dir():
            models.mkdir(parents=True, exist_ok=True)
            for path in (folder / "models").iterdir():
                if path.is_file() and not (models / path.name).exists():
                    shutil.copy2(path, models / path.name)
        marker.unlink()
    return manifest


def _is_empty(store: Store) -> bool:
    if store.root.tables():
        return False
    tables = exported_tables()
    return not any(fetch_row(store.state, sa.select(table).limit(1)) for table in tables)


@contextmanager
def _unpack(source: Path) -> Iterator[Path]:
    if source.is_dir():
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="mlmon-restore-") as work:
        try:
            with tarfile.open(source) as tar:
                tar.extractall(work, filter="data")
        # The end of a cut file is an EOFError, a damaged one fails where it is unpacked.
        except (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError) as error:
            raise StoreError(
                f"{source} cannot be read as a backup: {error or type(error).__name__}. It is cut "
                "off, damaged or of another kind; nothing was changed. Use another backup."
            ) from error
        yield Path(work)
