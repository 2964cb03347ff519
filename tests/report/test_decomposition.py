from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlmon_dagster.metrics.performance.binary import performance_metrics
from mlmon_dagster.metrics.statistics import Binning, ColumnStatistics
from mlmon_dagster.trace.splits import decompose, ratio_parts
from tests.metrics.samples import statistics

RATIOS = ("accuracy", "precision", "recall", "f1", "actual_rate", "predicted_rate")
CONFUSION = Binning("prediction", "confusion", 6, "id")
# Numerator and denominator of one slice, absent if the denominator is 0.
part = st.integers(0, 10**6).flatmap(lambda m: st.tuples(st.integers(0, m), st.just(m)))
slices = st.lists(st.tuples(part, part), min_size=1, max_size=12)


def sides(parts: list[tuple[tuple[int, int], tuple[int, int]]]) -> list[NDArray[np.int64]]:
    now, then = zip(*parts, strict=True)
    return [np.array(column) for side in (now, then) for column in zip(*side, strict=True)]


@given(slices)
def test_mix_and_within_add_up_to_the_change_exactly(parts) -> None:
    k, m, k0, m0 = sides(parts)
    found = decompose(k, m, k0, m0)

    if m.sum() == 0 or m0.sum() == 0:
        assert np.isnan(found.mix).all()
        assert np.isnan(found.within).all()
    else:
        change = k.sum() / m.sum() - k0.sum() / m0.sum()
        assert abs(found.mix.sum() + found.within.sum() - change) <= 1e-12
        assert found.value - found.baseline_value == pytest.approx(change, abs=1e-15)


@given(slices)
def test_the_effects_are_what_their_definition_says(parts) -> None:
    k, m, k0, m0 = (side.astype(float) for side in sides(parts))
    found = decompose(k, m, k0, m0)
    if not m.sum() or not m0.sum():
        return
    middle = (k.sum() / m.sum() + k0.sum() / m0.sum()) / 2
    for i in range(len(k)):
        w, w0 = m[i] / m.sum(), m0[i] / m0.sum()
        if m[i] and m0[i]:
            r, r0 = k[i] / m[i], k0[i] / m0[i]
            assert found.within[i] == pytest.approx((w + w0) / 2 * (r - r0), abs=1e-15)
            assert found.mix[i] == pytest.approx((w - w0) * ((r + r0) / 2 - middle), abs=1e-15)
        elif m[i] or m0[i]:
            r = k[i] / m[i] if m[i] else k0[i] / m0[i]
            assert found.within[i] == 0
            assert found.mix[i] == pytest.approx((w - w0) * (r - middle), abs=1e-15)
        else:
            assert found.within[i] == found.mix[i] == 0


def test_without_slices_there_is_nothing_to_explain() -> None:
    found = decompose([], [], [], [])

    assert np.isnan(found.value)
    assert found.mix.size == found.within.size == 0


def confusions(counts: list[list[int]]) -> ColumnStatistics:
    return statistics(CONFUSION, np.array(counts, np.int64))


cells = st.lists(st.lists(st.integers(0, 500), min_size=6, max_size=6), min_size=1, max_size=6)


@given(cells)
def test_the_ratio_of_the_parts_is_the_metric(counts) -> None:
    """Where every row has ground truth: else the metric is weighted back, and the parts are not."""
    stats = confusions([[0, *row[1:3], 0, *row[4:]] for row in counts])
    values = performance_metrics(None, stats).set_index("metric")["value"]

    for metric in RATIOS:
        parts = ratio_parts(metric, None, stats)
        assert parts is not None
        for k, m, value in zip(*parts, np.atleast_1d(values[metric]), strict=True):
            assert (m == 0 and np.isnan(value)) or k / m == pytest.approx(value, abs=1e-12)


def test_areas_and_what_was_not_logged_have_no_parts() -> None:
    assert ratio_parts("roc_auc", None, confusions([[1] * 6])) is None
    assert ratio_parts("accuracy", None, None) is None
    assert ratio_parts("brier", None, confusions([[1] * 6])) is None
