"""What a chart draws beside a noisy line: a mean of seven windows, and windows that may change."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from mlmon_dagster.report.charts import Curve, Line, chart_of, mean_lines

FIRST = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
NORMAL = 1.96


def draw_curve(values: np.ndarray, errors: np.ndarray, sizes: np.ndarray, **fields) -> Curve:
    starts = [FIRST + dt.timedelta(days=i) for i in range(len(values))]
    return Curve(
        "ROC AUC",
        starts,
        values.tolist(),
        starts[-1] + dt.timedelta(days=1),
        lower=(values - NORMAL * errors).tolist(),
        upper=(values + NORMAL * errors).tolist(),
        sizes=sizes.tolist(),
        **fields,
    )


def numbers_of(lines: list[Line], role: str) -> np.ndarray:
    return np.array(next(line.values for line in lines if line.role == role))


def test_the_mean_is_that_of_the_newest_seven_windows_by_their_rows() -> None:
    rng = np.random.default_rng(1)
    values, sizes = rng.normal(0.7, 0.05, 20), rng.integers(100, 900, 20).astype(float)
    mean = numbers_of(mean_lines(draw_curve(values, np.full(20, 0.05), sizes)), "mean")
    assert np.isnan(mean[:3]).all()
    assert mean[19] == pytest.approx(np.average(values[13:], weights=sizes[13:]))
    assert mean[3] == pytest.approx(np.average(values[:4], weights=sizes[:4]))


def test_fewer_than_fourteen_windows_have_no_mean() -> None:
    thirteen = draw_curve(np.full(13, 0.7), np.full(13, 0.05), np.full(13, 900.0))
    assert mean_lines(thirteen) == []
    assert not chart_of(thirteen).has_mean


@pytest.mark.parametrize("between", [0.0, 0.05])
def test_the_band_holds_the_true_mean_in_95_of_100(between: float) -> None:
    """Whether windows differ by chance alone, or more than that."""
    rng = np.random.default_rng(2)
    n_inside, n_drawn = 0, 300
    for _ in range(n_drawn):
        errors = rng.uniform(0.03, 0.06, 14)
        values = rng.normal(0.7, np.sqrt(errors**2 + between**2))
        lines = mean_lines(draw_curve(values, errors, np.full(14, 900.0)))
        low, high = (numbers_of(lines, role)[-1] for role in ("mean_lower", "mean_upper"))
        n_inside += low <= 0.7 <= high
    assert n_inside >= 0.94 * n_drawn


def test_windows_that_may_change_are_drawn_apart_and_out_of_the_mean() -> None:
    """The picture has dashes for them, and the script gets their places."""
    values = np.append(np.full(18, 0.7), [0.1, 0.1])
    hollow = [False] * 18 + [True] * 2
    curve = draw_curve(values, np.full(20, 0.02), np.full(20, 900.0), hollow=hollow)
    chart = chart_of(curve)
    assert chart.hollow_places == [18, 19]
    assert 'class="line c0 open"' in chart.picture
    mean = numbers_of(list(chart.lines), "mean")
    assert mean[17] == pytest.approx(0.7)
    assert np.isnan(mean[18:]).all()
    closed = chart_of(draw_curve(values, np.full(20, 0.02), np.full(20, 900.0)))
    assert "open" not in closed.picture
