"""The disk below the store: how much room there is, and whether anything can be written."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

LEAST_FREE = 256 * 1024**2  # less than this is told before it is gone
_PROBE = 64 * 1024


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
