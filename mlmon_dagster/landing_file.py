"""Write a landing file so that a reader sees all of it or nothing, and a power cut changes neither.

Standard library only: a serving process uses this without the rest of the package.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

ENDING = ".jsonl"


def publish(folder: Path, name: str, lines: Sequence[bytes]) -> Path:
    """Write lines to ``folder/name`` by way of a temporary file, durably.

    When it returns, file and name have reached the disk. Ingest does not see temporary files:
    their names begin with a dot and end in ``.tmp``. A file of the same name is replaced.

    Args:
        folder: Where to; made if missing.
        name: The file's name.
        lines: The content, in pieces.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the name is not there then.
    """
    make_folder(folder)
    target = folder / name
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(folder)
    return target


def clear_leftovers(folder: Path, older_than: float = 86_400.0) -> None:
    """Delete temporary files of processes that were killed while they wrote.

    Args:
        folder: A landing folder; it need not exist.
        older_than: Seconds since their last change; a younger one may still be written to.
    """
    limit = time.time() - older_than
    for path in folder.glob(f".*{ENDING}.*.tmp"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < limit:
                path.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and its parents, each of them durable in its own parent."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for child in reversed(missing):
        child.mkdir(exist_ok=True)
        sync_folder(child.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
