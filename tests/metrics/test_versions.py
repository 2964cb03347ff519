"""Versions are told apart when they differ, and left alone when they do not, however often."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from mlmon_dagster.metrics import SHARE_IS_WRONG
from mlmon_dagster.metrics.versions import (
    ENOUGH_DISCORDANT,
    LEVEL,
    ReleaseChange,
    Values,
    areas_of_two,
    compare_release,
    got_its_share,
    means_of_two,
    mismatch,
    paired_area,
    paired_decisions,
    paired_means,
    right_as_often,
    verdict_of,
)


def scored(rng, n, rate=0.3, better=0.0):
    """Return a truth and two versions' scores of it, correlated as those of one model are."""
    y = rng.random(n) < rate
    shared = rng.normal(y * 1.2, 1.0)
    one = shared + rng.normal(0, 0.4, n)
    other = shared + better * y + rng.normal(0, 0.4, n)
    return y.astype(int), one, other


def test_equal_versions_are_rarely_called_different_though_looked_at_daily():
    called = 0
    for seed in range(200):
        rng = np.random.default_rng([3, seed])
        y, one, other = scored(rng, 4_000)
        days = np.repeat(np.arange(80), 50)
        decided = False
        for day in range(10, 80, 5):
            seen = days <= day
            found = paired_area(one[seen], other[seen], y[seen], days[seen], margin=0.0)
            decided |= found is not None and (found.lower > 0 or found.upper < 0)
        called += decided

    assert called / 200 <= 0.05


def test_a_version_that_lost_is_worse_and_an_equal_one_not_worse():
    rng = np.random.default_rng(5)
    y, one, other = scored(rng, 20_000, better=-0.12)
    days = np.repeat(np.arange(40), 500)
    lost = paired_area(one, other, y, days)
    same = paired_area(*scored(rng, 20_000)[1:], scored(rng, 20_000)[0], days)
    assert lost is not None
    assert lost.difference < -0.015
    assert lost.verdict == "worse"
    y, one, other = scored(rng, 20_000)
    equal = paired_area(one, other, y, days)
    assert equal is not None
    assert same is not None
    assert equal.verdict == "not worse"
    few = paired_area(one[:300], other[:300], y[:300], days[:300])
    assert few is not None
    assert few.verdict == "undecided"
    assert few.more >= 100


def test_what_days_share_is_no_difference_between_versions():
    called = 0
    for seed in range(200):
        rng = np.random.default_rng([8, seed])
        days = np.repeat(np.arange(30), 40)
        shock = rng.normal(0, 1, 30)[days]
        one, other = (shock + rng.normal(0, 1, len(days)) for _ in range(2))
        found = means_of_two(one, days, other, days, margin=0.0)
        called += found is not None and (found.lower > 0 or found.upper < 0)

    assert called / 200 <= 0.05


def test_means_and_decisions_of_the_same_rows():
    rng = np.random.default_rng(2)
    one = rng.random(3_000) < 0.7
    other = np.where(rng.random(3_000) < 0.08, True, one)
    found = paired_means(one, other, np.repeat(np.arange(30), 100))

    assert found is not None
    assert found.difference == pytest.approx(other.mean() - one.mean(), abs=1e-12)
    assert found.verdict == "better"
    assert right_as_often(one, other) < 1e-9
    assert right_as_often(one, one) == 1.0
    assert paired_means([], [], []) is None


@pytest.mark.parametrize(
    ("n_one", "n_other", "is_fine"), [(9_000, 1_000, True), (9_000, 1_300, False), (0, 0, True)]
)
def test_a_canary_that_did_not_get_its_share_is_seen(n_one, n_other, is_fine):
    assert (got_its_share(n_one, n_other, 0.1) >= SHARE_IS_WRONG) == is_fine


def test_verdicts_have_three_words_and_one_for_not_knowing():
    ends = [(0.001, 0.03), (-0.009, 0.02), (-0.05, -0.011), (-0.05, 0.02), (-0.05, -0.005)]

    assert [verdict_of(*e, 0.01) for e in ends] == [
        "better", "not worse", "worse", "undecided", "undecided",
    ]  # fmt: skip


def test_skew_is_found_by_id_where_the_distribution_is_the_same():
    rng = np.random.default_rng(6)
    values = rng.normal(50, 10, 4_000)
    ids = [f"p{i}" for i in range(4_000)]
    moved = values.copy()
    chosen = rng.choice(4_000, 200, replace=False)
    moved[chosen] = moved[np.roll(chosen, 1)]
    found = mismatch(ids, moved, values)

    assert found.rate == pytest.approx(0.05, abs=0.005)
    assert found.lower < 0.05 < found.upper
    assert found.kind == "mixed"
    assert len(found.examples) == 5
    assert mismatch(ids, values.astype(np.float32), values).rate == 0


@pytest.mark.parametrize(
    ("served", "kind", "by"),
    [
        (lambda x: x * 1.8 + 0, "unit", 1.8),
        (lambda x: x + 5.0, "offset", 5.0),
        (lambda x: np.where(np.arange(len(x)) % 10, x, np.nan), "null", np.nan),
    ],
)
def test_the_kind_of_skew_is_named(served, kind, by):
    values = np.random.default_rng(7).normal(50, 10, 500)
    found = mismatch(np.arange(500), served(values), values)

    assert found.kind == kind
    assert found.by == pytest.approx(by, nan_ok=True)
    assert found.n_null == (50 if kind == "null" else 0)


def test_times_truths_and_numbers_with_holes_are_compared_and_two_nothings_are_equal():
    times = pd.to_datetime(["2024-01-01", None, None, "2024-01-04"])
    later = pd.to_datetime(["2024-01-01", None, "2024-01-03", "2024-01-05"])
    found = mismatch(range(4), pd.Series(times), pd.Series(later))
    assert (found.rate, found.n_null, found.examples) == (0.5, 1, ("2", "3"))
    assert mismatch(list("ab"), [True, None], [True, None]).rate == 0
    assert mismatch(
        list("abc"), [1, None, 3.0], np.array([1.0, np.nan, 4.0])
    ).rate == pytest.approx(1 / 3)
    assert mismatch([], [], []).n == 0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("decimals", [9, 1], ids=["continuous", "tied"])
def test_areas_of_independent_rows_are_tested_as_mlstatkit_tests_them(seed, decimals):
    from MLstatkit import Delong_test

    y, one, other = scored(np.random.default_rng(seed), 400, better=0.2 * (seed % 3))
    one, other = np.round(one, decimals), np.round(other, decimals)
    theirs = Delong_test(y, one, other, return_ci=False, return_auc=True)
    found = paired_area(one, other, y, np.zeros(400))

    assert found is not None
    assert found.p_value == pytest.approx(theirs[1], abs=1e-12)
    assert found.difference == pytest.approx(theirs[3] - theirs[2], abs=1e-12)


@pytest.mark.parametrize("share", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("better", [0.0, 0.05, 0.3])
def test_decisions_of_the_same_rows_are_tested_as_statsmodels_tests_them(better, share):
    from statsmodels.stats.contingency_tables import mcnemar

    rng = np.random.default_rng(4)
    one = rng.random(300) < 0.7
    other = np.where(rng.random(300) < share, rng.random(300) < 0.7 + better, one)
    table = [
        [int((one & other).sum()), int((one & ~other).sum())],
        [int((~one & other).sum()), int((~one & ~other).sum())],
    ]
    found = paired_decisions(one, other, np.zeros(300))

    theirs = mcnemar(table, exact=table[0][1] + table[1][0] < ENOUGH_DISCORDANT, correction=False)

    assert right_as_often(one, other) == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found is not None
    assert found.p_value == right_as_often(one, other)


@pytest.mark.parametrize("per_window", [300, 10], ids=["rows", "windows"])
def test_losses_of_the_same_rows_are_tested_as_statsmodels_tests_them(per_window):
    from statsmodels.regression.linear_model import OLS
    from statsmodels.stats.weightstats import DescrStatsW

    rng = np.random.default_rng(9)
    windows = np.repeat(np.arange(300 // per_window), per_window)
    shock = rng.normal(0, 0.1, len(set(windows)))[windows]
    one = rng.exponential(1, 300)
    other = one + rng.normal(0.02, 0.3, 300) + shock
    found = paired_means(one, other, windows)

    gains = other - one
    if per_window == 300:
        _, p_value, _ = DescrStatsW(gains).ttest_mean()
    else:
        fitted = OLS(gains, np.ones(300)).fit(
            cov_type="cluster", cov_kwds={"groups": windows}, use_t=True
        )
        [p_value] = fitted.pvalues
    assert found is not None
    assert found.difference == pytest.approx(gains.mean(), abs=1e-12)
    assert found.p_value == pytest.approx(p_value, abs=1e-12)


def test_areas_of_different_rows_are_compared_and_too_few_of_a_class_are_not():
    y, one, _ = scored(np.random.default_rng(1), 4_000)
    z, _, other = scored(np.random.default_rng(2), 4_000, better=-0.5)
    days = np.repeat(np.arange(40), 100)
    found = areas_of_two(one, y, days, other, z, days)

    assert found is not None
    expected = roc_auc_score(z, other) - roc_auc_score(y, one)
    assert found.difference == pytest.approx(expected, abs=1e-12)
    assert found.verdict == "worse"
    assert areas_of_two(one, y, days, other[:20], z[:20], days[:20]) is None


def test_a_split_by_lot_is_not_called_uneven_at_any_of_a_hundred_looks():
    rng = np.random.default_rng(12)
    looks = rng.binomial(500, 0.2, (100, 100)).cumsum(axis=1)
    totals = np.arange(500, 50_001, 500)
    called = [
        any(
            got_its_share(int(n - m), int(m), 0.2) < SHARE_IS_WRONG
            for n, m in zip(totals, counts, strict=True)
        )
        for counts in looks
    ]

    assert sum(called) == 0
    with pytest.raises(ValueError, match="between 0 and 1"):
        got_its_share(1, 1, 1.0)


LOOKS = (7, 14, 28)
ROWS_ERROR = 0.012  # of an area under the curve of 2,000 rows


def values(found: np.ndarray, first: int = 0, error: float = ROWS_ERROR) -> Values:
    half = 1.96 * error
    at = range(first, first + len(found))
    return Values(
        tuple(found.tolist()), tuple((found - half).tolist()), tuple((found + half).tolist()),
        (2_000,) * len(found), tuple(at),
    )  # fmt: skip


def draw(
    rng: np.random.Generator, n: int, *, shared: float = 0.0, season: float = 0.0
) -> np.ndarray:
    """Return areas of windows whose rows share a day and stand in a week."""
    weekly = season * np.sin(2 * np.pi * np.arange(n) / 7)
    return 0.78 + weekly + rng.normal(0, shared, n) + rng.normal(0, ROWS_ERROR, n)


def compare(areas: np.ndarray, n_before: int, n_after: int) -> ReleaseChange:
    found = compare_release(
        values(areas[:n_before]),
        values(areas[n_before : n_before + n_after], n_before),
        LOOKS, "logit", period=7,
    )  # fmt: skip
    assert found is not None
    return found


def is_worse(found: ReleaseChange) -> bool:
    return found.p_value * len(LOOKS) <= LEVEL


@pytest.mark.parametrize(
    "world",
    [
        {},
        pytest.param({"shared": 0.01}, marks=pytest.mark.proof),
        pytest.param({"shared": 0.005, "season": 0.02}, marks=pytest.mark.proof),
    ],
)
def test_equal_versions_are_hardly_ever_called_worse_at_any_look(world: dict[str, float]) -> None:
    false = 0
    for seed in range(40):
        areas = draw(np.random.default_rng(seed), 56, **world)
        false += any(is_worse(compare(areas, 28, look)) for look in LOOKS)
    assert false <= 2  # of 40; .01 of them is expected


def test_a_loss_of_fifteen_thousandths_is_found_in_28_days_of_2_000_rows() -> None:
    found = []
    for seed in range(20):
        areas = draw(np.random.default_rng(seed), 84)
        areas[56:] -= 0.015
        change = compare(areas, 56, 28)
        found.append(is_worse(change))
        assert change.before - change.now == pytest.approx(0.015, abs=0.01)
    assert sum(found) >= 18


def test_of_eight_quiet_windows_the_chance_is_students_t() -> None:
    """Independent windows whose rows say nothing: the mean of 7 by a spread of 7 degrees."""
    rng = np.random.default_rng(3)
    before, after = rng.normal(0, 1, 8), rng.normal(-1, 1, 7)
    found = compare_release(
        values(before, error=0.0), values(after, 8, error=0.0), LOOKS, "identity"
    )
    assert found is not None
    error = before.std(ddof=1) * np.sqrt(1 / 8 + 1 / 7)
    expected = stats.t.cdf((after.mean() - before.mean()) / error, 7)
    assert found.p_value == pytest.approx(expected, rel=0.25)  # how the 7 differ counts, too


def test_what_would_have_been_seen_is_just_real_and_half_of_it_is_not() -> None:
    areas = draw(np.random.default_rng(1), 84)
    change = compare(areas, 56, 28)
    for share, is_real in ((1.05, True), (0.5, False)):
        moved = areas.copy()
        moved[56:] -= share * change.visible - (change.before - change.now)
        assert is_worse(compare(moved, 56, 28)) is is_real


@given(st.integers(0, 6), st.integers(0, 7))
@settings(max_examples=20, deadline=None)
def test_before_the_first_look_and_without_eight_windows_nothing_is_said(
    n_after: int, n_before: int
) -> None:
    areas = draw(np.random.default_rng(0), 60)
    assert compare_release(values(areas[:20]), values(areas[:n_after], 20), LOOKS, "logit") is None
    assert compare_release(values(areas[:n_before]), values(areas[:28], 20), LOOKS, "logit") is None


def test_between_two_looks_the_answer_is_that_of_the_look_before() -> None:
    areas = draw(np.random.default_rng(2), 84)
    assert compare(areas, 56, 7) == compare(areas, 56, 13)
    assert compare(areas, 56, 28).run == 28


def test_of_losses_more_is_worse() -> None:
    rng = np.random.default_rng(4)
    before, after = rng.normal(3, 0.05, 28), rng.normal(3.3, 0.05, 28)
    loss = compare_release(values(before, error=0.02), values(after, 28, error=0.02), LOOKS,
                           "root", is_loss=True)  # fmt: skip
    gain = compare_release(values(before, error=0.02), values(after, 28, error=0.02), LOOKS, "root")
    assert loss is not None
    assert gain is not None
    assert is_worse(loss)
    assert gain.p_value > 0.99
    assert (loss.before, loss.now) == (pytest.approx(3, abs=0.05), pytest.approx(3.3, abs=0.05))
