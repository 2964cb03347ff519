"""The baseline's rows as codes of its bins, weighed to look like a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.calibration_curve import MIN_BLOCKS, Curves
from mlmon_dagster.metrics.reweighting import MIN_GROUP, Margin, rake, weighted_curves
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles.baseline import Baseline
from mlmon_dagster.profiles.binning import value_expressions
from mlmon_dagster.profiles.cells import as_numpy
from mlmon_dagster.profiles.codes import DUCKDB, NULL_CODE, Column, code_expression
from mlmon_dagster.profiles.losses import resolve
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.store import Store
from mlmon_dagster.store.sql import quote_identifier

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
MOST_ROWS = 100_000
# Within a group the window's rows are taken to lie as the baseline's do, which in the outer groups
# they do not: with half as many, a band of a large window missed the truth in one of eight.
_NUMERIC_GROUPS = 20
_SCORE_GROUPS = 20
_OWN_SHARE = 0.01  # of the baseline, from which a category is a group of its own


@dataclass(frozen=True)
class _Grouping:
    """Groups of a column's codes; the last group is null.

    Attributes:
        of_code: Group of every code, and of null at the end, (size + 1,).
        groups: Group of every baseline row.
        size: Number of groups.
        is_thin: Groups in which the baseline has next to no rows, (size,).
    """

    of_code: Ints
    groups: Ints
    size: int
    is_thin: NDArray[np.bool_]

    def margin(self, counts: Floats, n_null: float) -> Margin:
        everything = np.append(counts, n_null)
        found = np.bincount(self.of_code, everything, minlength=self.size)
        total = max(found.sum(), 1.0)
        covered = np.where(self.is_thin, 0.0, found)
        return Margin(self.groups, covered, float(1 - covered.sum() / total))


class BaselineRows:
    """The labelled rows of a baseline; read when they are first asked for.

    Args:
        store: Where they are.
        spec: The model.
        baseline: The baseline.
        inputs: The features to read, as codes of their bins.
    """

    def __init__(
        self, store: Store, spec: ModelSpec, baseline: Baseline, inputs: Sequence[str]
    ) -> None:
        self._store, self._spec, self._baseline = store, spec, baseline
        self.inputs = [name for name in inputs if name in baseline.binnings]

    @cached_property
    def codes(self) -> dict[str, Ints]:
        """Column -> code of every row (coarse for numbers, -1 for null), and ``window``.

        At most 100,000 rows, by the hash of their ids.
        """
        spec, binnings = self._spec, self._baseline.binnings
        starts = self._baseline.windows["score"].cells["window_start"].drop_duplicates()
        windows = [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]
        source = self._store.inference_records(spec).from_sql(windows, [self._baseline.dataset])
        values = value_expressions(spec)
        parts = ["window_start"]
        for name in ("score", *self.inputs):
            column = Column(binnings[name], resolve(values[name][1], binnings))
            parts.append(
                f"{code_expression(column, DUCKDB, coarse=True)} AS {quote_identifier(name)}"
            )
        limit = f"ORDER BY MD5(prediction_id) LIMIT {MOST_ROWS}"
        if self._baseline.n <= MOST_ROWS:
            limit = ""
        found = self._store.query(
            f"SELECT {', '.join(parts)} FROM {source} AS records "
            f"WHERE actual IS NOT NULL AND score IS NOT NULL {limit}"
        )
        table = {n: as_numpy(found.column(n)).astype(np.int64) for n in ("score", *self.inputs)}
        places = pc.rank(found.column("window_start"), tiebreaker="dense")
        return table | {"window": as_numpy(places).astype(np.int64)}

    @cached_property
    def groupings(self) -> dict[str, _Grouping]:
        """Column -> its groups."""
        return {
            name: _grouping(self._baseline.binnings[name], self.codes[name])
            for name in ("score", *self.inputs)
        }

    @property
    def size(self) -> int:
        """Count the rows."""
        return len(self.codes["score"])

    def curves(self, weights: Floats) -> Curves:
        """Return P(positive) per score bin of the weighted rows."""
        codes = self.codes["score"]
        bins = self._baseline.binnings["score"].size // 3
        return weighted_curves(
            codes // 3, codes % 3 == 2, self.codes["window"] % MIN_BLOCKS, weights, bins
        )


def _grouping(binning: Binning, codes: Ints) -> _Grouping:
    size = binning.size
    filled = codes[codes != NULL_CODE]
    n = np.bincount(filled, minlength=size)
    if binning.kind == "score":
        by_bin = np.repeat(n.reshape(-1, 3).sum(axis=1), 3)
        middle = (np.cumsum(by_bin) - by_bin / 2) / max(by_bin.sum(), 1)
        of_code = np.minimum((middle * _SCORE_GROUPS).astype(np.int64), _SCORE_GROUPS - 1)
    elif binning.kind == "numeric":
        coarse = np.arange(size) // binning.fine
        bins = int(coarse.max()) + 1
        step = -(-bins // _NUMERIC_GROUPS) if not binning.values else 1
        of_code = coarse // step
    else:
        own = n >= max(MIN_GROUP, _OWN_SHARE * len(codes))
        of_code = np.where(own, np.cumsum(own) - 1, own.sum())
        of_code[-1] = own.sum() + 1  # what the baseline has not seen
    null = int(of_code.max()) + 1
    of_code = np.append(of_code, null).astype(np.int64)
    groups = of_code[np.where(codes == NULL_CODE, size, codes)]
    held = np.bincount(groups, minlength=null + 1)
    return _Grouping(of_code, groups, null + 1, held < MIN_GROUP)


def reweighted_curves(
    rows: BaselineRows, whole: Mapping[str, ColumnStatistics]
) -> dict[int, Curves]:
    """Return cell -> curves of the rows weighted to look like it, where the weights are fit.

    Args:
        rows: Of the baseline.
        whole: Column -> statistics of the windows; all have the cells of ``score``.

    Returns:
        Only the cells whose inputs really differ from the baseline's, lie within its range, and
        leave enough effective rows. A baseline without rows, past retention, or with fewer than
        ten windows gives none.
    """
    names = [name for name in rows.inputs if name in whole]
    if not names or rows.size == 0 or rows.codes["window"].max() < MIN_BLOCKS:
        return {}
    score = whole["score"]
    found = {}
    labels = label_counts(score.counts).sum(axis=2)
    for i in range(len(score)):
        margins = []
        if not score.n[i]:
            continue
        for name in names:
            stats = whole[name]
            grouping = rows.groupings[name]
            nulls = float(stats.n[i] - stats.counts[i].sum())
            margins.append(grouping.margin(stats.counts[i].astype(np.float64), nulls))
        by_code = np.zeros(score.binning.size)
        by_code[::3] = labels[i]
        margins.append(rows.groupings["score"].margin(by_code, 0.0))
        weights = rake(margins, rows.size)
        if not weights.reason:
            found[i] = rows.curves(weights.values)
    return found
