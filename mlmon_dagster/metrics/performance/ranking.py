"""Metrics of rankings: of groups as they were labelled, and corrected for what nobody looked at.

What a group is worth is computed row by row in SQL: NDCG (Jarvelin and Kekalainen, 2002), the
reciprocal rank (Voorhees, 1999), average precision, hits, precision and recall at k.

Clicks say that a row is relevant only where somebody looked. With the chance that its place was
examined, a relevant row counts for 1 / chance rows (inverse propensity weighting: Joachims,
Swaminathan and Schnabel, 2017), at most `max_weight`, which trades a little bias for variance.
Ratios of such sums are self-normalised (Wang, Bendersky, Metzler and Najork, 2016): they are means
over the relevant rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd

from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.means import PRODUCT, Scale, mean_rows, ratio_rows
from mlmon_dagster.metrics.statistics import ColumnStatistics

_COLUMNS: dict[str, tuple[str, Scale]] = {
    "ndcg": (":ndcg", "mean"),
    "mrr": (":reciprocal_rank", "mean"),
    "map": (":average_precision", "mean"),
    "hit_rate": (":hit", "share"),
    "precision_at_k": (":precision_at_k", "mean"),
    "recall_at_k": (":recall_at_k", "mean"),
}
RELEVANT = ":ipw_relevant"  # weights of all relevant rows of a group
RATIOS = (":ipw_recall_at_k", ":ipw_mrr", ":ipw_dcg")  # over `RELEVANT`
_WEIGHTED_PRECISION = ":ipw_precision_at_k"
WEIGHTED = (
    RELEVANT, *RATIOS, *(f"{name}{PRODUCT}" for name in RATIOS), _WEIGHTED_PRECISION,
)  # fmt: skip


def ranking_metrics(profiles: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """NDCG, reciprocal rank, average precision, hits, precision and recall at k, per cell.

    Rows of one group are not independent, so n counts groups, and the interval is Student's over
    them (Wilson's for the hit rate).

    Args:
        profiles: The loss columns of the groups; those of `WEIGHTED` only where it is known what
            was examined.

    Returns:
        MetricFrame, column `:table`; with `WEIGHTED` also the metrics whose names start with
        ``ipw_``. `reason` of a NaN: no_actuals (no group has any), few_rows (relevant rows of
        under ten effective groups).
    """
    rows = [
        mean_rows(metric, profiles[column], high=1.0, scale=scale)
        for metric, (column, scale) in _COLUMNS.items()
        if column in profiles
    ]
    return stack_rows([*rows, *_weighted_rows(profiles)])


def _weighted_rows(profiles: Mapping[str, ColumnStatistics]) -> Iterator[MetricRows]:
    if not profiles.keys() >= set(WEIGHTED):
        return
    yield mean_rows("ipw_precision_at_k", profiles[_WEIGHTED_PRECISION])
    for name in RATIOS:
        yield ratio_rows(
            name.lstrip(":"), profiles[name], profiles[RELEVANT], profiles[f"{name}{PRODUCT}"],
            "ipw-1",
        )  # fmt: skip
