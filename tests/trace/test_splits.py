"""Splits add up to the change, whatever the tables; swapped sides swap the signs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, roc_auc_score

from mlmon_dagster.trace.splits import (
    DECISIONS,
    area_effects,
    area_of,
    decision_effects,
    measured,
    score_effects,
    score_groups,
    slice_effects,
    told_apart,
    value_of,
    window_effects,
)

EXACT = 1e-12
TABLES = 250
DRAWS = 300


def random_counts(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return counts with slices that are new, gone, empty, or of one class."""
    counts = rng.poisson(rng.choice([0.3, 5, 60], (*shape[:-1], 1)), shape).astype(float)
    counts[rng.random(counts.shape) < 0.2] = 0
    return counts


def worlds(*shape: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return pairs of tables; both sides have both classes."""
    rng = np.random.default_rng(5)
    found = []
    while len(found) < TABLES:
        now, then = random_counts(rng, *shape), random_counts(rng, *shape)
        if all((side.reshape(2, -1).sum(axis=1) > 0).all() for side in (now, then)):
            found.append((now, then))
    return found


def area(counts: np.ndarray) -> float:
    """Return scikit-learn's area of negatives and positives per bin, (2, B)."""
    bins = np.arange(counts.shape[-1])
    scores = np.concatenate([bins, bins])
    truth = np.repeat([0, 1], len(bins))
    return float(roc_auc_score(truth, scores, sample_weight=counts.ravel()))


@pytest.mark.parametrize("size", [1, 2, 7])
def test_areas_of_pairs_of_slices_add_up_and_change_sign_with_the_sides(size):
    for now, then in worlds(2, size, 12):
        found = area_effects(now, then)
        change = area(now.sum(axis=1)) - area(then.sum(axis=1))
        assert found.sum() == pytest.approx(change, abs=EXACT)
        assert area_effects(then, now) == pytest.approx(-found, abs=EXACT)
        if size == 1:
            assert found == pytest.approx([0, change, 0], abs=EXACT)


def test_ratios_of_slices_add_up_with_leading_axes_as_without():
    pairs = worlds(2, 6)
    for now, then in pairs:
        now[0], then[0] = np.minimum(now[0], now[1]), np.minimum(then[0], then[1])
    usable = [(a, b) for a, b in pairs if a[1].sum() and b[1].sum()]
    together = slice_effects(*(np.stack(side) for side in zip(*usable, strict=True)))
    for (now, then), found in zip(usable, together, strict=True):
        change = now[0].sum() / now[1].sum() - then[0].sum() / then[1].sum()
        assert found.sum() == pytest.approx(change, abs=EXACT)
        assert found == pytest.approx(slice_effects(now, then), abs=EXACT)
        assert slice_effects(then, now) == pytest.approx(-found, abs=EXACT)


def rows_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]), table.ravel()


def metric_of(name: str, table: np.ndarray) -> float:
    """Return scikit-learn's metric of a table predicted x actual."""
    truth, decided, weight = rows_of(table)
    if name == "accuracy":
        return float(np.trace(table) / table.sum())
    if name == "value":
        (_, fn), (fp, tp) = table
        return float((50 * tp - 5 * fp - 20 * fn) / table.sum())
    score = {"f1": f1_score, "precision": precision_score}[name]
    return float(score(truth, decided, sample_weight=weight))


@pytest.mark.parametrize("name", ["f1", "accuracy", "precision", "value"])
def test_decisions_are_shared_out_as_all_orders_of_the_players_say(name):
    metric = value_of(-50, 5, 20, 0) if name == "value" else DECISIONS[name]
    rng = np.random.default_rng(3)
    for _ in range(TABLES):
        now, then = rng.integers(1, 90, (2, 2, 2)).astype(float)
        found = decision_effects(metric)(now, then)
        assert found.sum() == pytest.approx(metric_of(name, now) - metric_of(name, then), abs=EXACT)
        assert decision_effects(metric)(then, now) == pytest.approx(-found, abs=EXACT)
        assert found == pytest.approx(_by_orders(metric, now, then), abs=EXACT)


def _by_orders(metric, now, then):
    def rates(table):
        positives, negatives = table[:, 1].sum(), table[:, 0].sum()
        share = positives / (positives + negatives)
        return np.array([share, table[1, 1] / positives, table[1, 0] / negatives])

    effects = np.zeros(3)
    for order in itertools.permutations(range(3)):
        at = rates(then)
        for player in order:
            before = metric(at)
            at = at.copy()
            at[player] = rates(now)[player]
            effects[player] += metric(at) - before
    return effects / math.factorial(3)


def test_law_and_meaning_add_up_to_the_change_of_the_groups_area():
    for now, then in worlds(2, 200):
        starts = score_groups(now.sum(axis=0), then.sum(axis=0), 20)
        assert starts[0] == 0
        assert len(starts) <= 20
        grouped = [np.add.reduceat(side, starts, axis=-1) for side in (now, then)]
        if min(side.sum(axis=0).min() for side in grouped) < 5:
            continue  # a side does not say what scores mean there
        found = score_effects(starts)(now, then)
        assert found.sum() == pytest.approx(area(grouped[0]) - area(grouped[1]), abs=EXACT)
        assert score_effects(starts)(then, now) == pytest.approx(-found, abs=EXACT)


def scored(rng, n, spread=1.3, meaning=0.0, shift=0.0):
    """Return negatives and positives per bin of n rows whose logits are normal."""
    logit = rng.normal(shift - 1, spread, n)
    actual = rng.random(n) < 1 / (1 + np.exp(-(logit * (1 - meaning))))
    bins = np.clip(((logit + 6) / 12 * 256).astype(int), 0, 255)
    return np.stack([np.bincount(bins[actual == k], minlength=256) for k in (False, True)])


@pytest.mark.parametrize(("spread", "meaning", "quiet"), [(0.8, 0.0, 1), (1.3, 0.5, 0)])
def test_where_only_one_of_law_and_meaning_changed_the_interval_of_the_other_holds_zero(
    spread, meaning, quiet
):
    rng, held, moved = np.random.default_rng(2), [], []
    for _ in range(DRAWS):
        now = np.stack([scored(rng, 300, spread, meaning) for _ in range(20)])
        then = np.stack([scored(rng, 300) for _ in range(20)])
        starts = score_groups(now.sum(axis=(0, 1)), then.sum(axis=(0, 1)))
        found = measured(score_effects(starts), now, then, ("law", "meaning"))
        held.append(abs(found.effects[quiet]) <= found.margins[quiet])
        moved.append(abs(found.effects[1 - quiet]) > found.margins[1 - quiet])
    by_chance = 2 * math.sqrt(0.95 * 0.05 / DRAWS)
    assert np.mean(held) >= 0.95 - by_chance
    assert np.mean(moved) >= 0.95


def test_sides_are_told_apart_as_well_as_their_scores_differ():
    rng = np.random.default_rng(1)
    near, far = scored(rng, 4_000).sum(axis=0), scored(rng, 4_000, shift=6.0).sum(axis=0)

    assert told_apart(near, scored(rng, 4_000).sum(axis=0)) < 0.53
    assert told_apart(near, far) > 0.95
    assert told_apart(far, near) == told_apart(near, far)


def test_a_window_adds_what_the_metric_loses_without_it():
    counts = random_counts(np.random.default_rng(4), 6, 2, 30) + 1
    found = window_effects(area_of, counts)

    for window, effect in enumerate(found):
        rest = np.delete(counts, window, axis=0).sum(axis=0)
        assert effect == pytest.approx(area(counts.sum(axis=0)) - area(rest), abs=EXACT)


def test_the_jackknife_is_the_one_of_the_windows_and_few_windows_say_nothing():
    rng = np.random.default_rng(6)
    now, then = random_counts(rng, 9, 2, 4) + 2, random_counts(rng, 12, 2, 4) + 2
    found = measured(slice_effects, now, then, [f"part {i}" for i in range(8)])
    left = [slice_effects(np.delete(now, w, 0).sum(0), then.sum(0)).sum() for w in range(9)]
    right = [slice_effects(now.sum(0), np.delete(then, w, 0).sum(0)).sum() for w in range(12)]
    variances = [
        (len(values) - 1) / len(values) * ((np.array(values) - found.change) ** 2).sum()
        for values in (left, right)
    ]
    assert found.margin == pytest.approx(
        _t(variances, (9, 12)) * math.sqrt(sum(variances)), rel=1e-9
    )
    few = measured(slice_effects, now[:7], then, [f"part {i}" for i in range(8)])
    assert np.isnan(few.margins).all()
    assert np.isnan(few.p_values).all()
    assert np.isfinite(few.effects).all()


def _t(variances, windows):
    from scipy import stats

    top = sum(variances) ** 2
    degrees = top / sum(v**2 / (w - 1) for v, w in zip(variances, windows, strict=True))
    return stats.t.ppf(0.975, degrees)
