"""Mergeable statistics: what profiles hold and what every metric is computed from.

A *cell* is one window x dataset x model version x slice. The statistics of one column are arrays
with one row per cell, so that a year of windows is one vectorised computation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise
from typing import Any, Literal, TypeVar, cast

import numpy as np
import pandas as pd

from mlmon_dagster.errors import StoreError
from mlmon_dagster.metrics import Flags, Floats, Ints, Positions
from mlmon_dagster.metrics.performance.roc import NO_SCORES, ScoreOrder, add_up
from mlmon_dagster.spec.names import ALL

CELL_KEYS = ("window_start", "dataset", "model_version", "slice_key", "slice_value")
WITHOUT_VERSION = tuple(key for key in CELL_KEYS if key != "model_version")
UNSEEN_KEPT = 10

Kind = Literal[
    "numeric", "categorical", "score", "order", "confusion", "classes", "loss", "latency", "status",
    "by_output", "rows", "vectors",
]  # fmt: skip


@dataclass(frozen=True)
class Binning:
    """How the values of one column become codes ``0 .. size-1``; made from the baseline alone.

    Attributes:
        column: Column name in the inference records (``score``, ``prediction``, ``latency_ms``
            and ``status`` for the roles, a feature's own name otherwise).
        kind: What the codes mean. ``numeric``: fine bins, ``fine`` of them inside each coarse
            (quantile) bin. ``categorical``: one per baseline category, then ``other`` and
            ``unseen``. ``score``: logit-space bin x (unlabelled, negative, positive). ``order``:
            negative, positive; where on the scale they are, see `metrics.performance.roc`.
            ``confusion``: (predicted 0/1) x (unlabelled, negative, positive). ``classes``:
            predicted x actual class. ``loss``: one code; its sums are what counts. ``latency``:
            log-spaced bins. ``status``: ok, error. ``by_output``: group of the output x (no
            ground truth, ground truth without a value, bins of the value), see
            `late_truth.means_by_output`.
            ``rows``: hashes of whole rows, see `windows.repeats`. ``vectors``: no codes but what is
            fitted to an embedding, see `profiles.embedded`.
        edges: Inner edges of the coarse bins, ascending; a value belongs to bin ``i`` when
            ``edges[i-1] < value <= edges[i]``; the outer bins are open. Empty if not numeric.
        fine: Number of equal-width sub-bins inside each coarse bin (1 = none); the code is
            ``coarse * fine + sub``, so ``code // fine`` is the exact coarse bin.
        low: Smallest finite baseline value (left end of the first coarse bin for sub-bins).
        high: Largest finite baseline value. For ``score`` and ``latency`` the ends of the scale;
            for ``loss`` the power of two just above its typical baseline value.
        centre: Value subtracted before squares are summed (baseline median, 6 digits).
        categories: Baseline categories that have a code of their own, most frequent first; the
            code after the last is ``other``, the next ``unseen``. For ``classes`` the classes,
            sorted; for a ``score`` of a multiclass model the one class that is positive; for
            ``rows`` the features that are hashed.
        tail: Further baseline categories, counted together as ``other``.
        is_open: The baseline had too many categories to keep them all by name, so that a value
            that is not among them counts as ``other`` and nothing is ever ``unseen``.
        values: One value per code when every distinct baseline value has a bin of its own (then
            ``fine`` is 1 and the first and last bin are for values outside the baseline's range);
            for ``by_output`` a typical value of each bin.
        size: Number of codes.
        binning_id: Hash of all the above; statistics with another id refuse to merge.
    """

    column: str
    kind: Kind
    size: int
    binning_id: str
    edges: tuple[float, ...] = ()
    fine: int = 1
    low: float = 0.0
    high: float = 0.0
    centre: float = 0.0
    categories: tuple[str, ...] = ()
    tail: tuple[str, ...] = ()
    is_open: bool = False
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class ColumnStatistics:
    """Statistics of one column over C cells.

    Attributes:
        binning: The codes' meaning.
        cells: Frame of C rows with the columns ``CELL_KEYS``; ``window_start`` is UTC.
        counts: int64, shape (C, binning.size): rows per code; nulls are not in it.
        n: int64 (C,): all rows of the cell, nulls included.
        n_null: int64 (C,): rows without a value (NaN and infinities are counted apart).
        n_nan: int64 (C,). n_inf: int64 (C,). n_out_of_range: int64 (C,), of the declared min/max.
        minimum, maximum: float (C,), NaN where no value.
        total, total_sq: float (C,): sum of (value - centre) and of its square; for ``score`` the
            sums over labelled rows of log loss and of squared error.
        unseen: One dict per cell: commonest unseen categories by name (bounded, for people to
            read; the exact number is in ``counts``). Empty list if not categorical.
        order: The labelled scores of each cell. Empty list if not of kind ``order``.
    """

    binning: Binning
    cells: pd.DataFrame
    counts: Ints
    n: Ints
    n_null: Ints
    n_nan: Ints
    n_inf: Ints
    n_out_of_range: Ints
    minimum: Floats
    maximum: Floats
    total: Floats
    total_sq: Floats
    unseen: list[dict[str, int]] = field(default_factory=list)
    order: list[ScoreOrder] = field(default_factory=list)

    def __len__(self) -> int:
        """Count the cells."""
        return len(self.cells)


_LARGE = 2_000  # counts of a group
_SUMS = ("n", "n_null", "n_nan", "n_inf", "n_out_of_range", "total", "total_sq")
_ARRAYS = ("counts", *_SUMS, "minimum", "maximum")


def empty(binning: Binning) -> ColumnStatistics:
    """Return statistics of no cells at all, the neutral element of ``concat``."""
    return _of_counts(
        binning, _no_cells(), np.zeros((0, binning.size), np.int64), np.zeros(0, np.int64)
    )


def _of_counts(binning: Binning, cells: pd.DataFrame, counts: Ints, n: Ints) -> ColumnStatistics:
    none, size = np.zeros(len(cells), np.int64), len(cells)
    return ColumnStatistics(
        binning, cells, counts, n=n, n_null=none, n_nan=none, n_inf=none, n_out_of_range=none,
        minimum=np.full(size, np.nan), maximum=np.full(size, np.nan),
        total=np.zeros(size), total_sq=np.zeros(size),
    )  # fmt: skip


def count_whole(binning: Binning, cells: pd.DataFrame, counts: Ints, n: Ints) -> ColumnStatistics:
    """Return statistics of counts alone, of the whole and of no slice.

    Args:
        binning: The bins.
        cells: C rows of ``window_start``, ``dataset`` and ``model_version``, in any order.
        counts: (C, binning.size).
        n: Rows of each cell, (C,).
    """
    starts = pd.to_datetime(cells["window_start"], utc=True).astype("datetime64[us, UTC]")
    frame = cells.assign(window_start=starts, slice_key=ALL, slice_value=ALL)
    order = frame.sort_values(list(CELL_KEYS), kind="stable").index.to_numpy()
    sorted_cells = frame.iloc[order].reset_index(drop=True)
    return _of_counts(binning, sorted_cells, counts[order], n[order])


@cache
def _no_cells() -> pd.DataFrame:
    cells = pd.DataFrame({key: pd.Series(dtype=str) for key in CELL_KEYS})
    return cells.assign(window_start=pd.Series(dtype="datetime64[us, UTC]"))


def with_empty(
    found: Mapping[str, ColumnStatistics], binnings: Mapping[str, Binning]
) -> dict[str, ColumnStatistics]:
    """Return the statistics of every column that has bins, empty ones where none were found."""
    return {
        name: found[name] if name in found else empty(binning) for name, binning in binnings.items()
    }


def select(stats: ColumnStatistics, cells: Flags | Positions) -> ColumnStatistics:
    """Keep some cells, in the order asked for.

    Args:
        stats: Statistics of C cells.
        cells: Boolean mask of shape (C,) or positions.
    """
    rows = np.flatnonzero(cells) if cells.dtype == np.bool_ else cells
    return _selected(stats, rows, stats.cells.iloc[rows].reset_index(drop=True))


def select_columns(
    columns: Mapping[str, ColumnStatistics],
    which: Callable[[pd.DataFrame], pd.Series | Flags],
) -> dict[str, ColumnStatistics]:
    """Do what `select` does to every column; columns that share their cells share them again.

    Args:
        columns: Statistics by name.
        which: Says of a frame of cells which of them to keep.
    """
    kept: dict[int, tuple[Positions, pd.DataFrame]] = {}
    for stats in columns.values():
        if id(stats.cells) not in kept:
            rows = np.flatnonzero(which(stats.cells))
            kept[id(stats.cells)] = rows, stats.cells.iloc[rows].reset_index(drop=True)
    return {name: _selected(stats, *kept[id(stats.cells)]) for name, stats in columns.items()}


def select_whole(stats: ColumnStatistics) -> ColumnStatistics:
    """Keep the cells of slice ``all``, which holds every row once."""
    return select(stats, (stats.cells["slice_key"] == ALL).to_numpy())


def of_all(columns: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Do what `select_whole` does to every column; columns that share cells share them again."""
    return select_columns(columns, lambda cells: cells["slice_key"] == ALL)


def _selected(
    stats: ColumnStatistics, rows: Flags | Positions, cells: pd.DataFrame
) -> ColumnStatistics:
    arrays = {name: getattr(stats, name)[rows] for name in _ARRAYS}
    unseen = [stats.unseen[row] for row in rows] if stats.unseen else []
    order = [stats.order[row] for row in rows] if stats.order else []
    return _with_arrays(stats, cells, arrays, unseen, order)


def _with_arrays(
    stats: ColumnStatistics,
    cells: pd.DataFrame,
    arrays: Mapping[str, Ints | Floats],
    unseen: list[dict[str, int]],
    order: list[ScoreOrder],
) -> ColumnStatistics:
    """Return statistics of other cells in the same bins."""
    named: dict[str, Any] = dict(arrays)
    return replace(stats, cells=cells, unseen=unseen, order=order, **named)


def concat(parts: Sequence[ColumnStatistics]) -> ColumnStatistics:
    """Put the cells of several statistics of one column under one another; nothing is summed.

    Raises:
        StoreError: If the parts were made with different bins.
        ValueError: If there are no parts.
    """
    if not parts:
        raise ValueError("concat needs at least one part")
    first = parts[0]
    for part in parts[1:]:
        _refuse_other_bins(first.binning, part.binning)
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
    unseen = [names for part in parts for names in part.unseen or [{} for _ in range(len(part))]]
    ordered = [scores for part in parts for scores in part.order or [NO_SCORES] * len(part)]
    return _with_arrays(
        first,
        pd.concat([part.cells for part in parts], ignore_index=True),
        arrays,
        unseen if any(unseen) else [],
        ordered if first.binning.kind == "order" else [],
    )


def merge(stats: ColumnStatistics, by: Sequence[str]) -> ColumnStatistics:
    """Add up the cells that agree on the keys ``by``; a month is the merge of its days.

    The order of the cells does not matter, down to the last bit. Keys that are not in ``by``
    become ``all`` and, for ``window_start``, the earliest one. Cells of different slice keys
    overlap; select one slice key first unless ``by`` keeps them apart.

    Args:
        stats: Statistics of C cells.
        by: Some of ``CELL_KEYS``; none merges everything into one cell.

    Returns:
        One cell per combination present in ``stats``, sorted by ``by``; no cells give no cells.
    """
    return merge_columns({"": stats}, by)[""]


def merge_columns(
    columns: Mapping[str, ColumnStatistics], by: Sequence[str]
) -> dict[str, ColumnStatistics]:
    """Do what `merge` does to every column; cells that columns share are looked at once."""
    groups: dict[int, _Groups] = {}
    found = {}
    for name, stats in columns.items():
        if len(stats) and id(stats.cells) not in groups:
            groups[id(stats.cells)] = _Groups(stats.cells, by)
        found[name] = _merge(stats, groups[id(stats.cells)]) if len(stats) else stats
    return found


def without(stats: ColumnStatistics, parts: ColumnStatistics, of: Positions) -> ColumnStatistics:
    """Take the rows of parts off, each off the whole cell that it is of.

    Args:
        stats: Statistics of C cells.
        parts: Statistics of P cells, which hold some rows of those.
        of: Which of the C cells each part is of, (P,).

    Returns:
        The cells of `parts`. Smallest and largest values stay those of `stats`, as they cannot be
        taken off; unseen categories and the order of scores are not kept.
    """
    _refuse_other_bins(stats.binning, parts.binning)
    rest = {name: getattr(stats, name)[of] for name in _ARRAYS}
    for name in ("counts", *_SUMS):
        rest[name] = rest[name] - getattr(parts, name)
    return _with_arrays(stats, parts.cells, rest, [], [])


class _Groups:
    """Which of C cells, at least one, are added up.

    Attributes:
        cells: The frame of the sums; columns that share it shared theirs before.
    """

    def __init__(self, cells: pd.DataFrame, by: Sequence[str]) -> None:
        rest = [key for key in CELL_KEYS if key not in by]
        ranks, values = {}, {}
        for key in (*by, *rest):
            ranks[key], values[key] = pd.factorize(cells[key], sort=True)
        self._keys = list(ranks.values())
        self._order = np.lexsort(self._keys[::-1])
        self._starts = _starts(self._keys[: len(by)], self._order)
        self._are_unique = len(_starts(self._keys, self._order)) == len(cells)
        self.cells = cells.iloc[self._order[self._starts]].reset_index(drop=True)
        for key in rest:
            if key == "window_start":
                earliest = np.minimum.reduceat(ranks[key][self._order], self._starts)
                self.cells[key] = values[key].take(earliest)
            else:
                self.cells[key] = ALL

    def of(self, stats: ColumnStatistics) -> tuple[Positions, Positions]:
        """Return the order of a column's cells, and where in it the groups start.

        Floating-point sums depend on their order, so it is made a function of the content.
        """
        if self._are_unique:
            return self._order, self._starts
        content = [*self._keys, stats.n, stats.total, stats.total_sq]
        return np.lexsort(content[::-1]), self._starts


def _starts(keys: Sequence[Positions], order: Positions) -> Positions:
    """Return where in an order of the cells the keys change, beginning with 0."""
    changes = np.zeros(len(order), dtype=bool)
    changes[0] = True
    for key in keys:
        changes[1:] |= np.diff(key[order]) != 0
    return np.flatnonzero(changes)


def _merge(stats: ColumnStatistics, groups: _Groups) -> ColumnStatistics:
    order, starts = groups.of(stats)
    if len(starts) == len(order) and not stats.unseen and not stats.order:  # nothing to add up
        arrays = {name: getattr(stats, name)[order] for name in _ARRAYS}
        return _with_arrays(stats, groups.cells, arrays, stats.unseen, stats.order)
    sums = {name: np.add.reduceat(getattr(stats, name)[order], starts) for name in _SUMS}
    sums["counts"] = _rows_added(stats.counts, order, starts)
    sums["minimum"] = np.fmin.reduceat(stats.minimum[order], starts)
    sums["maximum"] = np.fmax.reduceat(stats.maximum[order], starts)
    unseen = [stats.unseen[row] for row in order.tolist()] if stats.unseen else []
    ordered = [stats.order[row] for row in order.tolist()] if stats.order else []
    orders = [add_up(ordered[a:b]) for a, b in _groups_of(ordered, starts)]
    return _with_arrays(stats, groups.cells, sums, _merge_unseen(unseen, starts), orders)


def _rows_added(counts: Ints, order: Positions, starts: Positions) -> Ints:
    """Add up rows of counts; of large groups one by one, which is faster than `reduceat`."""
    if counts[order[:1]].size * len(order) < _LARGE * len(starts):
        return np.add.reduceat(counts[order], starts, axis=0)
    ends = [*starts[1:].tolist(), len(order)]
    found = np.empty((len(starts), *counts.shape[1:]), counts.dtype)
    for place, (start, end) in enumerate(zip(starts.tolist(), ends, strict=True)):
        counts[order[start:end]].sum(axis=0, out=found[place])
    return found


def _groups_of(ragged: Sequence[object], starts: Positions) -> list[tuple[int, int]]:
    return list(pairwise([*starts.tolist(), len(ragged)])) if ragged else []


def _merge_unseen(names: list[dict[str, int]], starts: Positions) -> list[dict[str, int]]:
    merged = []
    for begin, end in _groups_of(names, starts):
        total: Counter[str] = Counter()
        for cell in names[begin:end]:
            total.update(cell)
        merged.append(commonest(total))
    return merged


def commonest(counts: Mapping[str, int], keep: int = UNSEEN_KEPT) -> dict[str, int]:
    """Keep the largest counts; equal ones by name, so that the answer is always the same."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:keep])


def _refuse_other_bins(left: Binning, right: Binning) -> None:
    if left.binning_id != right.binning_id:
        raise StoreError(
            f"Profiles of column {left.column!r} were made with different bins "
            f"({left.binning_id} and {right.binning_id}, column {right.column!r}) and cannot be "
            "added up. Profile the windows again with the present baseline."
        )


def all_over_versions(profiles: Mapping[str, ColumnStatistics]) -> dict[str, ColumnStatistics]:
    """Add up each window's versions; columns that share their cells' frame are looked at once."""
    single: dict[int, pd.DataFrame | None] = {}
    several = {}
    found = dict(profiles)
    for column, stats in profiles.items():
        key = id(stats.cells)
        if key not in single:
            is_several = stats.cells.duplicated(list(WITHOUT_VERSION)).any()
            single[key] = None if is_several else stats.cells.assign(model_version=ALL)
        cells = single[key]
        if cells is None:
            several[column] = stats
        else:
            found[column] = replace(stats, cells=cells)
    return found | merge_columns(several, WITHOUT_VERSION)


def seconds_of(starts: pd.Series) -> Ints:
    """Return moments, such as the starts of windows, in seconds of the Unix epoch."""
    # Not by pandas' own conversions, which take a hundred times as long and were half of a drift.
    return starts.to_numpy(dtype="datetime64[s]").astype(np.int64)


def over_versions(stats: ColumnStatistics) -> ColumnStatistics:
    """Return the statistics of one column over all versions, adding up only where there are two."""
    return all_over_versions({"": stats})[""]


def side_by_side(cells: pd.DataFrame) -> Flags:
    """Say which cells are of windows that hold several versions of the same slice."""
    several: Flags = cells.duplicated(list(WITHOUT_VERSION), keep=False).to_numpy()
    return several


T = TypeVar("T")


class BaselineWindows(dict[str, ColumnStatistics]):
    """Column -> statistics of a baseline's windows; not to be changed.

    Args:
        columns: Column -> statistics.
        among: Windows of which these are some, the same cells of each: what is known of every
            window by itself is computed once, for all baselines that are made of them.
    """

    def __init__(
        self, columns: Mapping[str, ColumnStatistics], among: BaselineWindows | None = None
    ) -> None:
        super().__init__(columns)
        self._among = among
        self._derived: dict[Hashable, object] = {}

    def derived(self, key: Hashable, compute: Callable[[], object]) -> object:
        """Return what was computed under this key, or compute it."""
        if key not in self._derived:
            self._derived[key] = compute()
        return self._derived[key]

    def each(
        self, key: Hashable, compute: Callable[[BaselineWindows], pd.DataFrame]
    ) -> pd.DataFrame:
        """Return the rows of these windows of a frame whose rows are each of one window alone."""
        if self._among is None:
            return cast(pd.DataFrame, self.derived(key, lambda: compute(self)))
        frame = self._among.each(key, compute)
        cells = {id(stats.cells): stats.cells["window_start"] for stats in self.values()}
        mine = pd.concat(list(cells.values())).unique()
        return frame[frame["window_start"].isin(mine)].reset_index(drop=True)


def derived(windows: Mapping[str, ColumnStatistics], key: Hashable, compute: Callable[[], T]) -> T:
    """Return what is computed from a baseline's windows; kept where they are such.

    Args:
        windows: Of a baseline.
        key: Says what is computed, and from what besides the windows; of one type.
        compute: A function of the windows and what the key says.
    """
    if isinstance(windows, BaselineWindows):
        return cast(T, windows.derived(key, compute))
    return compute()


def each_window(
    windows: Mapping[str, ColumnStatistics],
    key: Hashable,
    compute: Callable[[Mapping[str, ColumnStatistics]], pd.DataFrame],
) -> pd.DataFrame:
    """Return a MetricFrame of a baseline's windows, each computed from its own cells alone.

    Args:
        windows: Of a baseline.
        key: Says what is computed, and from what besides the windows; of one type.
        compute: A function of windows, these or more.
    """
    return windows.each(key, compute) if isinstance(windows, BaselineWindows) else compute(windows)
