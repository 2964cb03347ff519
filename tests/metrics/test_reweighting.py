"""Weights for shifted inputs: they match the margins, and are refused where they cannot help."""

from __future__ import annotations

import numpy as np
import pytest

from mlmon_dagster.metrics.reweighting import Margin, rake, weighted_curves

RNG = np.random.default_rng(11)
SIZE = 20_000
BASE = RNG.integers(0, 4, (2, SIZE))


def margins(*shares, rows=2000, uncovered=0.0):
    return [
        Margin(groups, rows * np.array(share), uncovered)
        for groups, share in zip(BASE, shares, strict=True)
    ]


def test_weighted_rows_have_the_windows_shares():
    """Raked margins agree within what James and Stein's factor leaves at 2,000 rows: .01."""
    wanted = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    weights = rake(margins(*wanted), SIZE)
    assert weights.reason == ""
    assert weights.effective < SIZE
    for groups, share in zip(BASE, wanted, strict=True):
        held = np.bincount(groups, weights.values) / SIZE
        np.testing.assert_allclose(held, share, atol=0.01)


@pytest.mark.parametrize(
    ("shares", "uncovered", "reason"),
    [
        (((0.25,) * 4,) * 2, 0.0, "no_shift"),
        (((0.7, 0.1, 0.1, 0.1),) * 2, 0.2, "outside_baseline"),
        (((0.9997, 0.0001, 0.0001, 0.0001),) * 2, 0.0, "few_effective_rows"),
    ],
)
def test_weights_that_cannot_help_are_not_used(shares, uncovered, reason):
    weights = rake(margins(*shares, uncovered=uncovered), SIZE)
    assert weights.reason == reason
    assert set(weights.values) == {1.0}


def test_equal_weights_give_the_plain_curve():
    bins = RNG.integers(0, 6, 3000)
    is_positive = RNG.random(3000) < bins / 6
    found = weighted_curves(bins, is_positive, RNG.integers(0, 10, 3000), np.ones(3000), 6)
    known = [is_positive[bins == b].mean() for b in range(1, 6)]
    np.testing.assert_allclose(found.curve[1:], known, atol=0.02)
    assert found.replicates.shape == (10, 6)
