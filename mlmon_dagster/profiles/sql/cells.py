"""The cells of a profile, and where the rows of a statement's result belong among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics.arrays import Ints
from mlmon_dagster.metrics.statistics import CELL_KEYS, Binning
from mlmon_dagster.profiles.sql.bin_codes import list_bins
from mlmon_dagster.spec.model import ModelSpec
from mlmon_dagster.spec.names import ALL

MAX_CELLS = 100_000  # dense score bins of so many cells are 2.4 GB
_USUAL_CODES = 10_000  # a model of a few dozen columns has so many; more allow fewer cells


class Cells:
    """The cells of one source, and where a statement's rows belong among them."""

    def __init__(self, parts: Sequence[pa.Table], spec: ModelSpec, size: int) -> None:
        self._labels = pa.array([ALL, *(",".join(names) for names in spec.slices)])
        found = sum(part.num_rows for part in parts)
        most = MAX_CELLS * _USUAL_CODES // max(size, _USUAL_CODES)
        if found > most:
            raise StoreError(
                f"Model {spec.model!r}: {found:,} combinations of window, version and slice to "
                f"profile, at most {most:,} at once. A slice of {spec.slices} has too many "
                "values; remove it from the spec, or profile fewer windows at a time."
            )
        keys = pa.concat_tables([self._keys(part) for part in parts])
        order = pc.sort_indices(keys, [(key, "ascending") for key in CELL_KEYS])
        self._order = order.to_numpy()
        keys = keys.take(order)
        self.frame = keys.to_pandas()
        self.frame["window_start"] = self.frame["window_start"].astype("datetime64[us, UTC]")
        self._values = [pc.unique(keys.column(key)) for key in CELL_KEYS]
        codes = self._mixed(keys)
        self._by_code = np.argsort(codes)
        self._sorted_codes = codes[self._by_code]

    def __len__(self) -> int:
        return len(self.frame)

    def _keys(self, table: pa.Table) -> pa.Table:
        slices = pc.take(self._labels, pc.add(table.column("slice"), 1))
        keys = table.select(["window_start", "dataset", "model_version", "slice_value"])
        return keys.append_column("slice_key", slices).select(CELL_KEYS)

    def _mixed(self, keys: pa.Table) -> Ints:
        """One integer per row that is equal for equal keys."""
        mixed = np.zeros(keys.num_rows, np.int64)
        for name, values in zip(CELL_KEYS, self._values, strict=True):
            column = keys.column(name).cast(values.type)
            mixed = mixed * len(values) + as_numpy(pc.index_in(column, value_set=values))
        return mixed

    def of(self, table: pa.Table) -> Ints:
        """Return the cell of every row of a statement's result."""
        codes = self._mixed(self._keys(table))
        cells: Ints = self._by_code[np.searchsorted(self._sorted_codes, codes)]
        return cells

    def arrange(self, parts: Sequence[pa.Table], name: str, default: float) -> NDArray[Any]:
        """Return one column of the moments statements, one value per cell."""
        column = np.concatenate([as_numpy(part.column(name), default) for part in parts])
        arranged: NDArray[Any] = column[self._order]
        return arranged

    def counts(self, parts: Sequence[pa.Table], name: str, binning: Binning) -> Ints:
        """Return the bins of a moments column, from lists to (cells, codes)."""
        counts = np.zeros((len(self), binning.size), np.int64)
        start = 0
        for part, coarse in zip(parts, (False, True), strict=False):
            if binning.kind == "loss":
                counts[start : start + part.num_rows, 0] = as_numpy(part.column(name))
                start += part.num_rows
                continue
            lists = part.column(name).combine_chunks()
            edges, codes = list_bins(binning, coarse)
            filled = start + np.flatnonzero(as_numpy(pc.is_valid(lists)))
            flat = as_numpy(pc.list_flatten(lists)).reshape(-1, len(edges) + 1)
            counts[np.ix_(filled, codes)] = flat
            start += part.num_rows
        arranged: Ints = counts[self._order]
        return arranged


def as_numpy(column: Any, default: float | bool = 0) -> NDArray[Any]:
    """Return a column of Arrow as an array, nulls replaced."""
    if column.null_count:
        column = pc.fill_null(column, pa.scalar(default).cast(column.type))
    values: NDArray[Any] = (
        column.to_numpy(zero_copy_only=False) if isinstance(column, pa.Array) else column.to_numpy()
    )
    return values
