"""Intervals of outcomes with heavy tails hold what they should, and what they cannot is known."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.outcomes import LAWS, TOO_HEAVY, counted, windows
from mlmon_dagster.metrics.business import business_metrics

DRAWS = 1_000  # 1.96 standard errors of a share of .95 are .0135


@pytest.mark.parametrize("law", [law for law in LAWS if law not in TOO_HEAVY])
def test_the_interval_of_a_mean_holds_it_in_about_95_percent(law: str) -> None:
    found = windows(law, 500, DRAWS, np.random.default_rng(3))
    assert 0.93 - 0.0135 <= found["held"] <= 0.97 + 0.0135


def test_where_the_variance_is_infinite_no_interval_holds_and_the_share_of_the_largest_tells():
    found = windows("Pareto, tail 1.5", 500, DRAWS, np.random.default_rng(3))
    assert found["held"] < 0.9
    assert found["top"] > 0.15


def test_the_share_of_the_largest_hundredth_is_that_of_the_rows_gains_and_losses_alike() -> None:
    values = np.random.default_rng(5).lognormal(0, 1.5, (1, 1_000))
    values[:, ::3] *= -1
    frame = business_metrics({"x": counted(values)}, None, None).set_index("metric")
    sizes = np.sort(np.abs(values[0]))
    exact = sizes[-10:].sum() / sizes.sum()
    assert frame.loc["outcome_top_share", "value"] == pytest.approx(exact, rel=0.02)
    assert frame.loc["median_outcome", "value"] == pytest.approx(np.median(values), rel=0.03)
