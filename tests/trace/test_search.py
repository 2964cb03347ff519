"""Planted slices are found as they were planted; where nothing is wrong, nothing is."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from mlmon_dagster.trace.search import (
    FALSE,
    Rows,
    _candidates,
    explore,
    halves,
    members,
    search,
)

WINDOWS = 40
BASE = 0.15
LEAST = 3.7  # standard deviations by rows


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
        found.append([f.terms for f in search(Rows(codes, wrong, windows_of(len(wrong))))])

    assert sum(names == [terms] for names in found) >= 9, found


def test_where_nothing_is_wrong_nothing_is_found_though_days_differ():
    named = 0
    for seed in range(30):
        rng = np.random.default_rng([7, seed])
        codes, windows = codes_of(rng, 8_000), windows_of(8_000)
        # Each day has its own rate, and its own mix of the values of a column.
        rate = BASE + 0.08 * rng.normal(size=WINDOWS)[windows]
        codes[:, 0] = (codes[:, 0] + rng.integers(0, 3, WINDOWS)[windows]) % 6
        named += bool(search(Rows(codes, (rng.random(8_000) < rate).astype(float), windows)))

    assert named / 30 <= 0.07


def test_all_slices_of_three_columns_and_fewer_are_looked_at():
    rng = np.random.default_rng(3)
    codes, target = codes_of(rng, 2_000, 6, 4), rng.normal(size=2_000)
    for terms in (((1, 2),), ((0, 1), (3, 3)), ((2, 0), (4, 1), (5, 2))):
        target[members(codes, terms)] += 0.8
    target -= target.mean()
    spread = target.std()
    expected = {}
    for depth in (1, 2, 3):
        for columns in itertools.combinations(range(6), depth):
            for values in itertools.product(range(4), repeat=depth):
                terms = tuple(zip(columns, values, strict=True))
                mine = members(codes, terms)
                n = max(int(mine.sum()), 1)
                z = target[mine].sum() / (spread * np.sqrt(n * (1 - n / 2_000))) - 0.15 * depth
                if mine.sum() >= 50 and z > LEAST:
                    expected[terms] = z
    found = _candidates(codes, target)

    assert len(found) >= 20
    assert found == sorted(expected, key=lambda terms: -expected[terms])


def test_one_cause_is_picked_once_and_not_with_its_relatives():
    rng = np.random.default_rng(8)
    terms = ((2, 1), (5, 3))
    codes, wrong = planted(rng, 20_000, terms, 0.3)

    picks = explore(Rows(codes, wrong, windows_of(20_000)))

    assert picks[0] == terms
    assert len(picks) <= 3


def test_neighbouring_windows_are_in_the_same_half():
    first = halves(np.arange(28))

    assert first.sum() == 14
    assert (np.diff(first.astype(int)) != 0).sum() == 3


def test_too_few_windows_give_no_findings():
    rng = np.random.default_rng(1)
    codes, wrong = planted(rng, 5_000, ((2, 3),), 0.5)

    assert search(Rows(codes, wrong, np.arange(5_000) % 9)) == []


def test_a_slice_that_always_was_worse_is_no_finding_and_one_that_got_worse_is():
    always, now = ((0, 1), (4, 2)), ((2, 3), (6, 0))
    found = []
    for seed in range(10):
        rng = np.random.default_rng([2, seed])
        rows, before = codes_of(rng, 30_000), codes_of(rng, 30_000)
        chance = BASE + 0.2 * members(rows, always) + 0.2 * members(rows, now)
        usual = BASE + 0.2 * members(before, always)
        here, there = (
            Rows(codes, (rng.random(30_000) < p).astype(float), windows_of(30_000))
            for codes, p in ((rows, chance), (before, usual))
        )
        assert {f.terms for f in search(here)} >= {always, now}
        found.append([f.terms for f in search(here, there)])

    assert sum(names == [now] for names in found) >= 9, found


def test_the_search_is_the_one_that_looks_at_every_slice_one_by_one():
    named = 0
    for seed in range(4):
        rng = np.random.default_rng([11, seed])
        codes = codes_of(rng, 2_000, 6, 3)
        chance = BASE + 0.3 * members(codes, ((1, 2),)) + 0.5 * members(codes, ((0, 1), (3, 0)))
        target, windows = (rng.random(2_000) < chance).astype(float), windows_of(2_000)
        found = search(Rows(codes, target, windows))
        expected = plainly(codes, target, windows)
        named += len(found)

        assert [f.terms for f in found] == [terms for terms, *_ in expected]
        for one, (_, excess, p) in zip(found, expected, strict=True):
            assert (one.excess, one.p_value) == (pytest.approx(excess), pytest.approx(p))
    assert named >= 8


def plainly(codes, target, windows):
    """Return what `search` is to return, by going through all slices of all rows."""
    every = [
        tuple(zip(columns, values, strict=True))
        for depth in (1, 2, 3)
        for columns in itertools.combinations(range(codes.shape[1]), depth)
        for values in itertools.product(range(int(codes.max()) + 1), repeat=depth)
    ]
    first, target = halves(windows), target - target.mean()
    proposed = []
    for half in (first, ~first):
        rest, picks = target[half] - target[half].mean(), []
        by_rows = {t: by_row_error(rest, members(codes[half], t)) for t in every}
        first_z = {
            t: z_of(rest, members(codes[half], t), by_rows[t]) - 0.15 * len(t) for t in every
        }
        large = [t for t in every if members(codes[half], t).sum() >= 50 and first_z[t] > LEAST]
        while len(picks) < 30:
            stands_out = {}
            for terms in large:
                mine = members(codes[half], terms)
                excess, error, _ = between(rest, mine, windows[half])
                z = z_of(rest, mine, by_rows[terms]) - 0.15 * len(terms)
                if excess / max(error, by_rows[terms] / mine.sum()) >= 3.0 and z >= LEAST:
                    stands_out[terms] = z
            if not stands_out:
                break
            picks.append(max(stands_out, key=stands_out.get))
            rest = without(rest, members(codes[half], picks[-1]))
        rest, p_values = target[~half], []
        for terms in picks:
            mine = members(codes[~half], terms)
            excess, error, degrees = between(rest, mine, windows[~half])
            p_values.append(stats.t.sf(excess / error, degrees))
            rest = without(rest, mine)
        if picks:
            adjusted = stats.false_discovery_control(p_values)
            proposed += [(t, ~half, p) for t, p in zip(picks, adjusted, strict=True)]
    proposed = [one for one in proposed if one[2] <= FALSE / 2]
    strength = {t: z_of(target, members(codes, t), None) - 0.15 * len(t) for t, *_ in proposed}
    kept, rest = [], target.copy()
    for terms, half, p in sorted(proposed, key=lambda one: -strength[one[0]]):
        excess, error, degrees = between(rest[half], members(codes[half], terms), windows[half])
        if stats.t.sf(excess / error, degrees) <= FALSE / 2:
            kept.append((terms, excess, p))
            for side in (half, ~half):
                rest[side] = without(rest[side], members(codes[side], terms))
    return kept


def by_row_error(target, mine):
    return target.std() * math.sqrt(mine.sum() * (1 - mine.mean()))


def z_of(target, mine, error):
    total = target[mine].sum() - mine.sum() * target.mean()
    return total / max(error or by_row_error(target, mine), 1e-300)


def between(target, mine, windows):
    """Return excess, its error between windows, and degrees of freedom."""
    excess, held = target[mine].mean() - target.mean(), len(set(windows[mine]))
    sums = [
        (target[mine & (windows == w)] - target[mine].mean()).sum() / mine.sum()
        - (target[windows == w] - target.mean()).sum() / len(target)
        for w in np.unique(windows)
    ]
    return excess, math.sqrt(sum(s**2 for s in sums) * held / (held - 1)), held - 1


def without(target, mine):
    return np.where(mine, target - target[mine].mean() + target[~mine].mean(), target)
