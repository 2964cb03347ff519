"""Which cells of a frame belong to which slice, found once for all columns that share the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Ints, Positions
from mlmon_dagster.metrics.statistics import ALL


class SliceIndex:
    """The slices of one frame of cells.

    Args:
        cells: Frame of C rows with the columns ``CELL_KEYS``.

    Attributes:
        cells: That frame.
        names: One text per cell that names its slice.
        whole: Positions of the cells of slice ``all``. slices: of the others.
    """

    def __init__(self, cells: pd.DataFrame) -> None:
        self.cells = cells
        keys, values = cells["slice_key"].tolist(), cells["slice_value"].tolist()
        self.names = [f"{key}\0{value}" for key, value in zip(keys, values, strict=True)]
        is_whole = np.array([key == ALL for key in keys], dtype=bool)
        self.whole, self.slices = np.flatnonzero(is_whole), np.flatnonzero(~is_whole)


class SlicePool:
    """A baseline's cells by slice: of model version ``all`` where a slice has that, else of all.

    Slices have numbers 0 to S - 1; number S stands for every slice that the baseline lacks.

    Args:
        index: Of the baseline's cells.
    """

    def __init__(self, index: SliceIndex) -> None:
        self._numbers = {name: number for number, name in enumerate(dict.fromkeys(index.names))}
        of_cell = self.numbers(index.names)
        whole = np.array([v == ALL for v in index.cells["model_version"].tolist()], dtype=bool)
        has_whole = np.zeros(len(self._numbers) + 1, dtype=bool)
        has_whole[of_cell[whole]] = True
        kept = np.flatnonzero(whole | ~has_whole[of_cell])
        self._order = kept[np.argsort(of_cell[kept], kind="stable")]
        ends = np.arange(len(self._numbers) + 2)
        self._starts = np.searchsorted(of_cell[self._order], ends)

    def numbers(self, names: list[str]) -> Ints:
        """Return the number of each slice by its name."""
        missing = len(self._numbers)
        return np.array([self._numbers.get(name, missing) for name in names], dtype=np.int64)

    def rows(self, number: int) -> Positions:
        """Return the positions of a slice's cells, ascending; none of number S."""
        return self._order[self._starts[number] : self._starts[number + 1]]

    def pool(self, counts: Ints) -> Ints:
        """Sum the cells (C, B) of every slice: rows per bin, (S + 1, B), the last row 0."""
        pooled = np.zeros((len(self._numbers) + 1, counts.shape[1]), dtype=np.int64)
        if len(self._order):
            pooled[:-1] = np.add.reduceat(counts[self._order], self._starts[:-2], axis=0)
        return pooled
