"""Splits add up to the change, whatever the tables; swapped sides swap the signs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import f1_score, precision_score, roc_auc_score

from mlmon_dagster.trace.splits import (
    DECISIONS,
    area_effects,
    area_of,
    decision_effects,
    measured,
    score_effects,
    score_groups,
    told_apart,
    value_of,
    window_effects,
)

EXACT = 1e-12
AT_ONCE = 25  # tables
DRAWS = 300


def tables(seed: int, *shape: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw counts of two sides of many tables, (AT_ONCE, 2, ...).

    With slices that are new, gone, empty or of one class, and whole sides of one class.
    """
    rng = np.random.default_rng(seed)
    counts = rng.poisson(
        rng.choice([0.3, 5, 60], (2, AT_ONCE, *shape[:-1], 1)), (2, AT_ONCE, *shape)
    )
    kept = rng.random((2, AT_ONCE, *shape[:-1], 1)) > 0.2
    both = rng.random((2, AT_ONCE, 2, *(1 for _ in shape[1:]))) > 0.03
    one, other = (counts * kept * both).astype(np.float64)
    return one, other


# A thousand tables of each shape.
thousand = settings(max_examples=1_000 // AT_ONCE, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def has_both_classes(*sides: np.ndarray) -> np.ndarray:
    found = [side.reshape(AT_ONCE, 2, -1).sum(axis=2) > 0 for side in sides]
    return np.logical_and(*found).all(axis=1)


def area(counts: np.ndarray) -> float:
    """Return scikit-learn's area of negatives and positives per bin, (2, B)."""
    bins = np.arange(counts.shape[-1])
    scores = np.concatenate([bins, bins])
    truth = np.repeat([0, 1], len(bins))
    return float(roc_auc_score(truth, scores, sample_weight=counts.ravel()))


@pytest.mark.parametrize("size", [1, 2, 7])
@thousand
@given(seed=seeds)
def test_areas_of_pairs_of_slices_add_up_and_change_sign_with_the_sides(size, seed):
    now, then = tables(seed, 2, size, 12)
    found, known = area_effects(now, then), has_both_classes(now, then)
    change = area_of(now.sum(axis=2)) - area_of(then.sum(axis=2))
    assert np.isnan(found[~known]).all()
    assert found[known].sum(axis=1) == pytest.approx(change[known], abs=EXACT)
    assert area_effects(then, now) == pytest.approx(-found, abs=EXACT, nan_ok=True)
    if size == 1:
        assert found[known][:, 0] == pytest.approx(change[known], abs=EXACT)
    for one, other, effects in zip(now[known][:2], then[known][:2], found[known], strict=False):
        assert effects.sum() == pytest.approx(area(one.sum(1)) - area(other.sum(1)), abs=EXACT)
        assert area_effects(one, other) == pytest.approx(effects, abs=EXACT)


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
@thousand
@given(seed=seeds)
def test_decisions_are_shared_out_as_all_orders_of_the_players_say(name, seed):
    metric = value_of(-50, 5, 20, 0) if name == "value" else DECISIONS[name]
    now, then = (np.swapaxes(side, 1, 2) for side in tables(seed, 2, 2))  # predicted x actual
    found, swapped = (decision_effects(metric)(*sides) for sides in ((now, then), (then, now)))
    assert swapped == pytest.approx(-found, rel=EXACT, abs=EXACT, nan_ok=True)
    for one, other, effects in zip(now, then, found, strict=True):
        all_cells = min(one.min(), other.min()) > 0
        if name in ("f1", "precision") and not all_cells and np.isnan(effects).any():
            continue  # with the recall of one side and the alarms of the other, nothing is positive
        if not (one.sum() and other.sum()):
            assert np.isnan(effects).any()
            continue
        change = metric_of(name, one) - metric_of(name, other)
        assert effects.sum() == pytest.approx(change, rel=EXACT, abs=EXACT)
        if all_cells:
            orders = _by_orders(metric, one, other)
            assert effects == pytest.approx(orders, rel=EXACT, abs=EXACT)


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


@thousand
@given(seed=seeds, most=st.integers(2, 12))
def test_law_and_meaning_add_up_to_the_change_of_the_groups_area(seed, most):
    now, then = tables(seed, 2, 30)
    starts = score_groups(now.sum(axis=(0, 1)), then.sum(axis=(0, 1)), most)
    assert starts[0] == 0
    assert len(starts) <= most
    found = score_effects(starts)(now, then)
    change = [area_of(np.add.reduceat(side, starts, axis=-1)) for side in (now, then)]
    known = np.isfinite(found).all(
        axis=1
    )  # one side's scores with the other's meaning: both classes
    assert not known[~has_both_classes(now, then)].any()
    assert found[known].sum(axis=1) == pytest.approx((change[0] - change[1])[known], abs=EXACT)
    assert score_effects(starts)(then, now) == pytest.approx(-found, abs=EXACT, nan_ok=True)


def test_groups_with_few_rows_are_in_the_sum_too():
    now = np.array([[400.0, 300, 2, 90], [40.0, 90, 1, 60]])
    then = np.array([[300.0, 3, 200, 0], [30.0, 1, 70, 0]])
    law, meaning = score_effects(np.arange(4))(now, then)

    assert law + meaning == pytest.approx(area(now) - area(then), abs=EXACT)
    assert law != 0
    assert meaning != 0


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


def test_sides_are_told_apart_as_well_as_the_ratio_of_their_scores_does():
    rng = np.random.default_rng(1)
    usual, again = (scored(rng, 4_000).sum(axis=0) for _ in range(2))
    far, wide = (scored(rng, 4_000, **how).sum(axis=0) for how in ({"shift": 6.0}, {"spread": 9.0}))

    assert told_apart(usual, again) < 0.6
    assert told_apart(usual, far) > 0.95
    assert told_apart(wide, usual) == pytest.approx(told_apart(usual, wide), abs=EXACT)
    starts = score_groups(wide, usual)
    one, other = (np.add.reduceat(side, starts) for side in (wide, usual))
    oracle = roc_auc_score(
        np.repeat([1, 0], len(starts)),
        np.tile(one / (one + other), 2),
        sample_weight=np.concatenate([one, other]),
    )
    assert told_apart(wide, usual) == pytest.approx(oracle, abs=EXACT)
    assert told_apart(wide, usual) > 0.75
    assert math.isnan(told_apart(usual, np.zeros_like(usual)))


def test_a_window_adds_what_the_metric_loses_without_it():
    counts = np.random.default_rng(4).poisson(5, (6, 2, 30)) + 1.0
    found = window_effects(area_of, counts)

    for window, effect in enumerate(found):
        rest = np.delete(counts, window, axis=0).sum(axis=0)
        assert effect == pytest.approx(area(counts.sum(axis=0)) - area(rest), abs=EXACT)


def test_the_jackknife_is_the_one_of_the_windows_and_few_windows_say_nothing():
    rng = np.random.default_rng(6)
    now, then = (rng.poisson(9, (windows, 2, 4, 5)) + 2.0 for windows in (9, 12))
    found = measured(area_effects, now, then, [f"part {i}" for i in range(4)])
    left = [area_effects(np.delete(now, w, 0).sum(0), then.sum(0)).sum() for w in range(9)]
    right = [area_effects(now.sum(0), np.delete(then, w, 0).sum(0)).sum() for w in range(12)]
    variances = [
        (len(values) - 1) / len(values) * ((np.array(values) - found.change) ** 2).sum()
        for values in (left, right)
    ]
    # Student's t of the side of fewer windows; see `clusters.change`.
    wanted = stats.t.ppf(0.975, 8) * math.sqrt(sum(variances))
    assert found.margin == pytest.approx(wanted, rel=1e-9)
    few = measured(area_effects, now[:7], then, [f"part {i}" for i in range(4)])
    assert np.isnan(few.margins).all()
    assert np.isnan(few.p_adjusted).all()
    assert np.isfinite(few.effects).all()
