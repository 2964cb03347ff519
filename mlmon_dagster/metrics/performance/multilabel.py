"""Realized performance of a model that gives a row any number of labels.

Overall from sums over rows: a row's right, predicted and actual labels belong together, so that
rows are what is drawn, not labels (the averages of Tsoumakas and Katakis, 2007). Per label from
counts of its four cells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats
from mlmon_dagster.metrics.frames import MetricRows, share_rows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import rate
from mlmon_dagster.metrics.means import PRODUCT, mean_rows, ratio_rows
from mlmon_dagster.metrics.performance.multiclass import CLASS, measure_class
from mlmon_dagster.metrics.statistics import ColumnStatistics

LABEL = ":label/"  # before a label: how it was decided in a row that has an actual
DECIDED_AS = ("right", "false", "missed", "neither")  # in both, one side, the other, none
RIGHT = ":right_labels"  # how many labels of a row are in both
SUMS = {  # metric -> what the right labels are a share of
    "micro_precision": ":predicted_labels",
    "micro_recall": ":actual_labels",
    "micro_f1": ":mean_labels",
}
EXACT, HAMMING, JACCARD, UNSEEN = ":exact", ":hamming", ":jaccard", ":unseen_label"


def multilabel_metrics(profiles: Mapping[str, ColumnStatistics]) -> pd.DataFrame:
    """Measure sets of labels overall and per label, by cell.

    Args:
        profiles: The loss columns `RIGHT`, `SUMS` with their products, `EXACT`, `HAMMING`,
            `JACCARD` and `UNSEEN`, and of each label its counts in the order of `DECIDED_AS`.

    Returns:
        MetricFrame, n = rows with an actual. Column `:table`: micro averages with the interval of a
        ratio of sums over rows, subset_accuracy, hamming_loss, jaccard, unseen_class_rate, macro
        averages over the labels that occur; ``class:<label>``: precision, recall, f1,
        predicted_rate and actual_rate of one. `reason` of a NaN: no_actuals, few_rows (labels in
        under ten effective rows), no_predicted_positives, no_actual_positives, no_positives.
    """
    found = [
        ratio_rows(metric, profiles[RIGHT], profiles[of], profiles[f"{of}{PRODUCT}"], "ratio-1")
        for metric, of in SUMS.items()
    ]
    found += [
        mean_rows("subset_accuracy", profiles[EXACT], scale="share"),
        mean_rows("hamming_loss", profiles[HAMMING], high=1.0),
        mean_rows("jaccard", profiles[JACCARD], high=1.0),
        mean_rows("unseen_class_rate", profiles[UNSEEN], scale="share"),
    ]
    labels = {
        name.removeprefix(LABEL): one for name, one in profiles.items() if name.startswith(LABEL)
    }
    each = [list(_measure_label(label, one)) for label, one in labels.items()]
    return stack_rows([*found, *chain.from_iterable(each), *_average(each)])


def _measure_label(label: str, stats: ColumnStatistics) -> Iterator[MetricRows]:
    right, false, missed, neither = stats.counts[:, : len(DECIDED_AS)].T.astype(np.float64)
    n = (right + false + missed + neither).astype(np.int64)
    why = np.where(n == 0, "no_actuals", "")
    yield from measure_class(stats.cells, label, (right, right + false, right + missed), n, why)
    for metric, count in (("predicted_rate", right + false), ("actual_rate", right + missed)):
        yield share_rows(stats.cells, CLASS + label, metric, count, n, reason="no_actuals")


def _average(labels: list[list[MetricRows]]) -> Iterator[MetricRows]:
    """Average over the labels that occur, one that is never predicted having the precision 0.

    The interval takes the labels as fully correlated, so it is rather too wide.
    """
    for at, metric in enumerate(("precision", "recall", "f1")):
        each = [rows[at] for rows in labels]
        ends = np.array([[rows.value, rows.lower, rows.upper] for rows in each], np.float64)
        occurs = ~np.isnan(np.array([rows[2].value for rows in labels], np.float64))
        value, low, high = _mean_where(np.nan_to_num(ends), occurs)
        n = np.asarray(each[0].n)
        reason = np.where(n == 0, "no_actuals", np.where(occurs.any(axis=0), "", "no_positives"))
        yield table_rows(
            each[0].cells, f"macro_{metric}", value, low, high, n, reason, "wilson-mean-1"
        )


def _mean_where(values: Floats, occurs: np.ndarray) -> Floats:
    """Return the mean over labels (K, 3, C) of those that occur in a cell (K, C), as (3, C)."""
    return rate((values * occurs[:, None, :]).sum(axis=0), occurs.sum(axis=0)[None, :])
