"""How far the baselines' own windows lie from the rest of each: what depends on no other window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.moments import Moments

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Beside(NamedTuple):
    """Some windows, and beside each the W windows of its own baseline.

    Attributes:
        rows: Which windows, (P,).
        own: Distances of the baseline's windows to the power that makes them sums of squares, each
            window against the pooled rest, (P, W).
        null: Their moments without change, (P, W).
    """

    rows: NDArray[np.intp]
    own: Floats
    null: Moments


class OwnWindows:
    """Distances of the own windows of baselines 0, 1, ... by one metric; some may have none.

    Args:
        shared: What says how many rows count as one, from the distances and their moments, (W,).
    """

    def __init__(self, shared: Callable[[Floats, Moments], float] = lambda own, null: 1.0) -> None:
        self._say_shared = shared
        self._own: list[Floats] = []
        self._null: list[Floats] = []
        self._shared: list[float] = []

    def __len__(self) -> int:
        """Count the baselines."""
        return len(self._own)

    def add(self, own: Floats, null: Moments) -> None:
        """Add the W windows of the next baseline, (W,); W may be 0."""
        self._own.append(own)
        self._null.append(np.array([np.broadcast_to(part, own.shape) for part in null]))
        self._shared.append(self._say_shared(own, null) if len(own) else 1.0)

    def extend(
        self,
        own: Sequence[Floats],
        sizes: Sequence[Ints],
        moments: Callable[[Ints, Ints], Moments],
    ) -> None:
        """Add the next baselines, whose moments are asked for together.

        Args:
            own: Distances of the windows of each, (W,).
            sizes: Rows of these windows.
            moments: Gives those of windows of so many rows of baselines of these numbers.
        """
        if not own:
            return
        lengths = [len(windows) for windows in own]
        numbers = np.arange(len(self), len(self) + len(own))
        null = moments(np.repeat(numbers, lengths), np.concatenate(sizes))
        for windows, end in zip(own, np.cumsum(lengths).tolist(), strict=True):
            self.add(windows, Moments(*(part[end - len(windows) : end] for part in null)))

    def shared(self, baselines: Ints) -> Floats:
        """Return how many rows count as one in each baseline."""
        return np.array([self._shared[i] for i in baselines.tolist()])

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
            yield Beside(rows, own, Moments(*(null[:, i] for i in range(null.shape[1]))))
