"""Another threshold is worth what windows say that did not choose it."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from mlmon_dagster.trace.splits import DECISIONS, better_threshold, value_of

BINS = 100
LOW = np.arange(BINS) / BINS


def windows(rng, n, rows, bad=0.0):
    """Return counts and rows of calibrated scores that were lowered by `bad`."""
    counts, scores, actuals = [], [], []
    for _ in range(n):
        p = rng.beta(1, 3, rows)
        actual = rng.random(rows) < p
        score = np.clip(p - bad, 0, 0.999)
        bins = (score * BINS).astype(int)
        counts.append([np.bincount(bins[actual == k], minlength=BINS) for k in (False, True)])
        scores.append(bins / BINS)
        actuals.append(actual)
    return np.array(counts), np.concatenate(scores), np.concatenate(actuals)


def test_a_threshold_that_fits_no_more_is_found_with_what_it_costs():
    rng = np.random.default_rng(4)
    counts, scores, actual = windows(rng, 20, 800, bad=0.15)
    found = better_threshold(DECISIONS["f1"], counts, LOW, 0.35)
    by_hand = [f1_score(actual, scores >= t, zero_division=0) for t in LOW]

    assert found is not None
    assert found.value == pytest.approx(f1_score(actual, scores >= 0.35), abs=1e-12)
    assert found.better == pytest.approx(LOW[int(np.argmax(by_hand))], abs=1e-12)
    assert found.would_be == pytest.approx(max(by_hand), abs=0.01)
    assert found.gain == pytest.approx(max(by_hand) - found.value, abs=0.01)


def test_where_the_threshold_is_right_another_one_gains_nothing():
    gains = []
    for seed in range(40):
        rng = np.random.default_rng([9, seed])
        counts, _, _ = windows(rng, 10, 300)
        # Calibrated scores: the value is highest where a false alarm costs as much as it saves.
        found = better_threshold(value_of(tp=-3, fp=1, fn=0, tn=0), counts, LOW, 0.25)
        assert found is not None
        gains.append(found.gain)

    assert np.mean(gains) <= 0.002  # no gain of hindsight


def test_few_windows_and_one_class_choose_no_threshold():
    counts, _, _ = windows(np.random.default_rng(1), 6, 100)
    none = counts.copy()
    none[:, 1] = 0

    assert better_threshold(DECISIONS["f1"], counts[:3], LOW, 0.5) is None
    assert better_threshold(DECISIONS["f1"], none, LOW, 0.5) is None
