"""Log predictions from a serving process: the call puts a row in memory, a thread writes files.

Standard library only, so that a serving image needs this package and nothing else.
"""

from __future__ import annotations

import logging
import math
import os
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from mlmon_dagster.json_cells import size_of
from mlmon_dagster.landing_writer import LandingWriter, LoggerStats

OnFull = Literal["drop_newest", "drop_oldest"]
_LOG = logging.getLogger("mlmon_dagster.logger")


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
        max_bytes: and so many bytes of them, estimated; then rows are dropped and counted. One
            batch on its way to the disk is in memory a second time, as text.
        on_full: Which ones: ``drop_newest`` or ``drop_oldest``.

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
        on_full: OnFull = "drop_newest",
    ) -> None:
        if not 1 <= max_rows <= max_queue or not 0 < max_seconds < math.inf:
            raise ValueError("expected 1 <= max_rows <= max_queue and a positive max_seconds")
        if max_bytes < 1:
            raise ValueError(f"max_bytes is {max_bytes!r}; expected a positive number of bytes")
        if on_full not in get_args(OnFull):
            raise ValueError(f"on_full is {on_full!r}; expected one of {get_args(OnFull)}")
        # Absolute, since a server may change its folder after the start.
        self._folders = (
            Path(predictions).absolute(), None if actuals is None else Path(actuals).absolute()
        )  # fmt: skip
        self._names = dict(columns or {})
        self._max_rows, self._max_seconds, self._max_queue = max_rows, max_seconds, max_queue
        self._max_bytes = max_bytes
        self._drops_newest = on_full == "drop_newest"
        self._is_closed = False
        self._writer = self._new_writer()
        _LOGGERS.add(self)

    def log(
        self,
        *,
        prediction_id: object,
        event_time: object = None,
        features: Mapping[str, Any] | None = None,
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
        features: Mapping[str, Any] | None,
        columns: Mapping[str, Any],
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
            is_full = n_waiting >= self._max_queue or writer.n_bytes + size > self._max_bytes
            if is_full and (self._drops_newest or not writer.make_room(self._max_queue, size)):
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
