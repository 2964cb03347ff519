"""How far a baseline's own windows lie from each other: persistence, seasons, design effect.

What is computed here depends on no window but the baseline's. Roots of sums of squares are taken as
normal (the cube root of Wilson and Hilferty, 1931), spreads are robust (biweight, see `intervals`),
and the tail is that of Student's prediction of one more value: spread times sqrt(1 + 1 / windows).

All flights of an hour share one weather, all requests of a user one country. A window of n such
rows strays from the baseline like one of n / d independent rows; d is the design effect of survey
statistics, and dividing all counts by it the first-order correction of Rao and Scott (1981).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import (
    FEWEST_WINDOWS,
    MIN_WINDOWS,
    Flags,
    Floats,
    Ints,
    Positions,
    stack_fields,
)
from mlmon_dagster.metrics.binnings import merge_bins, merge_plan
from mlmon_dagster.metrics.drift.distances import chi_square
from mlmon_dagster.metrics.drift.null_distribution import Moments, grid_floor, grid_size
from mlmon_dagster.metrics.intervals import EFFICIENCY, Z90, biweight
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    seconds_of,
    select,
    select_whole,
)


class Beside(NamedTuple):
    """Some windows, and beside each the W windows of its own baseline.

    Attributes:
        rows: Which windows, (P,).
        own: Distances of the baseline's windows to the power that makes them sums of squares, each
            window against the pooled rest, (P, W).
        null: Their moments without change, (P, W).
        persistence: Of these windows in time, (P,).
    """

    rows: Positions
    own: Floats
    null: Moments
    persistence: Persistence


class OwnWindows:
    """Distances of the own windows of numbered baselines by one metric; some may have none.

    Args:
        describe: Returns of the baseline of a number the distances of its W windows, their rows,
            (W,) each, and their persistence.
        moments: Gives those without change of windows of so many rows of baselines of these
            numbers; asked for many baselines together.
    """

    def __init__(
        self,
        describe: Callable[[int], tuple[Floats, Ints, Persistence]],
        moments: Callable[[Ints, Ints], Moments],
    ) -> None:
        self._describe, self._moments = describe, moments
        self._known: dict[int, tuple[Floats, Floats, Persistence]] = {}

    def _look_up(self, baselines: Ints) -> list[tuple[Floats, Floats, Persistence]]:
        """Return distances, their moments (M, W) and persistence of these baselines."""
        new = [i for i in np.unique(baselines).tolist() if i not in self._known]
        if new:
            own, sizes, lasting = zip(*map(self._describe, new), strict=True)
            lengths = [len(windows) for windows in own]
            null = np.array(self._moments(np.repeat(new, lengths), np.concatenate(sizes)))
            parts = np.split(null, np.cumsum(lengths)[:-1], axis=1)
            self._known |= dict(zip(new, zip(own, parts, lasting, strict=True), strict=True))
        return [self._known[i] for i in baselines.tolist()]

    def sizes(self, baselines: Ints) -> Ints:
        """Return the number of windows of each baseline."""
        return np.array([len(own) for own, _, _ in self._look_up(baselines)], dtype=np.int64)

    def beside(self, baselines: Ints) -> Iterator[Beside]:
        """Put baselines' windows beside windows of these baselines; those without any left out.

        Args:
            baselines: Number of each window's baseline, (P,).
        """
        sizes = self.sizes(baselines)
        for size in np.unique(sizes[sizes > 0]):
            rows = np.flatnonzero(sizes == size)
            some, place = np.unique(baselines[rows], return_inverse=True)
            own, null, lasting = zip(*self._look_up(some), strict=True)
            moments = Moments(*np.stack(null, axis=1)[:, place])
            yield Beside(rows, np.stack(own)[place], moments, stack_fields(lasting, place))


def larger_of_windows(
    p: Floats,
    own: OwnWindows,
    baselines: Ints,
    value: Floats,
    moments: Moments,
    needed: Positions,
    *,
    root: float = 1 / 3,
) -> Floats:
    """Return the larger of p and the p-value between windows, where that is needed, (P,).

    Args:
        p: Of P windows.
        own: Distances of their baselines' windows; p stays where there are none.
        baselines: Numbers of their baselines.
        value: Their distances to the power that makes them sums of squares.
        moments: Those without change.
        needed: For which windows.
        root: As of `between_window_p`.
    """
    found = p.copy()
    for rows, distances, null, persistence in own.beside(baselines[needed]):
        mine = needed[rows]
        between = between_window_p(
            value[mine], moments.take(mine), distances, null, persistence=persistence, root=root
        )
        found[mine] = np.maximum(p[mine], between)
    return found


_UPPER = (0.9, 0.95)
_LEAST = 0.25  # of the mean without change
_COMMON = 0.05  # what this share of the baseline's windows reaches is not extreme


def between_window_p(
    value: Floats,
    null: Moments,
    baseline: Floats,
    baseline_null: Moments,
    *,
    persistence: Persistence,
    root: float = 1 / 3,
) -> Floats:
    """P-value of windows against the spread between baseline windows.

    All values are on the scale distance ** POWER (see `null`). A baseline window's excess over its
    own sampling mean is carried to a window of n rows: multiplied by mean(n) / mean(n_w) if that is
    above 1 (fewer rows, larger excess, as with clusters of fixed size), and with the part of its
    spread that is only the sampling noise of n_w rows replaced by that of n rows. The roots
    of these references are about normal; their biweight centre and scale give a Student tail.
    Where the baseline's windows hang together in time, references are further away and know less
    (see `Persistence`).

    Args:
        value: Distances of C windows.
        null: Moments without change at the windows' sizes, (C,).
        baseline: Distances of W baseline windows, each against the pooled rest.
        baseline_null: Moments at the baseline windows' sizes, (W,).
        persistence: Of each window's baseline, (C,).
        root: Power that makes the references about normal: a cube root for sums of squares.

    Returns:
        p-values (C,). 1 for everything if the references have no spread and the value is not above
        them, 0 above. At least the share of references as far away, when that is above 5 %: a
        season or weekday that the baseline has seen is no drift.
    """
    reference = reference_distances(null, baseline, baseline_null, persistence)
    roots = reference**root
    centre, scale = biweight(roots)
    windows = reference.shape[-1]
    for quantile in _UPPER:  # day effects make the upper half wider than the lower
        level = min(quantile, (windows - 2) / (windows - 1))  # never the one window furthest off
        spread = np.quantile(roots, level, axis=-1) - np.median(roots, axis=-1)
        scale = np.maximum(scale, spread / special.ndtri(level))
    with np.errstate(invalid="ignore", divide="ignore"):
        beyond = value**root - centre
        t = beyond / (scale * np.sqrt(1 + 1 / windows))
    tail = special.stdtr(freedom_of(np.minimum(persistence.effective, windows)), -t)
    tail = np.where(scale > 0, tail, np.where(beyond > 0, 0.0, 1.0))
    share = (reference >= value[..., None]).mean(axis=-1)
    p: Floats = np.where(share > _COMMON, np.maximum(tail, share), tail)
    return np.where(np.isnan(value), np.nan, p)


def freedom_of(windows: Floats | float) -> Floats:
    """Return the degrees of freedom with which so many independent windows know a spread."""
    return np.maximum(EFFICIENCY * (np.asarray(windows, dtype=np.float64) - 1), 1.0)


def reference_distances(
    null: Moments, baseline: Floats, baseline_null: Moments, persistence: Persistence
) -> Floats:
    """What the W baseline windows' distances would be at the sizes of C windows, shape (C, W).

    Baseline windows count as further apart than rows alone make them, and as more spread, only by
    what 19 of 20 sets of independent windows would not show: windows of 50 rows say little about
    windows of 5,000, and less than that would hide every change of those. What they are apart is
    widened to what later windows will be.

    None is lower than sampling alone would make it (two spreads below the mean, and not below a
    quarter of it: near 0 their roots would be far from all others).
    """
    mean = null.mean[..., None]
    growth = np.maximum(1.0, mean / np.maximum(baseline_null.mean, 1e-300))
    excess = (baseline - baseline_null.mean) * growth
    centre, scale = biweight(excess)
    noise = ((baseline_null.noise * growth) ** 2).mean(axis=-1)
    # What so few windows show by chance is no spread and no distance of their own.
    freedom = freedom_of(baseline.shape[-1])
    # Each of these against the rest, of which it is no part.
    widening = np.asarray(persistence.widening) * (1 - 1 / baseline.shape[-1]) ** 2
    real = np.maximum(scale**2 - noise * (1 + Z90 * np.sqrt(2 / freedom)), 0.0)
    chance = Z90 * np.sqrt(noise / freedom)
    shown = np.sign(centre) * np.maximum(np.abs(centre) - chance, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shrink = np.where(scale > 0, np.sqrt((real * widening**2 + null.noise**2) / scale**2), 1.0)
    moved: Floats = (
        mean + (shown * widening)[..., None] + (excess - centre[..., None]) * shrink[..., None]
    )
    return np.maximum(moved, np.maximum(mean - 2 * null.noise[..., None], _LEAST * mean))


class Strays:
    """How far a value of a baseline's windows strays, such as a mean, by their season and order.

    Args:
        values: Of W windows, (W,), finite.
        noise: Their variances by sampling alone, (W,).
        starts: Their starts.
    """

    def __init__(self, values: Floats, noise: Floats, starts: pd.Series) -> None:
        self._season = Season.fit(starts)
        places = self._season.of(starts)
        self._course = self._season.course(values[:, None], places)[:, 0]
        strays = values - self._course[places]
        self._centre, self._scale = (float(part) for part in biweight(strays))
        self._strays = np.abs(strays - self._centre)
        for quantile in _UPPER:  # what strays seldom, but far
            level = min(quantile, (len(strays) - 2) / (len(strays) - 1))
            far = float(np.quantile(self._strays, level)) / special.ndtri((1 + level) / 2)
            self._scale = max(self._scale, far)
        self._between = max(self._scale**2 - float(np.median(noise)), 0.0)
        coefficient = correlation(strays[:, None], noise, starts)
        self._persistence = Persistence.of(coefficient, starts, places)

    def p_value(
        self, values: Floats, noise: Floats, starts: pd.Series, growth: Floats | float = 1.0
    ) -> Floats:
        """Return the chance of values as far from the usual of their place in the season, (C,).

        Args:
            values: Of C windows.
            noise: Their variances by sampling alone.
            starts: Their starts.
            growth: How much larger the variances of such windows are, at least 1.

        Returns:
            Two-sided, by Student's law. Where the baseline's values are all the same: 1 for that
            value, else 0. NaN for values that are not finite.
        """
        away = np.abs(values - self._course[self._season.of(starts)] - self._centre)
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            variance = np.fmax(self._between + noise, self._scale**2) * growth
            spread = np.sqrt(variance * self._persistence.widening)
            p = 2 * special.stdtr(freedom_of(self._persistence.effective), -away / spread)
        p = np.where(spread > 0, p, np.where(away == 0, 1.0, 0.0))
        return np.where(np.isfinite(values) & np.isfinite(spread), p, np.nan)


_SPANS = (7 * 86_400, 86_400)  # seconds of the seasons that are known: week, day
_SEASONS = 4  # times that a baseline must hold a season before it knows its course
_LAGS = (1, 2, 3)  # steps: of a baseline of some days in the month few follow each other
_FURTHEST = 3.0  # robust spreads
_LEAST_EXTRA = 0.25  # of the windows' variance is no sampling noise
_LARGEST = 0.9  # correlation: beyond it a short baseline would tell no change from its wandering


@dataclass(frozen=True)
class Season:
    """Where in the week, or in the day, windows lie.

    Attributes:
        step: Seconds between neighbouring windows, 0 if there is only one.
        places: Places in a season; 1 if the baseline is too short to know one.
    """

    step: int = 0
    places: int = 1

    @classmethod
    def fit(cls, starts: pd.Series) -> Season:
        """Find the longest season that the windows that start then hold four times."""
        steps = np.diff(np.unique(seconds_of(starts)))
        if not len(steps):
            return cls()
        step = int(steps.min())
        for span in _SPANS:
            if span // step > 1 and len(starts) >= _SEASONS * (span // step):
                return cls(step, span // step)
        return cls(step)

    def of(self, starts: pd.Series) -> Ints:
        """Return the places in the season of windows that start then, (C,)."""
        if self.places == 1:
            return np.zeros(len(starts), np.int64)
        return np.asarray((seconds_of(starts) // self.step) % self.places, dtype=np.int64)

    def course(self, values: Floats, places: Ints) -> Floats:
        """Return the mean value at each place, (places, K), of windows' values, (W, K).

        A window far off its place's median counts no more than one three robust spreads off. At a
        place that no window has it is the median of all.
        """
        found = np.tile(np.median(values, axis=0), (self.places, 1))
        there, rows = np.unique(places, return_counts=True)
        # All places at once: those with fewer windows than others are filled up at the end.
        order, first = np.argsort(places, kind="stable"), np.cumsum(rows) - rows
        of_place = np.full((len(there), rows.max(initial=0), values.shape[1]), np.inf)
        each = np.arange(len(there))
        rank = np.arange(len(places)) - np.repeat(first, rows)
        of_place[np.repeat(each, rows), rank] = values[order]
        of_place.sort(axis=1)
        found[there] = (of_place[each, (rows - 1) // 2] + of_place[each, rows // 2]) / 2
        away = values - found[places]
        most = _FURTHEST * 1.4826 * np.median(np.abs(away), axis=0)
        away = np.clip(away, -most, most)
        sums = np.add.reduceat(away[order], first, axis=0)
        found[there] += sums / rows[:, None]
        return found


@dataclass(frozen=True)
class Persistence:
    """What the order of a baseline's windows says about later ones.

    Of one baseline, or of one for each of P windows, (P,), as `stack` gives it.

    Attributes:
        coefficient: Correlation of neighbouring windows, 0 to .9; 0 if they are independent.
        widening: How much larger the squares of later windows' strays are than those inside the
            baseline, each from the mean (of its place in the season), at least 1.
        effective: How many independent windows know the spread as well, at most W.
    """

    coefficient: float | Floats = 0.0
    widening: float | Floats = 1.0
    effective: float | Floats = np.inf

    @classmethod
    def of(cls, coefficient: float, starts: pd.Series, places: Ints) -> Persistence:
        """Return what follows from the correlation of neighbouring windows.

        Args:
            coefficient: That correlation.
            starts: When W windows start.
            places: Their places in a season whose course is taken off; all 0 without one.

        Example:
            >>> days = pd.Series(pd.date_range("2024-01-01", periods=45, tz="UTC"))
            >>> found = Persistence.of(0.9, days, np.zeros(45, np.int64))
            >>> round(found.widening, 1), round(found.effective, 1)
            (2.0, 9.4)
        """
        at = _steps(starts)
        if len(at) < 2:
            return cls()
        correlations = coefficient ** np.abs(np.subtract.outer(at, at)).astype(np.float64)
        alike = np.equal.outer(places, places)
        shared = float(((correlations * alike).sum(axis=1) / alike.sum(axis=1)).mean())
        widening = (1 + shared) / (1 - shared) if shared < 1 else np.inf
        # The windows' variance about their own mean is short of the true one by the mean
        # correlation of two of them, and a later window is as far beyond that mean: (1 + shared) /
        # (1 - shared). Each window counts by what it does not share with the one before it.
        # Measured: Student's law with so many degrees of freedom fits the tails of simulated
        # autoregressive windows.
        new = 1 - coefficient ** (2 * np.diff(np.sort(at)).astype(np.float64))
        return cls(coefficient, widening, min(1 + float(new.sum()), float(len(at))))


def correlation(strays: Floats, noise: Floats, starts: pd.Series) -> float:
    """Return the correlation of neighbouring windows, 0 to .9.

    Products of strays a step apart know no sampling noise; the squares are cleared of it, and the
    whole of the bias of a short series (Kendall, 1954).

    Args:
        strays: How W windows stray from the mean (of their place in the season), (W, K).
        noise: Their squares by sampling alone, summed over K, (W,).
        starts: Their starts; where few windows follow each other, those 2 or 3 steps apart count.

    Returns:
        0 with fewer than 8 windows or pairs of them.
    """
    count, at = len(strays), _steps(starts)
    squares = (strays**2).sum(axis=1)
    position = {moment: i for i, moment in enumerate(at.tolist())}
    for lag in _LAGS if count >= FEWEST_WINDOWS else ():
        pairs = [(i, position[t + lag]) for t, i in position.items() if t + lag in position]
        variance = max(float(np.mean(squares - noise)), _LEAST_EXTRA * float(np.mean(squares)))
        if len(pairs) >= FEWEST_WINDOWS and variance > 0:
            first, second = np.array(pairs).T
            found = float((strays[first] * strays[second]).sum(axis=1).mean()) / variance
            unbiased = (count * found + 1) / (count - 3)
            return float(min(max(unbiased, 0.0) ** (1 / lag), _LARGEST))
    return 0.0


def persistence_of_counts(windows: Ints, starts: pd.Series, *, ordered: bool) -> Persistence:
    """Return the persistence of windows' distances from the rest, which know no season.

    Args:
        windows: Rows per drift bin of W windows, (W, B), nulls last.
        starts: Their starts.
        ordered: Whether the bins are intervals of numbers.
    """
    if len(windows) < FEWEST_WINDOWS:
        return Persistence()
    sizes = windows.sum(axis=1)
    plan = merge_plan(windows.sum(axis=0), float(np.median(sizes)), ordered=ordered)
    merged = merge_bins(windows, plan)
    merged = merged[:, merged.sum(axis=0) > 0]
    pooled = merged.sum(axis=0) / merged.sum()
    shares = (merged / sizes[:, None] - pooled) / np.sqrt(pooled)  # as chi-square weighs them
    season = Season.fit(starts)
    places = season.of(starts)
    strays = shares - season.course(shares, places)[places]
    coefficient = correlation(strays, (merged.shape[1] - 1) / sizes, starts)
    return Persistence.of(coefficient, starts, np.zeros(len(windows), np.int64))


def _steps(starts: pd.Series) -> Ints:
    """Return when windows start, in steps since the first."""
    seconds = seconds_of(starts)
    step = Season.fit(starts).step
    return (seconds - seconds.min()) // step if step else np.zeros(len(seconds), np.int64)


YEAR = pd.Timedelta(days=300)  # a baseline of so much has met every season
_KEYS = ("day_of_week", "month", "day", "hour", "quarter")
_FAR = 0.5  # of the rows' spread: how far days lie apart that may have a season


def follows_from_window(stats: ColumnStatistics) -> bool:
    """Say whether a column's value is given by when a window is: the weekday of a day, the month.

    Every window has one value of it, not all have the same, and windows that share a weekday (or
    month, day of the month, hour, quarter) share the value. Such a column cannot drift.

    Args:
        stats: A numeric or categorical column; its cells are the baseline's windows.

    Returns:
        False with fewer than 14 windows that have values, or if no two share such a place.
    """
    mine = select_whole(stats)
    mine = select(mine, mine.counts.sum(axis=1) > 0)
    if stats.binning.kind not in ("numeric", "categorical") or len(mine) < MIN_WINDOWS:
        return False
    codes = mine.counts.argmax(axis=1)
    if (mine.counts.max(axis=1) < mine.counts.sum(axis=1)).any() or len(np.unique(codes)) < 2:
        return False
    starts = pd.DatetimeIndex(mine.cells["window_start"])
    steps = np.diff(np.unique(starts.asi8))
    middle = (
        starts + pd.Timedelta(int(steps.min()) // 2, unit=starts.unit) if len(steps) else starts
    )
    return any(_decides(np.asarray(getattr(middle, key)), codes) for key in _KEYS)


def _decides(places: Ints, codes: Ints) -> bool:
    """Say whether each of several places, which come again, has one code."""
    both = len({*zip(places.tolist(), codes.tolist(), strict=True)})
    return len(np.unique(places)) == both and 1 < both <= len(codes) / 2


def may_miss_a_season(columns: Mapping[str, ColumnStatistics]) -> list[str]:
    """Return the numeric columns that may look otherwise in a season that the baseline misses.

    It spans less than 300 days, and its windows' means lie apart by more than half of the spread
    of all rows: one day's weather, demand or prices are not another one's.

    Args:
        columns: Columns; their cells are the baseline's windows, at least 14 of them.
    """
    return [name for name, stats in columns.items() if _is_seasonal(select_whole(stats))]


def _is_seasonal(stats: ColumnStatistics) -> bool:
    n = stats.counts.sum(axis=1)
    starts = stats.cells["window_start"][n > 0]
    if stats.binning.kind != "numeric" or len(starts) < MIN_WINDOWS:
        return False
    if starts.max() - starts.min() >= YEAR or follows_from_window(stats):
        return False
    with np.errstate(invalid="ignore", over="ignore"):
        means = stats.total[n > 0] / n[n > 0]
        spread = stats.total_sq.sum() / n.sum() - (stats.total.sum() / n.sum()) ** 2
        return bool(np.var(means) > _FAR**2 * spread)


_Z99 = 2.3263478740408408
_BINS_FOR = (1.0, 4.0)  # times the usual rows: few values hide in few bins, many in fine ones
_COARSE = 3.0
_PRECISE = 0.1
_CATEGORIES = 4  # grid steps, so four times the rows: five expected become one and a quarter
_RESOLVED = 20.0  # independent rows that the bins of a small window are made for: four bins
FEWEST_VALUES = 8.0  # independent rows, in a window of under half the baseline's usual rows


@dataclass(frozen=True)
class Independence:
    """How many independent rows windows hold; depends on the baseline alone.

    Of one baseline, or of one for each of P windows, (P,), as `stack` gives it.

    Attributes:
        rows_per_value: Design effect d, at least 1; 1 without windows.
        usual: Median rows of the baseline's windows; infinite without windows.
        is_shared: Whether rows share values: d is above that of 99 of 100 sets of independent rows.
        is_precise: Whether d is known within a tenth or so.
    """

    rows_per_value: float | Floats = 1.0
    usual: float | Floats = np.inf
    is_shared: bool | Flags = False
    is_precise: bool | Flags = False

    @classmethod
    def fit(cls, windows: Ints, *, ordered: bool) -> Independence:
        """Estimate it from how far the baseline's windows lie from each other.

        A window's chi-square statistic against the rest is about d times a chi-square variable, and
        the cube root of that nearly normal (Wilson and Hilferty, 1931), so that a robust centre of
        the roots gives d whatever the number of bins, and a bad day of the baseline does not count.

        Args:
            windows: Rows per drift bin of the baseline's windows, (W, B), nulls last.
            ordered: Whether the bins are intervals of numbers.
        """
        if not len(windows):
            return cls()
        sizes = windows.sum(axis=1)
        usual = float(np.median(sizes))
        found = [_design_effect(windows, size * usual, ordered) for size in _BINS_FOR]
        shared = [d for d, error in found if d > 1 + _Z99 * error]
        if shared:
            return cls(max(shared), usual, is_shared=True)
        return cls(max(found[0][0], 1.0), usual, is_precise=found[0][1] < _PRECISE)

    def take(self, windows: Positions) -> Independence:
        """Return those of some of P windows."""
        return Independence(
            *(np.asarray(getattr(self, field.name))[windows] for field in fields(self))
        )

    def rows(self, n: Floats | Ints) -> Floats:
        """Independent rows of windows of n rows, (...): at most those of a usual window, if shared.

        Twice the rows may be twice the users, or the same 24 hours with twice the flights; nothing
        in the baseline says which.
        """
        size = np.asarray(n, dtype=np.float64)
        most = np.where(self.is_shared, np.minimum(size, self.usual), size)
        return np.asarray(most / self.rows_per_value, dtype=np.float64)

    def growth(self, n: Floats | Ints) -> Floats:
        """How much more windows of n rows stray than the baseline's, where rows share values.

        The fewer the rows, the fewer their values; but not the more values, the more rows.
        """
        with np.errstate(invalid="ignore"):
            fewer = np.asarray(self.usual) / np.maximum(n, 1)
        return np.where(self.is_shared, np.maximum(fewer, 1.0), 1.0)

    def too_few(self, n: Ints) -> Flags:
        """Say where windows of n rows hold too few independent rows to tell a change from chance.

        Windows as large as the baseline's can be compared with those, however alike their rows are;
        smaller ones have to be reasoned about, which fails for fewer than eight values.
        """
        rows = self.rows(n)
        small = (rows < FEWEST_VALUES) & (n < self.usual / 2)
        return np.asarray(small & self.is_shared, dtype=np.bool_)

    def needs_windows(self, n: Floats | Ints) -> Flags:
        """Say where only the baseline's windows tell how far windows of n rows stray.

        Not of windows as small as those, once d is known: more rows can show an effect of the day
        that fewer hide, fewer cannot.
        """
        unknown = self.is_shared | np.logical_not(self.is_precise)
        return np.asarray((n > self.usual) | unknown, dtype=np.bool_)

    def plan_node(self, node: int, ordered: bool) -> int:
        """Grid number of the rows by which bins are merged to test windows of grid number `node`.

        Categories are tested with fewer expected rows in each than intervals, whose neighbours know
        of their change.
        """
        if self.is_shared:
            size = float(grid_size(node))
            rows = max(float(self.rows(np.asarray(size))), min(size, _RESOLVED))
            node = int(grid_floor(rows))
        return node if ordered else node + _CATEGORIES

    @property
    def is_coarse(self) -> Flags:
        """Whether a usual window holds fewer than three values, so that distances are few, too."""
        few = np.asarray(self.usual) / self.rows_per_value < _COARSE
        return np.asarray(few & self.is_shared, dtype=np.bool_)


def _design_effect(windows: Ints, size: float, ordered: bool) -> tuple[float, float]:
    """Return d by the bins for windows of `size` rows, and its standard error if d is 1."""
    merged = merge_bins(windows, merge_plan(windows.sum(axis=0), size, ordered=ordered))
    pooled, sizes = merged.sum(axis=0), windows.sum(axis=1)
    freedom = int((pooled > 0).sum()) - 1
    rest = int(pooled.sum()) - sizes
    if freedom < 1 or not rest.all():
        return 1.0, np.inf
    statistic = chi_square(merged, pooled - merged) / (1 / sizes + 1 / rest)
    centre = float(biweight(np.cbrt(statistic / freedom))[0])
    found = (centre / (1 - 2 / (9 * freedom))) ** 3
    return found, float(np.sqrt(2 / (freedom * len(windows))))
