"""What a search looks at: rows as codes, and how much more wrong each is than rows like it.

Columns become a few codes that people can read: ranges, categories and nulls, from the baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlmon_dagster.metrics import Floats, Ints
from mlmon_dagster.metrics.binnings import label_counts, lowest_scores, round_edges
from mlmon_dagster.metrics.statistics import (
    Binning,
    ColumnStatistics,
    merge,
    select_whole,
)
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, MULTILABEL, REGRESSION
from mlmon_dagster.spec.predicate import (
    Comparison,
    Every,
    Membership,
    Not,
    NullTest,
    Operator,
    Predicate,
)
from mlmon_dagster.spec.tasks import BETWEEN, NO_LABELS
from mlmon_dagster.trace.search import Found
from mlmon_dagster.trace.splits import score_groups

Profiles = Mapping[str, ColumnStatistics]
_GROUPS = 20  # of scores, within which rows are compared
WRONG = "are decided wrongly"
OFF = "are off"


@dataclass(frozen=True)
class Searched:
    """Slices whose rows are worse than others of their score and decision, and than they were.

    Attributes:
        slices: What picks each, and what was found, the one that explains most first.
        means: What is too frequent, or too much, in them: ``are decided wrongly`` or ``are off``.
        is_share: Whether it is a share of rows.
        n: Rows that were searched. columns: Their features.
        is_enough: Whether the windows were enough to search them at all.
    """

    slices: tuple[tuple[Predicate, Found], ...]
    means: str
    is_share: bool
    n: int
    columns: tuple[str, ...]
    is_enough: bool


def excess(
    spec: ModelSpec, rows: pd.DataFrame, baseline: Profiles
) -> tuple[pd.Series[float], str] | None:
    """Return how much worse each row is than the other rows of its kind.

    A decision's being wrong less the share of decisions of that kind, at about that score or for
    that class, that are; without decisions the squared error of the score less its mean at about
    that score; of a regression the absolute error less its mean. So what happened to all rows of a
    kind, such as scores that promise too much everywhere, is no slice's.

    Args:
        spec: The model.
        rows: With the columns ``score``, ``prediction`` and ``actual``, as far as it has them.
        baseline: Column -> statistics of the baseline, whose scores' groups are compared.

    Returns:
        A value per row with ground truth, by the index of ``rows``, and what a high one means. None
        for models whose rows are not wrong one by one (rankings), or without such a baseline.
    """
    known = rows[rows["actual"].notna()]
    if spec.task == BINARY:
        return _of_scores(spec, known, baseline)
    if spec.task == MULTICLASS:
        return _of_classes(known, baseline)
    if spec.task == MULTILABEL:
        known = known[known["prediction"].notna()]
        return _beyond(_count_differing(known), np.zeros(len(known), np.int64)), OFF
    if spec.task == REGRESSION and ":absolute_error" in baseline:
        known = known[known["prediction"].notna()]
        error = (known["prediction"].astype(float) - known["actual"].astype(float)).abs()
        return _beyond(error, np.zeros(len(error), np.int64)), OFF
    return None


def _count_differing(rows: pd.DataFrame) -> pd.Series[float]:
    """Return how many labels are in one of the two sets of a row."""
    sides = ({*text.split(BETWEEN)} - {NO_LABELS} for side in ("prediction", "actual")
             for text in rows[side])  # fmt: skip
    sets = list(sides)
    pairs = zip(sets[: len(rows)], sets[len(rows) :], strict=True)
    return pd.Series([float(len(p ^ a)) for p, a in pairs], rows.index, np.float64)


def _pooled(stats: ColumnStatistics) -> ColumnStatistics:
    return merge(select_whole(stats), ())


def _of_scores(
    spec: ModelSpec, rows: pd.DataFrame, baseline: Profiles
) -> tuple[pd.Series[float], str] | None:
    if spec.columns.score is None or "score" not in baseline:
        return None
    rows = rows[rows["score"].notna()]
    stats = _pooled(baseline["score"])
    known = label_counts(stats.counts)[0, :, 1:].sum(axis=1)
    starts = score_groups(known, known, _GROUPS)
    ends = lowest_scores(stats.binning)[starts[1:]]
    place = np.searchsorted(ends, rows["score"], side="right")
    if spec.columns.prediction is not None:
        wrong = (rows["prediction"].astype(float) != rows["actual"].astype(float)).astype(float)
        return _beyond(wrong, place * 2 + (rows["prediction"].to_numpy(np.float64) == 1)), WRONG
    squared = (rows["actual"].astype(float) - rows["score"].astype(float)) ** 2
    return _beyond(squared, place), OFF


def _beyond(error: pd.Series[float], kind: Ints) -> pd.Series[float]:
    """Return errors less the mean of the rows of their kind."""
    known: pd.Series[int] = pd.Series(kind, error.index)
    usual: pd.Series[float] = error.groupby(known).transform("mean")
    return error - usual


def _of_classes(rows: pd.DataFrame, baseline: Profiles) -> tuple[pd.Series[float], str] | None:
    stats = baseline.get("prediction")
    if stats is None or stats.binning.kind != "classes":
        return None
    rows = rows[rows["prediction"].notna()]
    wrong = (rows["prediction"] != rows["actual"]).astype(float)
    return _beyond(wrong, pd.factorize(rows["prediction"])[0]), WRONG


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


def code_column(name: str, values: pd.Series, binning: Binning) -> Coded:
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


def _ranges(name: str, values: pd.Series, binning: Binning) -> tuple[Ints, list[Predicate]]:
    side: Literal["left", "right"]
    signs: tuple[Operator, Operator]
    if binning.values:  # few different ones: from one of them up to the next
        known = sorted(binning.values)
        edges = np.array([_between(*both) for both in pairwise(known)], np.float64)
        side, signs = "right", (">=", "<")
    else:  # round numbers, which people can say
        edges = np.array([float(f"{edge:.3g}") for edge in round_edges(binning)], np.float64)
        side, signs = "left", (">", "<=")
    edges = _some(np.unique(edges), MOST_CODES - 1)
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)
    found = np.searchsorted(edges, np.nan_to_num(numbers), side=side)
    means: list[Predicate] = []
    for low, high in zip([None, *edges.tolist()], [*edges.tolist(), None], strict=True):
        ends = [Comparison(name, signs[0], low)] if low is not None else []
        ends += [Comparison(name, signs[1], high)] if high is not None else []
        means.append(
            ends[0]
            if len(ends) == 1
            else Every(tuple(ends))
            if ends
            else NullTest(name, negated=True)
        )
    return found, means


def _between(low: float, high: float) -> float:
    """Return the shortest number above one and up to another, else one about half-way."""
    for end in (high, (low + high) / 2):
        for digits in range(1, 7):
            if low < (number := float(f"{end:.{digits}g}")) <= high:
                return number
    return high


def _some(edges: Floats, most: int) -> Floats:
    """Keep at most so many edges, evenly among all."""
    if len(edges) <= most:
        return edges
    places = np.round(np.linspace(0, len(edges) - 1, most + 2)[1:-1]).astype(int)
    kept: Floats = edges[np.unique(places)]
    return kept


def _names(name: str, values: pd.Series, binning: Binning) -> tuple[Ints, list[Predicate]]:
    known = list(binning.categories)[: MOST_CODES - 1]
    is_boolean = set(known) <= {"true", "false"}
    if is_boolean and all(isinstance(value, bool) for value in values.dropna()):
        own: list[str | float | bool] = [text == "true" for text in known]
    else:
        own = list(known)
    place = {value: i for i, value in enumerate(own)}
    found = np.asarray(values.map(place).fillna(len(own)), np.int64)
    means: list[Predicate] = [Comparison(name, "=", value) for value in own]
    means.append(Not(Membership(name, tuple(own))) if own else NullTest(name, negated=True))
    return found, means


def predicate_of(coded: Sequence[Coded], terms: Sequence[tuple[int, int]]) -> Predicate:
    """Return what picks the rows of a searched slice."""
    parts: list[Predicate] = []
    for column, value in terms:
        means = coded[column].means[value]
        parts += means.parts if isinstance(means, Every) else (means,)
    return parts[0] if len(parts) == 1 else Every(tuple(parts))
