"""How many rows are unlike the baseline's rows of their own topic, and whether that is chance.

One row in ten of every topic is called unlike by definition (`metrics.embeddings`). What is new
lies nearest to a few topics and is unlike their rows, so the unlike rows of each topic are a count
of their own: a new kind of a twentieth of the rows is a few points of all that are unlike, and many
times what one topic has. Which topics are common on a day hardly changes that. A count follows a
negative binomial law, a Poisson law whose rate differs between windows (Bliss and Fisher, 1953).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Floats, Ints
from mlmon_dagster.metrics.embeddings import USUAL
from mlmon_dagster.metrics.frames import MetricRows, stack_rows
from mlmon_dagster.metrics.intervals import rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics, select, select_whole
from mlmon_dagster.spec.metric_registry import AUTO, NOVEL

VERSION = "unlike-1"
_SURE = 1.0  # standard errors of a variance
_NINE_OF_TEN = 0.9  # of the baseline's windows have no more than what is called usual


def unlike_metrics(
    columns: Mapping[str, ColumnStatistics],
    baseline: Mapping[str, ColumnStatistics],
    *,
    min_rows: int = 30,
) -> pd.DataFrame:
    """Share of rows that are unlike the baseline's and new, at slice `all`.

    Args:
        columns: What says of each row whether it is unlike its topic, over C cells.
        baseline: The same columns; their cells are the baseline's windows.
        min_rows: Fewest rows with a value, of a window and of a window of the baseline.

    Returns:
        MetricFrame. `novel_rate`: the share of the rows with a value by which more are unlike than
        the baseline has, 0 to 1, of one topic or of all together, whichever is least by chance,
        with Wilson's interval; `p_value`: the chance of that, see `find_surest`. `novel_rate_auto`:
        what nine of ten of the baseline's windows do not exceed there. Reasons of no value:
        few_rows, all_null, no_baseline (nothing but nulls in it), few_baseline_windows (fewer than
        14).
    """
    found: list[MetricRows] = []
    for name, stats in columns.items():
        mine, own = select_whole(stats), select_whole(baseline[name])
        if len(mine):
            found += _measure(mine, own, min_rows)
    return stack_rows(found)


def _measure(mine: ColumnStatistics, own: ColumnStatistics, min_rows: int) -> list[MetricRows]:
    n, then = mine.counts.sum(axis=1), own.counts.sum(axis=1)
    windows = select(own, then >= min_rows)
    conditions = {
        "no_baseline": np.full(len(n), not then.sum()),
        "all_null": (n == 0) & (mine.n >= min_rows),
        "few_rows": n < min_rows,
        "few_baseline_windows": np.full(len(n), len(windows) < MIN_WINDOWS),
    }
    reason = np.select(list(conditions.values()), list(conditions), "")
    is_usual = np.array([name == USUAL for name in mine.binning.categories])
    topics = np.flatnonzero(~np.append(is_usual, [False, False]))
    shares, lower, upper, usual, p = (np.full(len(n), np.nan) for _ in range(5))
    if len(windows) >= MIN_WINDOWS and len(topics):
        rows = windows.counts.sum(axis=1)
        now, before = (_with_total(side[:, topics]) for side in (mine.counts, windows.counts))
        surest = find_surest(now, n, before, rows)
        p, which = surest.p_value, surest.place
        expected = (before.sum(axis=0) / rows.sum())[which]
        of_it = np.take_along_axis(now, which[:, None], axis=1)[:, 0]
        ends = (rate(of_it, n), *wilson(of_it, n))
        shares, lower, upper = (np.maximum(end - expected, 0.0) for end in ends)
        beyond = rate(before, rows[:, None]) - before.sum(axis=0) / rows.sum()
        usual = np.maximum(np.quantile(beyond, _NINE_OF_TEN, axis=0), 0.0)[which]
    is_known = reason == ""
    common = {"column_name": mine.binning.column, "n": n, "n_baseline": int(then.sum())}
    return [
        MetricRows(
            mine.cells, metric=NOVEL, value=np.where(is_known, shares, np.nan), lower=lower,
            upper=upper, p_value=np.where(is_known, p, np.nan), reason=reason,
            method_version=VERSION, **common,
        ),
        MetricRows(
            mine.cells, metric=f"{NOVEL}{AUTO}", value=np.where(is_known, usual, np.nan),
            reason=reason, method_version=VERSION, **common,
        ),
    ]  # fmt: skip


def _with_total(counts: Ints) -> Ints:
    """Return the unlike rows of each topic and, last, of all together, (C, T + 1)."""
    return np.column_stack([counts, counts.sum(axis=1)])


class Surest(NamedTuple):
    """What of each window's unlike rows is least by chance, (C,) each.

    Attributes:
        place: Which topic; behind the last one, all together.
        p_value: Chance that any of them has so many, at most 1.
    """

    place: Ints
    p_value: Floats


def find_surest(counts: Ints, n: Ints, before: Ints, rows: Ints) -> Surest:
    """Find the topic in which most rows beyond chance are unlike.

    The rate of a topic differs between windows by its own squares beyond chance in the baseline, or
    by those of all topics, whichever is more: what one topic shows in thirty windows is little. For
    the same reason that is raised by a standard error. The chances are those of
    `scipy.stats.nbinom`, times their number (Bonferroni).

    Args:
        counts: Unlike rows of T topics, and of all together, in C windows, (C, T + 1).
        n: Rows of the windows, (C,).
        before: The same of the baseline's W windows, (W, T + 1).
        rows: Their rows, (W,), all above 0.
    """
    # Half a row that might have been seen: no topic is impossible.
    total = before.sum(axis=0) + 0.5
    share = total / rows.sum()
    expected = share * rows[:, None]
    strays = ((before - expected) ** 2).sum(axis=0) - total
    squares = (expected**2).sum(axis=0)
    least = np.append(np.full(len(share) - 1, strays[:-1].sum() / squares[:-1].sum()), 0.0)
    uneven = np.maximum(np.maximum(strays / squares, least), 0.0)
    shape = 1 / (uneven * (1 + _SURE * np.sqrt(2 / len(rows))) + 1 / total)
    mean = share * n[:, None]
    chance = special.betainc(np.maximum(counts, 1), shape, mean / (mean + shape))
    chance = np.where(counts > 0, chance, 1.0)
    place = chance.argmin(axis=1)
    p = np.take_along_axis(chance, place[:, None], axis=1)[:, 0] * len(share)
    return Surest(place.astype(np.int64), np.asarray(np.minimum(p, 1.0), np.float64))
