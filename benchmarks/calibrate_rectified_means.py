"""Do intervals of means hold where labels are a chosen subset? Part of `calibrate rectified`.

Losses and outcomes of models of all kinds, drawn row by row and counted by group of the output as
profiles do: errors in proportion to what a regression predicts, losses of a classifier of three
classes, outcomes that happen or are amounts. Labels are those of high outputs, low ones, from the
middle, or at random.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, special

from mlmon_dagster.metrics.late_truth.means_by_output import Worth, value_edges, weigh_back
from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.metrics.means import mean_rows
from mlmon_dagster.metrics.performance.regression import OF_ALL, rmse_rows
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import by_output_binning, signed_values
from mlmon_dagster.spec.names import ALL

Floats = NDArray[np.float64]
RULES = ("random", "high", "low", "near")
SHARES = np.array([0.002, 0.005, 0.01, 0.02, 0.035, *np.arange(1, 20) / 20,
                   0.965, 0.98, 0.99, 0.995, 0.998])  # fmt: skip
LOG_LOSSES = (0.0, *(2.0 ** (step / 2) for step in range(-12, 12)))
BATCH = 100


class Drawn(NamedTuple):
    """Values of rows whose output's normal part is z, and the bins and limits of their mean."""

    draw: Callable[[Floats, np.random.Generator], Floats]
    values: tuple[float, ...]
    worth: Worth


def _error(
    law: Callable[[np.random.Generator, tuple[int, ...]], Floats],
) -> Callable[[Floats, np.random.Generator], Floats]:
    return lambda z, rng: np.exp(0.4 * z) * (0.15 + law(rng, z.shape))


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.normal(size=shape)


def _heavy(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    return rng.standard_t(5, size=shape) * np.sqrt(3 / 5)


def _right(z: Floats, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the score of the class decided for, 1/3 to 1, and whether it came true."""
    score = 1 / 3 + special.expit(0.5 + z) * 2 / 3
    return score, rng.random(z.shape) < score


def _log_loss(z: Floats, rng: np.random.Generator) -> Floats:
    score, is_right = _right(z, rng)
    return -np.log(np.where(is_right, score, (1 - score) / 2))


def _brier(z: Floats, rng: np.random.Generator) -> Floats:
    score, is_right = _right(z, rng)
    other = (1 - score) / 2
    return np.where(
        is_right, (1 - score) ** 2 + 2 * other**2, score**2 + (1 - other) ** 2 + other**2
    )


def _top_two(z: Floats, rng: np.random.Generator) -> Floats:
    _, is_right = _right(z, rng)
    return (is_right | (rng.random(z.shape) < 0.5)).astype(np.float64)


def _happened(z: Floats, rng: np.random.Generator) -> Floats:
    return (rng.random(z.shape) < special.expit(-1.5 + 1.2 * z)).astype(np.float64)


def _amount(z: Floats, rng: np.random.Generator) -> Floats:
    return (rng.random(z.shape) < 0.6) * np.exp(0.5 * z + 0.5 * rng.normal(size=z.shape))


DRAWN = {
    "me": Drawn(_error(_normal), signed_values(0.4), OF_ALL["me"]),
    "mae": Drawn(_error(_normal), signed_values(0.4), OF_ALL["mae"]),
    "rmse": Drawn(_error(_normal), signed_values(0.4), OF_ALL["rmse"]),
    "mae, t of 5": Drawn(_error(_heavy), signed_values(0.4), OF_ALL["mae"]),
    "rmse, t of 5": Drawn(_error(_heavy), signed_values(0.4), OF_ALL["rmse"]),
    "log_loss": Drawn(_log_loss, LOG_LOSSES, Worth()),
    "brier": Drawn(_brier, tuple(i / 20 for i in range(41)), Worth(high=2.0)),
    "top_k_accuracy": Drawn(_top_two, (0.0, 1.0), Worth(high=1.0)),
    "mean_outcome, rate": Drawn(_happened, (0.0, 1.0), Worth(high=1.0)),
    "mean_outcome, amount": Drawn(_amount, signed_values(0.9), Worth(low=-np.inf, grows=True)),
}


class MeanCase(NamedTuple):
    """One cell of the table."""

    rows: int
    share: float
    rule: str

    def __str__(self) -> str:
        """Name the case."""
        return f"{self.rows:,} rows, {self.share:.0%} labelled, {self.rule}"


MEAN_CASES = [
    MeanCase(rows, share, rule)
    for rows, share in ((1_000, 0.05), (1_000, 0.1), (1_000, 0.3), (5_000, 0.1), (20_000, 0.1))
    for rule in RULES
]


@cache
def _times(rule: str, share: float) -> float:
    z = np.linspace(-6, 6, 2_001)
    weight = np.exp(-(z**2) / 2)
    weight /= weight.sum()
    wished = _wished(rule, z)
    return float(
        optimize.brentq(lambda c: (weight * np.minimum(1, c * wished)).sum() - share, 1e-9, 1e6)
    )


def _wished(rule: str, z: Floats) -> Floats:
    return {
        "random": lambda: np.ones_like(z),
        "high": lambda: special.expit(1.5 * (z - 0.5)) + 0.03,
        "low": lambda: special.expit(-1.5 * (z + 0.5)) + 0.03,
        "near": lambda: np.exp(-((z / 0.8) ** 2) / 2) + 0.03,
    }[rule]()


@cache
def mean_truth(name: str) -> float:
    """Return the mean of the law, from two million rows at evenly spread outputs."""
    n = 2_000_000
    z = special.ndtri((np.arange(n) + 0.5) / n)
    worth = DRAWN[name].worth
    found = float(worth.of(DRAWN[name].draw(z, np.random.default_rng(0))).mean())
    return float(np.sqrt(found)) if worth.is_root else found


class FoundMean(NamedTuple):
    """Share of intervals that hold, and mean error; the same of labelled rows as they are.

    The error is over the mean, but of a rate as it is.
    """

    holds: float
    bias: float
    plain_holds: float
    plain_bias: float


def measure_mean(name: str, case: MeanCase, runs: int, seed: int = 15) -> FoundMean:
    """Draw the windows of a case and count the intervals that hold the law's mean."""
    rng = np.random.default_rng([seed, case.rows, int(100 * case.share), *case.rule.encode()])
    truth, kept, plain_kept = mean_truth(name), [], []
    for start in range(0, runs, BATCH):
        found, plain = _measured(name, case, min(BATCH, runs - start), rng)
        kept.append(found)
        plain_kept.append(plain)
    (value, lower, upper), (base, low, high) = np.hstack(kept), np.hstack(plain_kept)
    holds = ((lower <= truth) & (truth <= upper)).mean()
    plainly = ((low <= truth) & (truth <= high)).mean()
    over = 1.0 if len(DRAWN[name].values) == 2 else abs(truth)
    off, plainly_off = (float((x.mean() - truth) / over) for x in (value, base))
    return FoundMean(float(holds), off, float(plainly), plainly_off)


def _measured(
    name: str, case: MeanCase, windows: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    drawn = DRAWN[name]
    z = rng.normal(size=(windows, case.rows))
    chance = np.minimum(1, _times(case.rule, case.share) * _wished(case.rule, z))
    is_labelled = rng.random(z.shape) < chance
    value = np.where(is_labelled, drawn.draw(z, rng), 0.0)
    binning = by_output_binning(":by_output/x", special.ndtri(SHARES).tolist(), drawn.values)
    states = len(drawn.values) + 2
    place = np.searchsorted(value_edges(np.array(drawn.values)), value)
    code = np.searchsorted(binning.edges, z) * states + np.where(is_labelled, 2 + place, 0)
    flat = code + binning.size * np.arange(windows)[:, None]
    counts = np.bincount(flat.ravel(), minlength=windows * binning.size)
    zero = np.zeros(windows)
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range("2024-01-01", periods=windows, freq="h", tz="UTC"),
            "dataset": "production", "model_version": ALL, "slice_key": ALL, "slice_value": ALL,
        }
    )  # fmt: skip
    none = zero.astype(np.int64)

    def stats(b: Binning, rows: NDArray[np.int64], *sums: Floats) -> ColumnStatistics:
        return ColumnStatistics(
            b, cells, rows, none + case.rows, none, none, none, none, zero, zero, *sums
        )

    by_output = stats(binning, counts.reshape(windows, -1), zero, zero)
    worth = drawn.worth.of(value)
    sums = [np.where(is_labelled, worth**k, 0.0).sum(axis=1) for k in (1, 2)]
    loss = stats(Binning("x", "loss", 1, "x"), is_labelled.sum(axis=1)[:, None], *sums)
    if drawn.worth.is_root:
        plain = rmse_rows(loss)
    else:
        scale = "share" if len(drawn.values) == 2 else "mean"
        plain = mean_rows(name, loss, scale=scale, low=drawn.worth.low, high=drawn.worth.high)
    found = weigh_back(plain, by_output, drawn.worth)
    if set(np.atleast_1d(found.method_version)) != {METHOD}:
        raise AssertionError("every window is partly labelled")
    return tuple(
        np.array([rows.value, rows.lower, rows.upper], np.float64) for rows in (found, plain)
    )
