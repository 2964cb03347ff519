"""Metrics of a table of predicted by actual class, with intervals by the delta method.

A table is K x K counts per cell of the profile. Every metric returns its value and its gradient
with respect to the shares of the table; the counts are multinomial, so the variance is that of the
gradient over the rows, divided by n (Agresti, 2002, section 14.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from scipy import special

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.intervals import Z95

Scale = Literal["logit", "fisher"]


class Sloped(NamedTuple):
    """Value (C,) and gradient (C, K, K) with respect to the shares."""

    value: Floats
    gradient: Floats


Metric = Callable[[Floats], Sloped]


class Estimate(NamedTuple):
    """Value and ends of its 95 % interval, each (C,); NaN for a table without rows."""

    value: Floats
    lower: Floats
    upper: Floats


def estimate(counts: Ints | Floats, metric: Metric, scale: Scale = "logit") -> Estimate:
    """Value of a metric of tables and its 95 % interval.

    Args:
        counts: Predicted x actual, (C, K, K), maybe weighted; classes of neither kind do not
            count.
        metric: One of this module's.
        scale: On which the interval is symmetric: ``logit`` for metrics from 0 to 1, ``fisher``
            for those from -1 to 1. It is computed with half a row spread evenly over the table of
            the classes that occur, so that a perfect table does not look certain.
    """
    table = counts.astype(np.float64)
    n = table.sum(axis=(1, 2))
    value = np.where(n > 0, metric(_shares(table)).value, np.nan)
    present = (table.sum(axis=1) + table.sum(axis=2)) > 0
    pairs = present[:, :, None] & present[:, None, :]
    even = 0.5 * pairs / np.maximum(pairs.sum(axis=(1, 2)), 1)[:, None, None]
    smoothed = _shares(table + even)
    found = metric(smoothed)
    first = (smoothed * found.gradient).sum(axis=(1, 2))
    second = (smoothed * found.gradient**2).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.sqrt(np.maximum(second - first**2, 0) / n)
        lower, upper = _ends(found.value, Z95 * error, scale)
    undefined = ~np.isfinite(value)
    lower, upper = np.fmin(lower, value), np.fmax(upper, value)
    return Estimate(value, np.where(undefined, np.nan, lower), np.where(undefined, np.nan, upper))


def _ends(value: Floats, half: Floats, scale: Scale) -> tuple[Floats, Floats]:
    if scale == "logit":
        centre, half = special.logit(value), half / (value * (1 - value))
        return special.expit(centre - half), special.expit(centre + half)
    centre, half = np.arctanh(value), half / (1 - value**2)
    return np.tanh(centre - half), np.tanh(centre + half)


def _shares(table: Floats) -> Floats:
    n = table.sum(axis=(1, 2))
    shares: Floats = table / np.where(n > 0, n, 1)[:, None, None]
    return shares


def mcc(shares: Floats) -> Sloped:
    """Matthews correlation (R_K of Gorodkin, 2004): 0 where either side has a single class."""
    predicted, actual = shares.sum(axis=2), shares.sum(axis=1)
    right = np.trace(shares, axis1=1, axis2=2)
    a = right - (predicted * actual).sum(axis=1)
    b, c = 1 - (predicted**2).sum(axis=1), 1 - (actual**2).sum(axis=1)
    single = (b <= 1e-15) | (c <= 1e-15)
    b, c = np.where(single, 1, b), np.where(single, 1, c)
    root = np.sqrt(b * c)
    value = np.where(single, 0.0, a / root)
    eye = np.eye(shares.shape[1])
    da = eye - actual[:, :, None] - predicted[:, None, :]
    db, dc = -2 * predicted[:, :, None], -2 * actual[:, None, :]
    scaled = (db / b[:, None, None] + dc / c[:, None, None]) / 2
    gradient = da / root[:, None, None] - value[:, None, None] * scaled
    return Sloped(value, np.where(single[:, None, None], 0.0, gradient))


def averaged(
    of: Literal["precision", "recall", "f1"], weighting: Literal["macro", "weighted"]
) -> Metric:
    """Mean of a metric over the classes, a class that is neither predicted nor actual left out.

    Where a class is never predicted its precision is 0, where it never occurs its recall is 0, as
    scikit-learn with ``zero_division=0``. Macro and weighted averages as in Sokolova and Lapalme
    (2009).

    Args:
        of: Metric of one class.
        weighting: ``macro``: all classes alike; ``weighted``: by their actual rows.
    """

    def metric(shares: Floats) -> Sloped:
        value, on_row, on_column, on_diagonal = _by_class(shares, of)
        predicted, actual = shares.sum(axis=2), shares.sum(axis=1)
        if weighting == "macro":
            present = (predicted + actual) > 0
            weight = present / np.maximum(present.sum(axis=1), 1)[:, None]
        else:
            weight = actual
        # A cell is in the row of one class and in the column of one.
        gradient = (weight * on_row)[:, :, None] + (weight * on_column)[:, None, :]
        gradient = gradient + (weight * on_diagonal)[:, :, None] * np.eye(shares.shape[1])
        if weighting == "weighted":
            gradient = gradient + value[:, None, :]
        return Sloped((weight * value).sum(axis=1), gradient)

    return metric


def balanced_accuracy(shares: Floats) -> Sloped:
    """Mean recall of the classes that have actual rows (Brodersen et al., 2010)."""
    actual = shares.sum(axis=1)
    value, _, on_column, on_diagonal = _by_class(shares, "recall")
    present = actual > 0
    weight = present / np.maximum(present.sum(axis=1), 1)[:, None]
    gradient = np.broadcast_to((weight * on_column)[:, None, :], shares.shape)
    gradient = gradient + (weight * on_diagonal)[:, :, None] * np.eye(shares.shape[1])
    return Sloped((weight * value).sum(axis=1), gradient)


def _by_class(shares: Floats, of: str) -> tuple[Floats, Floats, Floats, Floats]:
    """Return value (C, K) per class and its slopes on its row, column and diagonal cell."""
    predicted, actual = shares.sum(axis=2), shares.sum(axis=1)
    right = np.einsum("ckk->ck", shares)
    zero = np.zeros_like(right)
    if of == "f1":
        below, factor = predicted + actual, 2.0
    else:
        below, factor = (predicted if of == "precision" else actual), 1.0
    safe = np.where(below > 0, below, 1)
    value = np.where(below > 0, factor * right / safe, 0.0)
    slope = np.where(below > 0, -value / safe, 0.0)
    on_row = zero if of == "recall" else slope
    on_column = zero if of == "precision" else slope
    return value, on_row, on_column, np.where(below > 0, factor / safe, 0.0)
