"""How far a metric strays between windows, whose rows share more than they show.

All flights of a day share its weather, all orders of a week its campaign. The windows, not the
rows, are what is drawn anew; so they are the unit of every comparison of periods. Three questions,
three answers:

- `standard_errors`, of a period of several windows: the jackknife that leaves out one window at a
  time. A window's influence is the change of the metric without it, whatever the metric (an area,
  a ratio, F1, a quantile) and however large the window; the variance is that of the influences. Of
  the cluster-robust variances it is the one that holds with few and unequal clusters (CV3 of
  MacKinnon, Nielsen and Webb, 2023). Two periods are compared by `changes`, with Student's t.
- `usual_windows`, of one window: the mean of a baseline's windows and their spread beyond what
  their rows explain, the random effects of meta-analysis (Paule and Mandel, 1982), from which
  `beyond_usual` takes the prediction interval of one more window (Higgins, Thompson and
  Spiegelhalter, 2009).
- `usual_level`, of several windows in a row: whether a metric's level is another than over the
  windows of a baseline.

The last is for what has no better side and should stay where it was: how far predictions are above
what came true. One window says little of it, as the rows of a day share more than they show;
several windows in a row say much. So the mean of the newest windows is compared with the mean of
the baseline's, under every spread and autocorrelation that the baseline's windows may have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS, Flags, Floats
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    merge_columns,
    select_columns,
    without,
)
from mlmon_dagster.spec.metric_registry import OUTCOME_MEANS

Profiles = Mapping[str, ColumnStatistics]
SERIES = ("metric", "column_name", "slice_key", "slice_value")
USUAL = ("usual", "usual_error", "spread", "row_error", "n_windows")
_SLICE = ("slice_key", "slice_value")
_CELLS = 1_000  # at once, so that no large table of counts is made
_STEPS = 20
_LEAST = 1e-300  # variance, where no window strays
_BELIEFS = {0.0: 0.8, 0.3: 0.05, 0.6: 0.05, 0.8: 0.05, 0.9: 0.05}  # in correlations of windows
_SPREADS = np.append(0.0, np.geomspace(0.1, 5, 31))  # of the windows' standard deviation
_HALVES, _BEYOND = 30, 0.05
_LEAST_VARIANCE = 1e-30  # variance of a window whose values are all equal


class Tested(NamedTuple):
    """Half of the 95 % interval of a change and the two-sided chance of it without one, (C,)."""

    margin: Floats
    p_value: Floats


def standard_errors(windows: Profiles, measure: Callable[[Profiles], pd.DataFrame]) -> pd.DataFrame:
    """Return the jackknife's standard error of every metric of a period, by slice.

    ``sqrt((G - 1) / G * sum of (T without window w - T) ** 2)`` over the G windows that hold rows
    of the slice that the metric is of.

    Args:
        windows: Column -> statistics of the period, a cell per window and slice.
        measure: Gives the MetricFrame of such cells.

    Returns:
        Index `SERIES`; ``error`` and ``n_windows`` (G). The error is NaN of a single window, and
        where the metric is undefined without one of them.
    """
    found = [_influences(part, measure) for part in _by_slices(windows)]
    if not found:
        return _no_series("error", "n_windows")
    sums = pd.concat(found).groupby(list(SERIES))["square"]
    g = sums.size()
    spread = sums.sum().mask(sums.count() < g)  # undefined without one of the windows
    error = ((g - 1) / g * spread).pow(0.5).where(g > 1)
    return pd.DataFrame({"error": error, "n_windows": g})


def _influences(windows: Profiles, measure: Callable[[Profiles], pd.DataFrame]) -> pd.DataFrame:
    """Return the squared change of each metric without each window that holds rows of it."""
    # The order of all scores is no sum to take a window off; areas come from the bins.
    windows = {n: stats for n, stats in windows.items() if stats.binning.kind != "order"}
    whole = merge_columns(windows, _SLICE)
    sharing = {id(one.cells): name for name, one in windows.items()}
    slices = {
        key: _index(whole[name].cells).get_indexer(_index(windows[name].cells))
        for key, name in sharing.items()
    }
    rest = {n: without(whole[n], one, slices[id(one.cells)]) for n, one in windows.items()}
    of_all = measure(whole).set_index(list(SERIES))[["value", "n"]].add_suffix("_of_all")
    left = measure(rest).join(of_all, on=list(SERIES))
    left = left[left["n"] < left["n_of_all"]]
    return left.assign(square=(left["value"] - left["value_of_all"]) ** 2)


def change(
    difference: ArrayLike,
    error: ArrayLike,
    windows: ArrayLike,
    baseline_error: ArrayLike,
    baseline_windows: ArrayLike,
) -> Tested:
    """Test differences of two periods whose windows differ.

    Student's t with one degree of freedom less than the side of fewer windows has: Hsu's bound for
    two normal samples of unequal spread (1938; Scheffe, 1970). Those of Welch and Satterthwaite are
    more, and too many here: days are skew, and eight that happen to hold no bad one stray little,
    so that unchanged periods were called changed in up to .03 at the level .01 (8 beside 30).

    Args:
        difference: Of two values, (C,).
        error: Standard errors between windows, see `standard_errors`.
        windows: Windows that they rest on.
        baseline_error: As ``error``, of the other side.
        baseline_windows: As ``windows``, of the other side.

    Returns:
        NaN where a side has fewer than `FEWEST_WINDOWS` or no error. A p-value of 1 where nothing
        differs.

    Example:
        >>> found = change([0.06], [0.02], [14], [0.015], [30])
        >>> found.margin.round(4).tolist(), found.p_value.round(4).tolist()
        ([0.054], [0.0321])
    """
    first, second = np.asarray(error, np.float64) ** 2, np.asarray(baseline_error, np.float64) ** 2
    g, h = np.asarray(windows, np.float64), np.asarray(baseline_windows, np.float64)
    enough = np.fmin(g, h) >= FEWEST_WINDOWS
    return _tested(
        np.asarray(difference, np.float64),
        np.where(enough, np.sqrt(first + second), np.nan),
        np.maximum(np.fmin(g, h) - 1, 1),
    )


def interval(value: ArrayLike, error: ArrayLike, windows: ArrayLike) -> tuple[Floats, Floats]:
    """Return Student's 95 % interval of a period's value between its windows.

    Args:
        value: Of C periods.
        error: Standard errors between windows, see `standard_errors`.
        windows: Windows that they rest on.

    Returns:
        Both ends, NaN of a period with fewer than `FEWEST_WINDOWS`.
    """
    g = np.asarray(windows, np.float64)
    half = special.stdtrit(np.maximum(g - 1, 1), 0.975) * np.asarray(error, np.float64)
    half = np.where(g >= FEWEST_WINDOWS, half, np.nan)
    middle = np.asarray(value, np.float64)
    return middle - half, middle + half


def usual_windows(windows: pd.DataFrame) -> pd.DataFrame:
    """Return what a metric usually is in one window of a baseline, and how far windows stray.

    The random effects of meta-analysis: a window's value is the mean of all windows, plus what its
    rows share (of variance ``spread ** 2``, by Paule and Mandel), plus the error of its rows. That
    is taken as inversely proportional to its rows, the same for all windows else, since a window's
    own error depends on its value (a share near 1 seems certain). Of a mean outcome it is the
    interval's short side: the long one reaches for rows that were not drawn, and is no distance
    that windows stray; if the short one is too little, the spread is the rest of what they stray.

    The mean of the windows' values is not the value of all rows together, which has pairs of rows
    of different windows in it: a model may tell days apart better than flights of one day.

    Args:
        windows: MetricFrame of the baseline's windows, one model version per window and slice.

    Returns:
        Index `SERIES`, columns `USUAL`: the mean and its standard error, the spread, the usual
        error of a window's rows, and the windows that have a value and an interval. No row of a
        metric with fewer than `FEWEST_WINDOWS`.
    """
    if windows.empty:  # of a model without ground truth
        return _no_series(*USUAL)
    known = windows[np.isfinite(windows["upper"] - windows["lower"]) & (windows["n"] > 0)]
    series = dict[tuple[str, ...], list[int]]()
    for row, key in enumerate(zip(*(known[name].tolist() for name in SERIES), strict=True)):
        series.setdefault(key, []).append(row)
    rows_of = {k: rows for k, rows in sorted(series.items()) if len(rows) >= FEWEST_WINDOWS}
    if not rows_of:
        return _no_series(*USUAL)
    # A row of places a series, filled up with a row that is none.
    most = max(map(len, rows_of.values()))
    places = np.array([rows + [len(known)] * (most - len(rows)) for rows in rows_of.values()])
    value, lower, upper, n = (
        np.append(known[name].to_numpy(np.float64), np.nan)[places]
        for name in ("value", "lower", "upper", "n")
    )
    is_skewed = np.array([[key[0] in OUTCOME_MEANS] for key in rows_of])
    short = np.fmin(upper - value, value - lower)
    error = np.where(is_skewed, short, (upper - lower) / 2) / Z95
    variance = np.nanmean(error**2 * n, axis=1, keepdims=True) / n
    mean, spread, of_mean = _random_effects(value, variance)
    rows, count = np.sqrt(np.nanmean(variance, axis=1)), np.isfinite(value).sum(axis=1)
    columns = np.column_stack([mean, of_mean, spread, rows, count])
    index = pd.MultiIndex.from_tuples(list(rows_of), names=SERIES)
    return pd.DataFrame(columns, index=index, columns=list(USUAL))


def _random_effects(value: Floats, variance: Floats) -> tuple[Floats, Floats, Floats]:
    """Return mean, spread beyond `variance` and the mean's standard error of (C, W) windows."""
    known = np.isfinite(value)
    freedom = known.sum(axis=1) - 1
    between = np.maximum(np.nanvar(value, axis=1, ddof=1) - np.nanmean(variance, axis=1), 0.0)
    value, variance = np.where(known, value, 0.0), np.where(known, variance, 1.0)
    for _ in range(_STEPS):  # Newton's, towards the spread that explains the windows' distances
        weight = np.where(known, 1 / np.maximum(variance + between[:, None], _LEAST), 0.0)
        total = weight.sum(axis=1)
        mean = (weight * value).sum(axis=1) / total
        squares = weight * (value - mean[:, None]) ** 2
        slope = (weight * squares).sum(axis=1)
        excess = squares.sum(axis=1) - freedom
        between = np.maximum(between + excess / np.where(slope > 0, slope, np.inf), 0.0)
    return mean, np.sqrt(between), np.sqrt(1 / total)


def margin_beside(towards: ArrayLike, away: ArrayLike) -> Floats:
    """Return the margin by its rows of a window's mean outcome that is held against windows, (C,).

    The geometric mean of the two sides of its interval, where that is the less: the long side
    reaches for rows that were not drawn, farther than windows stray. The short side alone would
    call small windows, which drew no large row, lower too often.

    Args:
        towards: From the value to the end of its interval that is nearer to what is usual.
        away: To the other end.
    """
    side, other = np.asarray(towards, np.float64), np.asarray(away, np.float64)
    return np.minimum(side, np.sqrt(side * other))


def beyond_usual(value: ArrayLike, error: ArrayLike, usual: Mapping[str, ArrayLike]) -> Tested:
    """Test single windows against what is usual, by the prediction interval of one more window.

    Its variance is that of the windows (``spread``), of their mean, and of the window's own rows.
    Student's t at Satterthwaite's degrees of freedom: what is known of the spread was seen
    through the errors of the baseline's rows, and says the less of a window the larger it is
    beside them.

    Args:
        value: Of C windows.
        error: Standard errors by their rows.
        usual: What `usual_windows` found for each, by the names `USUAL`.

    Returns:
        Margin about ``value - usual`` and p-values.
    """
    centre, of_mean, spread, rows, n = (np.asarray(usual[name], np.float64) for name in USUAL)
    variance = spread**2 + of_mean**2 + np.asarray(error, np.float64) ** 2
    seen = spread**2 + of_mean**2 + rows**2
    with np.errstate(invalid="ignore", divide="ignore"):
        degrees = (variance / seen) ** 2 * (n - 1)
    degrees = np.where(seen > 0, np.maximum(degrees, 1.0), n - 1)
    return _tested(np.asarray(value, np.float64) - centre, np.sqrt(variance), degrees)


def _tested(difference: Floats, error: Floats, degrees: Floats) -> Tested:
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.where(difference == 0, 0.0, np.abs(difference) / error)
    margin = special.stdtrit(degrees, 0.975) * error
    p_value = np.where(np.isnan(error), np.nan, 2 * special.stdtr(degrees, -t))
    return Tested(margin, p_value)


def _no_series(*columns: str) -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([[]] * len(SERIES), names=SERIES)
    return pd.DataFrame(index=index, columns=list(columns), dtype=np.float64)


def _by_slices(profiles: Profiles) -> Iterator[dict[str, ColumnStatistics]]:
    """Yield the statistics of some slices at a time; most often all."""
    held = {name: stats for name, stats in profiles.items() if len(stats)}
    if not held:
        return
    frames = {id(stats.cells): stats.cells for stats in held.values()}
    counts = [cells.groupby(list(_SLICE)).size() for cells in frames.values()]
    batches = (pd.concat(counts).groupby(level=[0, 1]).max().cumsum() - 1) // _CELLS
    if batches.nunique() == 1:
        yield held
        return
    for _, batch in batches.groupby(batches):
        chosen = select_columns(held, partial(_is_of, batch.index))
        yield {name: stats for name, stats in chosen.items() if len(stats)}


def _is_of(slices: pd.Index, cells: pd.DataFrame) -> Flags:
    return _index(cells).isin(slices)


def _index(cells: pd.DataFrame) -> pd.MultiIndex:
    return pd.MultiIndex.from_frame(cells[list(_SLICE)])


class Laws(NamedTuple):
    """Laws that may have drawn a baseline's windows, (L,) each.

    Attributes:
        weight: How likely each is, given the windows; they add up to 1.
        mean: Of the windows.
        error: Standard error of that mean.
        spread: Standard deviation of what windows share, beyond their rows.
        correlation: Of what two windows in a row share.
    """

    weight: Floats
    mean: Floats
    error: Floats
    spread: Floats
    correlation: Floats


class UsualLevel(NamedTuple):
    """How a metric is in the windows of a baseline.

    Attributes:
        mean: Of the windows.
        spread: Standard deviation of what windows share, beyond their rows.
        row: Standard error of a window of one row; of n rows it is that over the root of n.
        windows: How many there are.
        laws: What may have drawn them.
    """

    mean: float
    spread: float
    row: float
    windows: int
    laws: Laws


class LevelShift(NamedTuple):
    """How far the newest windows are above the usual level.

    Attributes:
        value: Mean of the newest windows, by their precision.
        shift: That less the usual mean.
        margin: Half of the 95 % interval of the shift.
        p_value: Two-sided chance of so large a shift without any.
    """

    value: float
    shift: float
    margin: float
    p_value: float


def usual_level(
    value: ArrayLike, lower: ArrayLike, upper: ArrayLike, n: ArrayLike
) -> UsualLevel | None:
    """Describe the windows of a baseline, in the order of time.

    What windows share follows a first-order autoregression. Forty days hardly say how wide and how
    slow it is: of days that wander (correlation .9) one baseline in twelve looks independent. So no
    estimate is taken for true. All spreads and some correlations are weighed by the likelihood of
    the windows under them (restricted, so the mean costs what it does; by Kalman's filter), most
    belief before that being in independent windows; see `level_shift`. A window's error by its rows
    is that of all windows' rows, since an error estimated from few rows depends on the value.

    Args:
        value: Of W windows; those without a value or an interval are left out.
        lower: Lower ends of their 95 % intervals by rows.
        upper: Upper ends.
        n: Their rows.

    Returns:
        None with fewer than eight windows.

    Example:
        >>> found = usual_level([0.0, 0.02] * 5, [-0.02, 0.0] * 5, [0.02, 0.04] * 5, [500] * 10)
        >>> round(found.mean, 3), round(found.spread, 3), found.windows
        (0.01, 0.005, 10)
    """
    values, low, high, rows = (np.asarray(x, np.float64) for x in (value, lower, upper, n))
    known = np.isfinite(values) & np.isfinite(high - low) & (rows > 0)
    values, low, high, rows = (x[known] for x in (values, low, high, rows))
    size = len(values)
    if size < FEWEST_WINDOWS:
        return None
    row_variance = float((((high - low) / (2 * Z95)) ** 2 * rows).mean())
    errors = np.maximum(row_variance / rows, _LEAST_VARIANCE)
    middle = values.mean()
    laws = _laws(values - middle, errors)
    return _of_laws(laws._replace(mean=laws.mean + middle), float(np.sqrt(row_variance)), size)


def as_seen(
    usual: UsualLevel, value: ArrayLike, lower: ArrayLike, upper: ArrayLike, n: ArrayLike
) -> UsualLevel:
    """Weigh the laws by later windows as well, whose mean may be another one.

    Forty days that wander and look independent are found out by the ninety after them.

    Args:
        usual: What `usual_level` said of the baseline.
        value: Of any number of windows after it, in the order of time.
        lower: Lower ends of their 95 % intervals by rows.
        upper: Upper ends.
        n: Their rows.
    """
    values, low, high, rows = (np.asarray(x, np.float64) for x in (value, lower, upper, n))
    known = np.isfinite(values) & np.isfinite(high - low) & (rows > 0)
    if not known.any():
        return usual
    laws = usual.laws
    errors = np.maximum(usual.row**2 / rows[known], _LEAST_VARIANCE)
    fit = _fit(values[known] - usual.mean, errors, laws.spread, laws.correlation)
    weight = special.softmax(np.log(np.maximum(laws.weight, _LEAST)) - fit.misfit / 2)
    return _of_laws(laws._replace(weight=weight), usual.row, usual.windows)


def _of_laws(laws: Laws, row: float, windows: int) -> UsualLevel:
    mean, spread = laws.weight @ laws.mean, np.sqrt(laws.weight @ laws.spread**2)
    return UsualLevel(float(mean), float(spread), row, windows, laws)


class _Fit(NamedTuple):
    """How windows fit laws: twice the restricted log likelihood, negative, and the mean of each."""

    misfit: Floats
    mean: Floats
    error: Floats


def _laws(values: Floats, errors: Floats) -> Laws:
    """Weigh the laws of what windows share.

    Args:
        values: Of W windows.
        errors: Their variances by rows.
    """
    correlation = np.repeat(np.array(list(_BELIEFS)), len(_SPREADS))
    spread = np.tile(_SPREADS * values.std(ddof=1), len(_BELIEFS))
    fit = _fit(values, errors, spread, correlation)
    belief = np.log(np.repeat(np.array(list(_BELIEFS.values())), len(_SPREADS)))
    weight = special.softmax(belief - fit.misfit / 2)
    return Laws(weight, fit.mean, fit.error, spread, correlation)


def _fit(values: Floats, errors: Floats, spread: Floats, correlation: Floats) -> _Fit:
    shared = spread**2
    # Of each law: what windows share given those before, of the values and of a mean of 1.
    unsure, own, one = shared, np.zeros(len(spread)), np.zeros(len(spread))
    squares = products = precision = size = np.zeros(len(spread))
    for value, error in zip(values, errors, strict=True):
        variance = unsure + error
        gain, beyond, beside = unsure / variance, value - own, 1 - one
        squares = squares + beyond**2 / variance
        products = products + beyond * beside / variance
        precision = precision + beside**2 / variance
        size = size + np.log(variance)
        own = correlation * (own + gain * beyond)
        one = correlation * (one + gain * beside)
        unsure = correlation**2 * unsure * (1 - gain) + (1 - correlation**2) * shared
    misfit = squares - products**2 / precision + size + np.log(precision)
    return _Fit(misfit, products / precision, precision**-0.5)


def level_shift(
    value: ArrayLike, n: ArrayLike, usual: UsualLevel, error: ArrayLike = 0.0
) -> LevelShift:
    """Compare the newest windows with what is usual.

    The chance of their mean is that under each law, by its weight: how little a baseline knows of
    its spread and of its correlation is in it. Outcomes that are rare come as Poisson's, which are
    skew: many of them are likelier than their usual variance says. The mean of that and of what the
    windows themselves show of it, if that is more, is close: where 10 are usual, 24 are as likely
    as 3.6 standard errors of a normal law, and 25 are that far by this.

    Args:
        value: Of at least one window.
        n: Their rows, at least one each.
        usual: What `usual_level` said of the baseline.
        error: Standard errors of the windows by their own rows.

    Example:
        >>> windows = np.array([0.0, 0.01] * 20)
        >>> usual = usual_level(windows, windows - 0.02, windows + 0.02, [1000] * 40)
        >>> found = level_shift([0.055, 0.035], [1000, 1000], usual)
        >>> round(found.value, 3), round(found.shift, 3), found.p_value < 0.001
        (0.045, 0.04, True)
    """
    values, rows = np.asarray(value, np.float64), np.asarray(n, np.float64)
    laws, errors = usual.laws, usual.row**2 / rows
    own = float(np.nansum((np.asarray(error, np.float64) * rows) ** 2) / rows.sum())
    seen = max(1.0, (1 + own / max(usual.row**2, _LEAST_VARIANCE)) / 2)
    weights = 1 / np.maximum(usual.spread**2 + errors, _LEAST_VARIANCE)
    weights = weights / weights.sum()
    alike = np.correlate(weights, weights, "full")[len(weights) - 1 :]  # by their distance
    alike[1:] *= 2
    together = laws.correlation[:, None] ** np.arange(len(weights)) @ alike
    beside = np.sqrt(laws.spread**2 * together + seen * (weights**2 @ errors) + laws.error**2)
    mean = float(weights @ values)

    def tails(distance: float) -> tuple[float, float]:
        centre = laws.mean - usual.mean
        above = laws.weight @ special.ndtr((centre - distance) / beside)
        return float(above), float(laws.weight @ special.ndtr((distance - centre) / beside))

    shift = mean - usual.mean
    p_value = min(2 * min(tails(shift)), 1.0)
    return LevelShift(mean, shift, _margin(tails, float(beside.max())), p_value)


def _margin(tails: Callable[[float], tuple[float, float]], widest: float) -> float:
    """Return the distance that is exceeded either way in one of twenty cases, by bisection."""
    low, high = 0.0, 4 * widest
    for _ in range(_HALVES):
        middle = (low + high) / 2
        beyond = tails(middle)[0] + tails(-middle)[1]
        low, high = (middle, high) if beyond > _BEYOND else (low, middle)
    return high
