"""What a column's change consists of, as the plainest numbers that a person would tell.

A distance does not say that rows are fifteen years older. So a few plain changes are tried one by
one, each as the distribution that it would make of the baseline's: one value in a part of the rows,
a ceiling, rounding, another unit, another column's values, rows beyond everything seen before, a
move, another width. The first that takes at least half of the PSI away is told; if none does, the
one of the last few that takes most. Of categories, whose PSI is a sum over them, it is the one with
the largest term. Place and width are the median and the distance of two percentiles, which a few
odd rows do not move (Tukey, 1977).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import (
    drift_bins,
    joined_bins,
    lowest_scores,
    score_groups,
    upper_edges,
)
from mlmon_dagster.metrics.drift.distances import mean_and_spread, positions_of, psi, quantiles
from mlmon_dagster.metrics.drift.novelty import outside_sides
from mlmon_dagster.metrics.quality import respelled
from mlmon_dagster.metrics.statistics import ColumnStatistics

Kind = Literal[
    "above", "below", "missing", "unseen", "respelled", "other", "value", "ceiling", "floor",
    "rounded", "cut", "unit", "sign", "swapped", "exchanged", "groups", "step",
    "place", "width", "range", "shape",
]  # fmt: skip
_MOST = 0.5  # of the rows of a window
_HALF_OF_IT = 0.5  # of the change
_TENTHS = 10
_LEAST_SHARE = 0.05
_LEAST_HEAP = 0.02
_LEAST_MOVE = 0.25  # of the spread of the baseline's rows
_LEAST_WIDENING = 1.25
_TAILS = (0.1, 0.5, 0.9)
_PER_SPREAD = 2.563  # from the 10th to the 90th percentile, in standard deviations of a normal law
# How units are mistaken for each other: new = old * factor + offset. Either way.
FAHRENHEIT = 1.8
_FACTORS = (1000.0, 100.0, 10.0, 60.0, 3600.0, 24.0, 12.0, 2.54, 1.609344, 2.204623, 3.28084)
_UNITS = (
    *((times, 0.0) for factor in _FACTORS for times in (factor, 1 / factor)),
    (FAHRENHEIT, 32.0), (1 / FAHRENHEIT, -32 / FAHRENHEIT),
)  # fmt: skip
_SURELY = 0.8  # of the change
_BOLD = 0.9  # of the change, for a guess at its cause
_OFF = 0.06  # relative, of mean and, twice that, of spread; twice as much of a part of the rows
_EVERY_ROW = 0.97
_FAR = math.log(10)  # nothing else is a factor that large
_STEPS = tuple(times * 10.0**power for power in range(6, -4, -1) for times in (5, 1))
_LEAST_CATEGORIES = 3  # of two, each has what the other loses
_LEAST_VALUES, _MOST_STEPS = 6, 12  # of a column in which all rows may have moved by steps
_NAMED = 2  # unseen values
_ALIKE = 0.15  # of the spread, or of all rows: how far two columns that are one may lie apart


@dataclass(frozen=True)
class ColumnChange:
    """The plainest number of a change.

    Attributes:
        kind: What the numbers are. ``above``, ``below``: the share of the rows with a value that
            lie beyond all of the baseline. ``missing``, ``unseen``, ``other`` (of rare categories),
            ``value`` (of one value): its share of the rows; ``respelled``: unseen values that are
            known ones but for case and spaces. ``ceiling``, ``floor``: the share of rows at
            ``value``, beyond which none lies now and ``then`` of the rows lay before. ``rounded``,
            ``cut`` (rounded down): ``factor`` is the step. ``unit``: the share of rows that are
            ``factor`` times as high plus the offset ``value``, and the means ``low`` then and
            ``high`` now. ``sign``: the share of rows whose sign is turned. ``swapped``: the column
            has what the column ``value`` had before, and the other way round. ``exchanged``: two
            categories have each other's share, and these are the first one's. ``groups``: around
            ``low`` and ``high``; the share of rows in between. ``step``: the medians, where every
            row moved by ``factor``. ``place``: the median, or the mean. ``width``: from the 10th to
            the 90th percentile. ``range``: the share of the rows with a value that lie between two
            values, where it changed most. ``shape``: a side has no rows, or none of these changed;
            no numbers.
        now: Of the window.
        then: Of the baseline.
        value: Which value, of kind ``value``; of ``unseen`` the commonest ones; of ``respelled``
            one as it is now, and before.
        spread: Of the baseline's rows, of kind ``place``; 0 if all are equal.
        low: Of kind ``range``, where it begins; ``-inf`` for the lowest values.
        high: Where it ends; ``inf`` for the highest.
        factor: Of kinds ``unit``, ``rounded``, ``cut`` and ``step``.
        is_alone: Whether ``value`` is the only one, of kind ``unseen``.
        is_mean: Whether the numbers are means, of kind ``place``.
        away: Of any kind, by how many spreads of the baseline's rows an ordered column moved: its
            median, or its mean if the median lies in an open bin. None if not known.
        wide: How many times as wide it is, from the 10th to the 90th percentile, or by its standard
            deviation if one of them lies in an open bin. None if not known.
    """

    kind: Kind
    now: float = 0.0
    then: float = 0.0
    value: str = ""
    spread: float = 0.0
    low: float = 0.0
    high: float = 0.0
    factor: float = 1.0
    is_alone: bool = False
    is_mean: bool = False
    away: float | None = field(default=None, compare=False)
    wide: float | None = field(default=None, compare=False)


Others = Callable[[], Iterable[tuple[str, ColumnStatistics, ColumnStatistics]]]


def column_change(
    now: ColumnStatistics, then: ColumnStatistics, others: Others = tuple
) -> ColumnChange:
    """Say what changed most plainly in a column.

    Args:
        now: One cell: a window.
        then: One cell: the baseline, in the same bins.
        others: Gives name, window and baseline of columns that it may have been mistaken for.

    Returns:
        Kind ``shape`` where a side has no rows or nothing changed.
    """
    if not now.n[0] or not then.n[0]:
        return ColumnChange("shape")
    missing = ColumnChange("missing", _missing(now), _missing(then))
    moved = abs(missing.now - missing.then)
    if moved >= _LEAST_SHARE and moved >= _HALF_OF_IT * _distance(now, then):
        return missing
    if now.binning.kind == "categorical":
        return _swapped_categories(now, then, others) or _of_categories(now, then)
    if positions_of(now) is None or not now.counts.any() or not then.counts.any():
        return ColumnChange("shape")
    # A number near the largest has no square: what is then not finite explains nothing.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x = _Numbers(now, then)
        away, wide = _measure_form(x)
        return replace(_of_numbers(x, others), away=away, wide=wide)


def _measure_form(x: _Numbers) -> tuple[float | None, float | None]:
    """Return `away` and `wide` of a column; None for what is not finite."""
    spread = _width_of(x, x.then, x.theirs)
    own, usual = _middle_of(x, x.now, x.mine), _middle_of(x, x.then, x.theirs)
    found = (own - usual) / spread, _width_of(x, x.now, x.mine) / spread
    away, wide = (float(number) if np.isfinite(number) else None for number in found)
    return away, wide


def _middle_of(x: _Numbers, stats: ColumnStatistics, rows: Ints) -> np.float64:
    if x.has_no_end(rows, 0.5):
        return _mean_and_width(x, stats, rows)[0]
    return np.float64(x.quantile(rows, 0.5))


def _width_of(x: _Numbers, stats: ColumnStatistics, rows: Ints) -> np.float64:
    low, _, high = _TAILS
    if x.has_no_end(rows, low) or x.has_no_end(rows, high):
        return _mean_and_width(x, stats, rows)[1]
    return np.float64((x.quantile(rows, high) - x.quantile(rows, low)) / _PER_SPREAD)


def _mean_and_width(
    x: _Numbers, stats: ColumnStatistics, rows: Ints
) -> tuple[np.float64, np.float64]:
    """Return mean and standard deviation, by the exact sums where they are of the values."""
    if x.is_score:
        mean, spread = mean_and_spread(x.positions, rows)
        return np.float64(mean), np.float64(spread)
    n = rows.sum()
    away = stats.total[0] / n
    return away + stats.binning.centre, np.sqrt(np.maximum(stats.total_sq[0] / n - away**2, 0.0))


def place_change(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    """Return where an ordered column lies now and lay before, whatever else changed.

    Args:
        now: One cell, with values.
        then: One cell, in the same bins, with values.
    """
    x = _Numbers(now, then)
    low, usual, high = (x.quantile(x.theirs, level) for level in _TAILS)
    return _place(x, x.quantile(x.mine, 0.5), usual, (high - low) / _PER_SPREAD)


def _missing(stats: ColumnStatistics) -> float:
    return 1 - float(stats.counts[0].sum() / stats.n[0])


def _distance(now: ColumnStatistics, then: ColumnStatistics) -> float:
    """Return the total variation, with missing values as a value of its own."""
    apart = np.abs(now.counts[0] / now.n[0] - then.counts[0] / then.n[0]).sum()
    return float(apart + abs(_missing(now) - _missing(then))) / 2


class _Numbers:
    """A window and a baseline of an ordered column, both with values, bin by bin.

    Attributes:
        now, then: The statistics.
        positions: Where the values of the bins lie, ascending, (B,).
        mine, theirs: Rows per bin, (B,).
        shares, before: The same as shares.
        upper: Upper edges of the bins, (B,).
    """

    def __init__(self, now: ColumnStatistics, then: ColumnStatistics) -> None:
        found, before = positions_of(now), positions_of(then)
        assert found is not None
        assert before is not None
        self.now, self.then = now, then
        self.positions, self.mine, self.theirs = found[0], found[1][0], before[1][0]
        self.shares = self.mine / self.mine.sum()
        self.before = self.theirs / self.theirs.sum()
        self.is_score = now.binning.kind == "score"
        if self.is_score:
            self.upper = np.append(lowest_scores(now.binning)[1:], 1.0)
        else:
            self.upper = upper_edges(now.binning)
        # Of personal numbers: a bin holds many values, and its ends are nobody's.
        self.is_coarse = not (self.is_score or now.binning.values or now.binning.fine > 1)
        self.has_ends = not self.is_score and bool(np.isfinite(now.minimum[0]))

    @cached_property
    def groups(self) -> Ints:
        """Return the bin of the distance that each bin is in."""
        if self.is_score:
            return score_groups(self.theirs)
        binning = self.now.binning
        return joined_bins(binning)[np.arange(binning.size) // binning.fine]

    def distance(self, expected: Floats) -> float:
        """Return the PSI of the window from a distribution, less what chance makes of it."""
        n, total = int(self.mine.sum()), int(self.theirs.sum())
        bins = int(self.groups.max()) + 1
        mine = np.bincount(self.groups, self.mine, bins)
        theirs = np.bincount(self.groups, expected * total, bins)
        chance = (bins - 1) * (1 / n + 1 / total)
        return max(float(psi(mine, theirs)) - chance, 0.0)

    def explained(self, expected: Floats) -> float:
        """Return which part of the distance is gone where the baseline is as expected."""
        whole = self.distance(self.before)
        return 1 - self.distance(expected) / whole if whole > 0 else 0.0

    def moved(self, values: Floats) -> Floats:
        """Return the baseline's shares if each bin's rows were at other values, (B,)."""
        return self._add_up(values, self.before)

    def image_of(self, other: _Numbers) -> Floats:
        """Return another column's shares before in the bins of this one, (B,)."""
        return self._add_up(other.positions, other.before)

    def _add_up(self, values: Floats, shares: Floats) -> Floats:
        """Return which share of some values each bin holds, (B,)."""
        codes = np.minimum(np.searchsorted(self.upper, values, side="left"), len(self.upper) - 1)
        return np.bincount(codes, shares, len(self.upper)).astype(np.float64)

    @cached_property
    def as_high(self) -> Floats:
        """Return where the values of the bins lie if all moved as the median did, (B,)."""
        return self.positions + self.quantile(self.mine, 0.5) - self.quantile(self.theirs, 0.5)

    def has_no_end(self, rows: Ints, level: float) -> bool:
        """Tell whether a share of the rows ends in the first or last bin, which has no end."""
        reached = np.cumsum(rows) >= level * rows.sum()
        return bool(np.argmax(reached) in (0, len(rows) - 1))

    def quantile(self, of: Ints, level: float) -> float:
        """Return the value that a share of the rows does not exceed."""
        return float(quantiles(self.positions, of[None], level)[0])


def _of_numbers(x: _Numbers, others: Others) -> ColumnChange:
    if (constant := _constant(x)) is not None:
        return constant
    below, above = _outside(x)
    unit = _unit(x)
    if unit is not None and unit.now >= _EVERY_ROW:  # so small a unit that all are in one bin
        return _swapped_numbers(x, others) or unit
    plain = (_step(x), _heap(x, below, above), _bound(x, 1), _bound(x, -1), _rounded(x))
    found = next((one for one in plain if one is not None), None)
    if found := found or _swapped_numbers(x, others) or unit:
        return found
    if max(below, above) >= _MOST:
        return ColumnChange("above", above) if above > below else ColumnChange("below", below)
    return _of_form(x)


def _constant(x: _Numbers) -> ColumnChange | None:
    at = int(np.argmax(x.shares))
    then = float(x.before[at])
    if x.has_ends and x.now.minimum[0] == x.now.maximum[0]:
        return ColumnChange("value", 1.0, then, value=f"{x.now.minimum[0]:g}")
    if x.is_score and x.shares[at] == 1.0:
        return ColumnChange("value", 1.0, then, value=f"{x.positions[at]:.2g}")
    return None


def _outside(x: _Numbers) -> tuple[float, float]:
    """Return the shares of the rows below and above everything in the baseline."""
    if x.is_score:
        return 0.0, 0.0
    below, above = outside_sides(x.now.counts, x.then.counts)[0] / x.mine.sum()
    return float(below), float(above)


def _step(x: _Numbers) -> ColumnChange | None:
    """Return by how many steps all rows of a column of few values moved, round a clock or not."""
    values = np.array(x.now.binning.values[1:-1])
    if values.size <= _LEAST_VALUES or np.ptp(steps := np.diff(values)) > 0:
        return None
    median, usual = x.quantile(x.mine, 0.5), x.quantile(x.theirs, 0.5)
    found: list[tuple[float, ColumnChange]] = []
    for by in (*range(-_MOST_STEPS, 0), *range(1, _MOST_STEPS + 1)):
        turned = x.before.copy()
        turned[1:-1] = np.roll(x.before[1:-1], by)
        moved = by * float(steps[0])
        explained = max(x.explained(turned), x.explained(x.moved(x.positions + moved)))
        told = ColumnChange("step", median, usual, factor=moved)
        found.append((explained, told))
    best = max(found, key=lambda one: one[0])
    return best[1] if best[0] >= _SURELY else None


def _heap(x: _Numbers, below: float, above: float) -> ColumnChange | None:
    """Return the one value that far more rows, or fewer, have than before."""
    if x.is_coarse:
        return None
    most = int(np.argmax(np.abs(x.shares - x.before)))
    now, then = x.shares[most], x.before[most]
    is_end = most in (0, len(x.shares) - 1)
    if now < then:
        rest = np.where(np.arange(len(x.shares)) == most, now, x.before * (1 - now) / (1 - then))
        is_it = x.now.binning.values and not is_end and then - now >= _LEAST_SHARE
        if not is_it or (then < 1 and x.explained(rest) < _HALF_OF_IT):
            return None
        value = f"{x.now.binning.values[most]:g}"
        return ColumnChange("value", float(now), float(then), value=value)
    heap = (now - then) / (1 - then)
    expected = x.before * (1 - heap)
    expected[most] += heap
    explained = x.explained(expected)
    if heap < _LEAST_HEAP or explained < max(_HALF_OF_IT, x.explained(x.moved(x.as_high))):
        return None
    if max(below, above) >= _MOST and not is_end:  # all lie elsewhere, some of them together
        return None
    if not is_end:
        return ColumnChange("value", float(now), float(then), value=_name_value(x, most))
    share, end = (below, x.now.minimum[0]) if most == 0 else (above, x.now.maximum[0])
    is_one = end == (x.now.maximum[0] if most == 0 else x.now.minimum[0]) or _is_fill(float(end))
    if share >= _LEAST_HEAP and is_one and x.has_ends and _are_at(x, most, share, float(end)):
        return ColumnChange("value", share, 0.0, value=f"{end:g}")
    return None


def _is_fill(value: float) -> bool:
    """Tell whether a number is one that systems write where they know none.

    Others beyond the baseline's range may be many near ones, as of a column in another unit: how
    far apart they are is less than the sum of all rows tells.

    Example:
        >>> [_is_fill(value) for value in (-1.0, 0.0, 999.0, -9999.0, 1.88, 12.0)]
        [True, True, True, True, False, False]
    """
    digits = f"{abs(value):g}"
    return value in (-1.0, 0.0) or (len(digits) > 1 and set(digits) == {"9"})


def _name_value(x: _Numbers, at: int) -> str:
    """Name the value of a heap: the only one of its bin, else the roundest number in it."""
    if x.now.binning.values:
        return f"{x.now.binning.values[at]:g}"
    low = x.upper[at - 1] if at else -np.inf
    return _roundest(float(low), float(x.upper[at]))


def _roundest(low: float, high: float) -> str:
    """Return the number above `low` and not above `high` that has the fewest digits.

    Example:
        >>> _roundest(-0.2, 0.1), _roundest(99.4, 101.2), _roundest(7.31, 7.36)
        ('0', '100', '7.35')
    """
    if low < 0 <= high:
        return "0"
    for step in (5.0 * 10.0**p if half else 10.0**p for p in range(9, -9, -1) for half in (0, 1)):
        found = np.floor(high / step + 1e-9) * step
        if found > low:
            return f"{found:.6g}"
    return f"{high:.3g}"


def _are_at(x: _Numbers, most: int, share: float, end: float) -> bool:
    """Tell whether all rows beyond the baseline are at the farthest of them: their mean is there.

    What the sum of all rows leaves for them is compared with that, beside how far it is from the
    baseline's end.
    """
    n = float(x.mine.sum())
    inner = x.shares.copy()
    inner[most] = max(inner[most] - share, 0.0)
    mean = float(x.now.total[0]) / n + x.now.binning.centre
    beyond = (mean - float(inner @ x.positions)) / share
    nearest = x.now.binning.low if most == 0 else x.now.binning.high
    width = float(np.ptp(x.positions)) / max(len(x.positions), 1)
    return abs(beyond - end) <= 0.1 * abs(end - nearest) + 2 * width / share


def _bound(x: _Numbers, side: int) -> ColumnChange | None:
    """Return where values end now that went on before: at a heap, or without one."""
    if not x.has_ends:
        return None
    end = float((x.now.maximum if side > 0 else x.now.minimum)[0])
    at = int(np.searchsorted(x.upper, end, side="left"))
    bins = np.arange(len(x.before))
    lost = bins > at if side > 0 else bins < at
    beyond = float(x.before[lost].sum())
    if not _LEAST_HEAP <= beyond <= _MOST:
        return None
    expected = np.where(lost, 0.0, x.before)
    clipped = expected.copy()
    clipped[at] += beyond
    kind: Kind = "ceiling" if side > 0 else "floor"
    heap = float(x.shares[at] - x.before[at])
    if heap >= _HALF_OF_IT * beyond and x.explained(clipped) >= _HALF_OF_IT:
        return ColumnChange(kind, float(x.shares[at]), beyond, value=f"{end:.6g}")
    gone = x.explained(expected / expected.sum())
    if beyond >= _LEAST_SHARE and gone >= _SURELY and gone > x.explained(x.moved(x.as_high)):
        border = x.upper[at] if side > 0 else x.upper[at - 1]  # and no row's own value
        return ColumnChange(kind, 0.0, beyond, value=f"{border:.6g}")
    return None


def _rounded(x: _Numbers) -> ColumnChange | None:
    """Return the step of which all values are multiples now and were not before."""
    if x.now.binning.values or x.is_coarse:
        return None
    lower = np.append(-np.inf, x.upper[:-1])
    is_inner = np.isfinite(lower) & np.isfinite(x.upper)
    held = float(x.shares[is_inner].sum())
    for step in _STEPS if held >= _MOST else ():
        below = np.floor(lower / step + (-1e-9 if x.is_score else 1e-9))  # whose end is its own
        has_one = is_inner & (np.floor(x.upper / step + 1e-9) > below)
        now, then = float(x.shares[has_one].sum()) / held, float(x.before[has_one].sum())
        if now < _EVERY_ROW or then > _HALF_OF_IT:
            continue
        to = np.floor if (down := _is_cut(x, step)) else np.round
        if x.explained(x.moved(to(x.positions / step) * step)) >= _HALF_OF_IT:
            return ColumnChange("cut" if down else "rounded", now, then, factor=step)
    return None


def _is_cut(x: _Numbers, step: float) -> bool:
    """Tell whether values were rounded down: that takes half a step off their mean."""
    if x.is_score:
        return False
    (mean, variance), (usual, _) = _moments(x.now), _moments(x.then)
    error = math.sqrt(variance / float(x.mine.sum()))
    return mean - usual < -step / 4 and step / 4 > 2 * error


def _unit(x: _Numbers) -> ColumnChange | None:
    """Return by which factor between units a part of the rows, or all, is off."""
    found: list[tuple[float, ColumnChange]] = []
    change = x.shares - x.before
    for factor, offset in (*_UNITS, (-1.0, 0.0)):
        image = x.moved(x.positions * factor + offset)
        way = image - x.before
        groups, size = x.groups, int(x.groups.max()) + 1
        along = np.bincount(groups, way, size)
        length = float(along @ along)
        share = float(np.bincount(groups, change, size) @ along) / length if length else 0.0
        share = min(max(share, 0.0), 1.0)
        # Of a part, only one that lies elsewhere: calm days look like nine tenths in other units.
        is_part = _LEAST_SHARE <= share <= _SURELY and np.abs(way).sum() / 2 >= _SURELY
        if share < _EVERY_ROW and not is_part:
            continue
        explained = x.explained((1 - share) * x.before + share * image)
        off = _off_moments(x, share, factor, offset)
        if explained < _BOLD or not off < (_OFF if share >= _EVERY_ROW else 2 * _OFF):
            continue
        kind: Kind = "sign" if factor == -1.0 else "unit"
        usual, mean = (_moments(side)[0] for side in (x.then, x.now))
        told = ColumnChange(kind, share, value=f"{offset:g}", low=usual, high=mean, factor=factor)
        found.append((off - explained, told))
    return min(found, key=lambda one: one[0])[1] if found else None


def _off_moments(x: _Numbers, share: float, factor: float, offset: float) -> float:
    """Return how far mean and spread are from those of a part of rows in another unit, relatively.

    Bins do not tell a thousandfold from a hundredfold beyond the baseline's end; sums do.
    """
    if x.is_score:
        return float(np.inf)
    mean, variance = map(np.float64, _moments(x.then))
    image, image_variance = factor * mean + offset, factor**2 * variance
    expected = (1 - share) * mean + share * image
    apart = share * (1 - share) * (image - mean) ** 2
    spread = (1 - share) * variance + share * image_variance + apart
    own, own_variance = _moments(x.now)
    scale = max(abs(expected - mean), math.sqrt(variance))
    of_mean = abs(own - expected) / scale
    of_spread = abs(np.sqrt(own_variance / spread) - 1) / 2
    off = float(max(of_mean, of_spread))
    if abs(math.log(abs(factor))) >= _FAR:  # beside a heap few rows carry both
        off -= 2 * math.sqrt(own_variance / float(x.mine.sum())) / scale
    return off if math.isfinite(off) else math.inf


def _moments(stats: ColumnStatistics) -> tuple[float, float]:
    """Return mean and variance, from the exact sums."""
    n = stats.counts[0].sum()
    mean = stats.total[0] / n
    variance = np.maximum(stats.total_sq[0] / n - mean**2, 0.0)
    return float(mean + stats.binning.centre), float(variance)


def _of_form(x: _Numbers) -> ColumnChange:
    """Return the move, the other width, the two groups or the part that explains a change."""
    tried = [*_forms(x)]
    for found, explained in tried:
        if explained >= _HALF_OF_IT:
            return found
    return max(tried, key=lambda one: one[1], default=(ColumnChange("shape"), 0.0))[0]


def _forms(x: _Numbers) -> Iterator[tuple[ColumnChange, float]]:
    low, median, high = (x.quantile(x.mine, q) for q in _TAILS)
    lower, usual, higher = (x.quantile(x.theirs, q) for q in _TAILS)
    width, usual_width = high - low, higher - lower
    spread = usual_width / _PER_SPREAD
    if abs(median - usual) > _LEAST_MOVE * spread:
        explained = x.explained(x.moved(x.as_high))
        if median > 0 and usual > 0:  # as well, a move by a factor
            explained = max(explained, x.explained(x.moved(x.positions * (median / usual))))
        yield _place(x, median, usual, spread), explained
    yield from _groups(x)
    if max(width, usual_width) >= _LEAST_WIDENING * min(width, usual_width) and usual_width > 0:
        explained = x.explained(x.moved(median + (x.positions - usual) * (width / usual_width)))
        yield ColumnChange("width", width, usual_width), explained
    yield _range(x)


def _place(x: _Numbers, median: float, usual: float, spread: float) -> ColumnChange:
    """Return the medians, or the means where a median is somewhere in an outermost bin."""
    ends = (x.positions[0], x.positions[-1])
    if x.is_score or x.now.binning.values or not {median, usual} & set(ends):
        return ColumnChange("place", median, usual, spread=spread)
    now, then = (_moments(side)[0] for side in (x.now, x.then))
    if not np.isfinite([now, then]).all() or (now > then) != (median > usual):
        return ColumnChange("place", median, usual, spread=spread)
    return ColumnChange("place", now, then, spread=spread, is_mean=True)


def _groups(x: _Numbers) -> Iterator[tuple[ColumnChange, float]]:
    """Yield the two groups that rows lie in now, with few between them, where most were before."""
    tenth = np.minimum((np.cumsum(x.before) - x.before / 2) * _TENTHS, _TENTHS - 1).astype(np.intp)
    moved = np.bincount(tenth, x.shares - x.before, _TENTHS) * _TENTHS  # relative to before
    emptied = np.flatnonzero(moved < -_HALF_OF_IT)
    if emptied.size < 2 or not 0 < emptied[0] <= emptied[-1] < _TENTHS - 1:
        return
    below, above = tenth < emptied[0], tenth > emptied[-1]
    gains = [float((x.shares - x.before)[side].sum()) for side in (below, above)]
    if min(gains) < _LEAST_SHARE:
        return
    inside = ~(below | above)
    low, high = (x.quantile(np.where(side, x.mine, 0), 0.5) for side in (below, above))
    now, then = float(x.shares[inside].sum()), float(x.before[inside].sum())
    ratio = np.select(
        [below, above],
        [x.shares[side].sum() / x.before[side].sum() for side in (below, above)],
        now / then,
    )
    yield ColumnChange("groups", now, then, low=low, high=high), x.explained(x.before * ratio)


def _range(x: _Numbers) -> tuple[ColumnChange, float]:
    """Return the run of bins with the largest PSI of lying in it or not, and what that explains."""
    used = np.flatnonzero((x.mine > 0) | (x.theirs > 0))
    groups = np.full(len(x.mine), -1)
    groups[used] = np.unique(x.groups[used], return_inverse=True)[1]
    size = int(groups.max()) + 1
    steps, usual = (
        np.concatenate([[0], np.cumsum(np.bincount(groups[used], rows[used], size))])
        for rows in (x.mine, x.theirs)
    )
    first, last = np.triu_indices(size + 1, 1)
    inside, before = steps[last] - steps[first], usual[last] - usual[first]
    counts = (np.column_stack([held, held.max() - held]) for held in (inside, before))
    terms = psi(*counts)
    # Of a run to one end and the rest, which say the same, the one that more rows are in now.
    is_end = (first == 0) | (last == size)
    fell = inside / steps[-1] < before / usual[-1]
    best = int(np.argmax(np.where(is_end & fell, 0.0, terms)))
    begin, end = int(first[best]), int(last[best])
    now, then = float(inside[best] / steps[-1]), float(before[best] / usual[-1])
    if terms[best] <= 0 or end - begin == size:
        return ColumnChange("shape"), 0.0
    held = used[(groups[used] >= begin) & (groups[used] < end)]
    low = -np.inf if begin == 0 else _begin(x, int(held[0]))
    high = np.inf if end == size else _end(x, int(held[-1]))
    within = np.isin(np.arange(len(groups)), held)
    ratio = np.where(within, now / max(then, 1e-12), (1 - now) / max(1 - then, 1e-12))
    told = ColumnChange("range", now, then, low=float(low), high=float(high))
    return told, x.explained(x.before * ratio)


def _begin(x: _Numbers, at: int) -> float:
    """Return where a bin begins: at its value if it has one."""
    return float(x.positions[at] if x.now.binning.values else x.upper[at - 1])


def _end(x: _Numbers, at: int) -> float:
    return float(x.positions[at] if x.now.binning.values else x.upper[at])


def _swapped_numbers(x: _Numbers, others: Others) -> ColumnChange | None:
    """Return the column whose values this one has now, while that one has this one's."""
    if x.is_score:
        return None
    for name, now, then in others():
        if now.binning.kind != "numeric" or not (now.counts.any() and then.counts.any()):
            continue
        if not (_are_alike(x.now, then) and _are_alike(now, x.then)):
            continue
        other = _Numbers(now, then)
        explained = x.explained(x.image_of(other)), other.explained(other.image_of(x))
        if min(explained) >= _SURELY:
            return ColumnChange("swapped", value=name)
    return None


def _are_alike(one: ColumnStatistics, other: ColumnStatistics) -> bool:
    """Tell whether mean and spread of two columns are about the same."""
    (mean, variance), (other_mean, other_variance) = _moments(one), _moments(other)
    spread, other_spread = math.sqrt(variance), math.sqrt(other_variance)
    least = _ALIKE * min(spread, other_spread)
    return abs(mean - other_mean) <= least and abs(spread - other_spread) <= least


def _swapped_categories(
    now: ColumnStatistics, then: ColumnStatistics, others: Others
) -> ColumnChange | None:
    mine, usual = _by_name(now), _by_name(then)
    moved = _apart(mine, usual)
    for name, other_now, other_then in others():
        if other_now.binning.kind != "categorical" or not (other_now.n[0] and other_then.n[0]):
            continue
        their, their_usual = _by_name(other_now), _by_name(other_then)
        apart = max(_apart(mine, their_usual), _apart(their, usual))
        if apart <= _ALIKE and moved > 2 * apart and len(their_usual) > 2:
            return ColumnChange("swapped", value=name)
    return None


def _exchanged(shares: Floats, before: Floats, size: int) -> tuple[int, int] | None:
    """Return the two categories that have each other's share now: what grew, and what fell."""
    moved = (shares - before)[:size]
    if size < _LEAST_CATEGORIES:
        return None
    more, less = int(np.argmax(moved)), int(np.argmin(moved))
    turned = before.copy()
    turned[[more, less]] = before[[less, more]]
    whole, rest = (float(np.abs(shares - law).sum()) / 2 for law in (before, turned))
    is_it = moved[more] >= _LEAST_SHARE and rest <= (1 - _SURELY) * whole
    return (more, less) if is_it else None


def _by_name(stats: ColumnStatistics) -> dict[str, float]:
    """Return the share of each named category, and of the commonest unseen ones."""
    counts, n = stats.counts[0], int(stats.n[0])
    found = dict(zip(stats.binning.categories, (counts / n).tolist(), strict=False))
    unseen = stats.unseen[0] if stats.unseen else {}
    return {**{name: rows / n for name, rows in unseen.items()}, **found}


def _apart(one: dict[str, float], other: dict[str, float]) -> float:
    names = one.keys() | other.keys()
    return sum(abs(one.get(name, 0.0) - other.get(name, 0.0)) for name in names) / 2


def _of_categories(now: ColumnStatistics, then: ColumnStatistics) -> ColumnChange:
    """Return the category with the largest term of the PSI."""
    shares, before = now.counts[0] / now.n[0], then.counts[0] / then.n[0]
    if np.array_equal(shares, before):
        return ColumnChange("shape")
    mine, theirs = (drift_bins(stats).counts[0] for stats in (now, then))
    p, q = ((rows + 0.5) / (rows.sum() + len(rows) / 2) for rows in (mine, theirs))
    names = now.binning.categories
    if (pair := _exchanged(shares, before, len(names))) is not None:
        more, less = pair
        both = f"{names[more]} and {names[less]}"
        return ColumnChange("exchanged", float(shares[more]), float(before[more]), value=both)
    terms = ((p - q) * np.log(p / q))[:-1]
    grown = np.where(p > q, [*terms, 0.0], 0.0)[:-1]  # what one gains the others lose
    most = int(np.argmax(grown if grown.max() >= terms.max() / 2 else terms))
    if most < len(names):
        return ColumnChange("value", float(shares[most]), float(before[most]), value=names[most])
    pooled = [len(names), len(names) + 1]
    most = pooled[int(np.argmax(np.abs((shares - before)[pooled])))]
    share, usual = float(shares[most]), float(before[most])
    if most == len(names):
        return ColumnChange("other", share, usual)
    unseen = now.unseen[0] if now.unseen else {}
    known = {**respelled(unseen, (*names, *now.binning.tail))}
    if known and sum(unseen[name] for name in known) >= _HALF_OF_IT * sum(unseen.values()):
        pairs = [f"{name!r} for {usual_name!r}" for name, usual_name in known.items()]
        return ColumnChange("respelled", share, usual, value=pairs[0])
    named = ", ".join(list(unseen)[:_NAMED])
    return ColumnChange("unseen", share, usual, value=named, is_alone=len(unseen) == 1)
