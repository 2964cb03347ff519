"""Whether there is room for more: requests at work, free disk, files that wait for ingest."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.collect.target import PREFIX, Target
from mlmon_dagster.store.state import manifest

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
        max_held: Bytes of bodies in memory, as they come. One caller (a token, or without tokens
            an address) has at most half of them, and three quarters of the requests at work, so
            that it does not shut out the others; slow bodies are not at work yet.
    """

    def __init__(
        self,
        targets: Iterable[Target],
        engine: sa.Engine,
        *,
        max_in_flight: int,
        min_free: int,
        max_files: int,
        max_held: int = 128 << 20,
    ) -> None:
        self._targets, self._engine = list(targets), engine
        self._max_in_flight, self._min_free, self._max_files = max_in_flight, min_free, max_files
        self._max_held = max_held
        self._n_in_flight: Counter[str] = Counter()
        self._n_held: Counter[str] = Counter()
        self._free: dict[Path, tuple[float, int]] = {}
        self._n_files: dict[Target, int] = {}

    @contextmanager
    def receiving(self, caller: str) -> Iterator[Callable[[int], None]]:
        """Yield what counts the bytes of a body that is coming; they are let go at the end.

        Raises:
            Problem: Once they are more than memory is kept for.
        """
        n_mine = 0

        def count(n_bytes: int) -> None:
            nonlocal n_mine
            n_held = self._n_held.total() + n_bytes
            mine = self._n_held[caller] + n_bytes
            # A body alone always has room, however small the limit is.
            if n_held > self._max_held and n_held > n_mine + n_bytes:
                raise _overloaded(f"{n_held:,} bytes of bodies are in memory already.", 1)
            if mine > self._max_held // 2 and mine > n_mine + n_bytes:
                raise _overloaded(f"{mine:,} bytes of your bodies are in memory already.", 1)
            n_mine += n_bytes
            self._n_held[caller] += n_bytes

        try:
            yield count
        finally:
            self._n_held = +(self._n_held - Counter({caller: n_mine}))

    @contextmanager
    def room_for(self, target: Target, caller: str) -> Iterator[None]:
        """Count a request as at work.

        Raises:
            Problem: If there is no room for it.
        """
        n_in_flight, mine = self._n_in_flight.total(), self._n_in_flight[caller]
        if n_in_flight >= self._max_in_flight:
            raise _overloaded(f"{n_in_flight} requests are at work already.", 1)
        if mine >= max(1, self._max_in_flight * 3 // 4):
            raise _overloaded(f"{mine} requests of yours are at work already.", 1)
        self.check(target)
        self._n_in_flight[caller] += 1
        try:
            yield
        finally:
            self._n_in_flight = +(self._n_in_flight - Counter({caller: 1}))

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
