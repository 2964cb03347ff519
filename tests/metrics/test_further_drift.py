"""Further distances against scipy, shifts and deltas by hand, degenerate columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.drift.distances import (
    FURTHER,
    cramers_v,
    hellinger,
    kl,
    l_infinity,
    smoothed_shares,
    total_variation,
    wasserstein,
)
from mlmon_dagster.metrics.statistics import Binning, concat
from tests.metrics.samples import count, numeric_binning, statistics

RNG = np.random.default_rng(11)
SIDES = [
    (
        RNG.multinomial(n, RNG.dirichlet(np.full(size, 0.3))),
        RNG.multinomial(900, np.full(size, 1 / size)),
    )
    for n in (1, 30, 5_000)
    for size in (2, 7, 40)
]


@pytest.mark.parametrize(("current", "baseline"), SIDES)
def test_distances_equal_scipys(current, baseline):
    p, q = current / current.sum(), baseline / baseline.sum()
    a, b = smoothed_shares(current), smoothed_shares(baseline)
    assert hellinger(current, baseline) == pytest.approx(
        np.sqrt(1 - np.sqrt(a * b).sum()), abs=1e-9
    )
    assert total_variation(current, baseline) == pytest.approx(abs(p - q).sum() / 2, abs=1e-12)
    assert l_infinity(current, baseline) == pytest.approx(abs(p - q).max(), abs=1e-12)
    assert kl(current, baseline) == pytest.approx(stats.entropy(a, b), rel=1e-9)
    table = np.array([current, baseline])[:, (current + baseline) > 0]
    assert cramers_v(current, baseline) == pytest.approx(
        stats.contingency.association(table, method="cramer"), abs=1e-9
    )
    places = np.sort(RNG.normal(size=len(current)) * 1e3)
    assert wasserstein(current, baseline, places) == pytest.approx(
        stats.wasserstein_distance(places, places, current, baseline), rel=1e-9
    )


def test_a_side_without_rows_has_no_distance():
    for distance in (hellinger, total_variation, l_infinity, kl, cramers_v):
        assert np.isnan(distance([0, 0], [3, 4])), distance.__name__
    assert np.isnan(wasserstein([0, 0], [3, 4], [0.0, 1.0]))


def measured(current, baseline, binning):
    frame = drift_metrics(
        count(binning, current), count(binning, baseline), seed=1, further=FURTHER
    )
    return frame.set_index("metric")


def test_shifts_and_deltas_are_those_of_the_values():
    baseline = RNG.poisson(3, (20, 400)).astype(float)
    current = RNG.poisson(4, (1, 400)).astype(float)
    current[0, :100] = np.nan
    values = tuple(np.unique(baseline))
    edges = tuple(v + 0.5 for v in (values[0] - 1, *values))
    binning = Binning("x", "numeric", len(values) + 2, "id", edges=edges, high=values[-1],
                      values=(values[0] - 0.5, *values, values[-1] + 0.5), centre=3.0)  # fmt: skip
    sides = [count(binning, v, total=np.nansum(v - 3.0, axis=1)) for v in (current, baseline)]
    found = drift_metrics(sides[0], sides[1], seed=1, further=FURTHER).set_index("metric")["value"]
    known = current[np.isfinite(current)]
    sd = baseline.std()
    assert found["mean_shift"] == pytest.approx((known.mean() - baseline.mean()) / sd, abs=1e-9)
    assert found["null_rate_delta"] == pytest.approx(0.25, abs=1e-12)
    assert found["zero_rate_delta"] == pytest.approx(
        (known == 0).sum() / 400 - (baseline == 0).mean(), abs=1e-12
    )
    assert found["median_shift"] == pytest.approx(
        (np.quantile(known, 0.5, method="inverted_cdf") - np.median(baseline)) / sd, abs=1e-9
    )
    assert np.isnan(found["unseen_rate_delta"])


def test_unchanged_windows_are_about_0_in_every_distance():
    baseline, current = RNG.normal(size=(1, 50_000)), RNG.normal(size=(60, 100))
    frame = measured(current, baseline, numeric_binning(baseline))
    for name in ("hellinger", "total_variation", "l_infinity", "kl", "cramers_v", "wasserstein"):
        mine = frame.loc[name]["value"]
        assert abs(mine.mean()) < 3 * mine.std() / np.sqrt(60) + 0.003, name


def test_windows_compared_together_have_the_distances_of_each_alone():
    baseline = RNG.normal(size=(1, 5_000))
    binning = numeric_binning(baseline)
    windows = [RNG.normal(size=(1, n)) for n in (40, 180, 3_000)]
    theirs = count(binning, baseline)
    mine = concat([count(binning, values) for values in windows])

    together = drift_metrics(mine, theirs, seed=1, further=FURTHER)
    alone = [
        drift_metrics(count(binning, values), theirs, seed=1, further=FURTHER) for values in windows
    ]

    for metric, found in together.groupby("metric"):
        expected = pd.concat(alone).query("metric == @metric")
        assert sorted(found["value"].dropna()) == sorted(expected["value"].dropna()), metric


def test_one_huge_value_does_not_hide_a_shift_of_three_sigma():
    baseline, current = RNG.normal(size=(1, 5_000)), RNG.normal(3, 1, (1, 500))
    current[0, 0] = 1e6
    found = measured(current, baseline, numeric_binning(baseline))
    assert found.loc["psi", "value"] > 1
    assert found.loc["psi", "p_value"] < 1e-6


@pytest.mark.parametrize("fill", [np.nan, np.inf, 1e300, 7.0])
def test_degenerate_columns_have_a_value_or_a_reason(fill):
    baseline = np.full((20, 100), 7.0)
    current = np.full((1, 100), fill)
    frame = measured(current, baseline, numeric_binning(baseline))
    missing = frame[frame["value"].isna()]
    assert (missing["reason"] != "").all()
    assert np.isfinite(frame["value"].dropna()).all()
    assert (frame.loc["psi", "p_value"] < 0.01) == (fill != 7.0)


def test_categories_have_no_shift_and_say_so():
    binning = Binning("c", "categorical", 4, "id", categories=("a", "b"))
    side = statistics(binning, np.array([[50, 40, 0, 10]]))
    frame = drift_metrics(side, side, seed=1, further=FURTHER).set_index("metric")
    assert frame.loc["mean_shift", "reason"] == "not_ordered"
    assert frame.loc["unseen_rate_delta", "value"] == pytest.approx(0.0)
    assert frame.loc["distinct_delta", "value"] == pytest.approx(0.0)
