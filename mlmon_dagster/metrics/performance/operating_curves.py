"""What a binary classifier would do at every threshold, and how right it is class by class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mlmon_dagster.metrics.arrays import Floats, Ints
from mlmon_dagster.metrics.intervals import rate, wilson


class OperatingPoints(NamedTuple):
    """What decisions at T thresholds would be, the highest threshold first, each (T,).

    Attributes:
        flagged: Share of the rows that score as high; the first is 0, the last 1.
        recall: Of the positives, the share that does; also called true positive rate.
        false_alarms: Of the negatives, the share that does; false positive rate.
        precision: Of the rows that score as high, the share that is positive; NaN at the first.
    """

    flagged: Floats
    recall: Floats
    false_alarms: Floats
    precision: Floats


def operating_points(negatives: Ints, positives: Ints) -> OperatingPoints:
    """Return what deciding for the highest scores would give, a bin of scores more at a time.

    ``false_alarms`` against ``recall`` is the ROC curve, whose area between straight lines is that
    of `roc_auc`; ``recall`` against ``precision`` the precision-recall curve (Fawcett, 2006).
    Scores inside one bin are taken as tied.

    Args:
        negatives: Rows with actual 0 per score bin, ascending scores, shape (S,).
        positives: Rows with actual 1, shape (S,).

    Returns:
        S + 1 points; rates of a class that has no rows are NaN.

    Example:
        >>> found = operating_points(np.array([3, 1]), np.array([1, 3]))
        >>> found.recall.tolist(), found.false_alarms.tolist(), found.precision.tolist()
        ([0.0, 0.75, 1.0], [0.0, 0.25, 1.0], [nan, 0.75, 0.5])
    """
    false, true = (np.append(0, np.cumsum(side[::-1])) for side in (negatives, positives))
    return OperatingPoints(
        rate(false + true, false[-1] + true[-1]),
        rate(true, true[-1]),
        rate(false, false[-1]),
        rate(true, false + true),
    )


def thinned(points: OperatingPoints, most: int) -> Ints:
    """Choose points that draw the same curves: about equal steps along the ROC curve, and the ends.

    Args:
        points: Of one classifier, both classes present.
        most: How many at most, 2 or more.

    Returns:
        Their places, ascending.
    """
    along = points.recall + points.false_alarms
    wanted = np.linspace(0, 2, most)
    return np.unique(np.searchsorted(along, wanted - 1e-12).clip(0, len(along) - 1))


class ClassQuality(NamedTuple):
    """How right decisions were, class by class, each (K,) or with its ends (K, 2).

    Attributes:
        actual: Rows that are of the class, its support.
        predicted: Rows that were decided for it.
        precision: Of those decided for it, the share that is of it; NaN where there are none.
        recall: Of those that are of it, the share decided for it; NaN where there are none.
        f1: The harmonic mean of both; NaN where the class is neither predicted nor actual.
        precision_ends: Wilson's 95 % interval.
        recall_ends: As well.
    """

    actual: Ints
    predicted: Ints
    precision: Floats
    recall: Floats
    f1: Floats
    precision_ends: Floats
    recall_ends: Floats


def class_quality(table: Ints) -> ClassQuality:
    """Return the quality of each class of a table of decisions.

    Args:
        table: Predicted x actual, (K, K).

    Example:
        >>> found = class_quality(np.array([[8, 2], [0, 0]]))
        >>> found.precision.tolist(), found.recall.tolist(), found.actual.tolist()
        ([0.8, nan], [1.0, 0.0], [8, 2])
    """
    right, predicted, actual = np.diagonal(table), table.sum(axis=1), table.sum(axis=0)
    return ClassQuality(
        actual,
        predicted,
        rate(right, predicted),
        rate(right, actual),
        rate(2 * right, predicted + actual),
        np.column_stack(wilson(right, predicted)),
        np.column_stack(wilson(right, actual)),
    )
