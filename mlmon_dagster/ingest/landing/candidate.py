"""What landed: a file with its size and time, and which names are not finished yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mlmon_dagster.spec.sources import Stream
from mlmon_dagster.store.places.location import Location

_UNFINISHED = (".tmp", ".part", ".partial", ".crdownload")


_MARKER = ".done"


@dataclass(frozen=True)
class Candidate:
    """A landing file that is not known yet.

    Attributes:
        path: Absolute path, or the place of an object.
        name: Path below the project folder, printable; of an object the URL.
        mtime_ns: When it last changed, as its writer says.
        mark: What else tells it from the file that was there before, see the module.
        age: Seconds since its last change, by the machine's clock.
        has_marker: The producer says that it is complete.
    """

    stream: Stream
    path: Path | Location
    name: str
    size: int
    mtime_ns: int
    age: float
    has_marker: bool
    mark: str = ""
    etag: str = ""


@dataclass(frozen=True)
class Listing:
    """What a landing folder holds beyond the known files, oldest first.

    Attributes:
        ready: Complete files.
        waiting: Files that may still be written to.
        skipped: Names and why they are never read: symbolic links, pipes, folders.
    """

    ready: tuple[Candidate, ...] = ()
    waiting: tuple[Candidate, ...] = ()
    skipped: tuple[tuple[str, str], ...] = field(default=())


def is_unfinished(name: str) -> bool:
    """Say whether a file's name means that it is hidden, a marker, or still written to."""
    return name.endswith((*_UNFINISHED, _MARKER)) or name.startswith((".", "_"))


def oldest_first(found: list[Candidate]) -> tuple[Candidate, ...]:
    """Return files in the order in which they are ingested."""
    return tuple(sorted(found, key=lambda c: (c.mtime_ns, c.name)))


Look = tuple[int, int, str]
