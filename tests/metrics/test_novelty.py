"""Shares outside the baseline's range, and rows unlike its topics: against rows and scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_laws import column_of, numeric_law
from mlmon_dagster.metrics.drift.novelty import (
    find_surest,
    novelty_metrics,
    own_novelty,
    unlike_metrics,
    unseen_limits,
)
from mlmon_dagster.metrics.embeddings import USUAL
from mlmon_dagster.metrics.statistics import ColumnStatistics, select
from mlmon_dagster.profiles import bin_shapes
from tests.metrics.samples import UNSEEN, categorical_binning, count, numeric_binning


@pytest.fixture
def rng() -> np.random.Generator:
    """Draws that no other test has a part in."""
    return np.random.default_rng(21)


def profile(windows: np.ndarray, baseline: np.ndarray) -> ColumnStatistics:
    """Count windows, (W, rows), by the bins of a baseline."""
    values = np.asarray(windows, dtype=float)
    binning = replace(numeric_binning(baseline.ravel()), centre=float(np.median(baseline)))
    found = count(binning, values)
    away = values - binning.centre
    return replace(
        found, total=away.sum(axis=1), total_sq=(away**2).sum(axis=1), minimum=values.min(axis=1),
        maximum=values.max(axis=1),
    )  # fmt: skip


def novel(
    windows: np.ndarray, baseline: np.ndarray, binned: np.ndarray | None = None
) -> pd.DataFrame:
    """Return the share of novel rows, by bins of the baseline or of other days."""
    bins = baseline if binned is None else binned
    found = novelty_metrics({"x": profile(windows, bins)}, {"x": profile(baseline, bins)})
    return found[found["metric"] == "novel_rate"]


@pytest.mark.parametrize("shift", [-6.0, -2.0, 0.0, 1.5, 3.0, 6.0])
def test_the_share_is_that_of_the_rows_outside_the_baselines_range(shift, rng):
    baseline = rng.normal(0, 1, (20, 500))
    windows = rng.normal(shift, 1, (4, 1000))
    outside = ((windows < baseline.min()) | (windows > baseline.max())).mean(axis=1)
    np.testing.assert_allclose(novel(windows, baseline)["value"], outside, atol=1e-12)


def test_a_heap_at_the_end_of_the_range_is_not_novel_however_high(rng):
    """Rain: nine of ten rows are 0, which is the smallest value."""
    baseline = np.where(rng.random((20, 500)) < 0.9, 0.0, rng.gamma(1, 1, (20, 500)))
    assert novel(np.zeros((1, 500)), baseline)["value"].tolist() == [0.0]
    mostly = np.where(np.arange(500) < 40, -1.0, 0.0)[None]
    assert novel(mostly, baseline)["value"].tolist() == [0.08]


def test_own_windows_are_as_novel_as_the_others_say(rng):
    """Against the rows: within .02, as rows of a bin are taken to be spread evenly over it."""
    level = np.repeat(rng.normal(0, 3, 16), 400).reshape(16, 400)
    rows = level + rng.normal(0, 1, level.shape)
    others = [np.delete(rows, i, axis=0) for i in range(16)]
    known = [((r < o.min()) | (r > o.max())).mean() for r, o in zip(rows, others, strict=True)]
    np.testing.assert_allclose(own_novelty(profile(rows, rows)), known, atol=0.02)


def test_unchanged_windows_have_as_many_rows_outside_only_by_the_chance_that_is_told(rng):
    """6,000 days beside 28, each with a level of its own: at most .01 of them below .01."""
    found = []
    for spread in (0.0, 0.5, 1.0, 2.0):
        for _ in range(10):
            days = rng.normal(0, spread, (178, 1)) + rng.normal(0, 1, (178, 300))
            found.append(novel(days[28:], days[:28])["p_value"])
    assert 0 < np.mean(np.concatenate(found) <= 0.01) <= 0.01


def test_few_windows_know_no_usual_share_and_few_rows_none(rng):
    baseline = rng.normal(0, 1, (13, 500))
    found = novelty_metrics(
        {"x": profile(baseline[:1] + 9, baseline)}, {"x": profile(baseline, baseline)}
    )
    assert found["reason"].tolist() == ["", "few_baseline_windows"]
    assert found["p_value"].isna().all()
    few = novel(rng.normal(0, 1, (1, 29)), rng.normal(0, 1, (20, 500)))
    assert few["reason"].tolist() == ["few_rows"]


def test_a_constant_baseline_calls_every_other_value_novel():
    baseline = np.full((20, 50), 7.0)
    found = novel(np.array([[7.0] * 50, [8.0] * 50]), baseline)
    assert found["value"].tolist() == [0.0, 1.0]
    assert found["p_value"].tolist() == [1.0, pytest.approx(0, abs=1e-12)]


LAWS = {
    "normal": lambda rng, shape: rng.normal(0, 1, shape),
    "money": lambda rng, shape: rng.lognormal(3, 0.8, shape),
    "heavy": lambda rng, shape: rng.pareto(1.1, shape),
    "both": lambda rng, shape: rng.standard_t(2, shape),
    "few": lambda rng, shape: np.where(rng.random(shape) < 0.97, 0.0, rng.gamma(1, 9, shape)),
}


@pytest.mark.parametrize("law", ["normal", "money"])
def test_rows_far_beyond_all_are_novel_though_the_baseline_has_rows_beyond_its_bins(law, rng):
    """At least a quarter of them is counted, and half of the days are too rare to be chance."""
    baseline = LAWS[law](rng, (28, 1000))
    windows = np.abs(LAWS[law](rng, (20, 1000))) + 0.5
    some = rng.random(windows.shape) < 0.03
    found = novel(np.where(some, 1000 * windows, windows), baseline, baseline[:1, :200])
    share = found["value"].to_numpy() / some.mean(axis=1)
    assert 0.25 < share.min() < share.max() <= 1.05
    assert np.mean(found["p_value"] < 0.001) >= 0.5


@pytest.mark.parametrize("law", LAWS)
def test_of_unchanged_days_nothing_is_far_beyond_though_bins_are_of_one_day(law, rng):
    """400 days beside 28: at most one of a hundred has 1/200 of its rows there."""
    found = []
    for _ in range(10):
        days = LAWS[law](rng, (68, 1000))
        found.append(novel(days[28:], days[:28], days[:1, :200]))
    together = pd.concat(found)
    told = (together["value"] >= 0.005) & (together["p_value"] < 0.01)
    assert told.mean() <= 0.01


@pytest.mark.parametrize("once", [0.0, 0.02, 0.2])
def test_the_limit_of_unseen_values_is_twice_what_the_baselines_windows_have(once, rng):
    """Against the rows: values that no other window has, of nine of ten windows, to 1e-12."""
    words = rng.integers(0, 20, (20, 500))
    ids = np.where(
        rng.random(words.shape) < once, 1_000 + np.arange(words.size).reshape(20, 500), words
    )
    ids = np.where(ids > UNSEEN, 20 + ids % 9_000, ids)
    own = count(categorical_binning(ids), ids)
    alone = [np.mean(~np.isin(day, np.delete(ids, i, axis=0))) for i, day in enumerate(ids)]
    (found,) = unseen_limits(own, own)
    assert found.value[0] == pytest.approx(min(2 * np.quantile(alone, 0.9), 1), abs=1e-12)
    few = select(own, np.arange(13))
    assert unseen_limits(own, few) == []


Ints = NDArray[np.int64]
TOPICS, ROWS, WINDOWS = 20, 2_000, 40
NAMES = [USUAL, *(f"unlike topic {i + 1}" for i in range(TOPICS))]
SHARES = np.append(0.8, np.full(TOPICS, 0.2 / TOPICS))


def column(counts: Ints, names: list[str] | None = None) -> ColumnStatistics:
    """Return windows with these counts of each name."""
    binning = bin_shapes.categorical_binning("asked.novelty", names or NAMES)
    rest = np.zeros((len(counts), 2), np.int64)
    law = replace(numeric_law("x", np.arange(3.0)), binning=binning)
    return column_of(law, np.hstack([counts, rest]))


def draw(rng: np.random.Generator, windows: int, spread: float = 0.0) -> Ints:
    """Return windows whose topics are more or less common from one to the next."""
    moved = SHARES * np.exp(spread * rng.normal(size=(windows, len(SHARES))))
    return rng.multinomial(ROWS, moved / moved.sum(axis=1, keepdims=True))


def measure(now: Ints, before: Ints) -> pd.DataFrame:
    found = unlike_metrics({"n": column(now)}, {"n": column(before)})
    return found[found["metric"] == "novel_rate"].reset_index(drop=True)


def test_the_chance_is_the_negative_binomials_of_the_surest_topic() -> None:
    rng = np.random.default_rng(1)
    before = rng.poisson([20.0, 5.0, 40.0], (30, 3)) * rng.integers(1, 3, (30, 1))
    before = np.column_stack([before, before.sum(axis=1)])
    now, rows = np.array([[25, 30, 60, 115], [0, 0, 0, 0]]), np.full(30, 1_000)
    found = find_surest(now, np.array([1_000, 1_000]), before, rows)
    total = before.sum(axis=0) + 0.5
    mean = total / 30
    strays = ((before - mean) ** 2).sum(axis=0) - total
    squares = 30 * mean**2
    least = np.append(np.full(3, strays[:3].sum() / squares[:3].sum()), 0.0)
    uneven = np.maximum(np.maximum(strays / squares, least), 0.0)
    next_to = ((before - mean)[1:] * (before - mean)[:-1])[:, :3].sum() * 30 / 29
    follows = min(max(next_to / strays[:3].sum(), 0.0), 0.95)
    of_mean = (1 + follows) / (1 - follows) / 30
    wider = (1 + of_mean) / (1 - of_mean)
    size = 1 / (uneven * wider * (1 + np.sqrt(2 / 30)) + 1 / total)
    chances = stats.nbinom.sf(now[0] - 1, size, size / (size + mean))
    assert found.place[0] == chances.argmin() == 1
    assert found.p_value[0] == pytest.approx(min(4 * chances.min(), 1.0), rel=1e-9)
    assert found.p_value[1] == 1.0


@pytest.mark.parametrize(("spread", "most"), [(0.0, 0.01), (0.3, 0.015), (0.8, 0.035)])
def test_unchanged_windows_are_rarely_called_new(spread: float, most: float) -> None:
    """At .01: shares that vary by half of themselves have longer tails than the law."""
    rng = np.random.default_rng([2, int(10 * spread)])
    p = [measure(draw(rng, 100, spread), draw(rng, WINDOWS, spread))["p_value"] for _ in range(20)]
    assert (np.concatenate(p) <= 0.01).mean() <= most


def test_windows_that_wander_are_rarely_called_new() -> None:
    """Shares follow those of the window before by .9: told in .015; as independent ones .05."""
    told = []
    for seed in range(60):
        rng = np.random.default_rng([8, seed])
        moved, rows = np.zeros(TOPICS), []
        for _ in range(WINDOWS + 60):
            moved = 0.9 * moved + rng.normal(0, 0.3 * np.sqrt(1 - 0.9**2), len(moved))
            share = np.append(SHARES[0], SHARES[1:] * np.exp(moved))
            rows.append(rng.multinomial(ROWS, share / share.sum()))
        counts = np.stack(rows)
        failed = (measure(counts[WINDOWS:], counts[:WINDOWS])["p_value"] <= 0.01).to_numpy()
        told.append(np.convolve(failed, np.ones(3), "valid") >= 2)
    assert np.mean(told) <= 0.02
    assert np.mean([rows.any() for rows in told]) <= 0.3


@pytest.mark.parametrize(("spread", "rows"), [(0.0, 25), (0.3, 60)])
def test_a_new_kind_in_two_topics_is_found(spread: float, rows: int) -> None:
    rng = np.random.default_rng([3, rows])
    now = draw(rng, 50, spread)
    now[:, 0] -= 2 * rows
    now[:, [3, 7]] += rows
    found = measure(now, draw(rng, WINDOWS, spread))
    assert (found["p_value"] <= 0.01).mean() >= 0.9
    assert found["value"].median() == pytest.approx(rows / ROWS, rel=0.35)


def test_many_new_kinds_are_seen_in_all_topics_together() -> None:
    rng = np.random.default_rng(4)
    now = draw(rng, 50)
    now[:, 0] -= 100
    now[:, 1:] += 5
    found = measure(now, draw(rng, WINDOWS))
    assert (found["p_value"] <= 0.01).mean() >= 0.9
    assert found["value"].median() == pytest.approx(0.05, abs=0.01)


def test_what_cannot_be_judged_has_a_reason_and_no_value() -> None:
    rng = np.random.default_rng(5)
    for now, before, reason in (
        (draw(rng, 1) // 1_000, draw(rng, WINDOWS), "few_rows"),
        (draw(rng, 1), draw(rng, 13), "few_baseline_windows"),
        (draw(rng, 1), 0 * draw(rng, WINDOWS), "no_baseline"),
    ):
        found = measure(now, before)
        assert found["reason"].tolist() == [reason]
        assert found[["value", "p_value"]].isna().all(axis=None)


def test_a_baseline_in_which_no_row_is_unlike_says_so_of_any() -> None:
    names, before = [USUAL, "unlike topic 1"], np.tile([ROWS, 0], (WINDOWS, 1))
    now = np.array([[ROWS, 0], [ROWS - 30, 30]])
    found = unlike_metrics({"n": column(now, names)}, {"n": column(before, names)})
    p = found.loc[found["metric"] == "novel_rate", "p_value"].to_numpy()
    assert p[0] == 1.0
    assert p[1] < 1e-6
