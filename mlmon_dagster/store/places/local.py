"""Places on this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlmon_dagster.errors import StoreError


@dataclass(frozen=True)
class LocalPlace:
    """A folder or a file of this machine; see ``Location`` for what its methods do."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> LocalPlace:
        return LocalPlace(f"{self.url}/{name}")

    @property
    def options(self) -> Mapping[str, str]:
        """None are needed."""
        return {}

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.url.rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """It is."""
        return True

    @property
    def path(self) -> Path:
        """The path."""
        return Path(self.url)

    def explain(self, error: Exception) -> str:
        """Return an error's text."""
        return str(error)

    def make(self) -> None:
        """Make the folder."""
        self.path.mkdir(parents=True, exist_ok=True)

    def below(self) -> list[str]:
        """Return the names of all files below."""
        root = self.path
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def tables(self) -> list[LocalPlace]:
        """Return the Delta tables at and below this place."""
        return [LocalPlace(str(log.parent)) for log in sorted(self.path.glob("**/_delta_log"))]

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
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.name}.{uuid.uuid4().hex}.partial")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.path)
        # Else a power cut may take the new name away again, after a row that needs it is written.
        for changed in (folder, *folder.parents[:2]):
            handle = os.open(changed, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def fetch(self, target: Path) -> str:
        """Copy the file; return its SHA-256."""
        try:
            shutil.copyfile(self.path, target)
        except FileNotFoundError as error:
            raise StoreError(f"There is no file {self.url}.") from error
        with target.open("rb") as copy:
            return hashlib.file_digest(copy, "sha256").hexdigest()

    def delete(self) -> None:
        """Delete the file; none is fine."""
        self.path.unlink(missing_ok=True)
