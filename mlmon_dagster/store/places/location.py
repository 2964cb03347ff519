"""Where the store's things are: a folder on this machine, or a prefix in object storage."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlmon_dagster.errors import ConfigError, StoreError
from mlmon_dagster.spec.names import OBJECT_SCHEMES
from mlmon_dagster.spec.urls import holds_credentials, shown_url

_FORBIDDEN = "[]^|\\"  # deltalake panics on them


@dataclass(frozen=True)
class Location:
    """A folder or a file of the store; ``location / "name"`` is the one below it.

    Attributes:
        url: Absolute path on this machine, or a URL such as ``s3://bucket/prefix``.
        options: How to reach object storage, in deltalake's words (``aws_endpoint_url``);
            holds secrets and is therefore never shown.
    """

    url: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, place: str | Path, options: Mapping[str, str] | None = None) -> Location:
        """Read a path or a URL that a person gave.

        Args:
            place: A path, also with ``~`` or relative; or a URL of object storage.
            options: Storage options; of no use for a path.

        Raises:
            StoreError: If it cannot hold a store.
            ConfigError: If it is a URL that holds credentials; they are not repeated.
        """
        text = str(place)
        is_remote = "://" in text
        if is_remote:
            scheme, _, rest = text.partition("://")
            if holds_credentials(text):
                raise ConfigError(
                    f"The place {shown_url(text)} (MLMON_STORE, or the path of a source) holds "
                    "credentials or a query, which would be shown wherever it is. Take them out "
                    "and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AZURE_STORAGE_SAS_TOKEN "
                    "or another of the variables in docs/object-storage.md."
                )
            if scheme not in OBJECT_SCHEMES or not rest.strip("/"):
                raise StoreError(
                    f"The store's place {shown_url(text)} cannot be used: expected a path on this "
                    f"machine, or a URL of {', '.join(f'{s}://' for s in OBJECT_SCHEMES)} with "
                    "a bucket, such as s3://bucket/monitoring."
                )
            text = f"{scheme}://{rest.strip('/')}"
        else:
            text = str(Path(text).expanduser().absolute())
        if bad := sorted(set(text) & set(_FORBIDDEN)):
            raise StoreError(
                f"The store's place {text!r} cannot be used: it contains {' '.join(bad)}. "
                f"Use a name without any of {' '.join(_FORBIDDEN)}"
            )
        return cls(text, dict(options or {}) if is_remote else {})

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url}/{name}", self.options)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.url.rpartition("/")[2]

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return "://" not in self.url

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            StoreError: If it is in object storage.
        """
        if not self.is_local:
            raise StoreError(f"{self.url} is not on this machine.")
        return Path(self.url)

    def explain(self, error: Exception) -> str:
        """Return an error's text; of object storage, with the next step."""
        if self.is_local:
            return str(error)
        from mlmon_dagster.store.places.objects import explanation

        return explanation(error)

    def make(self) -> None:
        """Make the folder; object storage needs none."""
        if self.is_local:
            self.path.mkdir(parents=True, exist_ok=True)

    def below(self) -> list[str]:
        """Return the names of all files below, such as ``a/b.parquet``, sorted."""
        if not self.is_local:
            from mlmon_dagster.store.places import objects

            return sorted(found.key for found in objects.listed(self))
        root = self.path
        return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())

    def tables(self) -> list[Location]:
        """Return the Delta tables at and below this place, at most three levels down."""
        if self.is_local:
            logs = sorted(self.path.glob("**/_delta_log"))
            return [Location(str(log.parent)) for log in logs]
        from mlmon_dagster.store.places import objects

        return objects.tables(self)

    def keep(self, source: Path) -> None:
        """Copy a file of this machine to this place; one that is there already stays."""
        if not self.is_local:
            from mlmon_dagster.store.places import objects

            objects.put(self, source)
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            return
        try:
            os.link(source, self.path)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, self.path)

    def read(self) -> bytes | None:
        """Return the content of the file at this place; None if there is none."""
        if not self.is_local:
            from mlmon_dagster.store.places import objects

            return objects.read(self)
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return None

    def write(self, content: bytes) -> None:
        """Make or replace the file at this place: it is there whole, for good, or not at all."""
        if not self.is_local:
            from mlmon_dagster.store.places import objects

            objects.put(self, content)
            return
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
        """Copy the file at this place to one on this machine; return its SHA-256.

        Raises:
            StoreError: If there is none.
        """
        if not self.is_local:
            from mlmon_dagster.store.places import objects

            return objects.fetch(self, target)
        try:
            shutil.copyfile(self.path, target)
        except FileNotFoundError as error:
            raise StoreError(f"There is no file {self.url}.") from error
        with target.open("rb") as copy:
            return hashlib.file_digest(copy, "sha256").hexdigest()

    def delete(self) -> None:
        """Delete the file at this place; none is fine."""
        if self.is_local:
            self.path.unlink(missing_ok=True)
            return
        from mlmon_dagster.store.places import objects

        objects.delete(self)
