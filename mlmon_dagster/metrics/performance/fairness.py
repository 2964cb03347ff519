"""Gaps of a binary model's rates between groups, with intervals."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import Ints, Positions
from mlmon_dagster.metrics.binnings import label_counts
from mlmon_dagster.metrics.frames import MetricRows, stack_rows, table_rows
from mlmon_dagster.metrics.intervals import Z95, difference_interval, rate, wilson
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.spec.names import ALL

MIN_GROUP = 10
_WINDOW = ["window_start", "dataset", "model_version"]


def fairness_metrics(
    confusion: ColumnStatistics, references: Mapping[str, str | None]
) -> pd.DataFrame:
    """Rates of every group against those of the reference group, as difference and ratio.

    Demographic parity compares P(predicted positive) (Feldman et al., 2015), equal opportunity the
    recall (Hardt, Price and Srebro, 2016), predictive parity the precision (Chouldechova, 2017).
    The interval of a difference is Newcombe's (1998, method 10), that of a ratio symmetric on a
    logarithmic scale, with half a row added to either count (Walter, 1975).

    Args:
        confusion: Predictions by actual of slices and of the whole.
        references: Slice key -> the value that others are compared with; None for the commonest.

    Returns:
        MetricFrame: one row per group other than the reference, and at slice `all` the gap that is
        furthest from none (difference 0, ratio 1) in any group of any key, with an interval that
        holds for all groups together (Bonferroni). n = rows of the group and the reference
        that the rate is of. `reason` of a NaN: no_reference, few_rows (under 10 on a side).
    """
    metrics = []
    for window in _windows(confusion.cells):
        compared = [
            gap
            for key, reference in references.items()
            for gap in _of_key(confusion, window, key, reference)
        ]
        if compared:
            metrics += [*compared, *_largest(confusion.cells, window, compared)]
    return stack_rows(metrics)


def _windows(cells: pd.DataFrame) -> list[Positions]:
    return [np.asarray(rows) for rows in cells.groupby(_WINDOW, sort=True).indices.values()]


def _of_key(
    confusion: ColumnStatistics, window: Positions, key: str, reference: str | None
) -> list[MetricRows]:
    cells = confusion.cells
    rows = window[(cells["slice_key"].iloc[window] == key).to_numpy()]
    if len(rows) < 2:
        return []
    names = cells["slice_value"].iloc[rows].to_numpy()
    sizes = confusion.counts[rows].sum(axis=1)
    if reference is None:
        reference = str(names[np.argmax(sizes)])
    mine = rows[names == reference]
    others = rows[names != reference]
    metrics = []
    for name, (count, of) in _rates(label_counts(confusion.counts)).items():
        known = len(mine) > 0
        base = (count[mine[0]], of[mine[0]]) if known else (np.int64(0), np.int64(0))
        metrics += _gaps(cells.iloc[others], name, (count[others], of[others]), base, known)
    return metrics


def _rates(counts: Ints) -> dict[str, tuple[Ints, Ints]]:
    """Return numerator and denominator of each rate, (C,) each."""
    predicted = counts[:, 1].sum(axis=1)
    tp, fn, fp = counts[:, 1, 2], counts[:, 0, 2], counts[:, 1, 1]
    return {
        "demographic_parity": (predicted, counts.sum(axis=(1, 2))),
        "equal_opportunity": (tp, tp + fn),
        "predictive_parity": (tp, tp + fp),
    }


def _gaps(
    cells: pd.DataFrame,
    name: str,
    groups: tuple[Ints, Ints],
    reference: tuple[np.int64, np.int64],
    known: bool,
) -> list[MetricRows]:
    (k, n), (base_k, base_n) = groups, reference
    reason = np.select(
        [np.full(len(k), not known), np.minimum(n, base_n) < MIN_GROUP],
        ["no_reference", "few_rows"],
        "",
    )
    share, base = rate(k, n), rate(base_k, base_n)
    gap, lower, upper = difference_interval(share, wilson(k, n), base, wilson(base_k, base_n))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(base > 0, share / base, np.where(share > 0, np.inf, np.nan))
        log = np.log((k + 0.5) / (n + 0.5)) - np.log((base_k + 0.5) / (base_n + 0.5))
        error = np.sqrt(1 / (k + 0.5) - 1 / (n + 0.5) + 1 / (base_k + 0.5) - 1 / (base_n + 0.5))
    ends = np.exp(log - Z95 * error), np.exp(log + Z95 * error)
    no_rate = np.where((reason == "") & (base == 0), "no_positives", reason)
    found = []
    for metric, value, a, b, why, version in (
        (f"{name}_difference", gap, lower, upper, reason, "newcombe-1"),
        (
            f"{name}_ratio",
            ratio,
            np.fmin(ends[0], ratio),
            np.fmax(ends[1], ratio),
            no_rate,
            "log-1",
        ),
    ):
        shown = np.where(why == "", value, np.nan)
        found.append(table_rows(cells, metric, shown, a, b, n + base_n, why, version))
    return found


def _largest(cells: pd.DataFrame, window: Positions, gaps: list[MetricRows]) -> list[MetricRows]:
    """Return the rows at slice `all`: of every metric the group that is furthest from parity."""
    rows = stack_rows(gaps)
    whole = cells.iloc[window[:1]].assign(slice_key=ALL, slice_value=ALL)
    metrics = []
    for metric, part in rows.groupby("metric", sort=True):
        known = part[part["value"].notna()]
        if known.empty:
            first = part.iloc[0]
            metrics.append(
                table_rows(whole, str(metric), np.nan, np.nan, np.nan, int(first["n"]),
                            first["reason"], f"{first['method_version']}-max")
            )  # fmt: skip
            continue
        is_ratio = str(metric).endswith("_ratio")
        with np.errstate(divide="ignore"):
            shown = known[["value", "lower", "upper"]].to_numpy(np.float64)
            values = np.log(shown) if is_ratio else shown
        widen = special.ndtri(1 - 0.025 / len(known)) / Z95
        worst = int(np.argmax(np.abs(values[:, 0])))
        value, low, high = values[worst]
        if np.isfinite(value):
            low, high = value - widen * (value - low), value + widen * (high - value)
        shown = np.exp([value, low, high]) if is_ratio else np.array([value, low, high])
        n = int(known["n"].iloc[worst])
        version = f"{known['method_version'].iloc[worst]}-max"
        metrics.append(table_rows(whole, str(metric), shown[0], shown[1], shown[2], n, "", version))
    return metrics
