"""How wrong each row is beyond what the baseline says of rows like it: what a search looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.binnings import class_counts, label_counts
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.performance.loss_means import mean_of
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge, select
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import Predicate
from mlmon_dagster.trace.search import Found
from mlmon_dagster.trace.splits import score_groups

Profiles = Mapping[str, ColumnStatistics]
_GROUPS = 20  # of scores, in which the baseline says how often rows came true
WRONG = "are decided wrongly"
OFF = "are off"


@dataclass(frozen=True)
class Searched:
    """Slices that explain how much worse rows are than the baseline's rows like them.

    Attributes:
        slices: What picks each, and what was found, the one that explains most first.
        means: What is too frequent, or too much, in them: ``are decided wrongly`` or ``are off``.
        is_share: Whether it is a share of rows.
        n: Rows that were searched. columns: Their features.
    """

    slices: tuple[tuple[Predicate, Found], ...]
    means: str
    is_share: bool
    n: int
    columns: tuple[str, ...]


def excess(
    spec: ModelSpec, rows: pd.DataFrame, baseline: Profiles
) -> tuple[pd.Series[float], str] | None:
    """Return how much worse each row is than the baseline's rows like it.

    A decision's being wrong less the share of the baseline's decisions of that kind, at that score
    and class, that were; without decisions the squared error of the score less what it was; of a
    regression the absolute error less its mean.

    Args:
        spec: The model.
        rows: With the columns ``score``, ``prediction`` and ``actual``, as far as it has them.
        baseline: Column -> statistics of the baseline.

    Returns:
        A value per row with ground truth, by the index of ``rows``, and what a high one means. None
        for models whose rows are not wrong one by one (rankings), or without such a baseline.
    """
    known = rows[rows["actual"].notna()]
    if spec.task == BINARY:
        return _of_scores(spec, known, baseline)
    if spec.task == MULTICLASS:
        return _of_classes(known, baseline)
    if spec.task == REGRESSION and ":absolute_error" in baseline:
        known = known[known["prediction"].notna()]
        error = (known["prediction"].astype(float) - known["actual"].astype(float)).abs()
        usual = float(mean_of(_pooled(baseline[":absolute_error"])).value[0])
        return error - usual, OFF
    return None


def _pooled(stats: ColumnStatistics) -> ColumnStatistics:
    return merge(select(stats, (stats.cells["slice_key"] == ALL).to_numpy()), ())


def _of_scores(
    spec: ModelSpec, rows: pd.DataFrame, baseline: Profiles
) -> tuple[pd.Series[float], str] | None:
    if spec.columns.score is None or "score" not in baseline:
        return None
    rows = rows[rows["score"].notna()]
    stats = _pooled(baseline["score"])
    counts = label_counts(stats.counts)[0, :, 1:].astype(np.float64)
    starts = score_groups(counts.sum(axis=1), counts.sum(axis=1), _GROUPS)
    grouped = np.add.reduceat(counts, starts, axis=0)
    chance = np.nan_to_num(rate(grouped[:, 1], grouped.sum(axis=1)), nan=0.5)
    place = np.searchsorted(_lower_ends(stats.binning, starts)[1:], rows["score"], side="right")
    true = chance[place]
    actual = rows["actual"].to_numpy(np.float64)
    if spec.columns.prediction is not None:
        decided = rows["prediction"].to_numpy(np.float64)
        wrong = (decided != actual).astype(float)
        usual = np.where(decided == 1, 1 - true, true)
        return pd.Series(wrong - usual, rows.index), WRONG
    score = rows["score"].to_numpy(np.float64)
    usual = true * (1 - score) ** 2 + (1 - true) * score**2
    return pd.Series((actual - score) ** 2 - usual, rows.index), OFF


def _lower_ends(binning: Binning, starts: np.ndarray) -> Floats:
    """Return the smallest score of each group of bins."""
    bins = binning.size // 3
    step = (binning.high - binning.low) / bins
    ends: Floats = 1 / (1 + np.exp(-(binning.low + step * starts)))
    return ends


def _of_classes(rows: pd.DataFrame, baseline: Profiles) -> tuple[pd.Series[float], str] | None:
    stats = baseline.get("prediction")
    if stats is None or stats.binning.kind != "classes":
        return None
    rows = rows[rows["prediction"].notna()]
    pooled = _pooled(stats)
    table, _ = class_counts(pooled.binning, pooled.counts)
    right, decided = np.trace(table[0]), table[0].sum()
    own = rate(np.diagonal(table[0]), table[0].sum(axis=1))
    known = dict(zip(pooled.binning.categories, own, strict=False))
    usual = rows["prediction"].map(known).fillna(right / max(decided, 1)).astype(float)
    wrong = (rows["prediction"] != rows["actual"]).astype(float)
    return wrong - (1 - usual), WRONG
