"""Metrics of a binary classifier from counts that need not be whole: realized or expected.

Beside each value stands its slope: by how much it changes if one negative row of a score bin turns
out positive. With independent actuals the variance of the realized value, given the scores, is the
sum of ``rows * p * (1 - p) * slope^2`` over the bins (delta method: a row's actual is a Bernoulli
variable of variance p (1 - p), and moves the metric by its slope).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics.arrays import Floats


class Table(NamedTuple):
    """Rows per cell and score bin, (C, S), by actual; `hit` and `false` are the decided ones.

    Attributes:
        positives: With actual 1.
        negatives: With actual 0.
        hit: Of the positives, those that were decided positive; None if no decision is logged.
        false: Of the negatives, those that were decided positive.
    """

    positives: Floats
    negatives: Floats
    hit: Floats | None = None
    false: Floats | None = None


def expected_table(rows: Floats, decided: Floats | None, curve: Floats) -> Table:
    """Share out rows by the chance of being positive.

    Args:
        rows: Rows per cell and bin, (C, S).
        decided: Of these, the rows that were decided positive.
        curve: P(positive) per bin, (S,) or (C, S).
    """
    table = Table(rows * curve, rows * (1 - curve))
    if decided is None:
        return table
    return table._replace(hit=decided * curve, false=decided * (1 - curve))


def values_of(table: Table, middles: Floats) -> dict[str, Floats]:
    """Return metric -> value per cell, NaN where it is undefined.

    Args:
        table: The counts.
        middles: A typical score per bin, (S,).
    """
    pos, neg = table.positives, table.negatives
    p, n = pos.sum(axis=1), neg.sum(axis=1)
    total = p + n
    with np.errstate(invalid="ignore", divide="ignore"):
        below = np.cumsum(neg, axis=1) - neg / 2
        seen, precision = _from_top(pos), _from_top(pos + neg)
        precision = np.where(precision > 0, seen / precision, 0)
        found = {
            "roc_auc": np.einsum("cs,cs->c", pos, below) / (p * n),
            "pr_auc": np.einsum("cs,cs->c", pos, precision) / p,
            "brier": (pos @ (1 - middles) ** 2 + neg @ middles**2) / total,
            "log_loss": -(pos @ np.log(middles) + neg @ np.log1p(-middles)) / total,
            "actual_rate": p / total,
        }
        if table.hit is not None and table.false is not None:
            found |= _of_decisions(table.hit.sum(axis=1), table.false.sum(axis=1), p, n)
    return found


def _of_decisions(tp: Floats, fp: Floats, p: Floats, n: Floats) -> dict[str, Floats]:
    recall, specificity = tp / p, 1 - fp / n
    return {
        "accuracy": (tp + n - fp) / (p + n),
        "balanced_accuracy": (recall + specificity) / 2,
        "precision": tp / (tp + fp),
        "recall": recall,
        "specificity": specificity,
        "f1": 2 * tp / (tp + fp + p),
    }


def sampling_variances(
    table: Table, spread: Floats, decided_spread: Floats | None, middles: Floats
) -> dict[str, Floats]:
    """Return metric -> variance of the realized value around the expected one, per cell.

    Args:
        table: Expected counts.
        spread: ``rows * p * (1 - p)`` per cell and bin.
        decided_spread: The same of the rows that were decided positive.
        middles: A typical score per bin.
    """
    total = (table.positives + table.negatives).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "roc_auc": _squares(spread, _roc_slope(table)),
            "pr_auc": _squares(spread, _pr_slope(table)),
            "brier": spread @ (1 - 2 * middles) ** 2 / total**2,
            "log_loss": spread @ np.log(middles / (1 - middles)) ** 2 / total**2,
            "actual_rate": spread.sum(axis=1) / total**2,
        }
        if decided_spread is not None:
            found |= _decision_variances(table, spread, decided_spread)
    return found


def _squares(spread: Floats, slope: Floats) -> Floats:
    return np.asarray(np.einsum("cs,cs,cs->c", spread, slope, slope))


def _roc_slope(table: Table) -> Floats:
    pos, neg = table.positives, table.negatives
    p, n = pos.sum(axis=1)[:, None], neg.sum(axis=1)[:, None]
    below = (np.cumsum(neg, axis=1) - neg / 2) / n
    above = 1 - (np.cumsum(pos, axis=1) - pos / 2) / p
    area = (pos * below).sum(axis=1, keepdims=True) / p
    return np.asarray((below - area) / p - (above - area) / n)


def _pr_slope(table: Table) -> Floats:
    """As the influence function of average precision; see `performance.binary`."""
    pos, neg = table.positives, table.negatives
    p = pos.sum(axis=1)[:, None]
    rows = _from_top(pos + neg)
    precision = np.where(rows > 0, _from_top(pos) / rows, 0)
    area = (pos * precision).sum(axis=1, keepdims=True) / p
    share = np.where(rows > 0, pos / rows, 0)
    # A positive instead of a negative raises the precision at every threshold up to its score.
    return np.asarray((precision - area + np.cumsum(share, axis=1)) / p)


def _decision_variances(table: Table, spread: Floats, decided_spread: Floats) -> dict[str, Floats]:
    assert table.hit is not None
    assert table.false is not None
    tp, fp = table.hit.sum(axis=1), table.false.sum(axis=1)
    p, n = table.positives.sum(axis=1), table.negatives.sum(axis=1)
    yes = decided_spread.sum(axis=1)
    no = spread.sum(axis=1) - yes
    value = _of_decisions(tp, fp, p, n)
    # Slopes where the decision was positive, and where it was negative.
    recall = (1 - value["recall"]) / p, -value["recall"] / p
    specificity = value["specificity"] / n, (value["specificity"] - 1) / n
    f1 = value["f1"]
    slopes = {
        "accuracy": (1 / (p + n), -1 / (p + n)),
        "balanced_accuracy": tuple((a + b) / 2 for a, b in zip(recall, specificity, strict=True)),
        "precision": (1 / (tp + fp), 0 * p),
        "recall": recall,
        "specificity": specificity,
        "f1": ((2 - f1) / (tp + fp + p), -f1 / (tp + fp + p)),
    }
    return {name: yes * a**2 + no * b**2 for name, (a, b) in slopes.items()}


def _from_top(counts: Floats) -> Floats:
    found: Floats = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    return found
