"""How much more wrong each row is than rows of its score and decision: what a search looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics, merge, select
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, REGRESSION
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.predicate import Predicate
from mlmon_dagster.trace.search import Found
from mlmon_dagster.trace.splits import score_groups

Profiles = Mapping[str, ColumnStatistics]
_GROUPS = 20  # of scores, within which rows are compared
WRONG = "are decided wrongly"
OFF = "are off"


@dataclass(frozen=True)
class Searched:
    """Slices whose rows are worse than others of their score and decision, and than they were.

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
    """Return how much worse each row is than the other rows of its kind.

    A decision's being wrong less the share of decisions of that kind, at about that score or for
    that class, that are; without decisions the squared error of the score less its mean at about
    that score; of a regression the absolute error less its mean. So what happened to all rows of a
    kind, such as scores that promise too much everywhere, is no slice's.

    Args:
        spec: The model.
        rows: With the columns ``score``, ``prediction`` and ``actual``, as far as it has them.
        baseline: Column -> statistics of the baseline, whose scores' groups are compared.

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
        return _beyond(error, np.zeros(len(error), np.int64)), OFF
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
    known = label_counts(stats.counts)[0, :, 1:].sum(axis=1)
    starts = score_groups(known, known, _GROUPS)
    place = np.searchsorted(_lower_ends(stats.binning, starts)[1:], rows["score"], side="right")
    if spec.columns.prediction is not None:
        wrong = (rows["prediction"].astype(float) != rows["actual"].astype(float)).astype(float)
        return _beyond(wrong, place * 2 + (rows["prediction"].to_numpy(np.float64) == 1)), WRONG
    squared = (rows["actual"].astype(float) - rows["score"].astype(float)) ** 2
    return _beyond(squared, place), OFF


def _beyond(error: pd.Series[float], kind: Ints) -> pd.Series[float]:
    """Return errors less the mean of the rows of their kind."""
    known: pd.Series[int] = pd.Series(kind, error.index)
    usual: pd.Series[float] = error.groupby(known).transform("mean")
    return error - usual


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
    wrong = (rows["prediction"] != rows["actual"]).astype(float)
    return _beyond(wrong, pd.factorize(rows["prediction"])[0]), WRONG
