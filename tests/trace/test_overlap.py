"""Where the sides share too few scores, nothing is said of what a score means."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.clusters import profiles
from mlmon_dagster.trace.explain import explain
from mlmon_dagster.trace.splits import NO_OVERLAP
from mlmon_dagster.trace.tell import tell
from tests.conftest import make_spec


def side(rng, low, high, days=10, n=300):
    """Return profiles of scores evenly between low and high, or as far above the middle."""
    score = rng.uniform(low, high, days * n)
    score = np.where(rng.random(days * n) < 0.5, score, 1 - score)
    rows = pd.DataFrame(
        {
            "window_start": pd.Timestamp("2024-01-01", tz="UTC")
            + pd.to_timedelta(np.repeat(np.arange(days), n), unit="D"),
            "slice_key": "all",
            "slice_value": "all",
            "score": score,
            "actual": (rng.random(days * n) < score).astype(float),
        }
    )
    found = profiles(rows)
    del found[":absolute"]
    return found


@pytest.mark.parametrize(("low", "high", "is_said"), [(0.01, 0.2, False), (0.2, 0.45, True)])
def test_no_split_is_claimed_where_a_score_tells_the_sides_apart(low, high, is_said):
    # Both ends against the middle: neither side has the higher scores.
    rng = np.random.default_rng(5)
    found = explain(make_spec(), "roc_auc", side(rng, low, high), side(rng, 0.25, 0.5))
    assert found is not None
    assert found.scores is not None
    lines = tell(make_spec(), found, "now", "before")

    assert abs(found.scores.mean - found.scores.mean_then) < 0.03
    assert (found.scores.told_apart < NO_OVERLAP) == is_said
    assert (found.scores.split is not None) == is_said
    assert any("hardly overlap" in line for line in lines) != is_said
    assert (
        any("what a score means" in line and "Of the change" in line for line in lines) == is_said
    )
