"""Curves over every threshold and quality class by class, beside scikit-learn's of the rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, precision_recall_curve, precision_recall_fscore_support, roc_curve

from mlmon_dagster.metrics.performance.roc import (
    class_quality,
    operating_points,
    roc_auc,
    thinned,
)

RNG = np.random.default_rng(0)
LABELS = RNG.random(3_000) < 0.2
BINS = np.clip((RNG.normal(0, 1, 3_000) + LABELS) * 12 + 40, 0, 79).astype(int)
NEGATIVES, POSITIVES = (np.bincount(BINS[side == LABELS], minlength=80) for side in (0, 1))


def test_the_curves_are_those_of_scikit_learn() -> None:
    points = operating_points(NEGATIVES, POSITIVES)

    false, true, thresholds = roc_curve(LABELS, BINS, drop_intermediate=False)
    at = [0, *(80 - thresholds[1:].astype(int))]
    assert points.false_alarms[at] == pytest.approx(false, abs=1e-12)
    assert points.recall[at] == pytest.approx(true, abs=1e-12)
    precision, recall, found = precision_recall_curve(LABELS, BINS)
    at = 80 - found.astype(int)
    assert points.precision[at] == pytest.approx(precision[:-1], abs=1e-12)
    assert points.recall[at] == pytest.approx(recall[:-1], abs=1e-12)
    area = roc_auc(NEGATIVES[None], POSITIVES[None]).value[0]
    assert auc(points.false_alarms, points.recall) == pytest.approx(area, abs=1e-12)


def test_a_thinned_curve_keeps_its_ends_and_its_area() -> None:
    points = operating_points(NEGATIVES, POSITIVES)
    kept = thinned(points, 48)
    assert (kept[0], points.recall[kept[-1]], points.false_alarms[kept[-1]]) == (0, 1, 1)
    assert len(kept) <= 48
    whole = auc(points.false_alarms, points.recall)
    assert auc(points.false_alarms[kept], points.recall[kept]) == pytest.approx(whole, abs=0.002)


@pytest.mark.parametrize("empty", ["negatives", "positives"])
def test_rates_of_a_class_without_rows_are_not_given(empty: str) -> None:
    sides = {"negatives": NEGATIVES, "positives": POSITIVES} | {empty: np.zeros(80, int)}
    points = operating_points(**sides)
    missing = points.false_alarms if empty == "negatives" else points.recall
    assert np.isnan(missing).all()


def test_quality_class_by_class_is_that_of_scikit_learn() -> None:
    actual, predicted = RNG.integers(0, 4, 500), RNG.integers(0, 3, 500)  # nothing decided for 3
    table = np.zeros((4, 4), int)
    np.add.at(table, (predicted, actual), 1)
    found = class_quality(table)
    precision, recall, f1, support = precision_recall_fscore_support(
        actual, predicted, zero_division=np.nan
    )
    assert found.actual.tolist() == support.tolist()
    for mine, theirs in ((found.precision, precision), (found.recall, recall)):
        assert mine == pytest.approx(theirs, abs=1e-12, nan_ok=True)
    assert found.f1[:3] == pytest.approx(f1[:3], abs=1e-12)
    assert found.f1[3] == 0.0  # actual, and never right
    inside = (found.recall_ends[:, 0] <= recall) & (recall <= found.recall_ends[:, 1])
    assert inside.all()
