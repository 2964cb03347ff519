"""Drift of columns: how far each window is from the baseline, and whether that is chance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from mlmon_dagster.metrics.arrays import Ints
from mlmon_dagster.metrics.drift.baseline import DriftBaseline
from mlmon_dagster.metrics.drift.comparison import Column, Comparison
from mlmon_dagster.metrics.drift.slice_index import SliceIndex
from mlmon_dagster.metrics.drift.values import results_frame
from mlmon_dagster.metrics.frames import concat_frames
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics

_AT_ONCE = 2_000_000  # numbers of all columns computed with together: bounds the memory


def drift_metrics(
    stats: ColumnStatistics,
    baseline: ColumnStatistics,
    *,
    seed: int,
    min_rows: int = 30,
    test_slices: bool = False,
    further: Sequence[str] = (),
    limits: bool = False,
) -> pd.DataFrame:
    """Distances of every window of one column from the baseline; see `columns_drift`.

    Args:
        stats: One column (numeric, categorical, score or confusion) over C cells.
        baseline: The same column; its cells are the baseline's windows.
        seed: As of `DriftBaseline`.
        min_rows: As of `DriftBaseline`.
        test_slices: As of `columns_drift`.
        further: As of `columns_drift`.
        limits: As of `columns_drift`.
    """
    name = stats.binning.column
    known = DriftBaseline({name: baseline}, seed=seed, min_rows=min_rows)
    return columns_drift(
        {name: stats}, known, test_slices=test_slices, further=further, limits=limits
    )


def columns_drift(
    columns: Mapping[str, ColumnStatistics],
    baseline: DriftBaseline,
    *,
    test_slices: bool = False,
    further: Sequence[str] = (),
    limits: bool = False,
) -> pd.DataFrame:
    """Distances of every window from the baseline, with the chance of them without a change.

    Cells of slice `all` get psi, jensen_shannon, chi_square and, for ordered columns, ks; other
    cells get psi. A cell is compared with the baseline's cells of the same slice. No result
    depends on which other windows or columns are computed with it, nor on earlier calls.

    Args:
        columns: Columns (numeric, categorical, score or confusion), each over cells of its own;
            looked at once where columns share the frame.
        baseline: Has the same columns.
        test_slices: Whether the cells of slices get a p-value too, which costs far more.
        further: Distances, shifts and deltas beside those, of `further_drift.FURTHER`; slice `all`.
        limits: Whether to add what is usual among the baseline's windows, as `<metric>_auto`.

    Returns:
        MetricFrame. `value`: the distance less its mean without change at this n, so 0 means
        "no more than sampling" and negative values occur. `lower`, `upper` (psi): 95 % interval
        for independent rows. `p_value`: row-level (gamma tail on the moments without change,
        Kolmogorov's for ks) and, if the slice has at least 14 baseline windows, the largest of
        that, the same with rows that share a value counted once, and the between-window p; of
        ordered columns at slice `all`, psi and jensen_shannon take twice the smaller of their own
        and that of ks, which sees shifts that many bins dilute. `method_version` ends in `rows` or
        `windows` accordingly, and in `untested` for cells of slices without `test_slices`, which
        have no p. `reason` of a NaN: few_rows, no_baseline (slice not in the baseline),
        few_baseline_rows, few_independent_rows (too many rows share values, see
        `design_effect`), all_null (ks of a window without values; the other distances see nulls as
        a bin).

    Raises:
        ValueError: If the two sides have different binnings.
    """
    results = [
        result
        for some in _batches(_prepare(columns, baseline))
        for result in Comparison(some, baseline, limits).results(test_slices, further)
    ]
    if not results:
        return concat_frames([])
    names = [stats.binning.column for stats in columns.values()]
    return results_frame(names, [stats.cells for stats in columns.values()], results)


def _prepare(columns: Mapping[str, ColumnStatistics], baseline: DriftBaseline) -> list[Column]:
    """Look at the cells, once for all columns that share their frames."""
    indices: dict[int, SliceIndex] = {}
    slices: dict[tuple[int, int], Ints] = {}
    found = []
    for number, (name, stats) in enumerate(columns.items()):
        known = baseline.column(name)
        _refuse_other_bins(stats.binning, known.stats.binning)
        frame = id(stats.cells)
        if frame not in indices:
            indices[frame] = SliceIndex(stats.cells)
        both = frame, id(known.pool)
        if both not in slices:
            slices[both] = known.pool.numbers(indices[frame].names)
        found.append(Column(number, stats, known, indices[frame], slices[both]))
    return found


def _refuse_other_bins(mine: Binning, other: Binning) -> None:
    if mine.binning_id != other.binning_id:
        raise ValueError(
            f"Column {mine.column!r}: window and baseline have different bins "
            f"({mine.binning_id} and {other.binning_id}). "
            "Profile the windows again with the baseline's bins."
        )


def _batches(columns: Sequence[Column]) -> Iterator[list[Column]]:
    """Split columns so that not too many numbers are held at once."""
    batch: list[Column] = []
    held = 0
    for column in columns:
        size = len(column.stats) * sum(column.baseline.bins.counts.shape)
        if batch and held + size > _AT_ONCE:
            yield batch
            batch, held = [], 0
        batch.append(column)
        held += size
    if batch:
        yield batch
