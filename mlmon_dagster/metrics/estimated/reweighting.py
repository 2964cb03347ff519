"""Weights that make the baseline's rows look like a window's: covariate shift from bins alone.

The ratio of the two densities is taken as a product of one factor per group of every column that
has really changed, found by raking (iterative proportional fitting; Deming and Stephan, 1940). So
the window's side needs its stored bins and no rows. Whether the weights help is asked of the
baseline's own windows, held out and weighted alike (importance-weighted cross-validation; Sugiyama,
Krauledat and Mueller, 2007): where the score already carries the shift they only add noise.
Of a large baseline some rows are weighted only; what all of its rows say is moved by what weighing
changes in these (the difference estimator of double sampling; Cochran, 1977, chapter 12).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics import Flags, Floats, Ints
from mlmon_dagster.metrics.binnings import has_ends, round_bins
from mlmon_dagster.metrics.estimated.calibration import MIN_BLOCKS, Curves, block_curves
from mlmon_dagster.metrics.statistics import Binning

SWEEPS = 6
MIN_GROUP = 20  # rows of the baseline, below which a group has no weight of its own
MOST_UNCOVERED = 0.05  # share of the window where the baseline has next to no rows
MIN_SHARE = 0.1  # effective rows of the baseline, as a share
MIN_EFFECTIVE = 500
_SIGNIFICANT = 0.001
_LARGEST = 50.0  # no row counts for more than so many
_GROUPS = 20
# Of the baseline, from which a category is a group of its own, and of the groups that a number's
# outer bins are cut into: within a group the window's rows are taken to lie as the baseline's do,
# which far out they do not. With outer groups of a twentieth, estimates were off by half of a
# large window's own chance after a shift of .7 standard deviations, and bands missed.
_OWN_SHARE = 0.01


class Margin(NamedTuple):
    """One column, in groups of bins.

    Attributes:
        groups: Group of every baseline row, (n,).
        counts: Rows of the window per group, (K,); those in no group of the baseline's left out.
        uncovered: Share of the window's rows in groups where the baseline has next to none.
    """

    groups: Ints
    counts: Floats
    uncovered: float


class Weights(NamedTuple):
    """Weight per baseline row with mean 1, and why they cannot be used, if so.

    Attributes:
        values: (n,).
        effective: (sum w)^2 / sum w^2 rows, as good as so many unweighted ones.
        reason: ``no_shift``, ``outside_baseline`` (the window has rows where the baseline has
            none), ``few_effective_rows``; empty if the weights are fit for use.
    """

    values: Floats
    effective: float
    reason: str


@dataclass(frozen=True)
class Grouping:
    """Groups of a column's codes; the last group is null.

    Attributes:
        of_code: Group of every code, and of null at the end, (size + 1,).
        groups: Group of every baseline row, (n,).
        size: Number of groups.
        is_thin: Groups in which the baseline has next to no rows, (size,).
    """

    of_code: Ints
    groups: Ints
    size: int
    is_thin: Flags

    def margin(self, counts: Floats, n_null: float) -> Margin:
        """Return a window's rows per group, from its rows per code."""
        everything = np.append(counts, n_null)
        found = np.bincount(self.of_code, everything, minlength=self.size)
        total = max(found.sum(), 1.0)
        covered = np.where(self.is_thin, 0.0, found)
        return Margin(self.groups, covered, float(1 - covered.sum() / total))


def grouping(binning: Binning, codes: Ints) -> Grouping:
    """Put a column's codes into groups that hold enough rows of the baseline.

    Scores go by twenty shares of the rows, numbers by their neighbouring coarse bins, of which the
    two outer ones are cut at 1 % of the rows, categories alone from 1 % on. All codes of one score
    bin are in one group, whatever the actual: a score that many rows share (rounded, a tree's leaf)
    is one place, and what is known of its actuals must not look like a shift.

    Args:
        binning: Of the column.
        codes: Code of every baseline row, negative for null, (n,).
    """
    size = binning.size
    n = np.bincount(codes[codes >= 0], minlength=size)
    if binning.kind == "score":
        rows = n.reshape(-1, 3).sum(axis=1)
        middle = (np.cumsum(rows) - rows / 2) / max(rows.sum(), 1)
        of_code = np.repeat(np.minimum((middle * _GROUPS).astype(np.int64), _GROUPS - 1), 3)
    elif binning.kind == "numeric":
        coarse = round_bins(binning)[np.arange(size) // binning.fine]
        bins = int(coarse.max()) + 1
        if has_ends(binning) and bins > _GROUPS:  # most rows are on a heap, and few in most bins
            passed = np.cumsum(np.bincount(coarse, n)).astype(np.int64) * _GROUPS // max(n.sum(), 1)
            own = np.append(0, np.cumsum(np.diff(passed, prepend=0) > 0)[:-1])
            coarse, bins = own[coarse], int(own.max()) + 1
        step = -(-bins // _GROUPS) if not binning.values else 1
        of_code = coarse // step if binning.fine == 1 else _cut_outside(coarse // step, n)
    else:
        own = n >= max(MIN_GROUP, _OWN_SHARE * len(codes))
        of_code = np.where(own, np.cumsum(own) - 1, own.sum())
        of_code[-1] = own.sum() + 1  # what the baseline has not seen
    null = int(of_code.max()) + 1
    of_code = np.append(of_code, null).astype(np.int64)
    groups = of_code[np.where(codes < 0, size, codes)]
    held = np.bincount(groups, minlength=null + 1)
    return Grouping(of_code, groups, null + 1, held < MIN_GROUP)


def _cut_outside(groups: Ints, n: Ints) -> Ints:
    """Cut the first and the last group of codes into parts of at least 1 % of the rows each."""
    least = max(MIN_GROUP, _OWN_SHARE * n.sum())
    part = np.zeros(len(groups), np.int64)
    for is_mine in (groups == groups[0], groups == groups[-1]):
        inwards = np.flatnonzero(is_mine)[:: 1 if is_mine[0] else -1]
        number, held, left = 0, 0, n[inwards].sum()
        for code in inwards:
            part[code] = number
            held, left = held + n[code], left - n[code]
            if held >= least and left >= least:
                number, held = number + 1, 0
    cut: Ints = np.unique(groups * len(groups) + part, return_inverse=True)[1]
    return cut


def rake(margins: Sequence[Margin], held: Floats) -> Weights:
    """Weigh the baseline's rows so that its columns have the window's shares.

    Columns whose change may be chance are left alone. Of the others the whole of the change is
    taken, its chance with it: what is estimated is how these rows of the window turn out.

    Args:
        margins: The columns.
        held: Rows of the baseline, one each or several that are in the same groups, (n,).
    """
    flat = np.ones(len(held))
    size = float(held.sum())
    moved = []
    for margin in margins:
        base = np.bincount(margin.groups, held, minlength=len(margin.counts)).astype(np.float64)
        if _has_moved(base, margin.counts):
            moved.append((margin, _target(base, margin.counts)))
    if not moved:
        return Weights(flat, size, "no_shift")
    if max(margin.uncovered for margin, _ in moved) > MOST_UNCOVERED:
        return Weights(flat, size, "outside_baseline")
    least = max(MIN_EFFECTIVE, MIN_SHARE * size)
    weights = flat
    for _ in range(SWEEPS):
        for margin, target in moved:
            mine = np.bincount(margin.groups, held * weights, minlength=len(target))
            factor = np.divide(target * size, mine, out=np.ones_like(mine), where=mine > 0)
            weights = weights * factor[margin.groups]
        if held @ weights <= 0:  # no row of the baseline is in all the window's groups
            return Weights(flat, 0.0, "few_effective_rows")
        weights = np.minimum(weights * size / (held @ weights), _LARGEST)
        effective = float((held @ weights) ** 2 / (held @ weights**2))
        if effective < least / 2:
            break  # it only falls from here on
    if effective < least:
        return Weights(flat, effective, "few_effective_rows")
    return Weights(weights, effective, "")


def _has_moved(base: Floats, window: Floats) -> bool:
    """Say whether a column's shares are others than chance explains, by two samples' chi-square."""
    used = (base >= 1) & (base + window > 0)
    b, w = base[used], window[used]
    degrees = len(b) - 1
    if degrees < 1 or w.sum() < 1:
        return False
    ratio = np.sqrt(w.sum() / b.sum())
    chi2 = float(((w / ratio - b * ratio) ** 2 / (b + w)).sum())
    return bool(special.chdtrc(degrees, chi2) <= _SIGNIFICANT)


def _target(base: Floats, window: Floats) -> Floats:
    after = np.where(base > 0, window, 0.0)
    return np.asarray(after / after.sum() if after.sum() > 0 else base / base.sum())


class Target(NamedTuple):
    """What a score says of a row, and whether it was so; of a multiclass model one a class.

    Attributes:
        bins: Score bin of every row, (n,); -1 of rows that it says nothing of.
        is_positive: Its actual, (n,).
        size: Number of score bins.
    """

    bins: Ints
    is_positive: Flags
    size: int


class Weighing(NamedTuple):
    """What a baseline's rows say, weighted to look like a window.

    Attributes:
        curves: Score -> P(positive) per bin.
        gains: Score -> by how much nearer to the truth weighing is expected to be, see `gain`.
    """

    curves: Mapping[str, Curves]
    gains: Mapping[str, float]

    def is_better(self, names: Sequence[str]) -> bool:
        """Say whether these curves of some scores are expected to be nearer than the plain ones."""
        return sum(self.gains[name] for name in names) > 0


@dataclass(frozen=True)
class LabelledRows:
    """A baseline's labelled rows: what curves for a window are learnt from.

    Attributes:
        targets: Score column -> what it says and what was true.
        windows: Rank of the rows' windows by time, from 0, (n,).
        groupings: Column -> its groups; the score columns are among them.
        whole: Score -> rows by window, actual (0, 1) and score bin, (W, 2, S), of the baseline that
            the rows are a sample of. Not used where it has other windows than they.
    """

    targets: Mapping[str, Target]
    windows: Ints
    groupings: Mapping[str, Grouping]
    whole: Mapping[str, Floats]

    @cached_property
    def n_windows(self) -> int:
        """Count the windows."""
        return int(self.windows.max()) + 1 if len(self.windows) else 0

    @cached_property
    def _unweighted(self) -> dict[str, Curves]:
        """P(positive) per bin of every score, of the rows as they are."""
        counts = self._by_block(np.ones(len(self.windows)))
        return {name: block_curves(found) for name, found in counts.items()}

    @cached_property
    def plain(self) -> dict[str, Curves]:
        """P(positive) per bin of every score, of the whole baseline, by the same blocks."""
        blocks = np.arange(self.n_windows) * MIN_BLOCKS // self.n_windows
        found = dict(self._unweighted)
        for name, counts in self.whole.items():
            if len(counts) == self.n_windows:
                parts = [counts[blocks == block].sum(axis=0) for block in range(MIN_BLOCKS)]
                found[name] = block_curves(np.array(parts))
        return found

    @cached_property
    def _alike(self) -> tuple[Ints, Ints, Floats]:
        """One row of each that are in the same groups of all columns, its place, how many."""
        key = np.zeros(len(self.windows), np.int64)
        for one in self.groupings.values():
            key = np.unique(key * one.size + one.groups, return_inverse=True)[1]
        _, first, place, n = np.unique(
            key, return_index=True, return_inverse=True, return_counts=True
        )
        return first, place, n.astype(np.float64)

    @cached_property
    def _flat(self) -> dict[str, Ints]:
        blocks = self.windows * MIN_BLOCKS // self.n_windows
        return {
            name: np.where(
                target.bins < 0,
                MIN_BLOCKS * 2 * target.size,  # behind all others
                (blocks * 2 + target.is_positive) * target.size + target.bins,
            )
            for name, target in self.targets.items()
        }

    def like(self, margins: Sequence[Margin]) -> Weighing | None:
        """Weigh the rows so that they look like a window.

        Args:
            margins: The window's rows by the groups of its columns.

        Returns:
            None where the plain curves are all there is: nothing has really changed, the window
            lies outside the baseline's range, or too few effective rows are left. With fewer than
            ten windows nothing can be held out, so always None.
        """
        if self.n_windows < MIN_BLOCKS:
            return None
        first, place, n = self._alike
        weights = rake([one._replace(groups=one.groups[first]) for one in margins], n)
        if weights.reason:
            return None
        counts = self._by_block(weights.values[place])
        curves = {
            name: moved_like(self.plain[name], self._unweighted[name], block_curves(found))
            for name, found in counts.items()
        }
        gains = {
            name: gain(found.sum(axis=(0, 1)), curves[name], self.plain[name])
            for name, found in counts.items()
        }
        return Weighing(curves, gains)

    def _by_block(self, weights: Floats) -> dict[str, Floats]:
        """Weighted rows by block of neighbouring windows, actual and score bin, (10, 2, S)."""
        found = {}
        for name, flat in self._flat.items():
            size = self.targets[name].size
            counts = np.bincount(flat, weights, minlength=MIN_BLOCKS * 2 * size)
            counts = counts[: MIN_BLOCKS * 2 * size]
            found[name] = counts.reshape(MIN_BLOCKS, 2, size).astype(np.float64)
        return found


def moved_like(plain: Curves, before: Curves, after: Curves) -> Curves:
    """Move what a whole baseline says by what weighing changes in a sample of its rows.

    The sample's own chance is in it before and after, and cancels as far as the weights are even:
    a weighted sample alone would be off by it, however many rows the baseline has.

    Args:
        plain: Of the whole baseline.
        before: Of the sample.
        after: Of the sample, weighted; its replicates leave out the same windows as the others'.

    Returns:
        `after` itself where the sample is the whole. Inside (0, 1): where the move would leave
        it, half of the lesser of `plain` and `after` is left.

    Example:
        >>> whole, before, after = (Curves(np.array([p]), np.array([[p]]), 0.9)
        ...                         for p in (0.52, 0.5, 0.6))
        >>> moved_like(whole, before, after).curve.round(2).tolist()
        [0.62]
    """
    curve, replicates = (
        np.clip(
            all_rows + (own - sample),
            np.minimum(all_rows, own) / 2,
            1 - (1 - np.maximum(all_rows, own)) / 2,
        )
        for all_rows, sample, own in zip(plain[:2], before[:2], after[:2], strict=True)
    )
    return Curves(curve, replicates, after.scale)


def gain(rows: Floats, weighted: Curves, plain: Curves) -> float:
    """Return how much nearer to the truth weighted curves are expected to be than plain ones.

    What weighing changes in a bin is what the plain curve is off by there, and the chance of the
    weights. So the plain curve's squared error is more by ``change^2 - variance`` and the weighted
    one's by ``variance``, and weights are worth it where ``change^2 > 2 variance``, as in the
    choice of terms by Mallows (1973). The variance comes from a jackknife over stretches of the
    baseline's windows, each left out of both curves: their common chance, far larger, cancels,
    which it does not in the likelihood of the rows left out.

    Args:
        rows: Rows by score bin as the window has them, (S,).
        weighted: Of the weighted rows.
        plain: Of the rows as they are; its replicates leave out the same windows.

    Returns:
        Mean squared error of the chance of being positive over the rows, that of the plain curve
        less that of the weighted one; or, if that is more, of its mean over the rows, whose change
        is surer than that of any bin. Not in variances of an actual, ``p (1 - p)``, which would
        let the few rows of the ends decide.

    Example:
        >>> plain = Curves(np.array([0.5]), np.array([[0.5], [0.5]]), 0.5)
        >>> sure, noisy = (Curves(np.array([0.6]), np.array([[0.6 - e], [0.6 + e]]), 0.5)
        ...                for e in (0.01, 0.09))
        >>> gain(np.array([100.0]), sure, plain) > 0 > gain(np.array([100.0]), noisy, plain)
        True
    """
    share = rows / rows.sum()
    change, again = weighted.curve - plain.curve, weighted.replicates - plain.replicates
    in_bins = share @ (change**2 - 2 * weighted.variance(again))
    on_average = (share @ change) ** 2 - 2 * weighted.variance(again @ share)
    return float(max(in_bins, on_average))
