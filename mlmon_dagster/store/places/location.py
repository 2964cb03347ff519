"""A folder or a file of the store, wherever it is; places on this machine, and their free room."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Self

from mlmon_dagster.errors import StoreError

LEAST_FREE = 256 * 1024**2  # less than this is told before it is gone
_PROBE = 64 * 1024


@dataclass(frozen=True)
class Location(ABC):
    """What can be done with a place, on this machine and in object storage alike.

    Attributes:
        url: Absolute path on this machine, or a URL such as ``s3://bucket/prefix``.
        options: How to reach object storage, in deltalake's words (``aws_endpoint_url``); holds
            secrets and is therefore never shown.
        is_local: Whether it is on this machine.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    is_local: ClassVar[bool] = False

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Self:
        """Return the place below."""
        return replace(self, url=f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.url.rpartition("/")[2]

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            StoreError: If it is in object storage.
        """
        raise StoreError(f"{self.url} is not on this machine.")

    def explain(self, error: Exception) -> str:
        """Return an error's text; of object storage, with the next step."""
        return str(error)

    def make(self) -> None:  # noqa: B027 # a prefix needs no making
        """Make the folder; object storage needs none."""

    @abstractmethod
    def below(self) -> list[str]:
        """Return the names of all files below, such as ``a/b.parquet``, sorted."""

    @abstractmethod
    def tables(self) -> Sequence[Self]:
        """Return the Delta tables at and below this place, at most three levels down."""

    @abstractmethod
    def keep(self, source: Path) -> None:
        """Copy a file of this machine to this place; one that is there already stays."""

    @abstractmethod
    def read(self) -> bytes | None:
        """Return the content of the file at this place; None if there is none."""

    @abstractmethod
    def write(self, content: bytes) -> None:
        """Make or replace the file at this place: it is there whole, for good, or not at all."""

    @abstractmethod
    def fetch(self, target: Path) -> str:
        """Copy the file at this place to one on this machine; return its SHA-256.

        Raises:
            StoreError: If there is none.
        """

    @abstractmethod
    def delete(self) -> None:
        """Delete the file at this place; none is fine."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield where to write a file that is then at its path whole, for good, or not at all.

    Folders are made. A file that is there is replaced at once; where the block fails, it stays.
    """
    folder = path.parent
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield draft
        _sync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    # Else a power cut may take the new name away again, after a row that needs it is written.
    for changed in (folder, *folder.parents[:2]):
        _sync(changed)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class LocalPlace(Location):
    """A folder or a file of this machine."""

    is_local: ClassVar[bool] = True

    @property
    def path(self) -> Path:
        """The path."""
        return Path(self.url)

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)

    def below(self) -> list[str]:
        """Return the names of all files below."""
        root = self.path
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def tables(self) -> list[Self]:
        """Return the Delta tables at and below this place."""
        logs = sorted(self.path.glob("**/_delta_log"))
        return [replace(self, url=str(log.parent)) for log in logs]

    def keep(self, source: Path) -> None:
        """Link a file to this place, or copy it; one that is there already stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            return
        try:
            os.link(source, self.path)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, self.path)

    def read(self) -> bytes | None:
        """Return the content; None if there is no file."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Make or replace the file: it is there whole, for good, or not at all."""
        with whole_file(self.path) as draft:
            draft.write_bytes(content)

    def fetch(self, target: Path) -> str:
        """Copy the file; return its SHA-256."""
        try:
            shutil.copyfile(self.path, target)
        except FileNotFoundError as error:
            raise StoreError(f"There is no file {self.url}.") from error
        return hash_file(target)

    def delete(self) -> None:
        """Delete the file; none is fine."""
        self.path.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def free_bytes(folder: Path) -> int:
    """Return the free bytes of the disk that holds a folder, which need not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def why_not_writable(folder: Path) -> str:
    """Write, sync, rename and delete a small file; return what failed, or nothing.

    Root may write whatever the rights say, so only an attempt tells.
    """
    probe = folder / f".probe-{uuid.uuid4().hex}"
    renamed = probe.with_suffix(".done")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(b"\0" * _PROBE)
            file.flush()
            os.fsync(file.fileno())
        probe.rename(renamed)
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror or error}"
    finally:
        for path in (probe, renamed):
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue
    return ""
