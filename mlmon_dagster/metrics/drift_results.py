"""What drift computes of a column, gathered and put into one MetricFrame at the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.frames import metric_frame
from mlmon_dagster.spec.metric_registry import AUTO

Ints = NDArray[np.int64]
VERSION = "2"


class DriftResult:
    """One distance of C cells.

    Attributes:
        metric: Name of the distance.
        rows: Positions of the cells, (C,).
        n: Rows of each cell. total: rows of its baseline. reason: why it has no value, else empty.
        method: What the p-values rest on: rows, windows, or untested.
        effect: Distance less its mean without change. p: p-value. half_width: of the 95 %
            interval. limit: the largest usual effect. Each (C,), NaN until computed.
    """

    def __init__(
        self,
        metric: str,
        rows: NDArray[np.intp],
        n: Ints,
        total: int | Ints,
        reason: NDArray[np.str_],
        method: str = "rows",
    ) -> None:
        self.metric, self.rows, self.method = metric, rows, method
        self.n, self.total, self.reason = n, np.broadcast_to(total, len(rows)), reason
        self.effect = np.full(len(rows), np.nan)
        self.p = np.full(len(rows), np.nan)
        self.half_width = np.full(len(rows), np.nan)
        self.limit = np.full(len(rows), np.nan)

    def as_limit(self) -> DriftResult:
        """Return the distance that would be unusual among the baseline's windows, as a metric."""
        found = DriftResult(f"{self.metric}{AUTO}", self.rows, self.n, self.total, self.reason)
        found.effect, found.method = self.limit, "windows"
        few = np.isnan(self.limit) & (self.reason == "")
        found.reason = np.where(few, "few_baseline_windows", self.reason)
        return found


def results_frame(column: str, cells: pd.DataFrame, results: Sequence[DriftResult]) -> pd.DataFrame:
    """Put the results of a column into one MetricFrame; a frame a result costs more than its test.

    Args:
        column: Name of the column.
        cells: The cells that the results' rows are positions in.
        results: At least one.
    """
    sizes = [len(result.rows) for result in results]
    effect = np.concatenate([result.effect for result in results])
    half_width = np.concatenate([result.half_width for result in results])
    versions = [f"{result.metric}-{VERSION}:{result.method}" for result in results]
    return metric_frame(
        cells.take(np.concatenate([result.rows for result in results])),
        column_name=column,
        metric=_repeat([result.metric for result in results], sizes),
        value=effect,
        lower=effect - half_width,
        upper=effect + half_width,
        n=np.concatenate([result.n for result in results]),
        n_baseline=np.concatenate([result.total for result in results]),
        p_value=np.concatenate([result.p for result in results]),
        reason=np.concatenate([result.reason.astype(object) for result in results]),
        method_version=_repeat(versions, sizes),
    )


def _repeat(names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    return [name for name, size in zip(names, sizes, strict=True) for _ in range(size)]
