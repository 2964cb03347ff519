"""The baseline in force for windows: its bins and profiles, its own rows or earlier windows.

Baselines that are earlier windows of production are answered from stored profiles alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Unpack

import numpy as np
import pandas as pd

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics import Flags, Ints
from mlmon_dagster.metrics.statistics import (
    BaselineWindows,
    Binning,
    ColumnStatistics,
    seconds_of,
    select,
    with_empty,
)
from mlmon_dagster.profiles.baseline import Baseline, binnings_of, load_stored, no_baseline
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.storage import Wanted, load_profiles
from mlmon_dagster.spec.baseline import PRODUCTION, BaselineSpec
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.windows import EarlierWindows, Window, mark_of_windows, window_containing
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.baselines import StoredBaseline
from mlmon_dagster.store.state import erased_ids, window_state

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_Shared = dict[tuple[Store, ModelSpec, StoredBaseline | None], "BaselineInForce"]
_SHARED: ContextVar[_Shared | None] = ContextVar("shared baselines", default=None)


class BaselineInForce:
    """What some windows are binned with and compared with, each part looked up once.

    Args:
        store: The store.
        spec: The model.
        stored: The baseline; None while none was fitted.
    """

    def __init__(self, store: Store, spec: ModelSpec, stored: StoredBaseline | None) -> None:
        self._store, self._spec, self._stored = store, spec, stored

    @property
    def baseline_id(self) -> str | None:
        """Its id; None while there is none."""
        return self._stored.baseline_id if self._stored else None

    @cached_property
    def binnings(self) -> dict[str, Binning]:
        """The bins that windows are profiled with: the baseline's, blank ones without it.

        Blank bins are those of no rows: one for all values of a feature, so that rows and nulls are
        counted from the first day on, and the usual ones for what has fixed bins, such as a score.
        """
        if self._stored:
            return binnings_of(self._store, self._stored)
        return dict(_blank(self._store, self._spec))

    def is_rolling(self, choice: BaselineSpec) -> bool:
        """Tell whether windows are compared with earlier ones; not if a period was promoted."""
        return choice.is_rolling and self.stored.kind != baselines.PROMOTED

    @property
    def stored(self) -> StoredBaseline:
        """The baseline, without its rows.

        Raises:
            BaselineMissingError: If none was fitted yet.
        """
        if self._stored is None:
            raise no_baseline(self._spec)
        return self._stored

    @cached_property
    def own(self) -> Baseline:
        """The baseline of windows that are not compared with earlier ones.

        Raises:
            BaselineMissingError: If there is none.
        """
        return load_stored(self._store, self._spec, self.stored, self.binnings)

    def rolling(
        self,
        choice: BaselineSpec,
        first: dt.datetime | None,
        last: dt.datetime | None,
        columns: Sequence[str] | None = None,
    ) -> RollingBaselines:
        """Return the baselines of windows that are compared with earlier ones.

        Args:
            choice: Which earlier windows.
            first: Start of the first window to be compared; None for windows to come.
            last: Start of the last one.
            columns: Profiled columns wanted; all by default.
        """
        return RollingBaselines(self._store, self._spec, self, choice, first, last, columns)

    def profiles(
        self, columns: Sequence[str] | None = None, **wanted: Unpack[Wanted]
    ) -> dict[str, ColumnStatistics]:
        """Read profiles that were made with its bins, see `load_profiles`."""
        return load_profiles(self._store, self._spec, self.binnings, columns, **wanted)


@lru_cache(maxsize=64)  # a question to the engine for every column, asked by every step of a run
def _blank(store: Store, spec: ModelSpec) -> Mapping[str, Binning]:
    """Return the bins of no rows."""
    nothing = store.inference_records(spec).from_sql(datasets=[])
    key = erased_ids.personal_key(store.state, spec.model)
    return fit_binnings(store, spec, nothing, key=key)


def baseline_in_force(
    store: Store, spec: ModelSpec, at: dt.datetime | None = None
) -> BaselineInForce:
    """Look up the baseline of a window that starts at ``at``, by default of windows to come."""
    force = baselines.baselines_in_force(store.state, spec)
    return stored_in_force(store, spec, force.newest if at is None else force.at(at))


def stored_in_force(store: Store, spec: ModelSpec, baseline_id: str | None) -> BaselineInForce:
    """Look up a baseline by its id; None while there is none."""
    stored = baselines.load_newest(store.state, spec.model, baseline_id) if baseline_id else None
    found, shared = BaselineInForce(store, spec, stored), _SHARED.get()
    return found if shared is None else shared.setdefault((store, spec, stored), found)


@contextmanager
def baselines_shared() -> Iterator[None]:
    """While this lasts, all who look up a baseline get the same one, with what was read of it.

    For one command: a process that lives on would keep what others erase meanwhile. A baseline that
    is stored anew in between is another one.
    """
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def load_baseline(store: Store, spec: ModelSpec, at: dt.datetime | None = None) -> Baseline:
    """Return what a window that starts at ``at`` is compared with, by default windows to come.

    Raises:
        BaselineMissingError: If there is none, or too few earlier windows yet.
    """
    found = baseline_in_force(store, spec, at)
    if not found.is_rolling(spec.baseline):
        return found.own
    rolling = found.rolling(spec.baseline, at, at)
    return rolling.of(at or rolling.to_come)


class RollingBaselines:
    """The baselines of some windows, whose profiles are read once for all of them, when asked for.

    Args:
        store: The store.
        spec: The model.
        in_force: Where the bins are.
        choice: Which earlier windows.
        first: Start of the first window to be compared; None for windows to come.
        last: Start of the last one.
        columns: Profiled columns wanted; all by default.
    """

    def __init__(
        self,
        store: Store,
        spec: ModelSpec,
        in_force: BaselineInForce,
        choice: BaselineSpec,
        first: dt.datetime | None,
        last: dt.datetime | None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._spec, self._choice = spec, choice
        self._in_force, self._period, self._columns = in_force, (first, last), columns
        self._baseline_id, self._binnings = in_force.stored.baseline_id, in_force.binnings
        states = window_state.load(store.state, spec.model, None, last)
        windows = [
            window_containing(spec.time, start) for start in window_state.list_profiled(states)
        ]
        self._versions = {w.start: states[w.start].steps["profiles"].data_version for w in windows}
        self._earlier = EarlierWindows(choice, spec.time, windows)
        self.to_come = windows[-1].end if windows else _EPOCH

    @cached_property
    def _profiles(self) -> dict[str, ColumnStatistics]:
        first, last = self._period
        return self._in_force.profiles(
            start=self._oldest(first, last, list(self._versions)),
            end=last,
            dataset=PRODUCTION,
            columns=self._columns,
        )

    @cached_property
    def _starts(self) -> dict[int, Ints]:
        frames = {id(stats.cells): stats.cells for stats in self._profiles.values()}
        return {key: seconds_of(cells["window_start"]) for key, cells in frames.items()}

    def _oldest(
        self, first: dt.datetime | None, last: dt.datetime | None, known: Sequence[dt.datetime]
    ) -> dt.datetime | None:
        """Return the start of the oldest window that one from first to last is compared with.

        The first window may be compared with none, and a later one with some before the first.
        """
        since = first or self.to_come
        starts = {since, last or since, *(start for start in known if start >= since)}
        compared = [self._earlier.before(start) for start in starts]
        return min((windows[0].start for windows in compared if windows), default=first)

    def of(self, start: dt.datetime) -> Baseline:
        """Return the baseline of the window that starts then.

        Raises:
            BaselineMissingError: If too few earlier windows have rows.
        """
        windows = self._earlier.before(start)
        found = self._of_windows(windows)
        some = next(iter(found.values()), None)
        present = 0 if some is None else some.cells["window_start"].nunique()
        if present < self._earlier.needed:
            raise BaselineMissingError(
                f"Model {self._spec.model!r} is learning: windows are compared with "
                f"{self._choice.described()}; {self._earlier.needed} are needed, and {present} "
                "are there."
            )
        mark = self.mark(start)
        whole = None if some is None else (some.cells["slice_key"] == ALL).to_numpy()
        n = 0 if some is None else int(some.n[whole].sum())
        return Baseline(
            baseline_id=f"{self._baseline_id[:8]}{mark[:8]}",
            kind=self._choice.kind,
            dataset=PRODUCTION,
            n=n,
            data_version=mark,
            binnings=self._binnings,
            windows=BaselineWindows(with_empty(found, self._binnings), self._whole),
        )

    @cached_property
    def _whole(self) -> BaselineWindows:
        """All windows that any of them is compared with."""
        found = self._select(lambda starts: np.ones(len(starts), dtype=bool))
        return BaselineWindows(with_empty(found, self._binnings))

    def mark(self, start: dt.datetime) -> str:
        """Return the fingerprint of what the window that starts then is compared with."""
        return mark_of_windows(self._earlier.before(start), self._versions)

    def _of_windows(self, windows: Sequence[Window]) -> dict[str, ColumnStatistics]:
        """Return the cells of some windows; columns that share their frame share it again."""
        wanted = np.array([int(w.start.timestamp()) for w in windows], dtype=np.int64)
        return self._select(lambda starts: np.isin(starts, wanted))

    def _select(self, choose: Callable[[Ints], Flags]) -> dict[str, ColumnStatistics]:
        version = self._choice.model_version
        rows: dict[int, Flags] = {}
        frames: dict[int, pd.DataFrame] = {}
        found = {}
        for name, stats in self._profiles.items():
            key = id(stats.cells)
            if key not in rows:
                rows[key] = choose(self._starts[key])
                if version is not None:
                    rows[key] &= (stats.cells["model_version"] == version).to_numpy()
            kept = select(stats, rows[key])
            if key not in frames:
                frames[key] = kept.cells.assign(model_version=ALL) if version else kept.cells
            found[name] = replace(kept, cells=frames[key])
        return found
