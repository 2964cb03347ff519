"""Weights that make the baseline's rows look like a window's: covariate shift from bins alone.

The ratio of the two densities is taken as a product of one factor per group of every column that
has really changed, found by raking (iterative proportional fitting; Deming and Stephan, 1940). So
the window's side needs its stored bins and no rows. Whether the weights help is asked of the
baseline's own windows, held out and weighted alike (importance-weighted cross-validation; Sugiyama,
Krauledat and Mueller, 2007): where the score already carries the shift they only add noise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.estimated.calibration import MIN_BLOCKS, Curves, isotonic_curve
from mlmon_dagster.metrics.statistics import Binning

SWEEPS = 6
MIN_GROUP = 20  # rows of the baseline, below which a group has no weight of its own
MOST_UNCOVERED = 0.05  # share of the window where the baseline has next to no rows
MIN_SHARE = 0.1  # effective rows of the baseline, as a share
MIN_EFFECTIVE = 500
_SIGNIFICANT = 0.001
_LARGEST = 50.0  # no row counts for more than so many
# Within a group the window's rows are taken to lie as the baseline's do, which in the outer groups
# they do not: with half as many, a band of a large window missed the truth in one of eight.
_GROUPS = 20
_OWN_SHARE = 0.01  # of the baseline, from which a category is a group of its own
# Standard errors by which held-out rows must prefer the weights. At 1, weights that only add noise
# are taken in one of ten windows or fewer, and those that help in nine of ten.
_PREFERRED = 1.0


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
    is_thin: NDArray[np.bool_]

    def margin(self, counts: Floats, n_null: float) -> Margin:
        """Return a window's rows per group, from its rows per code."""
        everything = np.append(counts, n_null)
        found = np.bincount(self.of_code, everything, minlength=self.size)
        total = max(found.sum(), 1.0)
        covered = np.where(self.is_thin, 0.0, found)
        return Margin(self.groups, covered, float(1 - covered.sum() / total))


def grouping(binning: Binning, codes: Ints) -> Grouping:
    """Put a column's codes into groups that hold enough rows of the baseline.

    Scores go by twenty shares of the rows, numbers by their neighbouring coarse bins, categories
    alone from 1 % on. All codes of one score bin are in one group, whatever the actual: a score
    that many rows share (rounded, a tree's leaf) is one place, and what is known of its actuals
    must not look like a shift.

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
        coarse = np.arange(size) // binning.fine
        bins = int(coarse.max()) + 1
        step = -(-bins // _GROUPS) if not binning.values else 1
        of_code = coarse // step
    else:
        own = n >= max(MIN_GROUP, _OWN_SHARE * len(codes))
        of_code = np.where(own, np.cumsum(own) - 1, own.sum())
        of_code[-1] = own.sum() + 1  # what the baseline has not seen
    null = int(of_code.max()) + 1
    of_code = np.append(of_code, null).astype(np.int64)
    groups = of_code[np.where(codes < 0, size, codes)]
    held = np.bincount(groups, minlength=null + 1)
    return Grouping(of_code, groups, null + 1, held < MIN_GROUP)


def rake(margins: Sequence[Margin], size: int) -> Weights:
    """Weigh the baseline's rows so that its columns have the window's shares.

    Columns whose change is chance are left alone, and of the others as much of the change is
    taken as is more than chance (James and Stein's factor), so that a small window does not add
    noise.

    Args:
        margins: The columns.
        size: Rows of the baseline.
    """
    flat = np.ones(size)
    moved = []
    for margin in margins:
        base = np.bincount(margin.groups, minlength=len(margin.counts)).astype(np.float64)
        share = _moved(base, margin.counts)
        if share > 0:
            moved.append((margin, _target(base, margin.counts, share)))
    if not moved:
        return Weights(flat, float(size), "no_shift")
    if max(margin.uncovered for margin, _ in moved) > MOST_UNCOVERED:
        return Weights(flat, float(size), "outside_baseline")
    least = max(MIN_EFFECTIVE, MIN_SHARE * size)
    weights = flat
    for _ in range(SWEEPS):
        for margin, target in moved:
            held = np.bincount(margin.groups, weights, minlength=len(target))
            factor = np.divide(target * size, held, out=np.ones_like(held), where=held > 0)
            weights = weights * factor[margin.groups]
        weights = np.minimum(weights / weights.mean(), _LARGEST)
        effective = float(weights.sum() ** 2 / (weights**2).sum())
        if effective < least / 2:
            break  # it only falls from here on
    if effective < least:
        return Weights(flat, effective, "few_effective_rows")
    return Weights(weights, effective, "")


def _moved(base: Floats, window: Floats) -> float:
    """Return how much of a column's change is more than chance, 0 if it may be nothing but that."""
    used = (base >= 1) & (base + window > 0)
    b, w = base[used], window[used]
    degrees = len(b) - 1
    if degrees < 1 or w.sum() < 1:
        return 0.0
    total_b, total_w = b.sum(), w.sum()
    # Chi-square of two samples.
    ratio = np.sqrt(total_w / total_b)
    chi2 = float(((w / ratio - b * ratio) ** 2 / (b + w)).sum())
    if special.chdtrc(degrees, chi2) > _SIGNIFICANT:
        return 0.0
    return max(0.0, 1 - degrees / chi2)


def _target(base: Floats, window: Floats, share: float) -> Floats:
    before = base / base.sum()
    after = np.where(base > 0, window, 0)
    after = after / after.sum() if after.sum() > 0 else before
    return np.asarray(before + share * (after - before))


class Target(NamedTuple):
    """What a score says of a row, and whether it was so; of a multiclass model one a class.

    Attributes:
        bins: Score bin of every row, (n,).
        is_positive: Its actual, (n,).
        size: Number of score bins.
    """

    bins: Ints
    is_positive: NDArray[np.bool_]
    size: int


@dataclass(frozen=True)
class LabelledRows:
    """A baseline's labelled rows: what curves for a window are learnt from.

    Attributes:
        targets: Score column -> what it says and what was true.
        windows: Rank of the rows' windows by time, from 0, (n,).
        groupings: Column -> its groups; the score columns are among them.
    """

    targets: Mapping[str, Target]
    windows: Ints
    groupings: Mapping[str, Grouping]

    @cached_property
    def n_windows(self) -> int:
        """Count the windows."""
        return int(self.windows.max()) + 1 if len(self.windows) else 0

    @cached_property
    def plain(self) -> dict[str, Curves]:
        """P(positive) per bin of every score, of the rows as they are."""
        counts = self.by_block(np.ones(len(self.windows)))
        return {name: block_curves(found) for name, found in counts.items()}

    def curves_like(self, margins: Sequence[Margin]) -> dict[str, Curves] | None:
        """Return P(positive) per bin of every score, of rows weighted to look like a window.

        Args:
            margins: The window's rows by the groups of its columns.

        Returns:
            None where the plain curves are as good or better: nothing has really changed, the
            window lies outside the baseline's range, too few effective rows are left, or
            held-out windows of the baseline do not say that weighing helps. With fewer than ten
            windows nothing is held out, so always None.
        """
        if self.n_windows < MIN_BLOCKS:
            return None
        weights = rake(margins, len(self.windows))
        if weights.reason:
            return None
        counts = self.by_block(weights.values)
        curves = {name: block_curves(found) for name, found in counts.items()}
        gains = np.sum([_gains(counts[n], curves[n], self.plain[n]) for n in counts], axis=0)
        error = gains.std(ddof=1) / np.sqrt(len(gains))
        return curves if gains.mean() > _PREFERRED * error else None

    def by_block(self, weights: Floats) -> dict[str, Floats]:
        """Weighted rows by block of neighbouring windows, actual and score bin, (10, 2, S)."""
        blocks = self.windows * MIN_BLOCKS // self.n_windows
        found = {}
        for name, target in self.targets.items():
            flat = (blocks * 2 + target.is_positive) * target.size + target.bins
            counts = np.bincount(flat, weights, minlength=MIN_BLOCKS * 2 * target.size)
            found[name] = counts.reshape(MIN_BLOCKS, 2, target.size).astype(np.float64)
        return found


def block_curves(counts: Floats) -> Curves:
    """Return P(positive) per bin, with a jackknife over ten blocks of windows.

    Args:
        counts: Rows by block, actual (0, 1) and score bin, (10, 2, S).
    """
    total = counts.sum(axis=0)
    replicates = np.array([isotonic_curve(pos, neg) for neg, pos in total - counts])
    return Curves(isotonic_curve(total[1], total[0]), replicates, (MIN_BLOCKS - 1) / MIN_BLOCKS)


def _gains(weighted: Floats, curves: Curves, plain: Curves) -> Floats:
    """Return by how much weighing tells more of each held-out block than the plain curve, (10,).

    Each block of the baseline's windows, weighted to look like the window, is predicted by the
    curve of the other blocks, once weighted and once plain: the difference of the log likelihood
    of its actuals, a row.
    """
    own, other = curves.replicates, plain.replicates
    negatives, positives = weighted[:, 0], weighted[:, 1]
    told = positives * np.log(own / other) + negatives * np.log((1 - own) / (1 - other))
    rows = np.maximum(weighted.sum(axis=(1, 2)), 1e-9)
    return np.asarray(told.sum(axis=1) / rows)
