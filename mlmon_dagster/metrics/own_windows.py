"""How far the baselines' own windows lie from the rest of each: what depends on no other window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.autocorrelation import Persistence
from mlmon_dagster.metrics.between import between_window_p, usual_limit
from mlmon_dagster.metrics.moments import Moments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Positions = NDArray[np.intp]


class Beside(NamedTuple):
    """Some windows, and beside each the W windows of its own baseline.

    Attributes:
        rows: Which windows, (P,).
        own: Distances of the baseline's windows to the power that makes them sums of squares, each
            window against the pooled rest, (P, W).
        null: Their moments without change, (P, W).
        persistence: Of these windows in time, (P,).
    """

    rows: Positions
    own: Floats
    null: Moments
    persistence: Persistence


class OwnWindows:
    """Distances of the own windows of numbered baselines by one metric; some may have none."""

    def __init__(self) -> None:
        self._own: dict[int, Floats] = {}
        self._null: dict[int, Floats] = {}
        self._persistence: dict[int, Persistence] = {}

    def missing(self, baselines: Ints) -> list[int]:
        """Return which of these baselines are still to be added."""
        return [i for i in np.unique(baselines).tolist() if i not in self._own]

    def add(self, number: int, own: Floats, null: Moments, persistence: Persistence) -> None:
        """Add the W windows of a baseline, (W,); W may be 0."""
        self._persistence[number] = persistence
        self._own[number] = own
        self._null[number] = np.array([np.broadcast_to(part, own.shape) for part in null])

    def extend(
        self,
        numbers: Sequence[int],
        own: Sequence[Floats],
        sizes: Sequence[Ints],
        persistence: Sequence[Persistence],
        moments: Callable[[Ints, Ints], Moments],
    ) -> None:
        """Add baselines, whose moments are asked for together.

        Args:
            numbers: Of the baselines.
            own: Distances of the windows of each, (W,).
            sizes: Rows of these windows.
            persistence: Of the windows of each.
            moments: Gives those of windows of so many rows of baselines of these numbers.
        """
        if not numbers:
            return
        lengths = [len(windows) for windows in own]
        null = moments(np.repeat(numbers, lengths), np.concatenate(sizes))
        ends = np.cumsum(lengths).tolist()
        for number, windows, lasting, end in zip(numbers, own, persistence, ends, strict=True):
            mine = Moments(*(part[end - len(windows) : end] for part in null))
            self.add(number, windows, mine, lasting)

    def sizes(self, baselines: Ints) -> Ints:
        """Return the number of windows of each baseline."""
        return np.array([len(self._own[i]) for i in baselines.tolist()], dtype=np.int64)

    def beside(self, baselines: Ints) -> Iterator[Beside]:
        """Put baselines' windows beside windows of these baselines; those without any left out.

        Args:
            baselines: Number of each window's baseline, (P,).
        """
        sizes = self.sizes(baselines)
        for size in np.unique(sizes[sizes > 0]):
            rows = np.flatnonzero(sizes == size)
            some, place = np.unique(baselines[rows], return_inverse=True)
            own = np.stack([self._own[i] for i in some.tolist()])[place]
            null = np.stack([self._null[i] for i in some.tolist()])[place]
            lasting = Persistence.stack([self._persistence[i] for i in some.tolist()], place)
            yield Beside(rows, own, Moments(*(null[:, i] for i in range(null.shape[1]))), lasting)


def larger_of_windows(
    p: Floats,
    own: OwnWindows,
    baselines: Ints,
    value: Floats,
    moments: Moments,
    needed: Positions,
    *,
    root: float = 1 / 3,
) -> Floats:
    """Return the larger of p and the p-value between windows, where that is needed, (P,).

    Args:
        p: Of P windows.
        own: Distances of their baselines' windows; p stays where there are none.
        baselines: Numbers of their baselines.
        value: Their distances to the power that makes them sums of squares.
        moments: Those without change.
        needed: For which windows.
        root: As of `between_window_p`.
    """
    found = p.copy()
    for rows, distances, null, persistence in own.beside(baselines[needed]):
        mine = needed[rows]
        between = between_window_p(
            value[mine], moments.take(mine), distances, null, persistence=persistence, root=root
        )
        found[mine] = np.maximum(p[mine], between)
    return found


def usual_limits(own: OwnWindows, baselines: Ints, moments: Moments, power: float) -> Floats:
    """Return the largest usual effects of P windows, NaN where baselines have no own windows."""
    found = np.full(len(baselines), np.nan)
    for rows, distances, null, persistence in own.beside(baselines):
        found[rows] = usual_limit(moments.take(rows), distances, null, persistence, power)
    return found
