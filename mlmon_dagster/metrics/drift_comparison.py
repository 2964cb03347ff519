"""Columns beside their baselines: which cells are compared with what, and why some are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlmon_dagster.metrics.distances import ks
from mlmon_dagster.metrics.drift_baseline import ColumnBaseline, DriftBaseline, References
from mlmon_dagster.metrics.drift_results import Cases, DriftResult
from mlmon_dagster.metrics.drift_values import fill_binned, fill_ks
from mlmon_dagster.metrics.further_drift import further_results
from mlmon_dagster.metrics.null import DISTANCES, grid_floor
from mlmon_dagster.metrics.slice_index import SliceIndex
from mlmon_dagster.metrics.statistics import ColumnStatistics, select

Ints = NDArray[np.int64]
Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Column:
    """One column of a call, with its baseline.

    Attributes:
        number: Among the call's columns.
        stats: Its statistics, C cells. baseline: those of the baseline.
        cells: Positions of the cells by slice.
        slices: Number of each cell's slice in the baseline, (C,).
    """

    number: int
    stats: ColumnStatistics
    baseline: ColumnBaseline
    cells: SliceIndex
    slices: Ints


class Comparison:
    """Some columns beside their baselines."""

    def __init__(self, columns: Sequence[Column], baseline: DriftBaseline, limits: bool) -> None:
        self._columns, self._baseline, self._limits = columns, baseline, limits
        self._bins = [column.baseline.drift_bins(column.stats) for column in columns]

    def results(self, test_slices: bool, further: Sequence[str]) -> list[DriftResult]:
        """Compute everything, in the order in which a column's results stand in the frame."""
        found = []
        whole = [column.cells.whole for column in self._columns]
        if any(map(len, whole)):
            found = self._binned(whole, self._baseline.whole, tuple(DISTANCES))
            known = found[0]
            found += self._ks(known)
            found += [result.as_limit() for result in found if self._limits]
            found += self._further(further, known) if further else []
        slices = [column.cells.slices for column in self._columns]
        if any(map(len, slices)):
            references = self._baseline.tested if test_slices else self._baseline.untested
            found += self._binned(slices, references, ("psi",))
        return found

    def _binned(
        self, rows: Sequence[Positions], references: References, metrics: tuple[str, ...]
    ) -> list[DriftResult]:
        """Return the distances of merged bins of some cells of every column."""
        counts = [bins.counts[mine] for bins, mine in zip(self._bins, rows, strict=True)]
        n = np.concatenate([mine.sum(axis=1) for mine in counts])
        slices = [column.slices[mine] for column, mine in zip(self._columns, rows, strict=True)]
        total = [c.baseline.total[mine] for c, mine in zip(self._columns, slices, strict=True)]
        cases = self._cases(rows, n, np.concatenate(total))
        usable, nodes = cases.reason == "", grid_floor(n)
        blocks = []
        ends = np.cumsum([len(mine) for mine in rows]).tolist()
        for column, bins, mine, end in zip(self._columns, counts, slices, ends, strict=True):
            here = slice(end - len(bins), end)
            keep = usable[here]
            if keep.any():
                numbers = references.numbers(column.baseline, mine[keep], nodes[here][keep])
                blocks.append((bins[keep], numbers))
        method = np.full(len(n), "rows" if references.is_tested else "untested", dtype="<U8")
        if not blocks:
            return [DriftResult(metric, cases, method) for metric in metrics]
        pairs = references.merged.pairs(blocks)
        places = np.flatnonzero(usable)
        method[places[references.windows(pairs.baselines) > 0]] = "windows"
        common = references.common.merged.pairs(blocks) if "chi_square" in metrics else None
        results = [DriftResult(metric, cases, method) for metric in metrics]
        for result in results:
            fill_binned(result, places, references, pairs, common, limits=self._limits)
        return results

    def _cases(self, rows: Sequence[Positions], n: Ints, total: Ints) -> Cases:
        numbers = np.array([column.number for column in self._columns], dtype=np.int64)
        reason = np.select(
            [n < self._baseline.min_rows, total == 0, total < self._baseline.min_rows],
            ["few_rows", "no_baseline", "few_baseline_rows"],
            "",
        )
        columns = np.repeat(numbers, [len(mine) for mine in rows])
        return Cases(columns, np.concatenate(rows), n, total, reason)

    def _ks(self, known: DriftResult) -> list[DriftResult]:
        """Return the KS distance of the ordered columns; `known` is the psi of all."""
        ordered = [
            (column, bins.fine[column.cells.whole])
            for column, bins in zip(self._columns, self._bins, strict=True)
            if bins.fine is not None
        ]
        if not ordered:
            return []
        cases = self._ks_cases(known.cases, ordered)
        raw, numbers = [], []
        for (column, fine), keep in zip(ordered, _split(cases.reason == "", ordered), strict=True):
            if keep.any():
                number = self._baseline.ks.number(column.baseline)
                numbers.append(np.full(int(keep.sum()), number))
                raw.append(ks(fine[keep], self._baseline.ks.pooled(number)))
        result = DriftResult("ks", cases, np.full(len(cases.n), "rows", dtype="<U8"))
        if raw:
            places, mine = np.flatnonzero(cases.reason == ""), np.concatenate(numbers)
            result.method[places[self._baseline.ks.own.sizes(mine) > 0]] = "windows"
            fill_ks(
                result, places, self._baseline.ks, mine, np.concatenate(raw), limits=self._limits
            )
        return [result]

    def _ks_cases(self, cases: Cases, ordered: Sequence[tuple[Column, Ints]]) -> Cases:
        """Count the rows with a value only, which is what this distance sees."""
        kept = cases.take(np.isin(cases.columns, [column.number for column, _ in ordered]))
        n = np.concatenate([fine.sum(axis=1) for _, fine in ordered])
        valued = [column.baseline.n_valued for column, _ in ordered]
        total = np.repeat(np.array(valued, np.int64), [len(fine) for _, fine in ordered])
        reason, least = kept.reason, self._baseline.min_rows
        for is_so, why in (
            (n == 0, "all_null"),
            (n < least, "few_rows"),
            (total < least, "few_baseline_rows"),
        ):
            reason = np.where((reason == "") & is_so, why, reason)
        return Cases(kept.columns, kept.rows, n, total, reason)

    def _further(self, names: Sequence[str], known: DriftResult) -> list[DriftResult]:
        found = []
        for column, bins in zip(self._columns, self._bins, strict=True):
            mine = known.take(known.cases.columns == column.number)
            if len(mine.p):
                own = column.baseline
                counts = bins.counts[column.cells.whole], own.pooled[own.whole]
                then = select(own.stats, own.pool.rows(own.whole))
                found += further_results(
                    names, column.stats, then, counts, mine, self._baseline.seed
                )
        return found


def _split(values: NDArray[Any], parts: Sequence[tuple[object, Ints]]) -> list[NDArray[Any]]:
    """Cut values of all columns into those of each."""
    return np.split(values, np.cumsum([len(part) for _, part in parts])[:-1])
