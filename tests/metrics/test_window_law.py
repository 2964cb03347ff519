"""The law of windows: beside closed forms, whole covariance matrices and drawn worlds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from mlmon_dagster.metrics.windows import law as window_law
from mlmon_dagster.metrics.windows.law import Scale, fit, from_scale, to_scale

Floats = NDArray[np.float64]
EXACT = 1e-9
OF_NODES = 0.02  # relative: the spread is integrated over sixteen nodes
RUNS = (7, 14, 28)
OF_DRAWS = 3.5  # standard errors of a share


def student(windows: Floats, value: float) -> float:
    """Return the two-sided chance of one more independent window of a normal law."""
    t = (value - windows.mean()) / (windows.std(ddof=1) * np.sqrt(1 + 1 / len(windows)))
    return float(2 * stats.t.sf(abs(t), len(windows) - 1))


@pytest.mark.parametrize("value", [0.3, 2.5, -4.0, 7.0])
def test_eight_windows_are_judged_by_students_t_of_seven_degrees(value: float) -> None:
    """Persistence and heavy tails are no more believed of so few."""
    windows = np.random.default_rng(3).normal(size=8)

    found = fit(windows).judge([value], 0.0, [30])

    assert found.p_value[0, 0] == pytest.approx(student(windows, value), rel=OF_NODES)


@pytest.mark.parametrize(
    ("correlation", "season"),
    [(0.6, 0.0), (0.0, 4.0), (0.0, 0.0)],
    ids=["neighbours share .6", "weeks", "independent"],
)
def test_one_kernel_is_the_process_by_its_whole_covariance_matrix(
    correlation: float, season: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generalised least squares and Student's t; of a run its own strays say the spread, too."""
    persistent = ((correlation, EXACT, 1 - EXACT),) if correlation else ()
    monkeypatch.setattr(window_law, "_PERSISTENT", persistent)
    monkeypatch.setattr(window_law, "_SEASONS", ((season, 1.0),))
    monkeypatch.setattr(window_law, "_discount_belief", lambda _: 1.0)
    monkeypatch.setattr(window_law, "_TAILS", ())
    y, at = np.random.default_rng(5).normal(size=20), np.arange(20)
    new, times = np.array([1.5, 2.0, 0.4, 1.0]), [22, 23, 25, 29]
    every = np.append(at, times)
    apart = np.abs(np.subtract.outer(every, every))
    whole = np.where(apart, correlation**apart, 1.0) + season * (apart % 7 == 0)
    inverse, cross, own = np.linalg.inv(whole[:20, :20]), whole[20:, :20], whole[20:, 20:]
    precision = inverse.sum()
    mean = inverse.sum(axis=0) @ y / precision
    centre = mean + cross @ inverse @ (y - mean)
    left = 1 - cross @ inverse @ np.ones(20)
    joint = own - cross @ inverse @ cross.T + np.outer(left, left) / precision
    squares = (y - mean) @ inverse @ (y - mean)
    of_run = np.linalg.inv(joint)
    moved = of_run.sum(axis=0) @ (new - centre) / of_run.sum()
    strays = new - centre - moved
    in_run = (squares + strays @ of_run @ strays) / 22

    law = fit(y, period=7 if season else 1)
    each = law.judge(new, 0.0, times)
    run = law.judge_run(new, 0.0, times)

    t = (new - centre) / np.sqrt(squares / 19 * np.diag(joint))
    assert each.usual[0] == pytest.approx(centre, abs=EXACT)
    assert each.above[0] == pytest.approx(stats.t.sf(t, 19), rel=OF_NODES)
    of_t = stats.t.sf(moved / np.sqrt(in_run / of_run.sum()), 22)
    assert run.above[0, 0] == pytest.approx(of_t, rel=OF_NODES)
    assert run.usual[0, 0] == pytest.approx(new.mean() - moved, abs=EXACT)


def test_windows_that_all_moved_are_no_windows_that_wander() -> None:
    """How little the newest ones share says so, where the baseline alone leaves it open."""
    rng = np.random.default_rng(21)
    law = fit(rng.normal(size=(40, 60)))
    at = np.arange(70, 84)

    moved = law.judge_run(rng.normal(size=(40, 14)) + 1.5, 0.0, at).p_value
    wandering = law.judge_run(np.cumsum(rng.normal(size=(40, 14)) * 0.5, axis=1), 0.0, at).p_value

    assert np.median(moved) < 5e-4
    assert np.median(wandering) > 0.02


def test_series_are_judged_together_as_each_alone() -> None:
    rng = np.random.default_rng(7)
    windows, new = rng.normal(size=(5, 40)), rng.normal(size=(5, 2)) * 3
    noise = np.repeat(rng.random((5, 1)), 40, axis=1)

    together = fit(windows, noise, period=7).judge(new, 0.2, [45, 47]).p_value
    alone = [
        fit(w, n, period=7).judge(v, 0.2, [45, 47]).p_value[0]
        for w, n, v in zip(windows, noise, new, strict=True)
    ]

    assert together == pytest.approx(np.array(alone), abs=EXACT)


def test_fewer_than_eight_windows_say_nothing() -> None:
    with pytest.raises(ValueError, match="7 windows say too little"):
        fit(np.zeros(7))


def test_windows_that_are_all_equal_leave_no_chance() -> None:
    law = fit(np.full(20, 0.1))

    assert law.judge([0.1, 0.11], 0.0, [20, 21]).p_value[0] == pytest.approx([1.0, 0.0], abs=1e-6)


def test_a_window_of_fewer_rows_may_lie_further_off() -> None:
    law = fit(np.random.default_rng(1).normal(size=30) * 0.1, 0.01)

    few, many = law.judge([0.35, 0.35], [[0.04, 0.0025]], [35, 36]).p_value[0]

    assert few > 0.05
    assert many < 0.03


def test_a_season_that_the_baseline_shows_is_no_change() -> None:
    rng = np.random.default_rng(2)
    days = np.arange(35)
    windows = rng.normal(size=35) + 6 * (days % 7 >= 5)

    of_weeks, without = (fit(windows, period=period) for period in (7, 1))

    assert of_weeks.judge([6.0, 0.0], 0.0, [40, 42]).p_value.min() > 0.1
    assert of_weeks.judge([6.0], 0.0, [42]).p_value[0, 0] < 0.001
    assert without.judge([6.0], 0.0, [42]).p_value[0, 0] > 0.01


def test_growth_goes_on_where_the_baseline_moves() -> None:
    windows = np.random.default_rng(4).normal(size=28) * 0.3 + 0.2 * np.arange(28)

    found = fit(windows, is_moving=True).judge([5.6, 0.0], 0.0, [28, 28])

    assert found.usual[0, 0] == pytest.approx(5.6, abs=0.5)
    assert found.p_value[0, 0] > 0.2
    assert found.p_value[0, 1] < 0.01


def test_one_bad_window_of_the_baseline_hides_little() -> None:
    windows = np.random.default_rng(6).normal(size=60)
    windows[10] = 25.0

    assert fit(windows).judge([6.0], 0.0, [70]).p_value[0, 0] < 0.01
    assert student(windows, 6.0) > 0.05


def test_a_small_change_that_lasts_is_found_by_the_windows_together() -> None:
    rng = np.random.default_rng(8)
    law = fit(rng.normal(size=60))
    newest = rng.normal(size=14) + 1.2

    assert np.median(law.judge(newest, 0.0, np.arange(70, 84)).p_value) > 0.05
    assert law.judge_run(newest, 0.0, np.arange(70, 84)).p_value[0, 0] < 0.005


def test_a_look_at_runs_of_all_lengths_costs_as_much_as_one() -> None:
    rng = np.random.default_rng(12)
    law = fit(rng.normal(size=(600, 60)))
    later = rng.normal(size=(600, 28))

    healthy = law.judge_newest(later, 0.0, np.arange(70, 98), RUNS)
    moved = law.judge_newest(later + 1.2, 0.0, np.arange(70, 98), RUNS)

    assert (healthy.p_value < 0.05).mean() < 0.05 + OF_DRAWS * np.sqrt(0.05 * 0.95 / 600)
    assert (moved.p_value < 0.01).mean() > 0.9
    assert moved.moved.mean() == pytest.approx(1.2, abs=0.1)


def test_a_few_newest_windows_are_judged_by_the_runs_that_they_hold() -> None:
    law = fit(np.random.default_rng(13).normal(size=30))
    newest, at = np.full(8, 1.0), np.arange(33, 41)

    found = law.judge_newest(newest, 0.0, at, RUNS)
    too_few = law.judge_newest(newest[2:], 0.0, at[2:], RUNS)
    too_near = law.judge_newest(newest, 0.0, at, RUNS, least=3.0)

    assert found.run.tolist() == [7]
    of_run = law.judge_run(newest[1:], 0.0, at[1:])
    assert found.p_value == pytest.approx(of_run.p_value[:, 0] * 3)
    for nothing in (too_few, too_near):
        assert (nothing.p_value[0], nothing.run[0]) == (1.0, 0)


def test_values_that_tie_count_as_as_far() -> None:
    """Of whole numbers a window is as extreme as all that lie within half a step of it."""
    windows = np.tile([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 2.0, 0.0], 6)

    found = fit(windows).judge([2.0, 9.0], 0.0, [50, 51]).p_value[0]

    assert found[0] > 0.01
    assert found[1] < 0.01


@pytest.mark.parametrize(
    ("scale", "values"),
    [
        ("identity", [-3.0, 0.0, 2.5]),
        ("logit", [0.02, 0.5, 0.97]),
        ("angle", [0.02, 0.5, 0.97]),
        ("root", [0.001, 1.0, 8.0]),
        ("log", [0.0, 3.0, 2e6]),
        ("count", [0.0, 3.0, 2e6]),
        ("fisher", [-0.9, 0.0, 0.6]),
    ],
)
def test_scales_go_there_and_back(scale: Scale, values: list[float]) -> None:
    on_scale, _ = to_scale(values, 0.0, 1e9, scale)

    assert from_scale(on_scale, scale) == pytest.approx(values, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("scale", "value", "spread"),
    [
        ("logit", 0.3, 0.004),
        ("root", 2.0, 0.01),
        ("log", 400.0, 4.0),
        ("count", 400.0, 4.0),
        ("fisher", 0.5, 0.01),
    ],
)
def test_noise_is_carried_to_the_scale(scale: Scale, value: float, spread: float) -> None:
    """The delta method, beside the spread of drawn values."""
    drawn = np.random.default_rng(1).normal(value, spread, 4_000)

    on_scale, _ = to_scale(drawn, 0.0, 1e9, scale)
    _, noise = to_scale([value], [spread**2], 1e9, scale)

    assert float(noise[0]) == pytest.approx(float(on_scale.var()), rel=0.08)


@pytest.mark.parametrize("share", [0.002, 0.2, 0.9])
def test_the_angle_of_a_share_has_the_noise_of_its_rows_alone(share: float) -> None:
    rows = np.full(20_000, 2_000.0)
    drawn = np.random.default_rng(2).binomial(2_000, share, len(rows)) / rows

    on_scale, noise = to_scale(drawn, 0.0, rows, "angle")

    assert float(on_scale.var()) == pytest.approx(float(noise[0]), rel=0.06)


series = st.lists(st.floats(-50, 50, width=32), min_size=8, max_size=40)


@settings(max_examples=25, deadline=None)
@given(series, st.floats(0.5, 100), st.floats(-30, 30))
def test_neither_unit_nor_origin_matters(windows: list[float], unit: float, origin: float) -> None:
    """Where rows say nothing of the noise; rounding makes very close values equal or not."""
    values = np.round(np.asarray(windows, np.float64), 2)
    new = values.max() + 1.0

    first = fit(values).judge([new], 0.0, [60])
    other = fit(unit * values + origin).judge([unit * new + origin], 0.0, [60])

    if np.ptp(values) > 0:
        assert other.p_value[0, 0] == pytest.approx(first.p_value[0, 0], rel=1e-4, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(series)
def test_the_further_off_the_less_likely(windows: list[float]) -> None:
    step = max(float(np.ptp(windows)), 1.0)
    new = max(windows) + step * np.arange(1, 6)

    p = fit(windows).judge(new, 0.0, np.full(5, 50)).above[0]

    assert all(later <= earlier + EXACT for earlier, later in pairwise(p.tolist()))


@pytest.mark.parametrize(
    ("windows", "correlation"), [(8, 0.0), (14, 0.0), (60, 0.0), (60, 0.6), (120, 0.9)]
)
def test_unchanged_windows_are_called_as_often_as_said(windows: int, correlation: float) -> None:
    """At .05, over 1,500 drawn baselines; where windows follow each other it may be less."""
    rng = np.random.default_rng(windows)
    new = rng.normal(size=(1_500, windows + 30))
    drawn = new.copy()
    for at in range(1, drawn.shape[1]):
        step = np.sqrt(1 - correlation**2) * new[:, at]
        drawn[:, at] = correlation * drawn[:, at - 1] + step

    law = fit(drawn[:, :windows])
    called = (law.judge(drawn[:, [-1]], 0.0, [windows + 29]).p_value < 0.05).mean()

    error = np.sqrt(0.05 * 0.95 / 1_500)
    assert called < 0.05 + OF_DRAWS * error + (0.01 if correlation == 0.9 else 0)
    assert called > 0.02
