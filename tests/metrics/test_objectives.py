"""Budgets: burn rates equal to a plain count, outages told in time, quiet days told nothing of."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlmon_dagster.metrics.objectives import (
    BUCKET,
    FEWEST_BAD,
    LOOK_BACK,
    RULES,
    Rule,
    budget_left,
    burn_rates,
    burned,
)

DAY = round(dt.timedelta(days=1) / BUCKET)
BACK = round(LOOK_BACK / BUCKET)
FAST, SLOW, TICKET = RULES
counts = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50)).map(lambda p: (sum(p), p[1])),
    min_size=1,
    max_size=90,
)


@settings(max_examples=200, derandomize=True)
@given(counts, st.sampled_from([0.5, 0.9, 0.999]), st.sampled_from(RULES))
def test_burn_rates_are_those_of_a_plain_count(
    pairs: list[tuple[int, int]], target: float, rule: Rule
) -> None:
    n, bad = (np.array(part) for part in zip(*pairs, strict=True))
    size = round(rule.long / BUCKET)
    found = burn_rates(n, bad, target, rule.long)
    for end in range(len(n)):
        total, lost = (int(part[max(0, end + 1 - size) : end + 1].sum()) for part in (n, bad))
        wanted = lost / total / (1 - target) if total else np.nan
        assert found[end] == pytest.approx(wanted, nan_ok=True)


@settings(max_examples=200, derandomize=True)
@given(counts, st.data())
def test_the_fastest_rule_that_holds_in_the_judged_part_is_named(
    pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    n, bad = (np.array(part) for part in zip(*pairs, strict=True))
    start, target = data.draw(st.integers(0, len(n) - 1)), 0.9
    found = burned(n, bad, target, start)

    def holds(rule: Rule, end: int) -> bool:
        for stretch in (rule.long, rule.short):
            first = max(0, end + 1 - round(stretch / BUCKET))
            total, lost = n[first : end + 1].sum(), bad[first : end + 1].sum()
            if not total or lost / total / (1 - target) < rule.factor * (1 - 1e-12):
                return False
            if stretch == rule.long and lost < FEWEST_BAD:
                return False
        return True

    held = [r for r in RULES if any(holds(r, end) for end in range(start, len(n)))]
    assert found.rule == (held[0] if held else None)
    if found.rule:
        ends = [end for end in range(start, len(n)) if holds(found.rule, end)]
        assert (found.first, found.last) == (ends[0], ends[-1])


def served(seed: int, days: int, share: float, a_bucket: float = 100.0) -> tuple[np.ndarray, ...]:
    """Draw buckets whose traffic falls to a hundredth at night, with a share of bad requests."""
    rng = np.random.default_rng(seed)
    hour = np.arange(days * DAY) % DAY / DAY
    n = rng.poisson(a_bucket * 100 ** (-np.abs(2 * hour - 1)))
    return n, rng.binomial(n, share)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.0007])
def test_sixty_days_within_their_budget_burn_nothing_too_fast(share: float) -> None:
    """The budget is .001; of the traffic at noon one hundredth comes at midnight."""
    for seed in range(10):
        n, bad = served(seed, 60, share, 1_000)
        for start in range(BACK, len(n), DAY):
            window = slice(start - BACK, start + DAY)
            found = burned(n[window], bad[window], 0.999, BACK)
            assert found.rule is None, (seed, start, found)


# What part of requests fails, and the rule that the workbook promises for it first.
@pytest.mark.parametrize(
    ("share", "rule"), [(1.0, FAST), (0.05, FAST), (0.009, SLOW), (0.0015, TICKET)]
)
def test_an_outage_is_told_within_two_buckets_of_what_the_rule_promises(
    share: float, rule: Rule
) -> None:
    n = np.full(BACK + 4 * DAY, 10_000)
    bad = np.zeros_like(n)
    bad[BACK:] = round(10_000 * share)
    found = burned(n, bad, 0.999, BACK, (rule,))
    # The long stretch burns at factor once factor / burn of it is filled.
    promised = rule.factor * (1 - 0.999) / share * (rule.long / BUCKET)

    assert found.rule is rule
    assert abs(found.first - BACK + 1 - promised) <= 2


def test_few_requests_are_no_verdict_unless_ten_of_them_were_lost() -> None:
    n = np.ones(BACK + DAY, int)
    quiet = burned(n, np.zeros_like(n), 0.999, BACK)
    lost = burned(n, np.ones_like(n), 0.999, BACK)

    assert quiet.rule is None
    assert quiet.too_few(0.999)
    assert lost.rule is FAST
    assert not lost.too_few(0.999)


def test_nothing_served_has_no_rate() -> None:
    found = burned([0, 0], [0, 0], 0.99, 0)

    assert found.rule is None
    assert np.isnan(found.burn)
    assert found.too_few(0.99)
    assert np.isnan(budget_left(0, 0, 0.99))
    assert burned([], [], 0.99, 0).n == 0


def test_a_budget_is_spent_by_what_was_lost() -> None:
    assert budget_left(10_000, 0, 0.999) == 1
    assert budget_left(10_000, 10, 0.999) == pytest.approx(0)
    assert budget_left(10_000, 25, 0.999) == pytest.approx(-1.5)
