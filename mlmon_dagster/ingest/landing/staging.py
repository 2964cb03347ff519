"""Copy a landing file to a private folder while hashing it; only the copy is ever parsed.

The landing file is opened once and never changed, so nobody can swap its bytes between the
check and the use. Copies are named by content, never by the landing name.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlmon_dagster.errors import SchemaError
from mlmon_dagster.ingest.landing.candidate import Candidate, Look
from mlmon_dagster.ingest.landing.discover import mark_of
from mlmon_dagster.ingest.reasons import file_message
from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store import Store
from mlmon_dagster.store.places.location import Location
from mlmon_dagster.store.tables.kept_rows import KeptRows, Mask

_BLOCK = 1 << 20
_ENDINGS = (".csv.gz", ".jsonl.gz", ".ndjson.gz", ".json.gz", ".csv.zst", ".jsonl.zst",
            ".ndjson.zst", ".json.zst", ".parquet", ".csv", ".jsonl",
            ".ndjson", ".json")  # fmt: skip


class StillChangingError(Exception):
    """The landing file changed or vanished while it was read; it is looked at again later."""


@dataclass(frozen=True)
class Again:
    """The refused rows of a file that was taken in otherwise, to be read again.

    Attributes:
        kept: The rows.
        moment: When that was begun; their times may not lie ahead of it.
        arrived: When the file was taken in.
    """

    kept: KeptRows
    moment: dt.datetime
    arrived: dt.datetime

    def about(self, name: str, n_rows: int) -> list[Any] | None:
        """Return what is known of each row; None if the rows are not the same ones any more."""
        rows = self.kept.rows
        return rows[name].to_pylist() if rows.num_rows == n_rows else None

    def row_numbers(self) -> list[int]:
        """Return the numbers of the rows in the landing file."""
        found: list[int] = self.kept.rows["row"].to_pylist()
        return found


@dataclass(frozen=True)
class Staged:
    """A private copy of a landing file.

    Attributes:
        path: The copy, or None if the file was too large to copy.
        name: The landing file's name, for messages.
        has_marker: The producer said that it is complete.
        age: Seconds since the landing file's last change.
        mark: Tells the landing file from one that replaces it; empty if it was not looked at now.
        again: Its refused rows, if only these are read; the copy holds no others.
    """

    stream: Stream
    name: str
    path: Path | None
    sha256: str
    size: int
    mtime_ns: int
    age: float = float("inf")
    has_marker: bool = False
    mark: str = ""
    again: Again | None = None

    @property
    def log_id(self) -> str:
        """By which the log knows its rows; each reading of refused rows has one of its own."""
        if self.again is None:
            return self.sha256
        return f"{self.sha256}.{round(self.again.moment.timestamp() * 1_000_000)}"

    def passed_over(self, n_rows: int) -> Mask:
        """Return which rows of the copy are only there because they share a line."""
        refused = self.again.about("is_refused", n_rows) if self.again else None
        return ~np.array(refused, dtype=bool) if refused else np.zeros(n_rows, dtype=bool)

    def row_numbers(self, n_rows: int) -> np.ndarray:
        """Return the number of each row of the copy in the landing file."""
        numbers = self.again.about("row", n_rows) if self.again else None
        return np.arange(n_rows) if numbers is None else np.array(numbers, dtype=np.int64)

    @property
    def order(self) -> tuple[int, str, str]:
        """Its place in the order of arrival of files that are taken in together: oldest first."""
        return self.mtime_ns, self.name, self.sha256

    def is_final(self, patience: float) -> bool:
        """Say whether nobody is likely to complete the file: it is marked, or old enough."""
        return self.has_marker or self.age >= patience


def stage(candidate: Candidate, folder: Path, max_bytes: int) -> Staged:
    """Copy a landing file, or object, into ``folder`` as ``<sha256><ending>``.

    A file above ``max_bytes`` is hashed and not copied.

    Raises:
        StillChangingError: If the file changed, vanished or stopped being a regular file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"incoming-{os.getpid()}"
    if isinstance(candidate.path, Path):
        copy, sha256 = _read(candidate, candidate.path, incoming, max_bytes)
    else:
        copy = candidate.size <= max_bytes
        sha256 = _download(candidate, candidate.path, incoming if copy else None)
    path = None
    if copy:
        path = folder / f"{sha256}{ending_of(candidate.name)}"
        incoming.replace(path)
    return Staged(
        candidate.stream, candidate.name, path, sha256, candidate.size, candidate.mtime_ns,
        candidate.age, candidate.has_marker, candidate.mark,
    )  # fmt: skip


def _download(candidate: Candidate, place: Location, target: Path | None) -> str:
    from mlmon_dagster.store.places.objects import ChangedError, fetch

    try:
        sha256 = fetch(place, target, candidate.etag)
    except ChangedError as error:
        raise StillChangingError(str(error)) from error
    if target is not None and target.stat().st_size != candidate.size:
        raise StillChangingError(f"{candidate.name}: changed while it was read")
    return sha256


def _read(candidate: Candidate, path: Path, incoming: Path, max_bytes: int) -> tuple[bool, str]:
    """Copy a file unless it is too large; return whether it was copied, and its hash."""
    try:
        with _opened(path) as landing:
            before = os.fstat(landing)
            copy = before.st_size <= max_bytes
            sha256 = _copy(landing, incoming if copy else None)
            after = os.fstat(landing)
    except OSError as error:
        incoming.unlink(missing_ok=True)
        if isinstance(error, FileNotFoundError | PermissionError) or error.errno == 40:  # ELOOP
            raise StillChangingError(f"{candidate.name}: {error.strerror}") from error
        raise
    if _version(before) != _version(after) or _version(after) != _listed(candidate):
        incoming.unlink(missing_ok=True)
        raise StillChangingError(f"{candidate.name}: changed while it was read")
    return copy, sha256


def ending_of(name: str) -> str:
    """Return the known file ending of a landing name, or ``.bin``."""
    lowered = name.lower()
    if lowered.endswith(".pq"):
        return ".parquet"
    return next((ending for ending in _ENDINGS if lowered.endswith(ending)), ".bin")


def find_staged(folder: Path, sha256: str) -> Path | None:
    """Return the intact copy of a content that an interrupted run left behind, or None."""
    for path in folder.glob(f"{sha256}.*"):
        with path.open("rb") as copy:
            if hashlib.file_digest(copy, "sha256").hexdigest() == sha256:
                return path
        path.unlink()
    return None


def staging_folder(store: Store, model: str, stream: Stream) -> Path:
    """Return the private folder of a stream's copies, on this machine."""
    return store.folder / "staging" / model / stream


def clear_staging(folder: Path, keep: Collection[str]) -> None:
    """Delete what earlier processes left, save the copies of the contents to keep.

    The writer lock must be held.
    """
    for path in folder.glob("*"):
        if path.name.split(".")[0] not in keep:
            path.unlink(missing_ok=True)


def clear_incoming(folder: Path) -> None:
    """Delete unfinished copies and unpacked files; the writer lock must be held."""
    for path in folder.glob("incoming-*"):
        path.unlink(missing_ok=True)


def too_large(staged: Staged, max_bytes: int) -> SchemaError:
    """Return the error of a file above the size limit."""
    found = f"{staged.size:,} bytes are more than max_bytes = {max_bytes:,}."
    return SchemaError("too_large", file_message(staged.name, "too_large", found))


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    # O_NONBLOCK: a pipe put in the file's place after the listing must not block us.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise StillChangingError(f"{path.name}: not a regular file any more")
        yield descriptor
    finally:
        os.close(descriptor)


def _copy(landing: int, target: Path | None) -> str:
    digest = hashlib.sha256()
    with open(os.devnull if target is None else target, "wb") as copy:  # noqa: PTH123
        while block := os.read(landing, _BLOCK):
            digest.update(block)
            copy.write(block)
    return digest.hexdigest()


def _version(info: os.stat_result) -> Look:
    return info.st_size, info.st_mtime_ns, mark_of(info)


def _listed(candidate: Candidate) -> Look:
    return candidate.size, candidate.mtime_ns, candidate.mark
