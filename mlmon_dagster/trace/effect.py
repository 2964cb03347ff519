"""What a logged cause, such as latency, goes with in an outcome: per unit, by ranges, by lot.

Rows are compared within a window and within the joint values of declared covariates only, so that
neither a busy day nor a slow device passes for an effect of slowness. What is compared like this
is still an association; only an arm of an experiment, drawn by lot, makes it an effect.

A window is the unit of chance: rows of one window share its weather. Everything is made of sums
per window, so that windows are read one by one and a year costs the memory of one.

`describe_effect` and `describe_trial` put what was found into sentences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS, SHARE_IS_WRONG, Floats, Ints
from mlmon_dagster.spec.declaration import Experiment

FEW_WINDOWS = 20  # below this, said to be few
MIX_NEEDED = 0.8  # of the covariates' rows that a range must hold for its standardised mean


@dataclass(frozen=True)
class Scale:
    """How the cause of all windows is cut, chosen once for a period.

    Attributes:
        edges: Inner ends of the ranges, ascending, (B - 1,); equal values make one range.
        centre: About the middle of the causes; products are taken about it.
    """

    edges: Floats
    centre: float


def scale_of(causes: ArrayLike) -> Scale | None:
    """Cut a cause into ranges of equally many rows: ten, fewer where values are tied.

    Args:
        causes: Values of the cause, or a sample of them; NaN is left out.

    Returns:
        None if fewer than two values differ.
    """
    known = np.asarray(causes, np.float64)
    known = known[np.isfinite(known)]
    if not len(known) or known.min() == known.max():
        return None
    edges = np.unique(np.quantile(known, np.arange(0.1, 0.95, 0.1)))
    edges = edges[edges > known.min()]
    return Scale(edges, float(np.median(known)))


@dataclass(frozen=True)
class WindowSums:
    """What one window's rows add up to.

    Attributes:
        within: Products of the cause and the outcome, each less its mean in the row's cell, (2, 2).
        moments: Rows with a cause and an outcome; sums of cause and outcome about (centre, 0); of
            the squared cause; of cause times outcome, (5,).
        counts: Such rows by cell and range, (C, B).
        sums: Their outcomes, (C, B).
        alone: Rows that are the only ones of their cell: they compare with nothing.
        missing: Rows with an outcome but no cause.
        missing_sum: Their outcomes.
    """

    within: Floats
    moments: Floats
    counts: Floats
    sums: Floats
    alone: int
    missing: int
    missing_sum: float


def window_sums(
    cause: ArrayLike, outcome: ArrayLike, cell: ArrayLike, cells: int, scale: Scale
) -> WindowSums:
    """Add up the rows of one window.

    Args:
        cause: Of n rows; NaN where it is not known, as of failed requests.
        outcome: Of n rows; rows without one are left out.
        cell: Which joint value of the covariates each row has, 0 to ``cells - 1``; rows of none,
            -1, are left out.
        cells: How many there are.
        scale: How the cause is cut.
    """
    d, y = np.asarray(cause, np.float64), np.asarray(outcome, np.float64)
    c = np.asarray(cell, np.int64)
    has_outcome = np.isfinite(y) & (c >= 0)
    known = has_outcome & np.isfinite(d)
    lost = has_outcome & ~np.isfinite(d)
    lost_sum = float(y[lost].sum())
    d, y, c = d[known], y[known], c[known]
    moved = d - scale.centre
    x = np.column_stack([moved, y])
    rows = np.bincount(c, minlength=cells)
    totals = np.column_stack([_added(c, column, cells) for column in x.T])
    means = totals / np.maximum(rows, 1)[:, None]
    inside = x - means[c]
    size = len(scale.edges) + 1
    place = c * size + np.searchsorted(scale.edges, d, side="right")
    return WindowSums(
        inside.T @ inside,
        np.array([len(y), moved.sum(), y.sum(), moved @ moved, moved @ y]),
        np.bincount(place, minlength=cells * size).reshape(cells, size).astype(np.float64),
        _added(place, y, cells * size).reshape(cells, size),
        int((rows[c] == 1).sum()) if len(c) else 0,
        int(lost.sum()),
        lost_sum,
    )


def _added(place: Ints, values: Floats, size: int) -> Floats:
    """Return the sum of the values at each place; of none it is 0."""
    return np.bincount(place, values, size).astype(np.float64)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; NaN where too few windows say how sure it is."""

    value: float
    lower: float
    upper: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.lower > 0 or self.upper < 0


@dataclass(frozen=True)
class Effect:
    """What a cause goes with.

    Attributes:
        n: Rows with a cause and an outcome. windows: Windows that hold such rows.
        mean: Mean outcome of them.
        slope: Change of the outcome per unit of the cause, within cells and windows.
        relative: That as a share of the mean outcome; NaN if the mean is 0.
        unadjusted: The slope over all rows, whatever their cell and window.
        ranges: One row per range of the cause: ``low``, ``high`` (infinite at the ends), ``n``,
            ``mean``, and ``adjusted``, ``lower``, ``upper``: the mean that the range would have
            with all rows' covariates, NaN where it has too little of their mix; ``mix``, the share
            that it has.
        alone: Rows that compare with none: alone in their cell of their window.
        missing: Rows with an outcome but no cause. missing_mean: Their mean outcome.
    """

    n: int
    windows: int
    mean: float
    slope: Estimate
    relative: Estimate
    unadjusted: Estimate
    ranges: pd.DataFrame
    alone: int
    missing: int
    missing_mean: float


def effect_of(sums: Sequence[WindowSums], scale: Scale) -> Effect | None:
    """Estimate what a cause goes with.

    The slope is that of a regression with a fixed effect for each cell of each window (Frisch and
    Waugh, 1933: the means are taken off first); its error is Liang and Zeger's (1986) with the
    windows as clusters and the factor G / (G - 1), Student's t with G - 1 degrees. The ranges are
    standardised directly: the mean of the cells' means, weighted by all rows.

    Args:
        sums: Of the windows.
        scale: How their cause was cut.

    Returns:
        None if the cause of no two rows of a cell differs.
    """
    used = [one for one in sums if one.moments[0] > 0]
    if not used:
        return None
    products = np.stack([one.within for one in used])
    whole = products.sum(axis=0)
    if whole[0, 0] <= 0:
        return None
    moments = np.stack([one.moments for one in used])
    n, mean = float(moments[:, 0].sum()), moments[:, 2].sum() / moments[:, 0].sum()
    b = whole[0, 1] / whole[0, 0]
    of_slope = (products[:, 0, 1] - b * products[:, 0, 0]) / whole[0, 0]
    of_mean = (moments[:, 2] - mean * moments[:, 0]) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(mean != 0, b / mean, np.nan)
        of_share = of_slope / mean - b * of_mean / mean**2
    missing = sum(one.missing for one in sums)
    return Effect(
        int(n),
        len(used),
        float(mean),
        _estimate(b, of_slope),
        _estimate(float(share), of_share if mean != 0 else np.full(len(used), np.nan)),
        _plain(moments),
        _ranges(used, scale),
        sum(one.alone for one in used),
        missing,
        sum(one.missing_sum for one in sums) / missing if missing else np.nan,
    )


def _estimate(value: float, influences: Floats) -> Estimate:
    """Return a value with the interval by what each window adds to it."""
    g = len(influences)
    if g < FEWEST_WINDOWS:
        return Estimate(float(value), np.nan, np.nan)
    error = np.sqrt(g / (g - 1) * (influences**2).sum())
    half = float(special.stdtrit(g - 1, 0.975)) * error
    return Estimate(float(value), float(value - half), float(value + half))


def _plain(moments: Floats) -> Estimate:
    """Return the slope over all rows, with the windows as clusters."""
    n, d, y, dd, dy = moments.sum(axis=0)
    spread = dd - d * d / n
    if spread <= 0:
        return Estimate(np.nan, np.nan, np.nan)
    middle, level = d / n, y / n
    b = (dy - d * y / n) / spread
    size, ds, ys, squares, crosses = moments.T
    cross = crosses - middle * ys - level * ds + size * middle * level
    square = squares - 2 * middle * ds + size * middle**2
    return _estimate(float(b), (cross - b * square) / spread)


def _ranges(sums: Sequence[WindowSums], scale: Scale) -> pd.DataFrame:
    counts, values = (
        np.sum([getattr(s, name) for s in sums], axis=0) for name in ("counts", "sums")
    )
    weights = counts.sum(axis=1) / counts.sum()
    present = counts > 0
    mix = weights @ present
    safe = np.where(present, counts, 1.0)
    means = values / safe
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(present, weights[:, None], 0.0) / mix
        plain = values.sum(axis=0) / counts.sum(axis=0)
    adjusted = np.where(mix >= MIX_NEEDED, (share * means).sum(axis=0), np.nan)
    influences = np.stack(
        [(share * (one.sums - means * one.counts) / safe).sum(axis=0) for one in sums]
    )
    ends = [_estimate(value, of) for value, of in zip(adjusted, influences.T, strict=True)]
    return pd.DataFrame(
        {
            "low": [-np.inf, *scale.edges],
            "high": [*scale.edges, np.inf],
            "n": counts.sum(axis=0).astype(np.int64),
            "mean": plain,
            "adjusted": adjusted,
            "lower": [end.lower for end in ends],
            "upper": [end.upper for end in ends],
            "mix": mix,
        }
    )


@dataclass(frozen=True)
class ArmSums:
    """What one window's rows of the two arms of an experiment add up to.

    Attributes:
        asked: Rows of control and treatment, with or without outcome, (2,).
        n: Rows with an outcome. outcome: Their outcomes' sum, (2,).
        n_cause: Rows with a cause. cause: Their causes' sum, (2,).
    """

    asked: Floats
    n: Floats
    outcome: Floats
    n_cause: Floats
    cause: Floats


def arm_sums(cause: ArrayLike, outcome: ArrayLike, arm: ArrayLike) -> ArmSums:
    """Add up one window's rows by arm.

    Args:
        cause: Of n rows, NaN where unknown.
        outcome: Of n rows, NaN where unknown.
        arm: 0 for control, 1 for treatment; rows of neither are left out by -1.
    """
    d, y = np.asarray(cause, np.float64), np.asarray(outcome, np.float64)
    arms = np.asarray(arm, np.int64)
    known, caused = np.isfinite(y) & (arms >= 0), np.isfinite(d) & (arms >= 0)
    return ArmSums(
        np.bincount(arms[arms >= 0], minlength=2).astype(np.float64),
        np.bincount(arms[known], minlength=2).astype(np.float64),
        _added(arms[known], y[known], 2),
        np.bincount(arms[caused], minlength=2).astype(np.float64),
        _added(arms[caused], d[caused], 2),
    )


@dataclass(frozen=True)
class Trial:
    """What an experiment's arm did.

    Attributes:
        n: Rows with an outcome of control and treatment. windows: Windows that hold both.
        got: Share of the rows that treatment got. split: p-value of the one that it was to get.
        difference: Of the mean outcomes, treatment less control.
        relative: That as a share of control's mean.
        cause: Difference of the mean causes.
        per_unit: Difference of outcomes over difference of causes (Wald, 1940), where the latter
            is sure; NaN else.
    """

    n: tuple[int, int]
    windows: int
    got: float
    split: float
    difference: Estimate
    relative: Estimate
    cause: Estimate
    per_unit: Estimate

    @property
    def is_valid(self) -> bool:
        """Whether the lot decided which rows got which arm, as far as their numbers tell."""
        return self.split >= SHARE_IS_WRONG


def trial_of(sums: Sequence[ArmSums], share: float = 0.5) -> Trial | None:
    """Compare the arms of an experiment.

    Args:
        sums: Of the windows; a window is a cluster.
        share: Of the rows that treatment was to get; its chi-square test is `Trial.split`.

    Returns:
        None if an arm has no row with an outcome.
    """
    asked = np.sum([one.asked for one in sums], axis=0) if sums else np.zeros(2)
    n, y = (np.sum([getattr(s, f) for s in sums], axis=0) for f in ("n", "outcome"))
    if not sums or n.min() == 0:
        return None
    expected = asked.sum() * np.array([1 - share, share])
    split = float(special.chdtrc(1, ((asked - expected) ** 2 / expected).sum()))  # Pearson's
    means, of_means = _of_arms(sums, "n", "outcome", n, y)
    difference = means[1] - means[0]
    of_difference = of_means[:, 1] - of_means[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        relative = difference / means[0]
        of_relative = of_means[:, 1] / means[0] - means[1] * of_means[:, 0] / means[0] ** 2
    cause = per_unit = Estimate(np.nan, np.nan, np.nan)
    n_cause, d = (np.sum([getattr(s, f) for s in sums], axis=0) for f in ("n_cause", "cause"))
    if n_cause.min() > 0:
        levels, of_levels = _of_arms(sums, "n_cause", "cause", n_cause, d)
        moved, of_moved = levels[1] - levels[0], of_levels[:, 1] - of_levels[:, 0]
        cause = _estimate(float(moved), of_moved)
        if cause.is_sure:
            ratio = difference / moved
            per_unit = _estimate(float(ratio), (of_difference - ratio * of_moved) / moved)
    both = sum(1 for one in sums if one.n.min() > 0)
    return Trial(
        (int(n[0]), int(n[1])), both, float(asked[1] / asked.sum()), split,
        _estimate(float(difference), of_difference),
        _estimate(float(relative), of_relative), cause, per_unit,
    )  # fmt: skip


def _of_arms(
    sums: Sequence[ArmSums], count: str, total: str, n: Floats, values: Floats
) -> tuple[Floats, Floats]:
    means = values / n
    influences = np.stack([(getattr(s, total) - means * getattr(s, count)) / n for s in sums])
    return means, influences


def describe_effect(
    found: Effect, names: Mapping[str, str], per: float, within: Sequence[str]
) -> list[str]:
    """Say in sentences what was found.

    Args:
        found: What a cause goes with.
        names: ``cause``, ``outcome`` and ``unit`` (of the cause, may be empty), as people say them;
            ``more_is``: ``worse`` if more of the cause cannot make more of the outcome, as of a
            latency.
        per: So many units of the cause are spoken of.
        within: Covariates that rows were compared within.
    """
    cause, outcome = names["cause"], names["outcome"]
    step = _step(names, per)
    compared = " and ".join([*within, "its window"])
    lines = [_headline(found, step, outcome, per, compared)]
    if found.windows < FEWEST_WINDOWS:
        lines.append(
            f"Only {found.windows} windows: how far windows stray is not known below "
            f"{FEWEST_WINDOWS}, so no interval is given and nothing is called real."
        )
    elif found.windows < FEW_WINDOWS:
        lines.append(f"{found.windows} windows are few for an interval; {FEW_WINDOWS} hold it.")
    reversed_ = _reversed(found, names)
    if reversed_:
        lines.append(reversed_)
    plain = found.unadjusted
    if np.isfinite(plain.value) and not found.slope.lower <= plain.value <= found.slope.upper:
        lines.append(
            f"Over all rows it would be {_signed(per * plain.value)} "
            f"({_signed(per * plain.lower)} to {_signed(per * plain.upper)}): the rest is what "
            f"rows of other {compared} bring."
        )
    if found.missing:
        total = found.missing + found.n
        lines.append(
            f"{found.missing / total:.1%} of the rows have an outcome but no {cause}, as failed "
            f"requests do: mean {outcome} {found.missing_mean:.4g} beside {found.mean:.4g}. "
            "They are in no number above."
        )
    if found.alone > 0.2 * found.n:
        lines.append(
            f"{found.alone / found.n:.0%} of the rows are alone in their cell and compare with "
            "none; fewer covariates, or coarser ones, would use them."
        )
    return lines


def _headline(found: Effect, step: str, outcome: str, per: float, compared: str) -> str:
    slope, share = found.slope, found.relative
    value = f"{_signed(per * slope.value)} of {outcome}"
    if np.isfinite(slope.lower):
        value += f" ({_signed(per * slope.lower)} to {_signed(per * slope.upper)})"
    if np.isfinite(share.value):
        value += f", {per * share.value:+.2%}"
        if np.isfinite(share.lower):
            low, high = sorted((per * share.lower, per * share.upper))
            value += f" ({low:+.2%} to {high:+.2%})"
    sure = "" if slope.is_sure else "; 0 is within what chance makes of it"
    return (
        f"{step} goes with {value} a row, among rows of the same {compared}{sure}: "
        "an association, not yet an effect."
    )


def _reversed(found: Effect, names: Mapping[str, str]) -> str:
    """Say that the outcome makes the cause, where more of the cause cannot be good and seems so."""
    if names.get("more_is") != "worse" or not found.slope.lower > 0:
        return ""
    return (
        f"The cause is reversed: more {names['cause']} does not bring more {names['outcome']}. "
        "What makes a request worth more seems to make it slower too (a large basket is both): "
        "name what it is among the covariates, or draw an arm by lot."
    )


def _step(names: Mapping[str, str], per: float) -> str:
    return " ".join(filter(None, (f"{per:g}", names["unit"], "more", names["cause"])))


def _signed(value: float) -> str:
    return f"{value:+.4g}"


def describe_trial(
    found: Trial, names: Mapping[str, str], per: float, arm: Experiment
) -> list[str]:
    """Say in sentences what an experiment's arm did.

    Args:
        found: What was found.
        names: As `describe_effect`.
        per: So many units of the cause are spoken of.
        arm: As it is declared.
    """
    control, treatment = arm.control, arm.treatment
    if not found.is_valid:
        return [
            f"Arm {treatment} answered {found.got:.1%} of the rows and was to answer "
            f"{arm.share:.1%} (p {found.split:.1g}): something else than the lot decided, so the "
            "arms are not compared."
        ]
    difference, share = found.difference, found.relative
    sure = "" if difference.is_sure else "; 0 is within what chance makes of it"
    lines = [
        f"Drawn by lot: arm {treatment} has {_signed(difference.value)} "
        f"({_signed(difference.lower)} to {_signed(difference.upper)}) of {names['outcome']} a row "
        f"against {control}, {share.value:+.2%} ({share.lower:+.2%} to {share.upper:+.2%}), "
        f"{found.n[1]:,} rows against {found.n[0]:,}: an effect{sure}."
    ]
    if np.isfinite(found.per_unit.value):
        unit = found.per_unit
        lines.append(
            f"The arm moved {names['cause']} by {_signed(found.cause.value)}: {_step(names, per)} "
            f"brings {_signed(per * unit.value)} ({_signed(per * unit.lower)} to "
            f"{_signed(per * unit.upper)}), if it did nothing else."
        )
    return lines
