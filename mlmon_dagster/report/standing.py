"""What is told of every model's standing verdicts, for whoever asks again and again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Generic, TypeVar

from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.monitor_results import MonitorResult

T = TypeVar("T")


class StandingVerdicts(Generic[T]):
    """Makes something of each model's standing verdicts, anew only where there are newer ones.

    Args:
        store: The store.
        make: Makes it of a model's name and what `monitor_results.standing` returns of it.
    """

    def __init__(self, store: Store, make: Callable[[str, Sequence[MonitorResult]], T]) -> None:
        self._store, self._make = store, make
        self._made: dict[str, T] = {}
        self._seen = -1  # the newest verdict that they rest on

    def read(self, names: Sequence[str], now: dt.datetime) -> Mapping[str, T]:
        """Return what there is of some models, in their order; others are forgotten.

        Args:
            names: The models.
            now: Windows that start before this moment.
        """
        seen, new = monitor_results.changed_since(self._store.state, self._seen)
        known = {name: one for name, one in self._made.items() if name not in new}
        rest = [name for name in names if name not in known]
        standing = monitor_results.standing_of(self._store.state, rest, now)
        made = {name: self._make(name, rows) for name, rows in standing.items()}
        self._made = {name: known[name] if name in known else made[name] for name in names}
        self._seen = seen
        return self._made
