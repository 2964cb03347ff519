"""The logger's background half (standard library only): a bounded queue, a thread that writes."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import logging
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mlmon_dagster.json_cells import encode_row
from mlmon_dagster.landing_file import ENDING, clear_leftovers, publish

RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_LOG = logging.getLogger("mlmon_dagster.logger")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME_ROLES = ("event_time", "actual_time")


@dataclass(frozen=True)
class LoggerStats:
    """What became of the rows that were logged in this process.

    Attributes:
        n_written: Rows in landing files, durable.
        n_queued: Rows in memory, not durable yet.
        n_queued_bytes: What they take there, estimated.
        n_dropped: Rows given up: the queue was full, the logger closed, or no folder was named.
        n_bad_values: Values that are no single cell; null was written instead.
        n_files: Landing files written.
        n_write_errors: Attempts to write that failed; their rows stay queued.
        last_error: The newest of these errors, or an empty text.
    """

    n_written: int = 0
    n_queued: int = 0
    n_queued_bytes: int = 0
    n_dropped: int = 0
    n_bad_values: int = 0
    n_files: int = 0
    n_write_errors: int = 0
    last_error: str = ""


# Stream (0 predictions, 1 actuals), prediction_id, the caller's time or None, the moment of the
# call in nanoseconds since 1970, features, columns, bytes; a tuple, since the caller waits for it.
Entry = tuple[int, Any, Any, int, Mapping[str, Any] | None, Mapping[str, Any], int]


@dataclass(frozen=True)
class _File:
    folder: Path
    name: str
    lines: list[bytes]


class LandingWriter:
    """Writes the rows of one process; a forked process makes its own.

    Args:
        folders: Landing folders of predictions and actuals.
        names: Role -> column name.
        max_rows: Rows of a file.
        max_seconds: The longest that a row waits while the disk works.
        max_bytes: What the rows in memory may take; a quarter of it is written at once.
    """

    def __init__(
        self,
        folders: tuple[Path, Path | None],
        names: Mapping[str, str],
        max_rows: int,
        max_seconds: float,
        max_bytes: int,
    ) -> None:
        # Callers add without a lock; what they lose to each other is put right by `_take`.
        self.n_bytes_in = self._n_bytes_out = self._n_bytes_unwritten = 0
        self._max_bytes = max_bytes
        self.queue: deque[Entry] = deque()
        self.wake = threading.Event()
        self.is_started = False
        self._folders, self._names = folders, names
        self._max_rows, self._max_seconds = max_rows, max_seconds
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._settled = threading.Condition(self._lock)
        self._stop = threading.Event()
        self._is_urgent = False
        self._unwritten: list[_File] = []
        self._n_taken = self._n_settled = self._n_written = self._n_dropped = 0
        self._n_bad_values = self._n_files = self._n_write_errors = 0
        self._last_error = ""
        self._pid = os.getpid()
        self._reported = (0, -math.inf)
        self._prefix = f"{socket.gethostname()}-{uuid.uuid4().hex[:20]}"

    def start(self) -> None:
        """Start the thread unless it runs, and see to it that it ends well."""
        with self._lock:
            if self.is_started:
                return
            threading.Thread(target=self._run, name="mlmon-logger", daemon=True).start()
            self.is_started = True
            atexit.register(self.close)
            # A child of multiprocessing ends without the exit functions of the interpreter.
            processes, finish = (
                sys.modules.get(f"multiprocessing.{name}") for name in ("process", "util")
            )
            if processes and finish and processes.parent_process() is not None:
                finish.Finalize(None, self.close, exitpriority=0)

    def drop(self) -> None:
        """Count a row that is given up."""
        with self._lock:
            self._n_dropped += 1

    @property
    def n_bytes(self) -> int:
        """What the rows in memory take, estimated."""
        return self.n_bytes_in - self._n_bytes_out

    def is_due(self, n_rows: int) -> bool:
        """Say whether what waits is enough for a file."""
        return n_rows >= self._max_rows or self._is_much()

    def make_room(self, max_queue: int, size: int) -> bool:
        """Give up the rows that wait longest until one more fits; return whether it does."""
        with self._lock:
            most = self._max_bytes - size
            if self._n_bytes_unwritten > most:
                return False
            while self.queue and (len(self.queue) >= max_queue or self.n_bytes > most):
                self._n_bytes_out += self.queue.popleft()[-1]
                self._n_taken += 1
                self._n_settled += 1
                self._n_dropped += 1
            return True

    def flush(self, timeout: float) -> bool:
        """Wait until every row that is queued now is durable; return whether it is."""
        with self._lock:
            target = self._n_taken + len(self.queue)
            self._is_urgent = True
            self.wake.set()
            if self.queue:
                self.start()
            return self._settled.wait_for(lambda: self._n_settled >= target, timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Write what is queued, stop the thread, return whether everything is durable."""
        if os.getpid() != self._pid:  # a forked child has inherited the exit functions
            return True
        atexit.unregister(self.close)
        try:
            is_durable = self.flush(timeout)
        except RuntimeError:  # an interpreter that ends starts no thread
            is_durable = self._write_all(least=1)
        self._stop.set()
        self.wake.set()
        if not is_durable:
            _LOG.error("%d rows were not written: %s", self.stats().n_queued, self._last_error)
        return is_durable

    def stats(self) -> LoggerStats:
        """Return the counts so far."""
        with self._lock:
            return LoggerStats(
                self._n_written, len(self.queue) + self._n_taken - self._n_settled, self.n_bytes,
                self._n_dropped, self._n_bad_values, self._n_files, self._n_write_errors,
                self._last_error,
            )  # fmt: skip

    def _run(self) -> None:
        for folder in filter(None, self._folders):
            with contextlib.suppress(OSError):
                clear_leftovers(folder)
        n_failed = 0
        while not self._stop.is_set():
            is_due = not self.wake.wait(self._max_seconds)
            self.wake.clear()
            with self._lock:
                is_due |= self._is_urgent
                self._is_urgent = False
            while not self._write_all(least=1 if is_due else self._max_rows):
                self._report()
                n_failed = min(n_failed + 1, len(RETRY_SECONDS))
                if self._stop.wait(RETRY_SECONDS[n_failed - 1]):
                    return
            n_failed = 0
            self._report()

    def _is_much(self) -> bool:
        return bool(self.queue) and self.n_bytes >= self._max_bytes // 4

    def _write_all(self, least: int) -> bool:
        """Write as long as ``least`` rows wait; return False as soon as the disk fails."""
        with self._writing:
            while self._unwritten or len(self.queue) >= least or self._is_much():
                if not self._unwritten:
                    self._unwritten = self._take()
                while self._unwritten:
                    if not self._write(self._unwritten[0]):
                        return False
                    del self._unwritten[0]
                with self._lock:
                    self._n_bytes_out += self._n_bytes_unwritten
                    self._n_bytes_unwritten = 0
        return True

    def _take(self) -> list[_File]:
        with self._lock:
            entries: list[Entry] = []
            n_bytes = 0
            while self.queue and len(entries) < self._max_rows and n_bytes < self._max_bytes // 4:
                entries.append(self.queue.popleft())
                n_bytes += entries[-1][-1]
            self._n_taken += len(entries)
            self._n_bytes_unwritten = n_bytes
            waiting = sum(entry[-1] for entry in self.queue.copy())
            self.n_bytes_in = self._n_bytes_out + n_bytes + waiting
        lines: tuple[list[bytes], list[bytes]] = ([], [])
        for entry in entries:
            try:
                lines[entry[0]].append(encode_row(self._row(*entry[:-1]), self._on_bad))
            except Exception as error:  # an integer of 5,000 digits, a name without a text
                self._give_up(error)
        return [
            _File(folder, f"{self._prefix}-{self._n_taken:012d}{ENDING}", found)
            for folder, found in zip(self._folders, lines, strict=True)
            if found and folder
        ]

    def _row(
        self,
        stream: int,
        prediction_id: object,
        moment: object,
        logged_ns: int,
        features: Mapping[str, Any] | None,
        columns: Mapping[str, Any],
    ) -> dict[str, Any]:
        if moment is None:
            moment = _EPOCH + dt.timedelta(microseconds=logged_ns // 1000)
        row = {} if features is None else {str(name): value for name, value in features.items()}
        roles = {"prediction_id": prediction_id, _TIME_ROLES[stream]: moment, **columns}
        row.update((self._names.get(role, role), value) for role, value in roles.items())
        return row

    def _write(self, file: _File) -> bool:
        try:
            publish(file.folder, file.name, file.lines)
        except Exception as error:  # whatever it is: the rows stay, and the caller hears nothing
            with self._lock:
                self._n_write_errors += 1
                self._last_error = f"{file.folder}: {error}"
            return False
        with self._lock:
            self._n_files += 1
            self._n_written += len(file.lines)
            self._n_settled += len(file.lines)
            self._settled.notify_all()
        return True

    def _give_up(self, error: Exception) -> None:
        with self._lock:
            self._n_dropped += 1
            self._n_settled += 1
            self._last_error = f"a row cannot be written as JSON: {type(error).__name__}"
            self._settled.notify_all()

    def _on_bad(self, column: str, value: object) -> None:
        if not self._n_bad_values:
            _LOG.warning(
                "column %r holds a %s, which is no single value; null is logged instead "
                "(said once, counted in stats)", column, type(value).__name__,
            )  # fmt: skip
        with self._lock:
            self._n_bad_values += 1

    def _report(self) -> None:
        """Say at most once a minute that rows are dropped or cannot be written."""
        found = self._n_dropped + self._n_write_errors
        known, when = self._reported
        if found > known and time.monotonic() - when > 60:
            self._reported = (found, time.monotonic())
            _LOG.warning(
                "%d rows dropped, %d queued, %d failed writes so far %s",
                self._n_dropped, self.stats().n_queued, self._n_write_errors, self._last_error,
            )  # fmt: skip
