"""What it is that changed in a column, in the numbers that a person would name.

A distance says that a distribution is another one, and how far; not that its rows are fifteen years
older. So the most telling of a few plain numbers is chosen, in the order in which they explain
the others: rows that lie outside everything seen before, missing values, one value, place, width.
Place and width are the median and the distance of two percentiles, which a few odd rows do not move
(Tukey, 1977).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.drift.novelty import outside_sides
from mlmon_dagster.metrics.drift.optional_distances import positions_of, quantiles
from mlmon_dagster.metrics.statistics import ColumnStatistics

Kind = Literal["above", "below", "missing", "unseen", "other", "value", "place", "width", "range",
               "shape"]  # fmt: skip
_MOST = 0.5  # of the rows of a window
_HALF_OF_IT = 0.5  # of the change
_TENTHS = 10
_LEAST_SHARE = 0.05
_LEAST_MOVE = 0.25  # of the spread of the baseline's rows
_LEAST_WIDENING = 1.25
_TAILS = (0.1, 0.5, 0.9)
_PER_SPREAD = 2.563  # from the 10th to the 90th percentile, in standard deviations of a normal law


@dataclass(frozen=True)
class ColumnChange:
    """The plainest number of a change.

    Attributes:
        kind: What the numbers are. ``above``, ``below``: the share of the rows with a value that
            lie beyond all of the baseline. ``missing``, ``unseen``, ``other`` (of rare categories),
            ``value`` (of one value): its share of the rows. ``place``: the median. ``width``: from
            the 10th to the 90th percentile. ``range``: the share of the rows with a value that
            lie between two values, where it changed most. ``shape``: a side has no rows, or none
            of these changed; no numbers.
        now: Of the window.
        then: Of the baseline.
        value: Which value, of kind ``value``.
        spread: Of the baseline's rows, of kind ``place``; 0 if all are equal.
        low: Of kind ``range``, where it begins; ``-inf`` for the lowest values.
        high: Where it ends; ``inf`` for the highest.
    """

    kind: Kind
    now: float = 0.0
    then: float = 0.0
    value: str = ""
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0


def column_change(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    """Say what changed most plainly in a column.

    Args:
        now: One cell: a window.
        then: One cell: the baseline, in the same bins.

    Returns:
        Kind ``shape`` where a side has no rows or nothing changed.
    """
    if not now.n[0] or not then.n[0]:
        return ColumnChange("shape")
    values = _of_numbers(now, then) if positions_of(now) else _of_categories(now, then)
    missing = ColumnChange("missing", _missing(now), _missing(then))
    moved = abs(missing.now - missing.then)
    if moved >= _LEAST_SHARE and moved >= _HALF_OF_IT * _distance(now, then):
        return missing
    return values


def _missing(stats: ColumnStatistics) -> float:
    return 1 - float(stats.counts[0].sum() / stats.n[0])


def _distance(now: ColumnStatistics, then: ColumnStatistics) -> float:
    """Return the total variation, with missing values as a value of its own."""
    apart = np.abs(now.counts[0] / now.n[0] - then.counts[0] / then.n[0]).sum()
    return float(apart + abs(_missing(now) - _missing(then))) / 2


def _of_numbers(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    found, before = positions_of(now), positions_of(then)
    assert found is not None
    assert before is not None
    positions, mine, theirs = found[0], found[1][0], before[1][0]
    if not mine.sum() or not theirs.sum():
        return ColumnChange("shape")
    if now.binning.kind == "numeric":
        below, above = (side[0] / mine.sum() for side in outside_sides(now, then))
        if max(below, above) >= _MOST:
            return ColumnChange("above", above) if above > below else ColumnChange("below", below)
        if (value := _one_value(now, mine, theirs)) is not None:
            return value
    low, median, high = (float(quantiles(positions, mine[None], q)[0]) for q in _TAILS)
    lower, usual, higher = (float(quantiles(positions, theirs[None], q)[0]) for q in _TAILS)
    width, usual_width = high - low, higher - lower
    spread = usual_width / _PER_SPREAD
    if abs(median - usual) > _LEAST_MOVE * spread:
        return ColumnChange("place", median, usual, spread=spread)
    if max(width, usual_width) >= _LEAST_WIDENING * min(width, usual_width) and usual_width > 0:
        return ColumnChange("width", width, usual_width)
    return _range(now, positions, mine, theirs)


def _range(now: ColumnStatistics, positions: Floats, mine: Ints, theirs: Ints) -> ColumnChange:
    """Return the run of tenths of the baseline's rows whose share changed most (Kuiper, 1960)."""
    shares, before = mine / mine.sum(), theirs / theirs.sum()
    tenth = np.minimum((np.cumsum(before) - before / 2) * _TENTHS, _TENTHS - 1).astype(np.intp)
    used = np.flatnonzero((mine > 0) | (theirs > 0))
    moved = np.cumsum(np.bincount(tenth, shares - before, _TENTHS))
    steps = np.concatenate([[0.0], moved])
    first, last = sorted((int(np.argmin(steps)), int(np.argmax(steps))))
    if first == 0 and last > _TENTHS / 2:  # rather the end of it that is left
        first, last = last, _TENTHS
    elif last == _TENTHS and first < _TENTHS / 2:
        first, last = 0, first
    inside = used[(tenth[used] >= first) & (tenth[used] < last)]
    if first == last or not inside.size:
        return ColumnChange("shape")
    begin, end = int(inside[0]), int(inside[-1])
    held = slice(begin, end + 1)
    return ColumnChange(
        "range",
        float(shares[held].sum()),
        float(before[held].sum()),
        low=_border(now, positions, begin, used, -1),
        high=_border(now, positions, end, used, 1),
    )


def _border(now: ColumnStatistics, positions: Floats, at: int, used: Ints, side: int) -> float:
    """Return where a bin ends on a side: at its value, or half-way to the next bin."""
    if at == used[0 if side < 0 else -1]:
        return side * float(np.inf)
    if now.binning.values:
        return float(positions[at])
    return float(positions[at] / 2 + positions[at + side] / 2)


def _one_value(now: ColumnStatistics, mine: Ints, theirs: Ints) -> ColumnChange | None:
    """Return the one value that all rows have, or that far more or fewer rows have than before."""
    if now.minimum[0] == now.maximum[0]:
        return ColumnChange("value", 1.0, 0.0, value=f"{now.minimum[0]:g}")
    if not now.binning.values:
        return None
    shares, before = mine / mine.sum(), theirs / theirs.sum()
    most = int(np.argmax(np.abs(shares - before)))
    moved = abs(float(shares[most] - before[most]))
    is_it = moved >= _HALF_OF_IT * _apart(shares, before) * 2 and moved >= _LEAST_SHARE
    is_inner = 0 < most < len(shares) - 1  # the ends hold what is beyond them, too
    if not (is_it and is_inner):
        return None
    value = f"{now.binning.values[most]:g}"
    return ColumnChange("value", float(shares[most]), float(before[most]), value=value)


def _apart(shares: Floats, before: Floats) -> float:
    return float(np.abs(shares - before).sum() / 2)


def _of_categories(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    shares, before = now.counts[0] / now.n[0], then.counts[0] / then.n[0]
    names = now.binning.categories
    if now.binning.kind != "categorical":
        return ColumnChange("shape")
    most = int(np.argmax(np.abs(shares - before)))
    share, usual = float(shares[most]), float(before[most])
    if share == usual:
        return ColumnChange("shape")
    if most < len(names):
        return ColumnChange("value", share, usual, value=names[most])
    return ColumnChange("other" if most == len(names) else "unseen", share, usual)
