"""Distances as they are shown beside what scipy says of the same rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_laws import drift_metrics
from mlmon_dagster.metrics.binnings import representatives, upper_edges
from mlmon_dagster.metrics.statistics import Binning
from tests.metrics.samples import Law, count, numeric_binning

Floats = NDArray[np.float64]
BASE = (30, 500)
MANY, FEW = 4_000, 40
FURTHER = ("wasserstein", "wasserstein_scaled", "hellinger", "total_variation")
LAWS: dict[str, tuple[Law, Law]] = {  # of the baseline, and of the window
    "normal": (
        lambda rng, size: rng.normal(size=size),
        lambda rng, size: rng.normal(0.3, 1.1, size),
    ),
    "lognormal": (
        lambda rng, size: rng.lognormal(0, 1.5, size),
        lambda rng, size: rng.lognormal(0.3, 1.5, size),
    ),
    "heaps": (
        lambda rng, size: np.where(rng.random(size) < 0.6, 0.0, 5.0 * rng.geometric(0.05, size)),
        lambda rng, size: np.where(rng.random(size) < 0.5, 0.0, 5.0 * rng.geometric(0.04, size)),
    ),
    "ages": (
        lambda rng, size: np.floor(rng.normal(40, 12, size)).clip(18, 90),
        lambda rng, size: np.floor(rng.normal(44, 12, size)).clip(18, 90),
    ),
}


def sides(law: str, n: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng([17, n, *law.encode()])
    before, after = LAWS[law]
    return before(rng, BASE), after(rng, (1, n))


def shown(binning: Binning, now: Floats, then: Floats) -> pd.DataFrame:
    frame = drift_metrics(count(binning, now), count(binning, then), seed=1, further=FURTHER)
    return frame.set_index("metric")


def of_bins(binning: Binning, values: Floats) -> tuple[Floats, Floats]:
    """Return the share of rows per bin, and half of the width of each row's bin."""
    upper = upper_edges(binning)
    codes = np.searchsorted(upper, values.ravel(), side="left")
    share = np.bincount(codes, minlength=binning.size) / values.size
    known = np.clip(values.ravel(), binning.low, binning.high)
    return share, np.abs(known - representatives(binning)[codes])


@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.parametrize("law", LAWS)
def test_ks_is_scipys_of_the_rows_up_to_the_largest_bin(law, n):
    then, now = sides(law, n)
    binning = numeric_binning(then)
    within = np.maximum(of_bins(binning, now)[0], of_bins(binning, then)[0]).max()
    exact = stats.ks_2samp(now.ravel(), then.ravel()).statistic
    found = shown(binning, now, then).loc["ks"]
    assert exact - within <= found["value"] <= exact + 1e-12
    assert 0 < found["by_chance"] < found["value"]
    assert found["value"] == pytest.approx(exact, abs=0.005 if n == MANY else 0.03)


@pytest.mark.parametrize("n", [FEW, MANY])
@pytest.mark.parametrize("law", LAWS)
def test_wasserstein_is_scipys_of_the_rows_up_to_half_the_width_of_their_bins(law, n):
    """Values beyond the baseline's range count at its ends: no bin says how far they are."""
    then, now = sides(law, n)
    binning = numeric_binning(then)
    within = of_bins(binning, now)[1].mean() + of_bins(binning, then)[1].mean()
    exact = stats.wasserstein_distance(
        np.clip(now.ravel(), binning.low, binning.high), then.ravel()
    )
    found = shown(binning, now, then)
    assert found.loc["wasserstein", "value"] == pytest.approx(exact, abs=within + 1e-12)
    if law in ("normal", "ages"):  # in a long tail bins are wide
        assert found.loc["wasserstein", "value"] == pytest.approx(exact, rel=0.01)
        scaled = found.loc["wasserstein_scaled", "value"]
        assert scaled == pytest.approx(exact / then.std(), rel=0.02)
