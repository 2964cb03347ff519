"""A folder or a file of the store, wherever it is; ``location / "name"`` is the one below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, Self


class Location(Protocol):
    """What can be done with a place, on this machine and in object storage alike."""

    @property
    def url(self) -> str:
        """Absolute path on this machine, or a URL such as ``s3://bucket/prefix``."""

    @property
    def options(self) -> Mapping[str, str]:
        """How to reach object storage, in deltalake's words; secrets, never shown."""

    @property
    def name(self) -> str:
        """The last part of the path."""

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""

    @property
    def path(self) -> Path:
        """The path on this machine.

        Raises:
            StoreError: If it is in object storage.
        """

    def __truediv__(self, name: str) -> Self:
        """Return the place below."""

    def explain(self, error: Exception) -> str:
        """Return an error's text; of object storage, with the next step."""

    def make(self) -> None:
        """Make the folder; object storage needs none."""

    def below(self) -> list[str]:
        """Return the names of all files below, such as ``a/b.parquet``, sorted."""

    def tables(self) -> Sequence[Self]:
        """Return the Delta tables at and below this place, at most three levels down."""

    def keep(self, source: Path) -> None:
        """Copy a file of this machine to this place; one that is there already stays."""

    def read(self) -> bytes | None:
        """Return the content of the file at this place; None if there is none."""

    def write(self, content: bytes) -> None:
        """Make or replace the file at this place: it is there whole, for good, or not at all."""

    def fetch(self, target: Path) -> str:
        """Copy the file at this place to one on this machine; return its SHA-256.

        Raises:
            StoreError: If there is none.
        """

    def delete(self) -> None:
        """Delete the file at this place; none is fine."""
