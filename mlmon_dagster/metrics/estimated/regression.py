"""From predicted losses of rows to estimated MAE and RMSE of windows, with intervals.

A second model predicts the loss of a row: direct loss estimation (NannyML, 2022), after the loss
prediction of Yoo and Kweon (2019). A band comes from the variance of the rows, and is no wider than
the baseline's own windows, held out, show by how much realized losses differ from predicted ones:
of heavy tails the variance of a square says next to nothing (split conformal prediction; Vovk,
Gammerman and Shafer, 2005).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import MIN_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.estimated.calibration import (
    HELD,
    LEAST_STRETCH,
    MIN_ROWS,
    later_squares,
    stretch,
)
from mlmon_dagster.metrics.frames import stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.tasks import estimated, residual

VERSION = "dle-7"
_TENTHS = 10
_MOST_DEARER = 1e12  # a row of a window, in rows of the baseline
_BEYOND = (
    1.1  # times the ratios of so many windows: where days share effects, later ones lie farther
)
_TINY = 1e-300
_LARGEST_EXPONENT = 50.0
_LARGEST_SQUARE = 1e150  # whose square is a number, too


@dataclass(frozen=True)
class Losses:
    """Losses of rows, realized and predicted.

    Attributes:
        keys: ``window_start`` and ``dataset`` of every row.
        realized: Loss, NaN without an actual; (n,), or (2, n) of absolute and squared errors.
        predicted: By either half's model, (2, n) or (2, 2, n): power first.
    """

    keys: pd.DataFrame
    realized: Floats
    predicted: Floats

    @classmethod
    def paired(cls, absolute: Losses, squared: Losses) -> Losses:
        """Put the two losses of the same rows together."""
        return cls(
            absolute.keys,
            np.stack([absolute.realized, squared.realized]),
            np.stack([absolute.predicted, squared.predicted]),
        )


class LossCalibration(NamedTuple):
    """What held-out rows of the baseline say about predicted losses.

    Attributes:
        variance: Of realized - predicted loss of a row, per power, per unit of its `_spread`.
        dispersion: Factor of it that the baseline's windows ask for, see `stretch`.
        size: Rows of a window of the baseline that were read, on average.
        between: By how much `dispersion` grows a row beyond `size`: what the rows of a window share
            does not shrink with their number.
        error: Standard error of the predicted losses' mean over the baseline.
        spread: The mean `_spread` of a row, per power.
        reach: A tenth more than the logarithm of the ratio of realized to predicted losses that
            97 % of the baseline's windows stay within, per power; infinite for fewer than 14.
        relative: The mean `_spread` of a row in units of its squared mean loss, per power.
        tenths: Predicted losses between the tenths of the rows, per power (2, 9).
        n: Rows.
        reason: Why nothing can be estimated, if so.
        losses: The baseline's own.
    """

    variance: Floats
    dispersion: Floats
    size: float
    between: Floats
    error: Floats
    spread: Floats
    reach: Floats
    relative: Floats
    tenths: Floats
    n: int
    reason: str
    losses: Losses

    def own(self) -> tuple[Losses, LossCalibration]:
        """Return what estimates the baseline itself, as one window."""
        keys = self.losses.keys.assign(window_start=self.losses.keys["window_start"].min())
        apart = self._replace(between=np.zeros(2))  # its rows share no window
        return Losses(keys, self.losses.realized, self.losses.predicted), apart

    def limit_ratio(self, n: Ints, around: Floats, guess: Floats, power: int) -> Floats:
        """Return the logarithm of the ratio that windows of n rows stay within.

        Fewer rows than the baseline's windows have, and rows whose losses stray more beside their
        mean, widen it.

        Args:
            n: Rows of each window.
            around: Mean `_spread` of its rows.
            guess: Their mean predicted loss.
            power: 0 of absolute errors, 1 of squares.
        """
        usual = max(self.relative[power], _TINY)
        with np.errstate(over="ignore"):
            relative = around / np.maximum(guess**2, _TINY) / usual
        fewer = np.maximum(self.size / np.maximum(n, 1), 1)
        return np.asarray(self.reach[power] * np.sqrt(fewer * relative.clip(1, _MOST_DEARER)))

    def dispersion_of(self, n: Ints, power: int) -> Floats:
        """Return the factor of the variance for windows of n rows."""
        beyond = np.maximum(n - self.size, 0)
        return np.asarray(self.dispersion[power] + self.between[power] * beyond)


def loss_calibration(losses: Losses, reason: str = "") -> LossCalibration:
    """Learn from the baseline's held-out rows how far predicted losses are off."""
    n = losses.realized.shape[1]
    if reason:
        none = np.full(2, np.nan)
        apart = np.full((2, _TENTHS - 1), np.nan)
        few = (none, none, 0.0, none, none, none, none, none, apart)
        return LossCalibration(*few, n, reason, losses)
    away = losses.realized - losses.predicted[:, 0]
    overall = away.var(axis=1, ddof=1)
    spread = _spread(losses.predicted)
    mean = spread.mean(axis=1)
    variance = overall / np.maximum(mean, _TINY)
    cells, place = _cells(losses.keys)
    rows = np.bincount(place, minlength=len(cells))
    used = rows >= MIN_ROWS
    size = float(rows[used].mean()) if used.any() else 0.0
    dispersion, between, reach = np.ones(2), np.zeros(2), np.full(2, np.inf)
    for power in range(2):
        strayed = np.bincount(place, away[power], minlength=len(cells))
        expected = variance[power] * np.bincount(place, spread[power], minlength=len(cells))
        strays = strayed[used] / np.sqrt(np.maximum(expected[used], _TINY))
        starts = cells["window_start"][used]
        dispersion[power] = stretch(strays, starts)
        if len(strays) >= MIN_WINDOWS:
            later = later_squares(strays, starts)
            between[power] = LEAST_STRETCH * max(later.mean - 1, 0) / size
            sums = [
                np.bincount(place, one, minlength=len(cells))[used].astype(np.float64)
                for one in (losses.realized[power], losses.predicted[power, 0])
            ]
            reach[power] = _find_reach(*sums)
    error = np.sqrt(overall * dispersion / n)
    shares = np.arange(1, _TENTHS) / _TENTHS
    tenths = np.quantile(losses.predicted.mean(axis=1), shares, axis=1).T
    relative = mean / np.maximum(losses.predicted[:, 0].mean(axis=1) ** 2, _TINY)
    found = (variance, dispersion, size, between, error, mean, reach, relative, tenths)
    return LossCalibration(*found, n, "", losses)


def _find_reach(realized: Floats, predicted: Floats) -> float:
    """Return what the logarithms of so many windows' ratios stay within, and one more's would."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.abs(np.log(realized / predicted))
    ratios = np.sort(np.nan_to_num(ratios, nan=np.inf, posinf=np.inf))
    place = min(int(np.ceil(HELD * (len(ratios) + 1))), len(ratios))
    return float(_BEYOND * ratios[place - 1])


def _spread(predicted: Floats) -> Floats:
    """Return what the variance of a row's loss goes with, (2, 2, n) -> (2, n).

    Errors of one shape but of different size: the variance of the absolute error goes with the
    expected square, that of the square with the square of this. So a window with more of the rows
    that are hard to predict has a wider band.
    """
    square = np.clip(predicted[1].mean(axis=0), 0, _LARGEST_SQUARE)
    return np.stack([square, square**2])


def _disagreement(predicted: Floats, tenths: Floats, place: Ints, size: Ints) -> Floats:
    """Return the square of what the halves' models are from their mean, per window.

    That of a whole window is one draw of how far the curve of losses is off, and may be none by
    chance. By tenths of the loss there are ten draws; what they add up to counts if it is more.

    Args:
        predicted: By either half's model, (2, n).
        tenths: Between the tenths of the baseline's losses, (9,).
        place: The window of every row, of W.
        size: Rows of each window.
    """
    away = (predicted[0] - predicted[1]) / 2
    tenth = np.searchsorted(tenths, predicted.mean(axis=0))
    cells = np.bincount(place * _TENTHS + tenth, away, minlength=len(size) * _TENTHS)
    means = cells.reshape(len(size), _TENTHS) / size[:, None]
    return np.asarray(np.maximum(means.sum(axis=1) ** 2, (means**2).sum(axis=1)))


def _cells(keys: pd.DataFrame) -> tuple[pd.DataFrame, Ints]:
    """Return the cells that rows belong to, sorted, and the place of every row."""
    groups = keys.groupby(["dataset", "window_start"], sort=True)
    cells = groups.size().reset_index()[["window_start", "dataset"]]
    cells = cells.assign(model_version=ALL, slice_key=ALL, slice_value=ALL)
    return cells, groups.ngroup().to_numpy().astype(np.int64)


def estimated_losses(losses: Losses, calibration: LossCalibration) -> pd.DataFrame:
    """Estimate MAE and RMSE per window and compare them with the truth.

    Args:
        losses: Of the windows' rows.
        calibration: Of the baseline.

    Returns:
        MetricFrame of ``estimated_mae``, ``estimated_rmse`` (n = rows with a prediction),
        ``mae_residual`` and ``rmse_residual`` (estimated - realized over the n rows with an
        actual), column `:table`. Bands of 95 %: from the rows' own chance, widened to what the
        baseline's windows show, and not beyond the ratios that these show; from how far the models
        of the two halves disagree, at all or by tenths of the predicted loss; and from the held-out
        rows. Windows without rows have no cell. `reason` of a NaN: few_rows (under 30), no_actuals,
        or why the baseline is of no use.
    """
    if not len(losses.keys):
        return stack_rows([])
    cells, place = _cells(losses.keys)
    labelled = np.isfinite(losses.realized[0])
    spread = _spread(losses.predicted)
    metrics = []
    for is_residual, chosen in ((False, np.ones(len(labelled), bool)), (True, labelled)):
        n = np.bincount(place[chosen], minlength=len(cells))
        size = np.maximum(n, 1)
        reason = np.select(
            [n == 0, n < MIN_ROWS], ["no_actuals" if is_residual else "no_rows", "few_rows"], ""
        )
        reason = np.full(len(n), calibration.reason) if calibration.reason else reason
        for power, metric in enumerate(("mae", "rmse")):
            halves = [
                np.bincount(place[chosen], one[chosen], minlength=len(cells)) / size
                for one in losses.predicted[power]
            ]
            guess = np.maximum((halves[0] + halves[1]) / 2, 0)
            around = np.bincount(place[chosen], spread[power][chosen], minlength=len(cells))
            # What held-out rows leave open is more of rows whose losses stray more.
            dearer = around / size / np.maximum(calibration.spread[power], _TINY)
            apart = _disagreement(
                losses.predicted[power][:, chosen], calibration.tenths[power], place[chosen], size
            )
            learning = apart + calibration.error[power] ** 2 * np.clip(dearer, 1, _MOST_DEARER)
            variance = calibration.variance[power] * calibration.dispersion_of(n, power)
            sampling = variance * around / size**2
            # Mean losses stray by factors: twice as large is as likely as half, so on a log scale.
            scale = np.maximum(guess, _TINY)
            half = Z95 * np.sqrt(learning + sampling)
            shown = calibration.limit_ratio(n, around / size, guess, power)
            shown = np.hypot(shown, np.minimum(Z95 * np.sqrt(apart) / scale, _LARGEST_EXPONENT))
            factor = np.exp(np.minimum(np.minimum(half / scale, shown), _LARGEST_EXPONENT))
            low, high = guess / factor, np.where(guess > 0, guess * factor, half)
            if metric == "rmse":
                guess, low, high = np.sqrt(guess), np.sqrt(low), np.sqrt(high)
            truth = 0 * guess
            if is_residual:
                kept = losses.realized[power][chosen]
                truth = np.bincount(place[chosen], kept, minlength=len(cells)) / size
                truth = np.sqrt(truth) if metric == "rmse" else truth
            name = residual(metric) if is_residual else estimated(metric)
            value = np.where(reason == "", guess - truth, np.nan)
            metrics.append(
                table_rows(cells, name, value, low - truth, high - truth, n, reason, VERSION)
            )
    return stack_rows(metrics).assign(n_baseline=calibration.n)
