"""Baselines that are earlier windows of production, answered from stored profiles alone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.metrics.statistics import BaselineWindows, ColumnStatistics, empty, select
from mlmon_dagster.profiles.baseline import Baseline, load_stored
from mlmon_dagster.profiles.bins.fit import binnings_of, stored_baseline
from mlmon_dagster.profiles.storage import load_profiles
from mlmon_dagster.spec.baseline import PRODUCTION, BaselineSpec
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.windows import EarlierWindows, Window, mark_of_windows, window_containing
from mlmon_dagster.store import Store, baselines
from mlmon_dagster.store.baselines import StoredBaseline
from mlmon_dagster.store.state import window_state

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def load_baseline(
    store: Store,
    spec: ModelSpec,
    at: dt.datetime | None = None,
    choice: BaselineSpec | None = None,
) -> Baseline:
    """Return what a window that starts at ``at`` is compared with, by default windows to come.

    Args:
        store: The store.
        spec: The model.
        at: The window's start.
        choice: Compare with this instead of the spec's baseline; rolling, or the spec's own.

    Raises:
        BaselineMissingError: If there is none, or too few earlier windows yet.
    """
    stored = stored_baseline(store, spec, at)
    choice = choice or spec.baseline
    if not is_rolling(stored, choice):
        return load_stored(store, spec, stored)
    rolling = RollingBaselines(store, spec, stored, choice, at, at)
    return rolling.of(at or rolling.to_come)


def is_rolling(stored: StoredBaseline, choice: BaselineSpec) -> bool:
    """Tell whether windows are compared with earlier ones; a promoted period goes before that."""
    return choice.is_rolling and stored.kind != baselines.PROMOTED


class RollingBaselines:
    """The baselines of some windows, whose profiles are read once for all of them.

    Args:
        store: The store.
        spec: The model.
        stored: Where the bins are.
        choice: Which earlier windows.
        first: Start of the first window to be compared; None for windows to come.
        last: Start of the last one.
        columns: Profiled columns wanted; all by default.
    """

    def __init__(
        self,
        store: Store,
        spec: ModelSpec,
        stored: StoredBaseline,
        choice: BaselineSpec,
        first: dt.datetime | None,
        last: dt.datetime | None,
        columns: Sequence[str] | None = None,
    ) -> None:
        self._spec, self._stored, self._choice = spec, stored, choice
        self._binnings = binnings_of(store, stored)
        states = window_state.load(store.state, spec.model, None, last)
        windows = [
            window_containing(spec.time, start) for start in window_state.with_profiles(states)
        ]
        self._versions = {w.start: states[w.start].steps["profiles"].data_version for w in windows}
        self._earlier = EarlierWindows(choice, spec.time, windows)
        self.to_come = windows[-1].end if windows else _EPOCH
        self._profiles = load_profiles(
            store,
            spec,
            start=self._oldest(first, last, [w.start for w in windows]),
            end=last,
            dataset=PRODUCTION,
            columns=columns,
            at=first,
        )
        frames = {id(stats.cells): stats.cells for stats in self._profiles.values()}
        self._starts = {key: _seconds(cells["window_start"]) for key, cells in frames.items()}

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
                f"{self._choice.described()}, of which {present} are there and "
                f"{self._earlier.needed} are needed."
            )
        mark = self.mark(start)
        whole = None if some is None else (some.cells["slice_key"] == ALL).to_numpy()
        n = 0 if some is None else int(some.n[whole].sum())
        return Baseline(
            baseline_id=f"{self._stored.baseline_id[:8]}{mark[:8]}",
            kind=self._choice.kind,
            dataset=PRODUCTION,
            n=n,
            data_version=mark,
            binnings=self._binnings,
            windows=BaselineWindows(
                {name: found.get(name, empty(binning)) for name, binning in self._binnings.items()}
            ),
        )

    def mark(self, start: dt.datetime) -> str:
        """Return the fingerprint of what the window that starts then is compared with."""
        return mark_of_windows(self._earlier.before(start), self._versions)

    def _of_windows(self, windows: Sequence[Window]) -> dict[str, ColumnStatistics]:
        """Return the cells of some windows; columns that share their frame share it again."""
        wanted = np.array([int(w.start.timestamp()) for w in windows], dtype=np.int64)
        version = self._choice.model_version
        rows: dict[int, NDArray[np.bool_]] = {}
        frames: dict[int, pd.DataFrame] = {}
        found = {}
        for name, stats in self._profiles.items():
            key = id(stats.cells)
            if key not in rows:
                rows[key] = np.isin(self._starts[key], wanted)
                if version is not None:
                    rows[key] &= (stats.cells["model_version"] == version).to_numpy()
            kept = select(stats, rows[key])
            if key not in frames:
                frames[key] = kept.cells.assign(model_version=ALL) if version else kept.cells
            found[name] = replace(kept, cells=frames[key])
        return found


def _seconds(starts: pd.Series) -> NDArray[np.int64]:
    return np.asarray(starts.astype("datetime64[s, UTC]").astype("int64"), dtype=np.int64)
