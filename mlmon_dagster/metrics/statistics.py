"""Mergeable statistics: what profiles hold and what every metric is computed from.

A *cell* is one window x dataset x model version x slice. The statistics of one column are arrays
with one row per cell, so that a year of windows is one vectorised computation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CELL_KEYS = ("window_start", "dataset", "model_version", "slice_key", "slice_value")
ALL = "all"
TABLE = ":table"

Kind = Literal["numeric", "categorical", "score", "confusion", "latency", "status"]


@dataclass(frozen=True)
class Binning:
    """How the values of one column become codes ``0 .. size-1``; made from the baseline alone.

    Attributes:
        column: Column name in the inference records (``score``, ``prediction``, ``latency_ms``
            and ``status`` for the roles, a feature's own name otherwise).
        kind: What the codes mean. ``numeric``: fine bins, ``fine`` of them inside each coarse
            (quantile) bin. ``categorical``: one per baseline category, then ``other`` and
            ``unseen``. ``score``: logit-space bin x (unlabelled, negative, positive).
            ``confusion``: (predicted 0/1) x (unlabelled, negative, positive). ``latency``:
            log-spaced bins. ``status``: ok, error.
        edges: Inner edges of the coarse bins, ascending; a value belongs to bin ``i`` when
            ``edges[i-1] < value <= edges[i]``; the outer bins are open. Empty if not numeric.
        fine: Number of equal-width sub-bins inside each coarse bin (1 = none).
        low: Smallest finite baseline value (left end of the first coarse bin for sub-bins).
        high: Largest finite baseline value.
        centre: Value subtracted before squares are summed (baseline mean).
        categories: Baseline categories, most frequent first. Empty if not categorical.
        size: Number of codes.
        binning_id: Hash of all the above; statistics with another id refuse to merge.
    """

    column: str
    kind: Kind
    size: int
    binning_id: str
    edges: tuple[float, ...] = ()
    fine: int = 1
    low: float = 0.0
    high: float = 0.0
    centre: float = 0.0
    categories: tuple[str, ...] = ()


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of one column over C cells.

    Attributes:
        binning: The codes' meaning.
        cells: Frame of C rows with the columns ``CELL_KEYS``; ``window_start`` is UTC.
        counts: int64, shape (C, binning.size): rows per code; nulls are not in it.
        n: int64 (C,): all rows of the cell, nulls included.
        n_null: int64 (C,): rows without a value (NaN and infinities are counted apart).
        n_nan: int64 (C,). n_inf: int64 (C,). n_out_of_range: int64 (C,), of the declared min/max.
        minimum, maximum: float (C,), NaN where no value.
        total, total_sq: float (C,): sum of (value - centre) and of its square; for ``score`` the
            sums over labelled rows of log loss and of squared error.
        unseen: One dict per cell: commonest unseen categories by name (bounded).
    """

    binning: Binning
    cells: pd.DataFrame
    counts: NDArray[np.int64]
    n: NDArray[np.int64]
    n_null: NDArray[np.int64]
    n_nan: NDArray[np.int64]
    n_inf: NDArray[np.int64]
    n_out_of_range: NDArray[np.int64]
    minimum: NDArray[np.float64]
    maximum: NDArray[np.float64]
    total: NDArray[np.float64]
    total_sq: NDArray[np.float64]
    unseen: list[dict[str, int]] = field(default_factory=list)
