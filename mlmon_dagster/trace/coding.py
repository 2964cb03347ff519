"""Columns as a few codes that people can read: ranges, categories and nulls, from the baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics.arrays import Floats
from mlmon_dagster.metrics.statistics import Binning
from mlmon_dagster.spec.predicate import (
    Comparison,
    Every,
    Membership,
    Not,
    NullTest,
    Operator,
    Predicate,
)

MOST_CODES = 10  # of a column, besides null
Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class Coded:
    """A column as codes.

    Attributes:
        name: The column.
        codes: (N,).
        means: Code -> what picks its rows.
    """

    name: str
    codes: Codes
    means: tuple[Predicate, ...]


def code(name: str, values: pd.Series[Any], binning: Binning) -> Coded:
    """Code a column by what its values were in the baseline.

    Args:
        name: The column.
        values: (N,), nulls as None or NaN.
        binning: Of the baseline, ``numeric`` or ``categorical``.

    Returns:
        Numbers in at most `MOST_CODES` ranges of the baseline's quantiles, categories as the
        commonest of the baseline and one code for all others, booleans as both; null has a code of
        its own. Codes that no row has are among ``means``, too.
    """
    is_null = values.isna().to_numpy()
    if binning.kind == "numeric":
        found, means = _ranges(name, values, binning)
    else:
        found, means = _names(name, values, binning)
    codes = np.where(is_null, len(means), found).astype(np.uint8)
    return Coded(name, codes, (*means, NullTest(name)))


def _ranges(
    name: str, values: pd.Series[Any], binning: Binning
) -> tuple[NDArray[np.int64], list[Predicate]]:
    side: Literal["left", "right"]
    signs: tuple[Operator, Operator]
    if binning.values:  # few different ones: from one of them up to the next
        known = sorted(binning.values)
        edges = np.array([_between(*both) for both in pairwise(known)], np.float64)
        side, signs = "right", (">=", "<")
    else:  # round numbers, which people can say
        edges = np.array([float(f"{edge:.3g}") for edge in binning.edges], np.float64)
        side, signs = "left", (">", "<=")
    edges = _some(np.unique(edges), MOST_CODES - 1)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    found = np.searchsorted(edges, np.nan_to_num(numbers), side=side)
    means: list[Predicate] = []
    for low, high in zip([None, *edges.tolist()], [*edges.tolist(), None], strict=True):
        ends = [Comparison(name, signs[0], low)] if low is not None else []
        ends += [Comparison(name, signs[1], high)] if high is not None else []
        means.append(ends[0] if len(ends) == 1 else Every(tuple(ends)) if ends else _any(name))
    return found, means


def _between(low: float, high: float) -> float:
    """Return the shortest number above one and up to another, else one about half-way."""
    for end in (high, (low + high) / 2):
        for digits in range(1, 7):
            if low < (number := float(f"{end:.{digits}g}")) <= high:
                return number
    return high


def _any(name: str) -> Predicate:
    return NullTest(name, negated=True)


def _some(edges: Floats, most: int) -> Floats:
    """Keep at most so many edges, evenly among all."""
    if len(edges) <= most:
        return edges
    places = np.round(np.linspace(0, len(edges) - 1, most + 2)[1:-1]).astype(int)
    kept: Floats = edges[np.unique(places)]
    return kept


def _names(
    name: str, values: pd.Series[Any], binning: Binning
) -> tuple[NDArray[np.int64], list[Predicate]]:
    known = list(binning.categories)[: MOST_CODES - 1]
    is_boolean = set(known) <= {"true", "false"}
    if is_boolean and all(isinstance(value, bool) for value in values.dropna()):
        own: list[str | float | bool] = [text == "true" for text in known]
    else:
        own = list(known)
    place = {value: i for i, value in enumerate(own)}
    found = np.asarray(values.map(place).fillna(len(own)), np.int64)
    means: list[Predicate] = [Comparison(name, "=", value) for value in own]
    means.append(Not(Membership(name, tuple(own))) if own else _any(name))
    return found, means


def predicate_of(coded: Sequence[Coded], terms: Sequence[tuple[int, int]]) -> Predicate:
    """Return what picks the rows of a searched slice."""
    parts: list[Predicate] = []
    for column, value in terms:
        means = coded[column].means[value]
        parts += means.parts if isinstance(means, Every) else (means,)
    return parts[0] if len(parts) == 1 else Every(tuple(parts))
