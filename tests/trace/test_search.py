"""Planted slices are found as they were planted; where nothing is wrong, nothing is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mlmon_dagster.trace.search import _candidates, explore, halves, members, search

WINDOWS = 40
BASE = 0.15


def codes_of(rng, n, n_columns=12, size=6):
    return rng.integers(0, size, (n, n_columns)).astype(np.uint8)


def windows_of(n):
    return np.arange(n) * WINDOWS // n


def planted(rng, n, terms, excess):
    """Return codes and errors; rows of a slice err more often."""
    codes = codes_of(rng, n)
    bad = members(codes, terms)
    return codes, (rng.random(n) < BASE + excess * bad).astype(float)


@pytest.mark.parametrize(
    ("terms", "excess"),
    [(((2, 3),), 0.06), (((1, 0), (7, 4)), 0.15), (((0, 1), (3, 2), (9, 5)), 0.4)],
)
def test_a_planted_slice_is_found_as_it_was_planted_and_nothing_else(terms, excess):
    found = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        codes, wrong = planted(rng, 30_000, terms, excess)
        found.append([f.terms for f in search(codes, wrong, windows_of(len(wrong)))])

    assert sum(names == [terms] for names in found) >= 9, found


def test_where_nothing_is_wrong_nothing_is_found_though_days_differ():
    named = 0
    for seed in range(30):
        rng = np.random.default_rng([7, seed])
        codes, windows = codes_of(rng, 8_000), windows_of(8_000)
        # Each day has its own rate, and its own mix of the values of a column.
        rate = BASE + 0.08 * rng.normal(size=WINDOWS)[windows]
        codes[:, 0] = (codes[:, 0] + rng.integers(0, 3, WINDOWS)[windows]) % 6
        named += bool(search(codes, (rng.random(8_000) < rate).astype(float), windows))

    assert named / 30 <= 0.07


def test_all_slices_of_three_columns_and_fewer_are_looked_at():
    rng = np.random.default_rng(3)
    codes, target = codes_of(rng, 2_000, 6, 4), rng.normal(size=2_000)
    spread = target.std()
    expected = {}
    for depth in (1, 2, 3):
        for columns in itertools.combinations(range(6), depth):
            for values in itertools.product(range(4), repeat=depth):
                terms = tuple(zip(columns, values, strict=True))
                mine = members(codes, terms)
                z = target[mine].sum() / (spread * np.sqrt(max(mine.sum(), 1))) - 0.15 * depth
                if mine.sum() >= 50 and z > 3.0:
                    expected[terms] = z
    found = _candidates(codes, target, 3)

    assert found == sorted(expected, key=lambda terms: -expected[terms])


def test_one_cause_is_picked_once_and_not_with_its_relatives():
    rng = np.random.default_rng(8)
    terms = ((2, 1), (5, 3))
    codes, wrong = planted(rng, 20_000, terms, 0.3)

    picks = explore(codes, wrong - wrong.mean(), windows_of(20_000))

    assert picks[0] == terms
    assert len(picks) <= 3


def test_neighbouring_windows_are_in_the_same_half():
    first = halves(np.arange(28))

    assert first.sum() == 14
    assert (np.diff(first.astype(int)) != 0).sum() == 3


def test_too_few_windows_give_no_findings_and_wrong_shapes_are_refused():
    rng = np.random.default_rng(1)
    codes, wrong = planted(rng, 5_000, ((2, 3),), 0.5)

    assert search(codes, wrong, np.arange(5_000) % 9) == []
    with pytest.raises(ValueError, match="depth is 1 to 3"):
        search(codes, wrong, windows_of(5_000), depth=4)
    with pytest.raises(ValueError, match="target"):
        search(codes, wrong[:-1], windows_of(5_000))
