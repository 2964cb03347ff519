"""Weights for shifted inputs: they match the margins, and are refused where they cannot help."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import weighted_baseline
from benchmarks.estimate_tasks import CLASSES, class_profiles, draw_classes
from benchmarks.scored_worlds import SHAPES, counted, draw, mixture, shaped
from benchmarks.weighted_baseline import Baseline
from mlmon_dagster.metrics.binnings import upper_edges
from mlmon_dagster.metrics.estimated.multiclass import (
    CONFIDENCE,
    calibrate_classes,
    estimated_classes,
)
from mlmon_dagster.metrics.estimated.reweighting import (
    Margin,
    Weighing,
    grouping,
    rake,
)
from mlmon_dagster.profiles.bin_shapes import numeric_binning, role_binning

RNG = np.random.default_rng(11)
SIZE = 20_000
BASE = RNG.integers(0, 4, (2, SIZE))


def margins(*shares, rows=2000, uncovered=0.0):
    return [
        Margin(groups, rows * np.array(share), uncovered)
        for groups, share in zip(BASE, shares, strict=True)
    ]


def test_weighted_rows_have_the_windows_shares():
    """Raked margins agree exactly: each column's groups are drawn by themselves."""
    wanted = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    weights = rake(margins(*wanted), np.ones(SIZE))
    assert weights.reason == ""
    assert weights.effective < SIZE
    for groups, share in zip(BASE, wanted, strict=True):
        held = np.bincount(groups, weights.values) / SIZE
        np.testing.assert_allclose(held, share, atol=1e-6)


@pytest.mark.parametrize(
    ("shares", "uncovered", "reason"),
    [
        (((0.25,) * 4,) * 2, 0.0, "no_shift"),
        (((0.7, 0.1, 0.1, 0.1),) * 2, 0.2, "outside_baseline"),
        (((0.9997, 0.0001, 0.0001, 0.0001),) * 2, 0.0, "few_effective_rows"),
    ],
)
def test_weights_that_cannot_help_are_not_used(shares, uncovered, reason):
    weights = rake(margins(*shares, uncovered=uncovered), np.ones(SIZE))
    assert weights.reason == reason
    assert set(weights.values) == {1.0}


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
    assert (away["method_version"] == "cbpe-4").mean() >= 0.95
    assert away["value"].abs().max() < 0.01
    assert ((away["lower"] <= 0) & (away["upper"] >= 0)).all()


def test_weights_are_taken_where_the_score_does_not_carry_the_shift():
    """In nine of ten windows of 1,000 rows at least."""
    rng = np.random.default_rng(13)
    found = Baseline(*draw(rng, 20, 1000, 0, 0), 0.5).chosen(*draw(rng, 20, 1000, 0, 0.7))
    rate = found[found["metric"] == "actual_rate_residual"]
    assert (rate["method_version"] == "iw-cbpe-6").mean() >= 0.9
    assert rate["value"].abs().mean() < 0.02


def test_where_the_score_carries_the_shift_the_choice_costs_at_most_5_percent():
    """The mean error of 5 baselines' 20 windows each, beside the better of the two methods."""
    rng = np.random.default_rng(14)
    errors = []
    for _ in range(5):
        base, drawn = Baseline(*draw(rng, 20, 1000, 0, 0), 0.5), draw(rng, 20, 1000, 0.7, 0)
        counts, found = counted(*drawn[:2]), base.weighings(drawn[0], drawn[2])
        frames = base.residuals(counts, {}), base.residuals(counts, found), base.chosen(*drawn)
        for frame in frames:
            rate = frame["metric"] == "actual_rate_residual"
            errors.append(frame.loc[rate, "value"].abs().mean())
    plain, weighted, chosen = np.reshape(errors, (5, 3)).mean(axis=0)
    assert chosen <= 1.05 * min(plain, weighted)


def test_a_rounded_score_that_carries_a_shift_is_weighted_though_rows_left_out_hardly_tell_why():
    """Within a tenth of score the shift goes on. By the likelihood left out: .77 of the windows."""
    rng, taken = np.random.default_rng(20), []
    for _ in range(6):
        score, *known = draw(rng, 20, 2000, 0, 0)
        own, _, seen = draw(rng, 5, 2000, 0.7, 0)
        found = Baseline(shaped(score, "1 decimal"), *known, 0.5).weighings(
            shaped(own, "1 decimal"), seen
        )
        taken += [one.is_better(["score"]) for one in found.values()]
    assert len(taken) == 30
    assert np.mean(taken) >= 0.9


def test_after_a_shift_the_estimate_is_off_by_less_than_a_third_of_a_large_windows_chance():
    """Outer groups of a twentieth, or a change taken in part, are off by half of it: -.003."""
    rng, away = np.random.default_rng(15), []
    for _ in range(4):
        base = Baseline(*draw(rng, 20, 5000, 0, 0), 0.5)
        found = base.chosen(*draw(rng, 20, 5000, 0, 0.7))
        away.append(found.loc[found["metric"] == "actual_rate_residual", "value"])
    away = np.concatenate(away)
    assert abs(away.mean()) < 0.33 * (0.25 / 5000) ** 0.5


def test_outer_bins_of_a_number_are_cut_and_no_part_holds_less_than_1_percent():
    values = np.random.default_rng(16).normal(size=10_000)
    edges = np.quantile(values, np.arange(1, 20) / 20)
    binning = numeric_binning("x", edges.tolist(), low=values.min(), high=values.max())
    codes = np.searchsorted(upper_edges(binning)[:-1], values)
    found = grouping(binning, codes)
    held = np.bincount(found.groups, minlength=found.size)[:-1]  # the last is null
    assert 24 <= len(held) <= 28
    assert held.min() >= 100
    assert (np.diff(found.of_code[:-1]) != 0).sum() == len(held) - 1  # neighbours only


def test_weights_of_a_large_baseline_cost_little_though_some_of_its_rows_are_weighted(monkeypatch):
    """60,000 rows, 10,000 of them weighted: by their own curve alone PR AUC is off 1.3 times."""
    monkeypatch.setattr(weighted_baseline, "MOST_ROWS", 10_000)
    rng, away = np.random.default_rng(19), []
    for _ in range(10):
        base, drawn = Baseline(*draw(rng, 30, 2000, 0, 0), 0.5), draw(rng, 4, 2000, 0.7, 0)
        found = base.weighings(drawn[0], drawn[2])
        frames = [base.residuals(counted(*drawn[:2]), one) for one in ({}, found)]
        away += [
            one.loc[one["metric"] == "pr_auc_residual", "value"].abs().mean() for one in frames
        ]
    plain, weighted = np.reshape(away, (10, 2)).mean(axis=0)
    assert weighted <= 1.1 * plain


def test_no_row_in_all_of_a_windows_groups_means_no_weights():
    """Baseline's rows are on a diagonal, the window's off it."""
    same = np.repeat([0, 1], 5000)
    apart = [Margin(same, np.array([900.0, 0.0]), 0.0), Margin(same, np.array([0.0, 900.0]), 0.0)]
    assert rake(apart, np.ones(10_000)).reason == "few_effective_rows"


def test_rows_alike_counted_together_have_the_weights_of_each():
    wanted = (0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)
    alone = rake(margins(*wanted), np.ones(SIZE))
    _, first, place, n = np.unique(
        BASE[0] * 4 + BASE[1], return_index=True, return_inverse=True, return_counts=True
    )
    some = [one._replace(groups=one.groups[first]) for one in margins(*wanted)]
    together = rake(some, n.astype(float))
    np.testing.assert_allclose(together.values[place], alone.values)
    assert together.effective == pytest.approx(alone.effective)


@pytest.mark.parametrize(("better", "methods"), [
    (CONFIDENCE, {"accuracy": "iw-ovr-cbpe-6", "brier": "ovr-cbpe-5", "log_loss": "ovr-cbpe-5"}),
    ("a", {"accuracy": "ovr-cbpe-5", "brier": "iw-ovr-cbpe-6", "macro_roc_auc": "iw-ovr-cbpe-6"}),
])  # fmt: skip
def test_each_metric_of_many_classes_has_the_method_that_its_own_scores_prefer(better, methods):
    rng = np.random.default_rng(17)
    score, actual, _ = draw_classes(rng, 20, 300, 0.0)
    base, now = class_profiles(score, actual), class_profiles(score[:, :2], actual[:, :2])
    learnt = calibrate_classes(base, base, CLASSES, 1)
    gains = {name: 1.0 if name == better else -1.0 for name in base}
    gains |= {name: 0.0 for name in CLASSES if better == "a" and name != "a"}
    found = estimated_classes(now, learnt, {1: Weighing(learnt.curves, gains)})
    second = found[found["window_start"] == found["window_start"].max()]
    by_metric = second.set_index("metric")["method_version"]
    for metric, method in methods.items():
        assert by_metric[f"estimated_{metric}"] == by_metric[f"{metric}_residual"] == method
    first = found[found["window_start"] == found["window_start"].min()]
    assert set(first["method_version"]) == {"ovr-cbpe-5"}
