"""Statistics made straight from arrays, so that these tests need no store and no SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.profiles import bin_shapes
from mlmon_dagster.spec.names import ALL

Law = Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]
UNSEEN = 10_000


def cells(size: int, *, key: str = ALL, value: str = ALL, version: str = ALL) -> pd.DataFrame:
    """Frame of `size` daily cells."""
    starts = pd.date_range("2024-01-01", periods=size, freq="D", tz="UTC")
    return pd.DataFrame(
        {
            "window_start": starts,
            "dataset": "production",
            "model_version": version,
            "slice_key": key,
            "slice_value": value,
        }
    )


def statistics(binning: Binning, counts: NDArray[np.int64], **fields: Any) -> ColumnStatistics:
    """Statistics with the given counts; everything else 0 or as given."""
    size = len(counts)
    zeros, floats = np.zeros(size, np.int64), np.zeros(size)
    defaults: dict[str, Any] = {
        "cells": cells(size), "n": counts.sum(axis=1), "n_null": zeros, "n_nan": zeros,
        "n_inf": zeros, "n_out_of_range": zeros, "minimum": floats, "maximum": floats,
        "total": floats, "total_sq": floats, "unseen": [],
    }  # fmt: skip
    return ColumnStatistics(binning=binning, counts=counts, **(defaults | fields))


def numeric_binning(values: NDArray[Any], column: str = "x", fine: int = 12) -> Binning:
    """Twenty quantile bins of fine sub-bins each, as the baseline's values have them."""
    known = values[np.isfinite(values)]
    edges = tuple(float(e) for e in np.unique(np.quantile(known, np.arange(1, 20) / 20)))
    made = bin_shapes.numeric_binning(column, edges, low=known.min(), high=known.max(), fine=fine)
    return replace(made, binning_id=f"id-{column}")


def categorical_binning(values: NDArray[Any], column: str = "c") -> Binning:
    """One code per code that occurs, commonest first, then other and unseen."""
    names, n = np.unique(values[values >= 0], return_counts=True)
    categories = tuple(str(name) for name in names[np.argsort(-n, kind="stable")])
    return Binning(
        column, "categorical", len(categories) + 2, f"id-{column}", categories=categories
    )


def count(binning: Binning, values: NDArray[Any], **fields: Any) -> ColumnStatistics:
    """Statistics of values (windows, rows); NaN and negative categories are nulls."""
    if binning.kind == "numeric":
        missing = ~np.isfinite(values)
        codes = np.searchsorted(upper_edges(binning), np.where(missing, 0, values), side="left")
    else:
        missing = values < 0
        table = np.full(UNSEEN + 1, binning.size - 1)
        table[np.array(binning.categories, dtype=int)] = np.arange(len(binning.categories))
        codes = table[np.where(missing, 0, values)]
    size = len(values)
    flat = (codes + binning.size * np.arange(size)[:, None])[~missing]
    counts = np.bincount(flat, minlength=size * binning.size).reshape(size, binning.size)
    known = {"n": np.full(size, values.shape[1]), "n_null": missing.sum(axis=1)}
    return statistics(binning, counts.astype(np.int64), **(known | fields))


def score_statistics(
    negatives: NDArray[np.int64], positives: NDArray[np.int64], **fields: Any
) -> ColumnStatistics:
    """Score statistics from counts (C, S) of labelled rows."""
    counts = np.stack([np.zeros_like(negatives), negatives, positives], axis=2)
    size = counts.shape[1] * 3
    binning = Binning("score", "score", size, "id-score", low=-14.0, high=14.0)
    return statistics(binning, counts.reshape(len(counts), size), **fields)


def confusion_statistics(**counts: Any) -> ColumnStatistics:
    """Confusion statistics from tn, fn, fp, tp (and unlabelled u0, u1), each (C,) or a number."""
    order = ("u0", "tn", "fn", "u1", "fp", "tp")
    columns = np.broadcast_arrays(*(np.atleast_1d(counts.get(name, 0)) for name in order))
    binning = Binning("prediction", "confusion", 6, "id-prediction")
    return statistics(binning, np.column_stack(columns).astype(np.int64))


def _with_nulls(law: Law, share: float) -> Law:
    return lambda rng, size: np.where(rng.random(size) < share, np.nan, law(rng, size))


def zipf(categories: int, power: float) -> Law:
    """Categories whose shares fall like 1 / rank ** power."""
    shares = np.arange(1, categories + 1) ** -power
    steps = np.cumsum(shares / shares.sum())
    return lambda rng, size: np.searchsorted(steps, rng.random(size)).clip(0, categories - 1)


def mixture(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[Any]:
    return rng.normal(np.where(rng.random(size) < 0.5, -3, 3), 1)


NUMERIC_LAWS: dict[str, Law] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "wide_lognormal": lambda rng, size: rng.lognormal(0, 2.5, size),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "uniform": lambda rng, size: rng.random(size),
    "student_2": lambda rng, size: rng.standard_t(2, size),
    "counts": lambda rng, size: rng.poisson(3, size).astype(float),
    "some_nulls": _with_nulls(lambda rng, size: rng.normal(size=size), 0.05),
    "many_nulls": _with_nulls(lambda rng, size: rng.gamma(0.3, size=size), 0.3),
    "rare_nulls": _with_nulls(lambda rng, size: rng.beta(0.5, 0.5, size), 0.001),
    "mostly_zero": lambda rng, size: np.where(
        rng.random(size) < 0.9, 0.0, rng.exponential(size=size)
    ),
    "hours": lambda rng, size: rng.integers(0, 24, size).astype(float),
    "two_humps": mixture,
    "constant": lambda rng, size: np.full(size, 7.0),
    "rare_flag": lambda rng, size: rng.binomial(1, 0.02, size).astype(float),
}
CATEGORICAL_LAWS: dict[str, Law] = {
    "three": zipf(3, 1.0),
    "twelve": zipf(12, 1.0),
    "hundred": zipf(100, 1.0),
    "thousand": zipf(1000, 1.2),
    "nulls": lambda rng, size: np.where(rng.random(size) < 0.1, -1, zipf(5, 0.2)(rng, size)),
    "rare": lambda rng, size: (rng.random(size) < 0.001).astype(int),
}
