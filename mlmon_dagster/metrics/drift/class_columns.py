"""Predicted and actual classes as columns of their own, taken out of the table of decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mlmon_dagster.metrics.arrays import Ints
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics


def with_outputs(profiles: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Return the columns with `prediction` and `actual` as categories, where there are decisions.

    Of a classifier's decisions, counted by actual. An actual counts once it has come. What a
    regression predicts is numeric already, and so is its actual, which counts likewise.
    """
    found = dict(profiles)
    if "actual" in found:
        numeric = found["actual"]
        n = numeric.counts.sum(axis=1)
        found["actual"] = replace(numeric, n=n, n_null=np.zeros_like(n))
    decisions = profiles.get("prediction")
    if decisions is None or decisions.binning.kind not in ("confusion", "classes"):
        return found
    if decisions.binning.kind == "confusion":
        split = label_counts(decisions.counts)
        names: tuple[str, ...] = ("0", "1")
        predicted, actual = split.sum(axis=2), split[:, :, 1:].sum(axis=1)
    else:
        matrix, unlabelled = class_counts(decisions.binning, decisions.counts)
        names = decisions.binning.categories
        known = len(names)
        by_prediction = matrix[:, : known + 1].sum(axis=2) + unlabelled
        predicted = by_prediction
        actual = np.column_stack(
            [matrix[:, :, :known].sum(axis=1), matrix[:, :, known:].sum(axis=(1, 2))]
        )
    found["prediction"] = _as_categories(decisions, "prediction", names, predicted, decisions.n)
    found["actual"] = _as_categories(decisions, "actual", names, actual, actual.sum(axis=1))
    return found


def _as_categories(
    decisions: ColumnStatistics, column: str, names: tuple[str, ...], counts: Ints, n: Ints
) -> ColumnStatistics:
    """Return counts (C, K) or (C, K + 1), the last of what is no class, as a categorical column."""
    size = len(names) + 2
    padded = np.zeros((len(counts), size), np.int64)
    padded[:, : len(names)] = counts[:, : len(names)]
    padded[:, size - 1] = counts[:, len(names) :].sum(axis=1)
    binning_id = f"{decisions.binning.binning_id}:{column}"
    binning = Binning(column, "categorical", size, binning_id, categories=names)
    none = np.zeros_like(n)
    return replace(
        decisions,
        binning=binning,
        counts=padded,
        n=n,
        n_null=n - padded.sum(axis=1),
        n_nan=none,
        n_inf=none,
        unseen=[],
    )
