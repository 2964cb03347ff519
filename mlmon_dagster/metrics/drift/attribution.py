"""How much each feature counts for the model's outputs, and whether that is as in the baseline.

Of every row the magnitudes of its SHAP values are divided by their sum, so that the unit of the
output does not matter, and the shares are averaged over rows: they add up to 1 over the features.
The values are those of Lundberg and Lee (2017), the test of two means Welch's (1947).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import special

from mlmon_dagster.metrics import MIN_WINDOWS, Flags, Floats
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import EFFICIENCY, biweight, rate
from mlmon_dagster.metrics.means import Mean, mean_interval, mean_of
from mlmon_dagster.metrics.statistics import (
    ColumnStatistics,
    merge_columns,
    of_all,
    select_whole,
)
from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT

Columns = Mapping[str, ColumnStatistics]
VERSION = "row-shares-1"
_CELL = ("slice_key", "slice_value")


class Reference(NamedTuple):
    """A feature in a baseline: mean share, its standard error and rows; and what windows show.

    Attributes:
        between: Spread of the windows' means, of which a few changed ones are not part (Tukey's
            biweight); NaN of under 14 windows.
        within: What of their variance is of rows. windows: How many there are.
    """

    mean: float = np.nan
    error: float = np.nan
    n: int = 0
    between: float = np.nan
    within: float = np.nan
    windows: int = 0


def attribution_metrics(
    columns: Columns,
    references: Mapping[str, Reference] | None,
    *,
    min_rows: int = 30,
    is_same: Flags | None = None,
) -> pd.DataFrame:
    """Attribution of every feature, and at slice `all` how far it is from the baseline's.

    Args:
        columns: Feature -> its loss column of shares, C cells.
        references: Feature -> what it is in the baseline; None without a baseline.
        min_rows: Fewest rows of a window, and of the baseline, to be compared.
        is_same: Of each cell of slice `all`, whether its explainer is the baseline's, see
            `same_explainer`; None if they are not known. Explainers differ where features hang
            together, so what one of them says is not compared with what another says.

    Returns:
        MetricFrame, n = rows with SHAP values of all features. ``attribution``: mean share, 0 to 1,
        with Student's interval. ``attribution_shift``: the same less the baseline's, -1 to 1, with
        Welch's. `p_value` is the largest of Welch's, that by the spread of the baseline's rows,
        which few rows of skewed shares do not upset, and of a baseline with at least 14 windows
        the chance of being as far from them as they are from each other (Student's t).
        `reason` of a NaN: no_attributions, other_explainer, few_rows, no_baseline,
        few_baseline_rows.
    """
    rows = []
    for feature, stats in columns.items():
        mean = mean_of(stats)
        ends = mean_interval(mean, 0.0, 1.0)
        reason = np.where(mean.n == 0, "no_attributions", "")
        rows.append(
            table_rows(
                stats.cells, ATTRIBUTION, mean.value, *ends, mean.n, reason, VERSION, feature
            )
        )
    if references is not None:
        rows += [
            _shift(feature, stats, references.get(feature, Reference()), min_rows, is_same)
            for feature, stats in of_all(columns).items()
        ]
    return stack_rows(rows)


def same_explainer(now: ColumnStatistics, then: ColumnStatistics) -> Flags:
    """Say of each cell of slice `all` whether one explainer computed all of it and the baseline.

    Args:
        now: Explained rows by explainer, in the bins of the baseline.
        then: The same of the baseline.
    """
    whole = select_whole(now)
    used = np.flatnonzero(then.counts.sum(axis=0))
    if len(used) != 1:
        return np.full(len(whole), len(used) == 0)  # of an empty baseline the rows say more
    found: Flags = whole.counts[:, used[0]] == whole.counts.sum(axis=1)
    return found


def attribution_references(baseline: Columns, *, min_rows: int = 30) -> dict[str, Reference]:
    """Return what the features are in a baseline.

    Args:
        baseline: Feature -> its loss column of shares, over the baseline's windows.
        min_rows: Fewest rows of a window that counts among the windows.
    """
    wholes = {feature: stats for feature, stats in of_all(baseline).items() if len(stats)}
    windows = merge_columns(wholes, ("window_start", *_CELL))
    pooled = merge_columns(wholes, _CELL)
    return {f: _reference(mean_of(windows[f]), mean_of(pooled[f]), min_rows) for f in wholes}


def _reference(windows: Mean, pooled: Mean, min_rows: int) -> Reference:
    known = Reference(float(pooled.value[0]), float(pooled.error[0]), int(pooled.n[0]))
    enough = windows.n >= min_rows
    if enough.sum() < MIN_WINDOWS:
        return known
    return known._replace(
        between=float(biweight(windows.value[enough])[1]),
        within=float(np.mean(windows.error[enough] ** 2)),
        windows=int(enough.sum()),
    )


def _shift(
    feature: str,
    stats: ColumnStatistics,
    reference: Reference,
    min_rows: int,
    is_same: Flags | None,
) -> MetricRows:
    mean = mean_of(stats)
    other = np.zeros(len(mean.n), bool) if is_same is None else ~is_same
    reason = np.select(
        [mean.n == 0, reference.n == 0, other, mean.n < min_rows, reference.n < min_rows],
        ["no_attributions", "no_baseline", "other_explainer", "few_rows", "few_baseline_rows"],
        "",
    )
    value = mean.value - reference.mean
    p, half = _welch(value, mean, reference)
    p = np.maximum(p, _by_known_spread(value, mean, reference))
    by = "windows" if np.isfinite(reference.between) else "rows"
    if by == "windows":
        p = np.maximum(p, _among_windows(value, mean, reference))
    shown = np.where(reason == "", value, np.nan)
    ends = np.maximum(value - half, -1.0), np.minimum(value + half, 1.0)
    return MetricRows(
        stats.cells, feature, ATTRIBUTION_SHIFT, shown, mean.n, f"{VERSION}:{by}", *ends,
        n_baseline=reference.n, p_value=p, reason=reason,
    )  # fmt: skip


def _welch(value: Floats, mean: Mean, reference: Reference) -> tuple[Floats, Floats]:
    """Return the p-value of a difference of two means and half its 95 % interval."""
    own, other = mean.error**2, reference.error**2
    with np.errstate(invalid="ignore", divide="ignore"):
        total = own + other
        degrees = total**2 / (own**2 / (mean.n - 1) + other**2 / max(reference.n - 1, 1))
        degrees = np.maximum(np.nan_to_num(degrees, nan=1.0, posinf=1e9), 1.0)
    half: Floats = np.asarray(special.stdtrit(degrees, 0.975) * np.sqrt(total), np.float64)
    return _two_sided(value, np.sqrt(total), degrees), half


def _by_known_spread(value: Floats, mean: Mean, reference: Reference) -> Floats:
    """Chance of the difference if the window's rows scatter as the baseline's do."""
    spread = reference.error * np.sqrt(reference.n / np.maximum(mean.n, 1) + 1)
    return _two_sided(value, spread, max(reference.n - 1, 1))


def _among_windows(value: Floats, mean: Mean, reference: Reference) -> Floats:
    """Chance that a window like the baseline's lies as far from their mean.

    A window of fewer rows than theirs has the more of its own chance; one of more rows has no less,
    as nothing says that its rows are independent.
    """
    more = np.maximum(mean.error**2 - reference.within, 0)
    spread = np.sqrt(reference.between**2 * (1 + 1 / reference.windows) + more)
    return _two_sided(value, spread, EFFICIENCY * (reference.windows - 1))


def _two_sided(value: Floats, spread: Floats, degrees: ArrayLike) -> Floats:
    """Return Student's p-values; without any spread every difference but none is for sure."""
    beyond = np.where(value == 0, 0.0, np.inf)
    t = np.where(spread > 0, rate(np.abs(value), spread), beyond)
    return np.asarray(2 * special.stdtr(np.asarray(degrees, np.float64), -t), np.float64)
