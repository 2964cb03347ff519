"""What drift computes, gathered for all columns and put into one MetricFrame at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.frames import MetricRows, joined_cells, stack_rows
from mlmon_dagster.spec.metric_registry import AUTO

Ints = NDArray[np.int64]
VERSION = "4"


@dataclass(frozen=True)
class Cases:
    """Cells of columns to be compared with their baselines.

    Attributes:
        columns: Number of each case's column, (P,).
        rows: Positions of the cells, (P,).
        n: Rows of each cell. total: rows of its baseline.
        reason: Why it has no value, else empty.
    """

    columns: Ints
    rows: NDArray[np.intp]
    n: Ints
    total: Ints
    reason: NDArray[np.str_]

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> Cases:
        """Return some of the cases."""
        return Cases(
            self.columns[places],
            self.rows[places],
            self.n[places],
            self.total[places],
            self.reason[places],
        )


class DriftResult:
    """One distance of P cases.

    Attributes:
        metric: Name of the distance.
        cases: What is compared.
        reason: Why a case has no value, else empty, (P,).
        method: What the p-values rest on: rows, windows, or untested, (P,).
        effect: Distance less its mean without change. p: p-value. half_width: of the 95 %
            interval. limit: the largest usual effect. Each (P,), NaN until computed.
    """

    def __init__(self, metric: str, cases: Cases, method: NDArray[np.str_]) -> None:
        self.metric, self.cases, self.method = metric, cases, method
        self.reason = cases.reason
        self.effect = np.full(len(cases.rows), np.nan)
        self.p = np.full(len(cases.rows), np.nan)
        self.half_width = np.full(len(cases.rows), np.nan)
        self.limit = np.full(len(cases.rows), np.nan)

    def as_limit(self) -> DriftResult:
        """Return the distance that would be unusual among the baseline's windows, as a metric."""
        windows = np.full(len(self.method), "windows")
        found = DriftResult(f"{self.metric}{AUTO}", self.cases, windows)
        found.effect = self.limit
        few = np.isnan(self.limit) & (self.reason == "")
        found.reason = np.where(few, "few_baseline_windows", self.reason)
        return found

    def take(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> DriftResult:
        """Return the p-values and reasons of some of the cases."""
        found = DriftResult(self.metric, self.cases.take(places), self.method[places])
        found.reason, found.p = self.reason[places], self.p[places]
        return found


def results_frame(
    names: Sequence[str], frames: Sequence[pd.DataFrame], results: Sequence[DriftResult]
) -> pd.DataFrame:
    """Put the results of all columns into one MetricFrame; a frame a column costs far more.

    Args:
        names: Of the columns.
        frames: The cells of each column, which the cases' rows are positions in.
        results: At least one; of each column they stand in this order.
    """
    sizes = [len(result.effect) for result in results]
    columns = np.concatenate([result.cases.columns for result in results])
    order = np.argsort(columns, kind="stable")
    cells, offsets = joined_cells(frames)
    rows = np.concatenate([result.cases.rows for result in results]) + offsets[columns]
    effect = np.concatenate([result.effect for result in results])
    half_width = np.concatenate([result.half_width for result in results])
    metrics = [r.metric for r, size in zip(results, sizes, strict=True) for _ in range(size)]
    methods = np.concatenate([result.method for result in results]).tolist()
    versions = [f"{m}-{VERSION}:{method}" for m, method in zip(metrics, methods, strict=True)]
    reasons = np.concatenate([result.reason.astype(object) for result in results])
    places, of_case = order.tolist(), columns.tolist()
    found = MetricRows(
        cells.take(rows[order]),
        column_name=[names[of_case[i]] for i in places],
        metric=[metrics[i] for i in places],
        value=effect[order],
        lower=(effect - half_width)[order],
        upper=(effect + half_width)[order],
        n=np.concatenate([result.cases.n for result in results])[order],
        n_baseline=np.concatenate([result.cases.total for result in results])[order],
        p_value=np.concatenate([result.p for result in results])[order],
        reason=reasons[order],
        method_version=[versions[i] for i in places],
    )
    return stack_rows([found])
