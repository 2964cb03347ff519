"""Log predictions from a serving process: the call puts a row in memory, a thread writes files.

Standard library only, so that a serving image needs this package and nothing else.
"""

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
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from mlmon_dagster.landing_file import ENDING, clear_leftovers, encode_row, publish, size_of

_LOG = logging.getLogger("mlmon_dagster.logger")
RETRY_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 30.0)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_TIME_ROLES = ("event_time", "actual_time")


class PredictionLogger:
    """Logs predictions and actuals as JSON Lines landing files; it never blocks and never raises.

    One object serves all threads of a process, and a forked process goes on with its own queue,
    thread and files. A row that is not durable yet is lost when the process is killed: those of
    the last ``max_seconds``, at most ``max_rows`` plus what comes while a batch is written. Its
    memory is bounded, also while the disk is full: by ``max_queue`` rows and ``max_bytes``.

    Args:
        predictions: Landing folder of predictions, as under ``source`` in the spec.
        actuals: Landing folder of actuals, if this process logs any.
        columns: Role -> column name, as under ``columns`` in the spec; roles left out are
            written under their own names.
        max_rows: A file is written once so many rows wait,
        max_seconds: or one of them waits so long.
        max_queue: So many rows are kept in memory,
        max_bytes: and so many bytes of them, estimated; then new rows are dropped and counted. One
            batch on its way to the disk is in memory a second time, as text.

    Raises:
        ValueError: If an argument makes no sense. Nothing is raised after that.

    Example:
        >>> logger = PredictionLogger("landing/churn/predictions")  # doctest: +SKIP
        >>> logger.log(prediction_id="p1", features={"age": 41}, score=0.7)  # doctest: +SKIP
        True
    """

    def __init__(
        self,
        predictions: str | Path,
        actuals: str | Path | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        max_rows: int = 1_000,
        max_seconds: float = 5.0,
        max_queue: int = 100_000,
        max_bytes: int = 64 << 20,
    ) -> None:
        if not 1 <= max_rows <= max_queue or not 0 < max_seconds < math.inf:
            raise ValueError("expected 1 <= max_rows <= max_queue and a positive max_seconds")
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes!r}; expected a positive number of bytes")
        # Absolute, since a server may change its folder after the start.
        self._folders = (
            Path(predictions).absolute(), None if actuals is None else Path(actuals).absolute()
        )  # fmt: skip
        self._names = dict(columns or {})
        self._max_rows, self._max_seconds, self._max_queue = max_rows, max_seconds, max_queue
        self._max_bytes = max_bytes
        self._is_closed = False
        self._writer = self._new_writer()
        _LOGGERS.add(self)

    def log(
        self,
        *,
        prediction_id: object,
        event_time: object = None,
        features: Mapping[str, object] | None = None,
        **columns: object,
    ) -> bool:
        """Log one prediction; return whether it was queued.

        Args:
            prediction_id: Its unique key.
            event_time: When it was made; now if left out.
            features: Model inputs by name; copied at once.
            columns: Further columns, such as score, prediction, model_version or latency_ms.
        """
        return self._put(0, prediction_id, event_time, features, columns)

    def log_actual(
        self,
        *,
        prediction_id: object,
        actual: object,
        actual_time: object = None,
        **columns: object,
    ) -> bool:
        """Log the ground truth of one prediction; return whether it was queued.

        Args:
            prediction_id: Of the prediction, which any process may have made at any time.
            actual: The ground truth; None withdraws an earlier one.
            actual_time: When it became known; now if left out.
            columns: Further columns, such as outcome or dataset.
        """
        columns["actual"] = actual
        return self._put(1, prediction_id, actual_time, None, columns)

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all rows logged so far are durable; return whether they are."""
        return self._writer.flush(timeout)

    def close(self, timeout: float = 10.0) -> bool:
        """Write what waits and stop; return whether all of it is durable. Later rows are dropped.

        The interpreter calls it at its exit. A process that ends by SIGKILL, ``os._exit`` or a
        signal without a handler has no such exit.
        """
        self._is_closed = True
        return self._writer.close(timeout)

    def stats(self) -> LoggerStats:
        """Return what became of the rows of this process so far."""
        return self._writer.stats()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(
        self,
        stream: int,
        prediction_id: object,
        moment: object,
        features: Mapping[str, object] | None,
        columns: Mapping[str, object],
    ) -> bool:
        writer = self._writer
        try:
            if self._is_closed or self._folders[stream] is None:
                writer.drop()
                return False
            queue = writer.queue
            logged_ns = time.time_ns() if moment is None else 0
            copied = dict(features) if features else None
            size = size_of(prediction_id, copied, columns)
            # Without a lock, since callers must not wait: appending is atomic, and a few rows
            # above the limit do no harm.
            n_waiting = len(queue)
            if n_waiting >= self._max_queue or writer.n_bytes + size > self._max_bytes:
                writer.drop()
                return False
            queue.append((stream, prediction_id, moment, logged_ns, copied, columns, size))
            writer.n_bytes_in += size
            if not writer.wake.is_set() and writer.is_due(n_waiting + 1):
                writer.wake.set()
            if not writer.is_started:
                writer.start()
        except Exception as error:  # a prediction is worth more than its log
            writer.drop()
            _LOG.error("a row was not logged: %s", type(error).__name__)
            return False
        return True

    def _new_writer(self) -> LandingWriter:
        return LandingWriter(
            self._folders, self._names, self._max_rows, self._max_seconds, self._max_bytes
        )

    def _after_fork(self) -> None:
        """Start from nothing in the child: what the parent has queued, the parent writes."""
        self._writer = self._new_writer()


_LOGGERS: weakref.WeakSet[PredictionLogger] = weakref.WeakSet()


def _after_fork() -> None:
    for logger in list(_LOGGERS):
        logger._after_fork()


os.register_at_fork(after_in_child=_after_fork)


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
Entry = tuple[int, object, object, int, Mapping[str, object] | None, Mapping[str, object], int]


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
        features: Mapping[str, object] | None,
        columns: Mapping[str, object],
    ) -> dict[str, object]:
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
