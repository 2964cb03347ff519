"""Bands of estimates: held by simulation for every task, wider where rows are harder to predict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.estimate_tasks import multiclass
from benchmarks.scored_worlds import Size, counted, halved, logistic, world
from mlmon_dagster.metrics.estimated.binary import residuals
from mlmon_dagster.metrics.estimated.calibration import LEAST_STRETCH, calibrate, stretch
from mlmon_dagster.metrics.estimated.regression import Losses, estimated_losses, loss_calibration
from mlmon_dagster.metrics.intervals import Z95
from mlmon_dagster.profiles.estimates import LossRows, _first_half, learn_losses
from mlmon_dagster.spec.metric_registry import MULTICLASS
from mlmon_dagster.spec.tasks import TASKS


def held(frame: pd.DataFrame, metric: str) -> pd.Series:
    rows = frame[(frame["metric"] == f"{metric}_residual") & frame["value"].notna()]
    return (rows["lower"] <= 0) & (rows["upper"] >= 0)


def all_held(frames: Iterable[pd.DataFrame], *metrics: str) -> list[float]:
    """Return the share of windows that the bands of each metric hold, over draws of both sides."""
    shares = [[held(frame, metric).mean() for metric in metrics] for frame in frames]
    return list(np.mean(shares, axis=0))


def keys_of(day: np.ndarray) -> pd.DataFrame:
    starts = pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(day, unit="D")
    return pd.DataFrame({"window_start": starts, "dataset": "production"})


def test_bands_hold_95_percent_of_windows_over_baselines_drawn_again():
    """20 baselines of 30 days, 20 windows of 300 rows each; the design is 97 %."""
    rng = np.random.default_rng(4)

    def frames() -> Iterator[pd.DataFrame]:
        for _ in range(20):
            score, actual = world(rng, 30, 300)
            learnt = calibrate(counted(score, actual), halved(score, actual, 0.5), 1)
            yield residuals(counted(*world(rng, 20, 300, shift=0.3)), learnt)

    assert min(all_held(frames(), "roc_auc", "f1", "brier")) >= 0.95


def test_bands_of_many_classes_hold_with_shifted_inputs():
    """100 windows of 200 rows: .95 less two binomial standard errors, and not every one."""
    found = multiclass(np.random.default_rng(2), (0.5,), Size(1, 100, 30, 200))[0]
    for metric in TASKS[MULTICLASS].estimated:
        assert held(found.frame, metric).mean() >= 0.95 - 0.044, metric


def test_few_windows_teach_no_stretch_and_wild_ones_more():
    starts = pd.Series(pd.date_range("2024-01-01", periods=20, freq="D", tz="UTC"))
    assert stretch(np.tile([-7.0, 7.0], 7)[:13], starts[:13]) == LEAST_STRETCH
    assert stretch(np.tile([-0.3, 0.3], 7), starts[:14]) == LEAST_STRETCH
    wild = np.append(np.tile([-0.7, 0.7], 10)[:19], 30**0.5)
    assert 1 <= stretch(wild, starts) / (30 / 1.96**2) <= 1.1


def test_bands_hold_where_the_world_wanders_from_window_to_window():
    """Log odds wander (autoregressive, .9): by 45 days as if independent, .89 of later days."""
    rng = np.random.default_rng(7)

    def frames() -> Iterator[pd.DataFrame]:
        for _ in range(12):
            wander = np.zeros(45)
            for i, step in enumerate(rng.normal(0, 0.15, 45)):
                wander[i] = 0.9 * wander[i - 1] + (1 - 0.81) ** 0.5 * step if i else step
            score, actual = wandering(rng, wander)
            learnt = calibrate(counted(score, actual), halved(score, actual, 0.5), 1)
            yield residuals(counted(*wandering(rng, rng.normal(0, 0.15, 30))), learnt)

    assert min(all_held(frames(), "actual_rate", "brier")) >= 0.95


def wandering(rng, log_odds, rows=2000):
    """Windows whose actuals are as likely as their score says, but for what each of them shares."""
    x = rng.normal(0, 1.5, (len(log_odds), rows))
    actual = rng.random(x.shape) < logistic(x + log_odds[:, None])
    return logistic(x), actual.astype(np.float64)


def days(rng: np.random.Generator, windows: int, rows: int) -> LossRows:
    """Days with errors of their own size, and an input that names the day."""
    day = np.repeat(np.arange(windows), rows)
    size = np.exp(rng.normal(0, 0.2, windows))[day]
    weather = rng.normal(0, 1, windows)[day]
    x = rng.normal(0, 1, len(day))
    error = size * np.exp(0.3 * x) * rng.normal(0, 1, len(day))
    inputs = np.column_stack([x, weather])
    return LossRows(inputs, error, rng.random(len(day)) < 0.5, keys_of(day))


def test_bands_of_a_regression_hold_where_inputs_name_days_with_errors_of_their_own():
    """6 baselines of 40 days, 60 new days each: 95 % less two binomial standard errors."""
    rng = np.random.default_rng(5)
    frames = (
        estimated_losses(*learn_losses(days(rng, 40, 150), days(rng, 60, 150))) for _ in range(6)
    )
    assert min(all_held(frames, "mae", "rmse")) >= 0.95 - 0.023


def test_a_column_without_any_value_in_a_half_of_the_baseline_changes_no_estimate():
    known, mine = (days(np.random.default_rng(seed), 20, 60) for seed in (1, 2))

    def beside(rows: LossRows, empty: np.ndarray) -> LossRows:
        return replace(rows, inputs=np.column_stack([rows.inputs, empty]))

    nothing = [np.full(len(rows.error), np.nan) for rows in (known, mine)]
    found = estimated_losses(*learn_losses(beside(known, nothing[0]), beside(mine, nothing[1])))
    pd.testing.assert_frame_equal(found, estimated_losses(*learn_losses(known, mine)))
    late = np.where(np.arange(len(known.error)) < 60, np.nan, 1.0)  # one day, of the first half
    half = np.where(_first_half(known), np.nan, late)
    later = estimated_losses(*learn_losses(beside(known, half), beside(mine, nothing[1])))
    assert later["value"].notna().all()


def losses(rows: int, predicted_square: float, seed: int) -> Losses:
    """One day of errors with this variance, predicted as they are by both halves' models."""
    error = np.random.default_rng(seed).normal(0, predicted_square**0.5, rows)
    absolute = np.full(rows, (2 * predicted_square / np.pi) ** 0.5)
    predicted = np.stack([absolute, np.full(rows, predicted_square)])
    realized = np.stack([np.abs(error), error**2])
    return Losses(keys_of(np.zeros(rows)), realized, np.stack([predicted] * 2, axis=1))


def test_a_window_of_rows_harder_to_predict_has_a_wider_band():
    """Noise twice as large: a band twice as wide, but for the part that comes from the baseline."""
    learnt = loss_calibration(losses(50_000, 1.0, seed=1))
    widths = []
    for square in (1.0, 4.0):
        frame = estimated_losses(losses(400, square, seed=2), learnt)
        mae = frame[frame["metric"] == "mae_residual"].iloc[0]
        widths.append(mae["upper"] - mae["lower"])
    assert widths[1] / widths[0] == pytest.approx(2, rel=0.03)


def test_models_that_disagree_up_here_and_down_there_are_not_taken_to_agree():
    """Off by .2 in either half of the rows, so by none of the window: .1 squared, twice."""
    learnt, day = loss_calibration(losses(50_000, 1.0, seed=1)), losses(400, 1.0, seed=2)
    side = np.where(np.arange(400) < 200, -1, 1)
    level = 1 + 0.5 * side
    variances = []
    for apart in (0.0, 0.2):
        halves = np.stack([level + apart * side, level - apart * side])
        frame = estimated_losses(
            replace(day, predicted=np.stack([halves, day.predicted[1]])), learnt
        )
        mae = frame[frame["metric"] == "estimated_mae"].iloc[0]
        variances.append((np.log(mae["upper"] / mae["value"]) * mae["value"] / Z95) ** 2)
    assert variances[1] - variances[0] == pytest.approx(2 * 0.1**2)


def test_the_band_of_a_mean_loss_reaches_as_many_times_up_as_down():
    """Days' errors differ by factors: even bands missed above only (.021 of days, none below)."""
    learnt = loss_calibration(losses(50_000, 1.0, seed=1))
    frame = estimated_losses(losses(400, 1.0, seed=2), learnt).set_index("metric")
    for metric in ("estimated_mae", "estimated_rmse"):
        low, value, high = frame.loc[metric, ["lower", "value", "upper"]]
        assert value / low == pytest.approx(high / value)
        assert high > value


def test_bands_hold_where_windows_have_ten_times_the_rows_that_the_baseline_was_read_by():
    """40 days of 200 rows, new days of 2,000, sizes of errors that differ by day by a fifth."""
    rng = np.random.default_rng(6)

    def drawn(windows: int, rows: int) -> Losses:
        day = np.repeat(np.arange(windows), rows)
        error = np.exp(rng.normal(0, 0.2, windows))[day] * rng.normal(size=len(day))
        mean = np.array([(2 / np.pi) ** 0.5 * np.exp(0.02), np.exp(0.08)])
        predicted = np.broadcast_to(mean[:, None, None], (2, 2, len(day)))
        return Losses(keys_of(day), np.stack([np.abs(error), error**2]), predicted)

    frames = (
        estimated_losses(drawn(40, 2000), loss_calibration(drawn(40, 200))) for _ in range(10)
    )
    # .70 and .78 if what days share shrank
    assert min(all_held(frames, "mae", "rmse")) >= 0.95


@pytest.mark.parametrize("tail", ["normal", "t3", "lognormal", "pareto"])
@pytest.mark.parametrize(("rows", "shared"), [(100, 0.0), (1_000, 0.0), (300, 0.15)])
def test_bands_of_losses_are_as_wide_as_the_baselines_windows_ask_for(
    tail: str, rows: int, shared: float
) -> None:
    """At most 1.5 times what 97 % of these stay within, and .93 or more of later ones hold."""
    rng = np.random.default_rng([rows, len(tail)])

    def drawn(windows: int) -> Losses:
        place = np.repeat(np.arange(windows), rng.poisson(rows, windows))
        n, day = len(place), rng.normal(0, shared, windows)[place]
        error = {
            "normal": lambda: rng.normal(size=n),
            "t3": lambda: rng.standard_t(3, n),
            "lognormal": lambda: np.exp(rng.normal(0, 1.5, n)) - np.exp(1.125),
            "pareto": lambda: rng.pareto(2.2, n) - 1 / 1.2,
        }[tail]()
        size = np.exp(day + 0.5 * rng.normal(size=n))
        realized = np.stack([np.abs(size * error), (size * error) ** 2])
        predicted = np.stack([size**power * np.mean(np.abs(error) ** power) for power in (1, 2)])
        return Losses(keys_of(place), realized, np.stack([predicted, predicted], axis=1))

    holding, wide = [], []
    for _ in range(8):
        learnt = loss_calibration(drawn(40))
        later, own = estimated_losses(drawn(40), learnt), estimated_losses(learnt.losses, learnt)
        for metric in ("mae", "rmse"):
            claimed = later[later["metric"] == f"estimated_{metric}"]
            away = later[later["metric"] == f"{metric}_residual"]
            holding += ((away["lower"] <= 0) & (away["upper"] >= 0)).tolist()
            guess = own.loc[own["metric"] == f"estimated_{metric}", "value"].to_numpy()
            truth = guess - own.loc[own["metric"] == f"{metric}_residual", "value"].to_numpy()
            usual = 2 * np.quantile(np.abs(np.log(truth / guess)), 0.97)
            wide.append(np.median(np.log(claimed["upper"] / claimed["lower"])) / usual)
    assert np.mean(holding) >= 0.93
    assert np.median(wide) <= 1.5
