"""Weights for shifted inputs: they match the margins, and are refused where they cannot help."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.scored_worlds import SHAPES, logistic, mixture, shaped
from benchmarks.weighted_baseline import Baseline
from mlmon_dagster.metrics.estimated.reweighting import Margin, block_curves, grouping, rake
from mlmon_dagster.profiles.bins.shapes import role_binning

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


def test_blocks_together_give_the_share_of_positives():
    bins = RNG.integers(0, 6, 3000)
    is_positive = RNG.random(3000) < bins / 6
    flat = (RNG.integers(0, 10, 3000) * 2 + is_positive) * 6 + bins
    found = block_curves(np.bincount(flat, minlength=120).reshape(10, 2, 6).astype(float))
    known = [is_positive[bins == b].mean() for b in range(1, 6)]
    np.testing.assert_allclose(found.curve[1:], known, atol=0.02)
    assert found.replicates.shape == (10, 6)


def test_a_score_that_many_rows_share_is_one_group_whatever_the_actual():
    """Half of the rows have one score: unlabelled, negative and positive codes go together."""
    binning = role_binning("score", "score")
    bins = np.where(RNG.random(4000) < 0.5, 500, RNG.integers(300, 700, 4000))
    found = grouping(binning, bins * 3 + RNG.integers(0, 3, 4000))
    by_bin = found.of_code[:-1].reshape(-1, 3)
    assert (by_bin == by_bin[:, :1]).all()
    assert len(np.unique(by_bin)) > 5


@pytest.mark.parametrize("shape", SHAPES)
def test_without_a_shift_the_plain_curve_is_taken_however_scores_are_tied(shape):
    rng = np.random.default_rng(12)

    def drawn(windows):
        score, actual, inputs = mixture(rng, windows, 3000)
        return shaped(score, shape), actual, inputs

    found = Baseline(*drawn(14), 0.5).chosen(*drawn(10))
    away = found[found["metric"] == "roc_auc_residual"]
    assert (away["method_version"] == "cbpe-1").mean() >= 0.95
    assert away["value"].abs().max() < 0.01
    assert ((away["lower"] <= 0) & (away["upper"] >= 0)).all()


@pytest.mark.parametrize(("seen", "unseen", "method"), [(0.7, 0, "cbpe-1"), (0, 0.7, "iw-cbpe-2")])
def test_weights_are_taken_where_the_score_does_not_carry_the_shift(seen, unseen, method):
    """Held-out windows decide: in nine of ten windows of 1,000 rows at least."""
    rng = np.random.default_rng(13)

    def drawn(windows, seen, unseen):
        x, z = rng.normal(seen, 1, (windows, 1000)), rng.normal(unseen, 1, (windows, 1000))
        actual = (rng.random(x.shape) < logistic(-1 + 1.3 * x + 0.8 * z)).astype(float)
        return logistic(-0.8 + 1.6 * x), actual, {"x": x, "z": z}

    found = Baseline(*drawn(20, 0, 0), 0.5).chosen(*drawn(20, seen, unseen))
    rate = found[found["metric"] == "actual_rate_residual"]
    assert (rate["method_version"] == method).mean() >= 0.9
    assert rate["value"].abs().mean() < 0.02
