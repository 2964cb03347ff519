"""A baseline's own windows, with what was computed from them alone and serves every window."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar, cast

from mlmon_dagster.metrics.statistics import ColumnStatistics

T = TypeVar("T")


class BaselineWindows(dict[str, ColumnStatistics]):
    """Column -> statistics of a baseline's windows; not to be changed.

    Args:
        columns: Column -> statistics.
    """

    def __init__(self, columns: Mapping[str, ColumnStatistics]) -> None:
        super().__init__(columns)
        self._derived: dict[Hashable, object] = {}

    def derived(self, key: Hashable, compute: Callable[[], object]) -> object:
        """Return what was computed under this key, or compute it."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]


def derived(windows: Mapping[str, ColumnStatistics], key: Hashable, compute: Callable[[], T]) -> T:
    """Return what is computed from a baseline's windows; kept where they are such.

    Args:
        windows: Of a baseline.
        key: Says what is computed, and from what besides the windows; of one type.
        compute: A function of the windows and what the key says.
    """
    if isinstance(windows, BaselineWindows):
        return cast(T, windows.derived(key, compute))
    return compute()
