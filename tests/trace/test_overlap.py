"""What a trace says of itself: where sides share too few scores, where values are weighted back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from benchmarks.clusters import profiles
from mlmon_dagster.trace.explain import explain
from mlmon_dagster.trace.sentences import cause, describe_trace
from mlmon_dagster.trace.splits import NO_OVERLAP
from tests.conftest import make_spec


def side(rng, low, high, days=10, n=300):
    """Return profiles of scores evenly between low and high, or as far above the middle."""
    score = rng.uniform(low, high, days * n)
    score = np.where(rng.random(days * n) < 0.5, score, 1 - score)
    return profiled(score, rng.random(days * n) < score, days)


def profiled(score, actual, days=10):
    n = len(score) // days
    rows = pd.DataFrame(
        {
            "window_start": pd.Timestamp("2024-01-01", tz="UTC")
            + pd.to_timedelta(np.repeat(np.arange(days), n), unit="D"),
            "slice_key": "all",
            "slice_value": "all",
            "score": score,
            "actual": actual.astype(float),
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
    lines = describe_trace(make_spec(), found, "now", "before")

    assert abs(found.scores.mean - found.scores.mean_then) < 0.03
    assert (found.scores.told_apart < NO_OVERLAP) == is_said
    assert (found.scores.split is not None) == is_said
    assert any("hardly overlap" in line for line in lines) != is_said
    assert any("meaning of a score" in line for line in lines) is False  # nothing else changed


@pytest.mark.parametrize(
    ("turned", "said"),
    [("labels", "labels look inverted"), ("scores", "scores look inverted"), ("", "")],
)
def test_an_area_far_below_a_half_says_what_is_inverted(turned, said):
    rng = np.random.default_rng(6)
    score = rng.uniform(0.02, 0.5, 3_000)
    actual = rng.random(3_000) < score
    now = profiled(
        1 - score if turned == "scores" else score, ~actual if turned == "labels" else actual
    )
    found = explain(make_spec(), "roc_auc", now, profiled(score, actual))
    assert found is not None
    lines = describe_trace(make_spec(), found, "now", "before")
    assert [line for line in lines if "inverted" in line] == (
        [f"High scores come true less often than low ones: {said}."] if turned else []
    )
    assert (said in cause(make_spec(), found)) or not turned


def partly_labelled(found):
    """Take the ground truth of half of the rows away."""
    for name in ("score", "prediction"):
        counts = found[name].counts.reshape(len(found[name]), -1, 3).copy()
        moved = counts[:, :, 1:] // 2
        counts[:, :, 1:] -= moved
        counts[:, :, 0] += moved.sum(axis=2)
        found[name] = replace(found[name], counts=counts.reshape(found[name].counts.shape))
    return found


@pytest.mark.parametrize("is_partly", [False, True])
def test_a_trace_says_that_its_headline_is_weighted_back_and_its_parts_are_not(is_partly):
    rng = np.random.default_rng(6)
    now, then = side(rng, 0.05, 0.5), side(rng, 0.05, 0.4)
    if is_partly:
        now = partly_labelled(now)
    found = explain(make_spec(), "accuracy", now, then)
    assert found is not None
    assert found.is_weighted == is_partly
    lines = describe_trace(make_spec(), found, "now", "before")
    said = (
        "Ground truth covers a part of the predictions; the value is weighted back to all of them. "
        "What follows splits the change of the rows that have ground truth."
    )
    assert (lines[1] == said) == is_partly
