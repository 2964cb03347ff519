"""How many texts hold personal data, by plain counting, and what is far above the usual."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from mlmon_dagster.metrics.quality import personal_metrics
from mlmon_dagster.metrics.statistics import ColumnStatistics, count_whole
from mlmon_dagster.profiles.bin_shapes import categorical_binning

BINNING = categorical_binning("q.email", ("false", "true"))


def windows(first: str, *counts: tuple[int, int]) -> ColumnStatistics:
    """Return windows of so many texts without and with an address."""
    cells = pd.DataFrame(
        {
            "window_start": pd.date_range(first, periods=len(counts), tz="UTC"),
            "dataset": "production",
            "model_version": "1",
        }
    )
    bins = np.zeros((len(counts), BINNING.size), np.int64)
    bins[:, :2] = counts
    return count_whole(BINNING, cells, bins, bins.sum(axis=1))


def test_a_share_is_of_the_texts_and_has_wilsons_interval() -> None:
    found = personal_metrics({"q.email": windows("2026-03-01", (97, 3), (0, 0))}, {})
    assert found["metric"].tolist() == ["personal_rate"] * 2
    first, none = found.to_dict("records")
    low, high = binomtest(3, 100).proportion_ci(method="wilson")
    assert (first["value"], first["n"]) == (0.03, 100)
    assert (first["lower"], first["upper"]) == pytest.approx((low, high), abs=1e-9)
    assert (none["n"], none["reason"]) == (0, "no_rows")


def test_the_limit_is_twice_what_nine_of_ten_windows_do_not_exceed() -> None:
    own = [(1000 - n, n) for n in range(20)]
    found = personal_metrics(
        {"q.email": windows("2026-03-01", (97, 3))}, {"q.email": windows("2026-01-01", *own)}
    ).set_index("metric")
    limit = found.loc["personal_rate_auto"]
    assert limit["value"] == pytest.approx(2 * np.quantile(np.arange(20) / 1000, 0.9), abs=1e-12)
    assert limit["by_chance"] == pytest.approx(0.0095, abs=1e-12)
    assert limit["n_baseline"] == 20_000


def test_of_few_windows_it_is_twice_what_they_have_together_and_of_no_texts_there_is_none() -> None:
    mine = {"q.email": windows("2026-03-01", (97, 3))}
    few = personal_metrics(mine, {"q.email": windows("2026-01-01", (90, 10), (99, 1))})
    assert few.set_index("metric").loc["personal_rate_auto", "value"] == pytest.approx(0.11)
    none = personal_metrics(mine, {"q.email": windows("2026-01-01", (5, 0))})
    assert none["metric"].tolist() == ["personal_rate"]
