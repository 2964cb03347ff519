"""Is another version better? On the same predictions, or on others; also when looked at every day.

A shadow answers the same requests as the version in service, so each row is compared with itself:
ROC AUC by DeLong's placements (DeLong, DeLong and Clarke-Pearson, 1988), losses and decisions by
their differences. A canary answers other requests, so first it must have got its share of them
(a sample-ratio check), and then two samples are compared. Either way windows are what is drawn
anew: a row's influence is summed over its window, and the variance is that of the windows' sums.

Whoever looks every day and stops when it looks good finds a better version where there is none. So
the interval is one that holds at all looks at once: the normal mixture of Robbins (1970), in the
asymptotic form of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (2024), and the chance of an
uneven split is one over a mixture's evidence against it (Lindon and Malek, 2022).

A version that replaced another one answered other rows, of other days. So the unit is the window:
the windows before say how far windows stray (`windows.law`), and the first ones of the new version
are judged together. They are looked at a few times only, at fixed lengths that share the chance of
a false alarm (Bonferroni; Pocock, 1977, has the looks at fixed lengths). Between two looks the
verdict stays, so that it is the same whoever computes it when.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pandas.api.types import is_bool_dtype, is_numeric_dtype
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.intervals import Z95, rate, wilson
from mlmon_dagster.metrics.windows.law import Law, Scale, fit, from_scale, to_scale

Verdict = Literal["better", "not worse", "worse", "undecided"]
FEWEST_OF_CLASS = 10
ENOUGH_DISCORDANT = 25
BY_ROWS = ":rows"  # ends the method of what fewer windows say: their rows count as independent
_TIGHTEST_AT = 30  # windows at which the interval for all looks is narrowest
_SHARE_ROWS = 1_000  # how many requests the other shares that were thinkable are worth
_ALPHA = 0.05


@dataclass(frozen=True)
class Comparison:
    """One version against another.

    Attributes:
        difference: The other version's value less the one's, turned so that more is better.
        lower, upper: 95 % interval, for all looks at once if `always`.
        p_value: Chance of so large a difference without any, looked at once. Of few windows that
            of independent rows: DeLong's, McNemar's or Student's.
        n: Rows, or pairs of them. windows: What they are of.
        verdict: See `verdict_of`.
        more: About how many more rows would decide; 0 if it is decided.
    """

    difference: float
    lower: float
    upper: float
    p_value: float
    n: int
    windows: int
    verdict: Verdict
    more: int


def paired_area(
    one: ArrayLike, other: ArrayLike, actual: ArrayLike, windows: ArrayLike, margin: float = 0.01
) -> Comparison | None:
    """Compare the areas under the curve of two versions that scored the same rows.

    Args:
        one: Scores of the version in service, (N,).
        other: Scores of the other one.
        actual: 0 or 1.
        windows: Window of each row.
        margin: What counts as not worse.

    Returns:
        None with fewer than `FEWEST_OF_CLASS` of a class.
    """
    y = np.asarray(actual) == 1
    if min(int(y.sum()), int((~y).sum())) < FEWEST_OF_CLASS:
        return None
    difference, influence = _difference_of_areas(one, other, y)
    alone = _test_alone(difference, _error_by_class(influence, y))
    return _compared(difference, influence, np.asarray(windows), margin, alone)


def _difference_of_areas(
    one: ArrayLike, other: ArrayLike, is_positive: np.ndarray
) -> tuple[float, Floats]:
    """Return the other area less the one, and what each row adds to that, (N,), of sum 0."""
    sides = (np.asarray(scores, np.float64) for scores in (one, other))
    first, second = (_influence_of_area(scores, is_positive) for scores in sides)
    return second[0] - first[0], second[1] - first[1]


def _test_alone(difference: float, error: float) -> tuple[float, float]:
    """Return a standard error and the chance of so large a difference, of independent rows."""
    if not error:
        return error, 1.0 if difference == 0 else 0.0
    return error, 2 * float(special.ndtr(-abs(difference) / error))


def _influence_of_area(scores: Floats, is_positive: np.ndarray) -> tuple[float, Floats]:
    """Return the area, and what each row adds to it, (N,), of sum 0."""
    positives, negatives = scores[is_positive], scores[~is_positive]
    ordered_n, ordered_p = np.sort(negatives), np.sort(positives)

    def share_below(values: Floats, ordered: Floats) -> Floats:
        left = np.searchsorted(ordered, values, side="left")
        right = np.searchsorted(ordered, values, side="right")
        found: Floats = (left + right) / 2 / len(ordered)
        return found

    above = share_below(positives, ordered_n)
    beneath = 1 - share_below(negatives, ordered_p)
    area = float(above.mean())
    found = np.empty(len(scores))
    found[is_positive] = (above - area) / len(positives)
    found[~is_positive] = (beneath - area) / len(negatives)
    return area, found


def _error_by_class(influence: Floats, is_positive: np.ndarray) -> float:
    """Return the error of an area, or a difference of areas, of independent rows."""
    variance = 0.0
    for mine in (influence[is_positive], influence[~is_positive]):
        variance += len(mine) / (len(mine) - 1) * float((mine**2).sum())
    return math.sqrt(variance)


def areas_of_two(
    one: ArrayLike,
    actual: ArrayLike,
    windows: ArrayLike,
    other: ArrayLike,
    other_actual: ArrayLike,
    other_windows: ArrayLike,
    margin: float = 0.01,
) -> Comparison | None:
    """Compare the areas under the curve of two versions that scored different rows.

    Args:
        one: Scores of the version in service.
        actual: 0 or 1, of the rows that it answered.
        windows: Window of each of them.
        other: Scores of the other one.
        other_actual: 0 or 1, of the rows that the other one answered.
        other_windows: Window of each of them.
        margin: What counts as not worse.

    Returns:
        None with fewer than `FEWEST_OF_CLASS` of a class on a side.
    """
    truths = np.asarray(actual) == 1, np.asarray(other_actual) == 1
    if any(min(int(y.sum()), int((~y).sum())) < FEWEST_OF_CLASS for y in truths):
        return None
    scores = np.asarray(one, np.float64), np.asarray(other, np.float64)
    first, second = (_influence_of_area(s, y) for s, y in zip(scores, truths, strict=True))
    difference = second[0] - first[0]
    errors = (
        _error_by_class(found[1], y) for found, y in zip((first, second), truths, strict=True)
    )
    alone = _test_alone(difference, math.hypot(*errors))
    both = np.concatenate([np.asarray(windows), np.asarray(other_windows)])
    return _compared(difference, np.concatenate([-first[1], second[1]]), both, margin, alone)


def paired_means(
    one: ArrayLike, other: ArrayLike, windows: ArrayLike, margin: float = 0.01
) -> Comparison | None:
    """Compare the mean of something that is better high, of the same rows by two versions.

    Args:
        one: Of the version in service, (N,): right decisions, minus losses, money.
        other: Of the other one.
        windows: Window of each row.
        margin: What counts as not worse.

    Returns:
        None without rows.
    """
    gains = np.asarray(other, np.float64) - np.asarray(one, np.float64)
    if not len(gains):
        return None
    mean = float(gains.mean())
    return _compared(mean, (gains - mean) / len(gains), np.asarray(windows), margin)


def paired_decisions(
    one: ArrayLike, other: ArrayLike, windows: ArrayLike, margin: float = 0.01
) -> Comparison | None:
    """Compare how often two versions were right on the same rows.

    Args:
        one: Whether the version in service was right, (N,).
        other: Whether the other one was.
        windows: Window of each row.
        margin: What counts as not worse.

    Returns:
        None without rows.
    """
    found = paired_means(one, other, windows, margin)
    if found is None or found.windows >= FEWEST_WINDOWS:
        return found
    return replace(found, p_value=right_as_often(one, other))


def means_of_two(
    one: ArrayLike,
    windows: ArrayLike,
    other: ArrayLike,
    other_windows: ArrayLike,
    margin: float = 0.01,
) -> Comparison | None:
    """Compare the mean of something that is better high, of different rows.

    Args:
        one: Of the rows that the version in service answered.
        windows: Window of each.
        other: Of the rows that the other one answered.
        other_windows: Window of each.
        margin: What counts as not worse.

    Returns:
        None if a side has no rows. Windows in which both served count once: what they share by the
        day is no difference between the versions.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if not (len(first) and len(second)):
        return None
    difference = float(second.mean() - first.mean())
    influence = np.concatenate(
        [-(first - first.mean()) / len(first), (second - second.mean()) / len(second)]
    )
    both = np.concatenate([np.asarray(windows), np.asarray(other_windows)])
    return _compared(difference, influence, both, margin)


def right_as_often(one: ArrayLike, other: ArrayLike) -> float:
    """Return McNemar's chance of decisions that differ so unevenly, without any difference.

    It is exact where few decisions differ. From `ENOUGH_DISCORDANT` on it is the asymptotic one
    without correction, whose size is that of its level; the exact one's is below, as it has few
    values (Fagerland, Lydersen and Laake, 2013).

    Args:
        one: Whether the version in service was right, (N,).
        other: Whether the other one was, on the same rows.

    Returns:
        1 where none differ.
    """
    first, second = np.asarray(one, bool), np.asarray(other, bool)
    lost, won = int((first & ~second).sum()), int((~first & second).sum())
    if not lost + won:
        return 1.0
    if lost + won < ENOUGH_DISCORDANT:
        return min(2 * float(special.bdtr(min(won, lost), lost + won, 0.5)), 1.0)
    return float(special.chdtrc(1, (won - lost) ** 2 / (won + lost)))


def got_its_share(n_one: int, n_other: int, share: float) -> float:
    """Return the chance of ever seeing so uneven a split, if the other one was to get a share.

    It holds at all looks at once. Below `SHARE_IS_WRONG` something else than the lot decided who
    answered, and the rows of the two versions cannot be compared.

    Args:
        n_one: Requests that the version in service answered, of all that came so far.
        n_other: Requests that the other one answered.
        share: What the other one was to get, 0 to 1.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"a share is between 0 and 1, not {share}")
    thinkable = _SHARE_ROWS * share, _SHARE_ROWS * (1 - share)
    against = (
        special.betaln(n_other + thinkable[0], n_one + thinkable[1])
        - special.betaln(*thinkable)
        - n_other * math.log(share)
        - n_one * math.log1p(-share)
    )
    return math.exp(-max(float(against), 0.0))


def verdict_of(lower: float, upper: float, margin: float) -> Verdict:
    """Say what an interval of a difference decides; more is better.

    ``better`` above 0, ``worse`` below 0 by more than the margin, ``not worse`` above minus the
    margin; else it is ``undecided``.

    Example:
        >>> [verdict_of(*ends, 0.01) for ends in ((0.01, 0.03), (-0.005, 0.02), (-0.05, -0.02))]
        ['better', 'not worse', 'worse']
    """
    if lower > 0:
        return "better"
    if upper < -margin:
        return "worse"
    return "not worse" if lower > -margin else "undecided"


def _compared(
    difference: float,
    influence: Floats,
    windows: np.ndarray,
    margin: float,
    alone: tuple[float, float] | None = None,
) -> Comparison:
    """Test a difference whose rows have influences of sum 0.

    Of too few windows rows count as independent; whoever compares has to know. Then it is the test
    ``alone`` of independent rows that counts, its error and chance, by default Student's of a mean.
    """
    held, places = np.unique(windows, return_inverse=True)
    sums: Floats = np.bincount(places, weights=influence).astype(np.float64)
    n, g = len(influence), len(held)
    if g < FEWEST_WINDOWS:
        sums, g = influence, n
    error = math.sqrt(g / max(g - 1, 1) * float((sums**2).sum()))
    if error > 0:
        p_value = 2 * float(special.stdtr(g - 1, -abs(difference) / error))
    else:
        p_value = 1.0 if difference == 0 else 0.0
    if alone is not None and len(held) < FEWEST_WINDOWS:
        error, p_value = alone
    half = always(error, g)
    lower, upper = difference - half, difference + half
    found = verdict_of(lower, upper, margin)
    more = rows_to_decide(difference, half, margin, n) if found == "undecided" else 0
    return Comparison(difference, lower, upper, p_value, n, len(held), found, more)


def always(error: float, windows: int) -> float:
    """Return half of the 95 % interval that holds at all looks at once.

    Args:
        error: Standard error of the difference now.
        windows: Independent parts that it rests on.

    Returns:
        At its narrowest 1.55 times Student's, at `_TIGHTEST_AT` windows; wider before and after.
    """
    if windows < 2:
        return math.inf
    # rho^2 that is best at so many looks (Waudby-Smith et al., 2024, appendix B.2).
    log = -2 * math.log(_ALPHA)
    rho = (log + math.log(log) + 1) / _TIGHTEST_AT
    grown = windows * rho + 1
    wide = math.sqrt(2 * grown / (windows * rho) * math.log(math.sqrt(grown) / _ALPHA))
    # Few windows know their own spread badly.
    careful = float(special.stdtrit(windows - 1, 0.975)) / float(special.ndtri(0.975))
    return error * wide * careful


def rows_to_decide(difference: float, half: float, margin: float, n: int) -> int:
    """Return about how many more rows an undecided comparison needs.

    Args:
        difference: As found.
        half: Half of its interval.
        margin: What counts as not worse.
        n: Rows that it rests on.
    """
    to_decide = max(abs(difference), abs(difference + margin), margin / 2)
    needed = n * (half / to_decide) ** 2 if to_decide else math.inf
    return max(math.ceil((needed - n) / 100) * 100, 100) if math.isfinite(needed) else 0


@dataclass(frozen=True)
class Mismatch:
    """How often a feature of the same prediction differs between serving and another source.

    Attributes:
        n: Predictions that both have.
        rate: Share of them whose values differ. lower, upper: Its 95 % interval (Wilson).
        n_null: Of those, where one side has none.
        kind: What the differences look like: ``null``, ``offset``, ``unit``, or ``mixed``.
        by: The offset, or the factor; NaN otherwise.
        examples: Ids of the first five.
    """

    n: int
    rate: float
    lower: float
    upper: float
    n_null: int
    kind: Literal["", "null", "offset", "unit", "mixed"]
    by: float
    examples: tuple[str, ...]


_ABSOLUTE, _RELATIVE = 1e-9, 1e-6  # a float32 that went there and back is off by 6e-8


def mismatch(ids: ArrayLike, served: ArrayLike, computed: ArrayLike) -> Mismatch:
    """Compare a feature as it was served with the same predictions' values from elsewhere.

    A join that shifts rows leaves a distribution as it was and every value wrong: only the same
    prediction tells.

    Args:
        ids: Of the predictions that both have, (N,).
        served: Values as the model saw them, numbers or texts; None or NaN for none.
        computed: Values from the other source.
    """
    names = np.asarray(ids, object)
    a, b = (pd.Series(side).infer_objects() for side in (served, computed))
    n = len(names)
    empty_a, empty_b = (np.asarray(side.isna()) for side in (a, b))
    one_null = empty_a ^ empty_b
    known = ~(empty_a | empty_b)
    differ = one_null.copy()
    offsets = factors = np.empty(0)
    if all(is_numeric_dtype(side) and not is_bool_dtype(side) for side in (a, b)):
        x, y = (side[known].to_numpy(float) for side in (a, b))
        wrong = np.abs(x - y) > _ABSOLUTE + _RELATIVE * np.abs(y)
        differ[known] = wrong
        offsets = x[wrong] - y[wrong]
        factors = rate(np.abs(x[wrong]), np.abs(y[wrong]))
    else:
        differ[known] = a[known].to_numpy(object) != b[known].to_numpy(object)
    count = int(differ.sum())
    lower, upper = (float(end) for end in wilson(count, n))
    kind, by = _kind(count, int(one_null.sum()), offsets, factors)
    examples = tuple(str(name) for name in names[differ][:5])
    share = count / n if n else math.nan
    return Mismatch(n, share, lower, upper, int(one_null.sum()), kind, by, examples)


def _kind(
    count: int, n_null: int, offsets: Floats, factors: Floats
) -> tuple[Literal["", "null", "offset", "unit", "mixed"], float]:
    if not count:
        return "", math.nan
    if n_null == count:
        return "null", math.nan
    if len(offsets) >= 3:
        for kind, values in (("offset", offsets), ("unit", factors)):
            middle = float(np.nanmedian(values))
            alike = np.abs(values - middle) <= _ABSOLUTE + 1e-4 * abs(middle)
            if middle and alike.mean() >= 0.95:
                return ("offset", middle) if kind == "offset" else ("unit", middle)
    return "mixed", math.nan


LEVEL = 0.01  # of all looks at a release together
_STEPS = 40  # of a bisection


class Values(NamedTuple):
    """A metric of W windows, oldest first, W numbers each.

    Attributes:
        value: As it is.
        lower: Of its interval by rows. upper: Likewise.
        n: Rows.
        at: When the window starts, in windows since any moment.
    """

    value: tuple[float, ...]
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    n: tuple[int, ...]
    at: tuple[int, ...]

    def take(self, most: int) -> Values:
        """Return the oldest windows."""
        return Values(
            self.value[:most], self.lower[:most], self.upper[:most], self.n[:most], self.at[:most]
        )


class ReleaseChange(NamedTuple):
    """What the first windows of a new version are beside those before it.

    Attributes:
        now: The metric in them.
        before: What the windows before let one expect in them.
        p_value: One-sided chance of so much worse a run if the versions were equal.
        visible: How much worse would have been real, in the metric's unit.
        run: The windows of the new version that were looked at.
    """

    now: float
    before: float
    p_value: float
    visible: float
    run: int


@lru_cache(maxsize=64)  # between two looks it is asked for again window by window
def compare_release(
    before: Values,
    after: Values,
    looks: tuple[int, ...],
    scale: Scale,
    *,
    is_loss: bool = False,
    period: int = 1,
) -> ReleaseChange | None:
    """Judge the first windows of a version by the windows of the one that it replaced.

    Args:
        before: Windows of the version before.
        after: Windows of the new one, from its first on.
        looks: After how many windows it is looked at, ascending.
        scale: Of the metric, see `windows.law.to_scale`.
        is_loss: Whether more is worse.
        period: Windows of a season.

    Returns:
        By the longest look that there are windows for; it is real at a chance of at most `LEVEL`
        over the number of looks. None before the first look, and where fewer than eight windows
        are known of the version before.
    """
    run = max((look for look in looks if look <= len(after.value)), default=0)
    if not run or len(before.value) < FEWEST_WINDOWS:
        return None
    first = after.take(run)
    old, old_noise = _scaled(before, scale)
    new, new_noise = _scaled(first, scale)
    law, at = fit(old, old_noise, before.at, period=period), np.array(first.at)
    judged = law.judge_run(new, new_noise, at)
    usual = float(judged.usual[0, 0])
    tail = judged.above if is_loss else judged.below
    mean = float(new.mean())
    now, expected = (float(from_scale(np.array(end), scale)) for end in (mean, usual))
    side = 1.0 if is_loss else -1.0
    still = new - (mean - usual)  # as if nothing had changed
    level = LEVEL / len(looks)
    far = _find_visible(law, still, new_noise, at, side, level)
    edge = float(from_scale(np.array(usual + side * far), scale))
    return ReleaseChange(now, expected, float(tail[0, 0]), abs(edge - expected), run)


def _scaled(windows: Values, scale: Scale) -> tuple[Floats, Floats]:
    variance = ((np.array(windows.upper) - np.array(windows.lower)) / (2 * Z95)) ** 2
    return to_scale(windows.value, np.nan_to_num(variance), windows.n, scale)


def _find_visible(
    law: Law, still: Floats, noise: Floats, at: Ints, side: float, level: float
) -> float:
    """Return by how much windows that did not move would have to, to be real."""

    def is_real(by: float) -> bool:
        judged = law.judge_run(still + side * by, noise, at)
        return float((judged.above if side > 0 else judged.below)[0, 0]) <= level

    spread = float(np.sqrt(noise.mean() + still.var()))
    near, reach = 0.0, max(spread, 1e-9)
    while not is_real(reach) and reach < 1e6 * max(spread, 1e-9):
        near, reach = reach, 2 * reach
    for _ in range(_STEPS):
        half = (near + reach) / 2
        near, reach = (near, half) if is_real(half) else (half, reach)
        if reach - near <= 0.01 * reach:
            break
    return reach
