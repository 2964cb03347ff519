"""Whether there is room for more: requests at work, free disk, files that wait for ingest."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.collect.target import PREFIX, Target
from mlmon_dagster.store import manifest

_LOG = logging.getLogger("mlmon_dagster.collect")
_DISK_SECONDS = 1.0
_COUNT_SECONDS = 10.0


class Pressure:
    """Refuses requests while too much waits; the client is told when to come again.

    Args:
        targets: Where files go.
        engine: The state database, whose manifest knows the files that were ingested.
        max_in_flight: Requests at work at once.
        min_free: Bytes that must stay free on the disk of each landing folder.
        max_files: Collected files of one stream that wait for ingest.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        engine: sa.Engine,
        *,
        max_in_flight: int,
        min_free: int,
        max_files: int,
    ) -> None:
        self._targets, self._engine = list(targets), engine
        self._max_in_flight, self._min_free, self._max_files = max_in_flight, min_free, max_files
        self._n_in_flight = 0
        self._free: dict[Path, tuple[float, int]] = {}
        self._n_files: dict[Target, int] = {}

    @contextmanager
    def room_for(self, target: Target) -> Iterator[None]:
        """Count a request as at work.

        Raises:
            Problem: If there is no room for it.
        """
        if self._n_in_flight >= self._max_in_flight:
            raise _overloaded(f"{self._n_in_flight} requests are at work already.", 1)
        self.check(target)
        self._n_in_flight += 1
        try:
            yield
        finally:
            self._n_in_flight -= 1

    def check(self, target: Target) -> None:
        """Refuse if the disk is nearly full, or ingest does not keep up.

        Raises:
            Problem: With the time to wait.
        """
        free = self._free_bytes(target.folder)
        if free < self._min_free:
            found = f"{free:,} bytes are free on the disk, fewer than {self._min_free:,}."
            raise _overloaded(found, 30)
        n_files = self._n_files.get(target, 0)
        if n_files >= self._max_files:
            found = f"{n_files:,} files wait for ingest; does 'mlmon ingest {target.model}' run?"
            raise _overloaded(found, 30)

    def problems(self) -> list[str]:
        """Return why some stream takes nothing now."""
        found: dict[str, None] = {}
        for target in self._targets:
            try:
                self.check(target)
            except Problem as problem:
                found[problem.detail] = None
        return list(found)

    async def count_for_ever(self) -> None:
        """Count the files that wait for ingest, again and again."""
        while True:
            begun = time.monotonic()
            try:
                self._n_files = await asyncio.to_thread(self._count)
            except (sa.exc.SQLAlchemyError, OSError) as error:
                _LOG.warning("waiting files cannot be counted: %s", type(error).__name__)
            # A large folder takes a while; it must not take all the time there is.
            await asyncio.sleep(max(_COUNT_SECONDS, 20 * (time.monotonic() - begun)))

    def _count(self) -> dict[Target, int]:
        found = {}
        for target in self._targets:
            known = manifest.paths(self._engine, target.model, target.stream)
            names = os.listdir(target.folder) if target.folder.is_dir() else []  # noqa: PTH208
            found[target] = sum(
                name.startswith(PREFIX) and f"{target.below}/{name}" not in known for name in names
            )
        return found

    def _free_bytes(self, folder: Path) -> int:
        read_at, free = self._free.get(folder, (0.0, 0))
        if time.monotonic() - read_at > _DISK_SECONDS:
            there = next(path for path in (folder, *folder.parents) if path.exists())
            free = shutil.disk_usage(there).free
            self._free[folder] = (time.monotonic(), free)
        return free


def _overloaded(found: str, seconds: int) -> Problem:
    return Problem("overloaded", found, headers={"retry-after": str(seconds)})
