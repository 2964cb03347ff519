"""A version beside the one that it replaced: silent where both are equal, sure where one is not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mlmon_dagster.metrics.versions import LEVEL, ReleaseChange, Values, compare_release

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


@pytest.mark.parametrize("world", [{}, {"shared": 0.01}, {"shared": 0.005, "season": 0.02}])
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
