"""The baseline's labelled rows as codes of its bins, read to weigh them like a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.estimated.calibration import Curves
from mlmon_dagster.metrics.estimated.reweighting import LabelledRows, Target, grouping
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.baseline.baseline import Baseline
from mlmon_dagster.profiles.baseline.calibration_half import scored_columns
from mlmon_dagster.profiles.bins.fit import value_expressions
from mlmon_dagster.profiles.sql.bin_codes import DUCKDB, Column, code_expression
from mlmon_dagster.profiles.sql.cells import as_numpy
from mlmon_dagster.profiles.sql.loss_columns import DECIDED, resolve
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.store import Store
from mlmon_dagster.store.reading import personal
from mlmon_dagster.store.state.sql import quote_identifier

MOST_ROWS = 100_000


def labelled_rows(
    store: Store, spec: ModelSpec, baseline: Baseline, inputs: Sequence[str]
) -> LabelledRows:
    """Read the labelled rows of a baseline: at most 100,000, by the hash of their ids.

    Args:
        store: Where they are.
        spec: The model.
        baseline: The baseline.
        inputs: The features to read, as codes of their bins; those without bins are left out.

    Returns:
        No rows where they are past their retention.
    """
    binnings = baseline.binnings
    scores = [name for name in scored_columns(spec) if name != DECIDED]
    starts = baseline.windows[scores[0]].cells["window_start"].drop_duplicates()
    windows = [window_containing(spec.time, start) for start in starts.dt.to_pydatetime()]
    source = store.inference_records(spec).from_sql(windows, [baseline.dataset])
    values = value_expressions(spec, personal.key_of(store.state, spec.model))
    names = [*scores, *(name for name in inputs if name in binnings)]
    parts = ["window_start"]
    for name in names:
        column = Column(binnings[name], resolve(values[name][1], binnings))
        parts.append(f"{code_expression(column, DUCKDB, coarse=True)} AS {quote_identifier(name)}")
    limit = f"ORDER BY MD5(prediction_id) LIMIT {MOST_ROWS}" if baseline.n > MOST_ROWS else ""
    found = store.query(
        f"SELECT {', '.join(parts)} FROM {source} AS records WHERE actual IS NOT NULL {limit}"
    )
    found = found.filter(pc.greater_equal(pc.min_element_wise(*map(found.column, scores)), 0))
    codes = {name: as_numpy(found.column(name)).astype(np.int64) for name in names}
    places = pc.rank(found.column("window_start"), tiebreaker="dense")
    return LabelledRows(
        targets={
            name: Target(codes[name] // 3, codes[name] % 3 == 2, binnings[name].size // 3)
            for name in scores
        },
        windows=as_numpy(places).astype(np.int64) - 1,
        groupings={name: grouping(binnings[name], codes[name]) for name in names},
    )


def reweighted_curves(
    rows: LabelledRows, whole: Mapping[str, ColumnStatistics]
) -> dict[int, dict[str, Curves]]:
    """Return cell -> curves of the rows weighted to look like it, where that helps.

    Args:
        rows: Of the baseline.
        whole: Column -> statistics of the windows; all have the cells of the scores.

    Returns:
        Only the cells for which `LabelledRows.curves_like` prefers the weights.
    """
    names = [name for name in rows.groupings if name in whole]
    if not len(rows.windows):
        return {}
    counts = {name: _by_code(whole[name]) for name in names}
    found = {}
    for i in range(len(whole[names[0]])):
        margins = [
            rows.groupings[n].margin(counts[n][i], float(whole[n].n[i] - counts[n][i].sum()))
            for n in names
        ]
        curves = rows.curves_like(margins)
        if curves is not None:
            found[i] = curves
    return found


def _by_code(stats: ColumnStatistics) -> NDArray[np.float64]:
    """Rows per cell and code; of a score all as if unlabelled, for actuals are not looked at."""
    counts = stats.counts.astype(np.float64)
    if stats.binning.kind == "score":
        rows = label_counts(stats.counts).sum(axis=2)
        counts = np.zeros_like(counts)
        counts[:, ::3] = rows
    return counts
