"""Is a window, or are the newest k together, extreme among the windows of a baseline?

One answer for every number. On a scale where it is about normal, a window is the baseline's mean,
plus what it shares with its neighbours and with its place in the season, plus what is its own: of
spread beyond its rows, and with tails that may be heavy. How much there is of each is not known
from thirty windows, so no estimate is taken for true. A law is one choice of all of these; each is
weighed by the likelihood of the baseline's windows (restricted, so the mean costs what it does)
and by a belief before it, and the chance of a window is the mean of what the laws say. A law is a
Gaussian process (Rasmussen and Williams, 2006), the heavy tails Student's (Lange, Little and
Taylor, 1989), the spread integrated (so that a few independent windows give Student's t).

What is assumed. Ranks alone give no chance below 1 / (windows + 1), so that .01 takes 99 windows;
eight windows give it only as their scale is taken for normal and they for independent: Student's t
of seven degrees. The more windows there are, the more is believed that they may follow each other
or have heavy tails, since the more can be seen of it. Thirty windows do not show a correlation of
.9, or one window in twenty that strays four times as far; `python -m benchmarks window_law` says
what that costs.

Volumes (`service.Volume`), shifts that stay (`drift.sustained`, `performance.lasting`), releases,
repeated rows and metrics of one's own are judged by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Floats, Ints, Positions

Scale = Literal["identity", "logit", "angle", "root", "log", "count", "fisher"]
_NEAREST = 1e-9  # to the end of a range
_LARGE = 100.0  # count whose Poisson noise is a tenth


class Kernel(NamedTuple):
    """How windows covary under a law, in squares of a window's spread about its place.

    Attributes:
        correlation: Of neighbours, by what they share.
        own: Share of the variance that is no neighbour's.
        season: Variance of the places in the season.
        trend: Variance of the slope, over the span of the baseline.
        by_rows: Share of a window's own variance that goes with the noise of its rows.
        belief: Before any window is seen.
    """

    correlation: float = 0.0
    own: float = 1.0
    season: float = 0.0
    trend: float = 0.0
    by_rows: float = 0.0
    belief: float = 1.0


# Correlation, own share, belief: of long baselines; the rest is belief in independent windows.
_PERSISTENT = (
    (0.3, 0.01, 0.03), (0.6, 0.01, 0.03), (0.8, 0.01, 0.01), (0.9, 0.01, 0.015),
    (0.96, 0.01, 0.01), (0.8, 0.5, 0.02), (0.95, 0.5, 0.015),
)  # fmt: skip
_SEASONS = ((0.0, 0.5), (1.0, 0.25), (16.0, 0.25))
_TRENDS = ((0.0, 0.7), (4.0, 0.3))
_BY_ROWS = ((0.0, 0.4), (0.5, 0.3), (1.0, 0.3))
_TAILS = ((6.0, 0.2), (3.0, 0.2))  # degrees of freedom, belief
_ROWS_ALONE = 0.5  # belief that windows of noisy rows share nothing
_NODES = np.linspace(-3.0, 6.0, 16)  # errors of a spread's logarithm
_UNEVEN = 1.5  # times the usual noise
_FAR = 3.0  # spreads: a window further off does not move the mean
_UPPER = (0.9, 0.95)
_TIED = 0.7  # of the windows have values of their own, if no grain is looked for
_ROUNDING = 1e-9
_TINY = 1e-300
_LEAST_WEIGHT = 1e-7
_YEAR = 365.25 * 86_400  # seconds
_WEEK, _DAY = 7, 24  # windows of a season, of days and of hours
LONGEST = 400  # windows of a baseline, the newest
_A_YEAR = 0.2  # level of a verdict on the newest windows, times the windows of a year
_MOST = 0.01


class Judged(NamedTuple):
    """What laws say of windows, (S, C) each.

    Attributes:
        above: Chance of as much or more.
        below: Chance of as little or less.
        usual: What is expected.
    """

    above: Floats
    below: Floats
    usual: Floats

    @property
    def p_value(self) -> Floats:
        """Two-sided chance; NaN where the window, or its baseline, says nothing."""
        return np.asarray(np.minimum(2 * np.minimum(self.above, self.below), 1.0), np.float64)


class Lasting(NamedTuple):
    """What the newest windows of S series say together, (S,) each.

    Attributes:
        p_value: Two-sided chance that they moved as far in any length that is judged.
        run: How many of the newest windows say it most; 0 if none moved so far.
        moved: By how much these moved.
    """

    p_value: Floats
    run: Ints
    moved: Floats


class _Member(NamedTuple):
    """One law of the mixture: a kernel and a tail.

    Attributes:
        kernel: Number of the kernel. freedom: Of the tail; infinite is normal.
        mean: Of each series, (S,). pull: Windows' part in a prediction, (S, W).
        spread: At the nodes, (J, S). weight: Of the nodes, (J, S); over all members they add to 1.
    """

    kernel: int
    freedom: float
    mean: Floats
    pull: Floats
    spread: Floats
    weight: Floats


class _Shape(NamedTuple):
    """A kernel over the baseline's windows: its root, and a mean seen through it."""

    kernel: Kernel
    root: Floats
    one: Floats
    precision: float


class _Ahead(NamedTuple):
    """How C windows go with the baseline's, (C, W), and with each other given those, (C, C)."""

    cross: Floats
    joint: Floats


class _Bases(NamedTuple):
    """A covariance of C windows as what is independent.

    Attributes:
        variances: Along its axes, (C,). axes: As columns, (C, C).
        root: Its lower root, (C, C). usual: Its mean variance.
    """

    variances: Floats
    axes: Floats
    root: Floats
    usual: float


class _Moved(NamedTuple):
    """What windows moved by under a law, (J, S) at its nodes.

    Attributes:
        by: How far. error: Its spread.
        weight: Logarithm, with the likelihood of how they differ.
        freedom: Degrees of freedom of the move.
    """

    by: Floats
    error: Floats
    weight: Floats
    freedom: float


def to_scale(
    values: ArrayLike, noise: ArrayLike, rows: ArrayLike, scale: Scale
) -> tuple[Floats, Floats]:
    """Return values and their variances by rows on a scale where they are about normal.

    Args:
        values: Of windows, (...).
        noise: Their variances by rows; 0 where rows say nothing.
        rows: Of each window, for shares of counted rows.
        scale: ``logit`` of rates and areas, which are moved in by half a row; ``angle`` of shares
            of counted rows, few of which are expected (Anscombe, 1948: the noise is 1 / rows
            whatever the share); ``root`` of distances (cube root of sums of squares, Wilson and
            Hilferty, 1931); ``log`` of latencies, half added; ``count`` of volumes, the logarithm
            of large ones and the square root of small ones (Anscombe, 1948, for a spread of a tenth
            beyond Poisson's); ``fisher`` of correlations.

    Example:
        >>> on_scale, noise = to_scale([0.5], [0.01], [25], "logit")
        >>> on_scale.round(6).tolist(), noise.round(6).tolist()
        ([0.0], [0.16])
    """
    value, variance = np.asarray(values, np.float64), np.asarray(noise, np.float64)
    n = np.asarray(rows, np.float64)
    if scale == "identity":
        return value, np.broadcast_to(variance, value.shape)
    if scale == "angle":
        angle = 2 * np.arcsin(np.sqrt((value * n + 0.375) / (n + 0.75)))
        return angle, np.broadcast_to(1 / (n + 0.5), value.shape)
    if scale == "logit":
        share = (value * n + 0.5) / (n + 1)
        return special.logit(share), variance / (share * (1 - share)) ** 2
    if scale == "root":
        positive = np.maximum(value, _TINY)
        return np.cbrt(value), variance / (3 * np.cbrt(positive) ** 2) ** 2
    if scale == "log":
        return np.log(value + 0.5), variance / (value + 0.5) ** 2
    if scale == "count":
        more = value + 0.375
        return 2 * np.arcsinh(np.sqrt(more / _LARGE)), variance / (more * (more + _LARGE))
    share = np.clip(value, _NEAREST - 1, 1 - _NEAREST)
    return np.arctanh(share), variance / (1 - share**2) ** 2


def from_scale(values: Floats, scale: Scale) -> Floats:
    """Return numbers in their own unit."""
    back: dict[Scale, Callable[[Floats], Floats]] = {
        "identity": lambda x: x,
        "logit": lambda x: np.asarray(special.expit(x), np.float64),
        "angle": lambda x: np.sin(np.clip(x, 0, np.pi) / 2) ** 2,
        "root": lambda x: np.maximum(x, 0) ** 3,
        "log": lambda x: np.maximum(np.exp(x) - 0.5, 0),
        "count": lambda x: np.maximum(_LARGE * np.sinh(x / 2) ** 2 - 0.375, 0),
        "fisher": np.tanh,
    }
    return back[scale](values)


@dataclass(frozen=True)
class Law:
    """What may have drawn the windows of S baselines; see `fit`.

    Attributes:
        at: When their windows start, in windows, (W,).
        period: Windows of a season.
        noise: Mean variance of the windows by their rows, (S,).
        grain: Between neighbouring values, (S,); 0 where nearly all differ.
        shapes: The kernels. members: The laws.
    """

    at: Ints
    period: int
    noise: Floats
    grain: Floats
    shapes: tuple[_Shape, ...]
    members: tuple[_Member, ...]

    def take(self, series: Positions) -> Law:
        """Return the law of some series."""
        members = tuple(
            member._replace(
                mean=member.mean[series],
                pull=member.pull[series],
                spread=member.spread[:, series],
                weight=member.weight[:, series],
            )
            for member in self.members
        )
        return replace(self, noise=self.noise[series], grain=self.grain[series], members=members)

    def judge(self, values: ArrayLike, noise: ArrayLike, at: ArrayLike) -> Judged:
        """Judge windows, each by itself.

        Args:
            values: Of C windows of each series, (S, C), or (C,) of one.
            noise: Their variances by rows.
            at: When they start, in windows as of the baseline, (C,).
        """
        value, variance = _paired(values, noise)
        return self._judged(value, variance, np.asarray(at, np.int64))

    def judge_run(self, values: ArrayLike, noise: ArrayLike, at: ArrayLike) -> Judged:
        """Judge k windows as one: what they all moved by; arguments as of `judge`, C is k.

        How they differ from each other says, too, which law they are of: windows that wander look
        otherwise than those that all moved. So each law is weighed by its likelihood of these
        differences as well (restricted: whatever they all moved by), and the move is estimated by
        generalised least squares.

        Returns:
            Of one column; `usual` is their mean less what they moved by.
        """
        return self._judge_run(*_paired(values, noise), self._ahead(at))

    def _ahead(self, at: ArrayLike) -> list[_Ahead]:
        times = np.asarray(at, np.int64)
        return [_ahead(shape, self.at, times, self.period) for shape in self.shapes]

    def _judge_run(self, value: Floats, variance: Floats, ahead: Sequence[_Ahead]) -> Judged:
        beyond = variance.mean(axis=1) - self.noise
        usual_noise = np.maximum(self.noise, _TINY)
        bases = [_bases(joint) for _, joint in ahead]
        found = []
        for member in self.members:
            if not member.weight.any():
                continue
            rest = value - member.mean[:, None] - member.pull @ ahead[member.kernel].cross.T
            by_rows = self.shapes[member.kernel].kernel.by_rows
            extra = by_rows * member.spread**2 * beyond / usual_noise if by_rows else beyond
            extra = np.broadcast_to(extra, member.spread.shape)
            found.append(_moved(member, rest, extra, bases[member.kernel]))
        weights = special.softmax(np.concatenate([one.weight for one in found]), axis=0)
        parts = np.split(weights, np.cumsum([len(one.weight) for one in found])[:-1])
        above, below, moved = (np.zeros(len(value)) for _ in range(3))
        half = self.grain / (2 * value.shape[1])
        for one, weight in zip(found, parts, strict=True):
            above += (weight * _tail((one.by - half) / one.error, one.freedom)).sum(axis=0)
            below += (weight * _tail((-one.by - half) / one.error, one.freedom)).sum(axis=0)
            moved += (weight * one.by).sum(axis=0)
        usual = value.mean(axis=1) - moved
        chances = (np.minimum(tail, 1.0) for tail in (above, below))
        return Judged(*(part[:, None] for part in (*chances, usual)))

    def judge_newest(
        self,
        values: ArrayLike,
        noise: ArrayLike,
        at: ArrayLike,
        runs: Sequence[int],
        least: float = 0.0,
    ) -> Lasting:
        """Judge the newest windows in runs of several lengths: a small change shows in no window.

        Each length has its share of the chance of a false alarm (Bonferroni), so that a look at all
        of them costs no more than one.

        Args:
            values: Of windows after the baseline, newest last, (S, C) or (C,).
            noise: Their variances by rows.
            at: When they start, (C,).
            runs: Lengths, ascending.
            least: How far they must have moved to count.
        """
        value, variance = _paired(values, noise)
        ahead = self._ahead(at)
        found = Lasting(*(np.full(len(value), start) for start in (1.0, 0, 0.0)))
        for run in runs:
            if run > value.shape[1]:
                break
            newest = value[:, -run:]
            of_run = [_Ahead(one.cross[-run:], one.joint[-run:, -run:]) for one in ahead]
            judged = self._judge_run(newest, variance[:, -run:], of_run)
            moved = newest.mean(axis=1) - judged.usual[:, 0]
            p_value = np.minimum(judged.p_value[:, 0] * len(runs), 1.0)
            is_surer = (np.abs(moved) >= least) & (p_value < found.p_value)
            both = zip(found, (p_value, run, moved), strict=True)
            found = Lasting(*(np.where(is_surer, new, old) for old, new in both))
        return found

    def _judged(self, value: Floats, noise: Floats, at: Ints) -> Judged:
        beyond = noise - self.noise[:, None]
        usual_noise = np.maximum(self.noise, _TINY)[:, None]
        above, below, usual = (np.zeros(value.shape) for _ in range(3))
        ahead = self._ahead(at)
        for member in self.members:
            belief = member.weight.sum(axis=0)
            if not belief.any():
                continue
            cross, joint = ahead[member.kernel]
            centre = member.mean[:, None] + member.pull @ cross.T
            usual += belief[:, None] * centre
            by_rows, extra = self.shapes[member.kernel].kernel.by_rows, beyond
            factors = np.broadcast_to(np.diag(joint), value.shape)
            if by_rows:
                factors, extra = factors + by_rows * beyond / usual_noise, 0 * beyond
            away = value - centre
            for spread, weight in zip(member.spread, member.weight, strict=True):
                if not weight.any():
                    continue
                error = np.sqrt(np.maximum(spread[:, None] ** 2 * factors + extra, _TINY))
                half = self.grain[:, None] / 2
                above += weight[:, None] * _tail((away - half) / error, member.freedom)
                below += weight[:, None] * _tail((-away - half) / error, member.freedom)
        return Judged(np.minimum(above, 1.0), np.minimum(below, 1.0), usual)


def fit(
    values: ArrayLike,
    noise: ArrayLike = 0.0,
    at: ArrayLike | None = None,
    *,
    period: int = 1,
    is_moving: bool = False,
) -> Law:
    """Weigh the laws that may have drawn the windows of baselines.

    Args:
        values: Of W windows of S series on their scale, (S, W), or (W,) of one; all finite.
        noise: Their variances by rows; 0 where rows say nothing.
        at: When they start, in windows, (W,), ascending; one after the other if not given.
        period: Windows of a season that may be there, 1 for none.
        is_moving: The baseline ends shortly before what is judged, so that growth goes on.

    Raises:
        ValueError: If there are fewer than 8 windows.

    Example:
        >>> law = fit([0.0, 2.0, 1.0, -1.0, 0.0, -2.0, 1.0, -1.0])
        >>> law.judge([[0.0, 6.0]], 0.0, [8, 9]).p_value.round(3).tolist()
        [[1.0, 0.005]]
    """
    y, v = _paired(values, noise)
    size, windows = y.shape
    if windows < FEWEST_WINDOWS:
        raise ValueError(f"{windows} windows say too little; it takes {FEWEST_WINDOWS}")
    times = np.arange(windows) if at is None else np.asarray(at, np.int64)
    usual_noise, grain = v.mean(axis=1), _grain(y)
    rounding = (_ROUNDING * np.abs(y).max(axis=1)) ** 2
    floor = np.maximum(rounding, np.maximum(grain**2 / 12, _TINY))
    near = _draw_near(y, times, period)
    uneven = np.ones(windows)
    if usual_noise.any():
        uneven = (v[usual_noise > 0] / usual_noise[usual_noise > 0, None]).mean(axis=0)
    is_uneven = uneven.max() > _UNEVEN * max(uneven.min(), _TINY)
    shapes, members = [], []
    for number, kernel in enumerate(_kernels(windows, period, is_moving, bool(is_uneven))):
        shape = _shape(kernel, times, period, uneven)
        shapes.append(shape)
        both = linalg.solve_triangular(shape.root, np.concatenate([y, near]).T, lower=True)
        # What rows explain is a window's own.
        least = np.maximum(floor, usual_noise / kernel.own)
        for freedom, belief in _tails(windows):
            member = _member(number, shape, freedom, both[:, :size], both[:, size:], least)
            logs = member.weight + np.log(kernel.belief * belief)
            members.append(member._replace(weight=logs))
    if usual_noise.any():
        shapes.append(_shape(Kernel(by_rows=1.0), times, period, uneven))
        white = linalg.solve_triangular(shapes[-1].root, y.T, lower=True)
        members.append(_rows_alone(len(shapes) - 1, shapes[-1], white, usual_noise))
    weights = special.softmax(np.concatenate([member.weight for member in members]), axis=0)
    weights[weights < _LEAST_WEIGHT] = 0.0
    weights /= weights.sum(axis=0)
    ends = np.cumsum([len(member.weight) for member in members])[:-1]
    parts = np.split(weights, ends)
    weighed = tuple(m._replace(weight=w) for m, w in zip(members, parts, strict=True))
    return Law(times, period, usual_noise, grain, tuple(shapes), weighed)


def _paired(values: ArrayLike, noise: ArrayLike) -> tuple[Floats, Floats]:
    value = np.atleast_2d(np.asarray(values, np.float64))
    return value, np.broadcast_to(np.asarray(noise, np.float64), value.shape)


def _discount_belief(windows: int) -> float:
    """Return how much of a belief in what few windows cannot show counts, 0 of eight to 1."""
    return 1 - FEWEST_WINDOWS / windows


def _kernels(windows: int, period: int, is_moving: bool, is_uneven: bool) -> list[Kernel]:
    shown = _discount_belief(windows)
    some = [Kernel(r, own, belief=shown * belief) for r, own, belief in _PERSISTENT if shown]
    left = 1 - sum(kernel.belief for kernel in some)
    if is_uneven:
        some += [Kernel(by_rows=share, belief=left * belief) for share, belief in _BY_ROWS]
    else:
        some.append(Kernel(belief=left))
    seasons = _SEASONS if 1 < period <= windows / 2 else ((0.0, 1.0),)
    trends = _TRENDS if is_moving else ((0.0, 1.0),)
    return [
        one._replace(season=season, trend=trend, belief=one.belief * often * believed)
        for one in some
        for season, often in seasons
        for trend, believed in trends
    ]


def _tails(windows: int) -> list[tuple[float, float]]:
    shown = _discount_belief(windows)
    heavy = [(freedom, shown * belief) for freedom, belief in _TAILS if shown]
    return [(np.inf, 1 - sum(belief for _, belief in heavy)), *heavy]


def _shape(kernel: Kernel, at: Ints, period: int, uneven: Floats) -> _Shape:
    covariance = _covariance(kernel, at, at, period, at)
    if kernel.by_rows:
        covariance = covariance + np.diag(kernel.by_rows * (uneven - 1))
    root: Floats = np.linalg.cholesky(covariance).astype(np.float64)
    one = linalg.solve_triangular(root, np.ones(len(at)), lower=True)
    return _Shape(kernel, root, one, float(one @ one))


def _covariance(kernel: Kernel, first: Ints, other: Ints, period: int, baseline: Ints) -> Floats:
    apart = np.abs(np.subtract.outer(first, other))
    shared = (1 - kernel.own) * kernel.correlation ** apart.astype(np.float64)
    found = kernel.own * (apart == 0) + shared + kernel.season * (apart % period == 0)
    if kernel.trend:
        span = max(float(np.ptp(baseline)), 1.0)
        found += kernel.trend * np.multiply.outer(first / span, other / span)
    return np.asarray(found, np.float64)


def _member(
    number: int, shape: _Shape, freedom: float, white: Floats, near: Floats, floor: Floats
) -> _Member:
    """Return a law with the logarithms of its nodes' likelihoods as their weights.

    Args:
        number: Of the kernel.
        shape: The kernel.
        freedom: Of the tail.
        white: The windows, without what the kernel makes them share, (W, S).
        near: The same, drawn near, of which a heavy tail's mean is.
        floor: Least variance, (S,).
    """
    windows = len(white)
    degrees = windows - 1.0
    is_normal = np.isinf(freedom)
    used = white if is_normal else near
    mean = shape.one @ used / shape.precision
    strays = white - np.outer(shape.one, mean)
    squares = strays**2
    logs = -np.log(np.diag(shape.root)).sum() - np.log(shape.precision) / 2
    if is_normal:
        variance = np.maximum(squares.sum(axis=0) / degrees, floor)
        known = degrees
        logs = logs - degrees / 2 * np.log(variance) - squares.sum(axis=0) / (2 * variance)
    else:
        variance = np.maximum(np.median(squares, axis=0), floor)
        for _ in range(12):  # the likelihood's largest, as an average that weighs down what is far
            pull = (freedom + 1) / (freedom + squares / variance)
            variance = np.maximum((pull * squares).sum(axis=0) / degrees, floor)
        known = degrees * freedom / (freedom + 3)  # what the windows know of such a spread
        far = np.log1p(squares / (freedom * variance)).sum(axis=0)
        logs = logs + windows * _log_peak(freedom)
        logs = logs - degrees / 2 * np.log(variance) - (freedom + 1) / 2 * far
    nodes = np.exp(_NODES / np.sqrt(2 * known))[:, None]
    spread = np.maximum(np.sqrt(variance) * nodes, np.sqrt(floor))
    ratio = variance / spread**2
    course = known / 2 * (np.log(ratio) - ratio + 1) - np.log(known) / 2
    rest = used - np.outer(shape.one, mean)
    pull = linalg.solve_triangular(shape.root, rest, lower=True, trans="T").T
    return _Member(number, freedom, mean, pull, spread, logs + course)


def _rows_alone(number: int, shape: _Shape, white: Floats, noise: Floats) -> _Member:
    """Return the law of windows that stray by the noise of their rows and no further."""
    mean = shape.one @ white / shape.precision
    rest = white - np.outer(shape.one, mean)
    variance = np.maximum(noise, _TINY)
    logs = -np.log(np.diag(shape.root)).sum() - np.log(shape.precision) / 2
    logs = logs - (len(white) - 1) / 2 * np.log(variance) - (rest**2).sum(axis=0) / (2 * variance)
    # The others' spreads are believed alike over a factor of e squared.
    even = np.log(_ROWS_ALONE / (1 - _ROWS_ALONE)) + np.log(2 / (_NODES[1] - _NODES[0]) * 2**0.5)
    logs = np.where(noise > 0, logs + even, -np.inf)
    pull = linalg.solve_triangular(shape.root, rest, lower=True, trans="T").T
    return _Member(number, np.inf, mean, pull, np.sqrt(variance)[None], logs[None])


def _ahead(shape: _Shape, baseline: Ints, at: Ints, period: int) -> _Ahead:
    cross = _covariance(shape.kernel, at, baseline, period, baseline)
    white = linalg.solve_triangular(shape.root, cross.T, lower=True)
    left = 1 - shape.one @ white
    joint = _covariance(shape.kernel, at, at, period, baseline) - white.T @ white
    return _Ahead(cross, joint + np.outer(left, left) / shape.precision)


def _bases(joint: Floats) -> _Bases:
    variances, axes = np.linalg.eigh(joint)
    root = np.linalg.cholesky(joint).astype(np.float64)
    return _Bases(variances, axes, root, float(np.diag(joint).mean()))


def _moved(member: _Member, rest: Floats, extra: Floats, bases: _Bases) -> _Moved:
    """Return what windows moved by under a law, at its nodes, and how likely their differences are.

    Args:
        member: The law.
        rest: The windows less what it expects of them, (S, C).
        extra: Variance of each by its rows beyond what is usual, (J, S).
        bases: In which they are independent.
    """
    size, scale = rest.shape[1], member.spread**2
    if np.isinf(member.freedom):
        turned, one, of_basis = rest @ bases.axes, bases.axes.sum(axis=0), 0.0
        variance = scale[..., None] * bases.variances + extra[..., None]
    else:  # in their order, so that a window far off is one far off
        turned = linalg.solve_triangular(bases.root, rest.T, lower=True).T
        one = linalg.solve_triangular(bases.root, np.ones(size), lower=True)
        of_basis = -float(np.log(np.diag(bases.root)).sum())
        variance = (scale + extra / bases.usual)[..., None]
    precise = np.broadcast_to(1 / np.maximum(variance, _TINY), (*scale.shape, size))
    precision = (one**2 * precise).sum(axis=-1)
    by = (one * turned * precise).sum(axis=-1) / precision
    squares = (turned - by[..., None] * one) ** 2 * precise
    logs = (np.log(precise).sum(axis=-1) - np.log(precision)) / 2 + of_basis
    if np.isinf(member.freedom):
        logs = logs - squares.sum(axis=-1) / 2
    else:
        far = np.log1p(squares / member.freedom).sum(axis=-1)
        logs = logs + (size - 1) * _log_peak(member.freedom) - (member.freedom + 1) / 2 * far
    with np.errstate(divide="ignore"):
        believed = np.log(member.weight)
    freedom, wide = _tail_of_mean(member.freedom, size)
    return _Moved(by, np.sqrt(wide / precision), believed + logs, freedom)


def _log_peak(freedom: float) -> float:
    """Return by how much the density of Student's law at 0 differs from the normal, as a log."""
    gammas = special.gammaln((freedom + 1) / 2) - special.gammaln(freedom / 2)
    return float(gammas - np.log(freedom / 2) / 2)


def _tail_of_mean(freedom: float, windows: int) -> tuple[float, float]:
    """Return degrees of freedom of a mean of windows, and the factor of its variance.

    Means of Student's variables are nearer to normal, and of the same variance.
    """
    if np.isinf(freedom) or windows == 1:
        return freedom, 1.0
    nearer = freedom + 2 * (windows - 1)
    return nearer, freedom / (freedom - 2) * (nearer - 2) / nearer


def _tail(z: Floats, freedom: float) -> Floats:
    if np.isinf(freedom):
        return np.asarray(special.ndtr(-z), np.float64)
    return np.asarray(special.stdtr(freedom, -z), np.float64)


def _draw_near(values: Floats, at: Ints, period: int) -> Floats:
    """Return the windows, those far from the median of their place not further than three spreads.

    Robust, so that a bad window of the baseline does not move the mean (Huber, 1964); the spread is
    the larger of the median deviation's and of what nine of ten windows reach, as a season makes
    some windows lie far that are as usual.
    """
    middle = np.repeat(np.median(values, axis=1, keepdims=True), values.shape[1], axis=1)
    for place in range(period if period > 1 else 0):
        mine = at % period == place
        if mine.sum() > 3:
            middle[:, mine] = np.median(values[:, mine], axis=1, keepdims=True)
    away = np.abs(values - middle)
    spread = 1.4826 * np.median(away, axis=1, keepdims=True)
    for quantile in _UPPER:
        level = min(quantile, 1 - 2 / values.shape[1])
        reach = np.quantile(away, level, axis=1, keepdims=True)
        spread = np.maximum(spread, reach / special.ndtri((1 + level) / 2))
    return middle + np.clip(values - middle, -_FAR * spread, _FAR * spread)


def _grain(values: Floats) -> Floats:
    """Return the least distance of two values that differ, where many are the same, (S,)."""
    steps = np.diff(np.sort(values, axis=1), axis=1)
    apart = steps > _ROUNDING * np.abs(values).max(axis=1, keepdims=True)
    is_tied = apart.sum(axis=1) < _TIED * values.shape[1]
    least = np.where(apart, steps, np.inf).min(axis=1)
    return np.where(is_tied & np.isfinite(least), least, 0.0)


class Calendar:
    """When a baseline's windows are, and when those are that are held against them.

    Args:
        starts: Of its windows, in seconds, ascending, (W,).
        windows_a_year: How long a window is.
    """

    def __init__(self, starts: Ints | Floats, windows_a_year: float) -> None:
        self._step = _YEAR / windows_a_year
        self._period = 1 if windows_a_year < 300 else _WEEK if windows_a_year < 400 else _DAY
        self._first = starts[0]
        self._at = np.round((starts - starts[0]) / self._step).astype(np.int64)

    def fit(self, values: Floats, noise: Floats, *, is_moving: bool) -> Law:
        """Fit the law of the baseline's newest windows, at most 400; arguments as of `fit`."""
        newest = slice(-LONGEST, None)
        return fit(
            values[:, newest],
            noise[:, newest],
            self._at[newest],
            period=self._period,
            is_moving=is_moving,
        )

    def place(self, starts: Ints | Floats) -> Ints:
        """Return when windows start, in windows since the baseline's first, after its last.

        A baseline may be of another dataset, and of the same days or later ones: only the place in
        the season counts then.
        """
        at = np.round((starts - self._first) / self._step).astype(np.int64)
        missing = max(int(self._at[-1]) + 1 - int(at[0]), 0)
        found: Ints = at + -(-missing // self._period) * self._period
        return found


def level_of_newest(windows_a_year: float) -> float:
    """Return the level of a window's verdict on all that a family judges by its newest windows.

    A year of unchanged windows has a false episode with a chance of a tenth, by simulation
    (`python -m benchmarks sustained`): the newest windows are much the same from one to the next.
    """
    return min(_A_YEAR / windows_a_year, _MOST)
