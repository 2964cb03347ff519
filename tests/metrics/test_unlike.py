"""Rows unlike the baseline's of their topic: chances beside scipy's, false alarms and power."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_laws import column_of, numeric_law
from mlmon_dagster.metrics.drift.novelty import find_surest, unlike_metrics
from mlmon_dagster.metrics.embeddings import USUAL
from mlmon_dagster.metrics.statistics import ColumnStatistics
from mlmon_dagster.profiles.bin_shapes import categorical_binning

Ints = NDArray[np.int64]
TOPICS, ROWS, WINDOWS = 20, 2_000, 40
NAMES = [USUAL, *(f"unlike topic {i + 1}" for i in range(TOPICS))]
SHARES = np.append(0.9, np.full(TOPICS, 0.1 / TOPICS))


def column(counts: Ints, names: list[str] | None = None) -> ColumnStatistics:
    """Return windows with these counts of each name."""
    binning = categorical_binning("asked.novelty", names or NAMES)
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
    size = 1 / (uneven * (1 + np.sqrt(2 / 30)) + 1 / total)
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


@pytest.mark.parametrize(("spread", "rows"), [(0.0, 20), (0.3, 50)])
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
