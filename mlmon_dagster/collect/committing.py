"""Group commit: requests that arrive together share one landing file and its way to the disk.

A request is answered once its rows are durable. While one file is on its way, the requests that
come wait for the next; so the more come, the more share a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain

from mlmon_dagster.collect.target import PREFIX, Target
from mlmon_dagster.landing_file import ENDING, publish

_LARGE = 1 << 20  # bytes; such a request has a file of its own
_MOST_ROWS, _MOST_BYTES = 100_000, 8 << 20  # that share a file


@dataclass
class _Waiting:
    target: Target
    lines: Sequence[bytes]
    n_bytes: int
    done: Future[str] = field(default_factory=Future)


class Committer:
    """Writes accepted rows to landing files, in a thread of its own.

    Args:
        linger: Seconds to wait for company after a request came.
    """

    def __init__(self, linger: float) -> None:
        self._linger = linger
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="mlmon-collect", daemon=True)
        self.n_files = 0
        self._thread.start()

    def submit(self, target: Target, lines: Sequence[bytes]) -> Future[str]:
        """Hand over rows; the result is the file's name, once it is durable.

        The same rows handed over alone have the same name, and are not written twice.
        """
        item = _Waiting(target, lines, sum(map(len, lines)))
        self._waiting.put(item)
        return item.done

    def close(self) -> None:
        """Write what waits and stop."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_open = True
        while is_open:
            items = [self._waiting.get()]
            deadline = time.monotonic() + self._linger
            while items[-1] is not None:
                with contextlib.suppress(queue.Empty):
                    items.append(self._waiting.get(timeout=max(deadline - time.monotonic(), 0)))
                    continue
                break
            is_open = items[-1] is not None
            for group in _groups([item for item in items if item is not None]):
                self._commit(group)

    def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            name = self._write(group[0].target, [line for item in group for line in item.lines])
        except Exception as error:
            for item in group:
                item.done.set_exception(error)
        else:
            for item in group:
                item.done.set_result(name)

    def _write(self, target: Target, lines: Sequence[bytes]) -> str:
        digest = hashlib.sha256()
        for line in lines:
            digest.update(line)
        name = f"{PREFIX}{digest.hexdigest()}{ENDING}"
        # It was durable before it had its name.
        if not (target.folder / name).exists():
            publish(target.folder, name, lines)
            self.n_files += 1
        return name


def _groups(items: Sequence[_Waiting]) -> Iterator[list[_Waiting]]:
    """Yield the items that go into one file, within the limits of their target."""
    open_groups: dict[Target, list[_Waiting]] = {}
    for item in items:
        if item.n_bytes >= _LARGE:
            yield [item]
            continue
        group = open_groups.setdefault(item.target, [])
        together = [*group, item]
        if group and (
            sum(i.n_bytes for i in together) > min(item.target.max_bytes, _MOST_BYTES)
            or sum(len(i.lines) for i in together) > min(item.target.max_rows, _MOST_ROWS)
        ):
            yield open_groups.pop(item.target)
            open_groups[item.target] = [item]
        else:
            group.append(item)
    yield from chain(open_groups.values())
