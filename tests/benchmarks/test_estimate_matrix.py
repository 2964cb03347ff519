"""The matrix of estimates: ratios beside the oracle, verdicts, draws that know of no others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.estimate_matrix import DAY, NO_SHIFT, Draw, judge, ratio, with_learnt_width
from benchmarks.scored_worlds import Size

CELL = ("binary", "continuous", 200, NO_SHIFT)


def windows(baselines, each, held):
    """Windows of one metric whose errors are those of the plain method, half those of weights."""
    n = baselines * each
    plain = np.random.default_rng(1).exponential(size=n)
    return pd.DataFrame(
        {"metric": "brier", "baseline": np.repeat(np.arange(baselines), each),
         "window": np.tile(np.arange(each), baselines), "plain": plain,
         "weighted": 2 * plain, "chosen": plain, "held": held, "half": 1.0, "is_plain": 1.0}
    )  # fmt: skip


def test_the_ratio_is_to_the_better_method_with_an_error_by_leaving_baselines_out():
    found = windows(5, 4, 1.0).assign(chosen=lambda one: one["plain"] * (1 + one["baseline"] / 10))
    got = ratio(found)
    assert got.value == pytest.approx(found["chosen"].sum() / found["plain"].sum())
    left = [found[found["baseline"] != i] for i in range(5)]
    values = np.array([one["chosen"].sum() / one["plain"].sum() for one in left])
    assert got.error == pytest.approx((0.8 * ((values - values.mean()) ** 2).sum()) ** 0.5)


@pytest.mark.parametrize(
    ("baselines", "held", "verdict"),
    [(80, 1.0, "met"), (40, np.tile([0.0, 1.0], 200), "NOT MET"), (2, 1.0, "not shown")],
)
def test_bands_are_met_or_missed_only_where_chance_does_not_decide(baselines, held, verdict):
    found = {one.kind: one.verdict for one in judge(CELL, windows(baselines, 10, held))}
    assert found["bands"] == verdict
    assert found["errors"] == "met"


def test_a_cells_draws_are_the_same_whatever_is_drawn_beside_it():
    size = Size(1, 3, 14, 200)
    others = {("binary", "16 values", 200, "covariate"), ("binary", "continuous", 200, "carried")}
    alone = Draw("binary", 200, 0, 0.0, size, frozenset({CELL})).compare()
    beside = Draw("binary", 200, 0, 0.0, size, frozenset({CELL, *others})).compare()
    mine = beside[(beside["shape"] == CELL[1]) & (beside["case"] == NO_SHIFT)]
    pd.testing.assert_frame_equal(mine.reset_index(drop=True), alone)
    shared = ("binary", "continuous", 200, "shared days")
    days = Draw("binary", 200, 0, DAY, size, frozenset({shared})).compare()
    assert not np.allclose(days["chosen"].mean(), alone["chosen"].mean())


def test_a_day_of_the_flights_learns_from_the_30_days_before_it_and_not_from_itself():
    found = windows(1, 60, 0.0).assign(chosen=0.5, case="the winter")
    found.loc[[3, 4], "chosen"] = 2.0, 3.0
    learnt = with_learnt_width(found)
    assert learnt["half"].tolist() == [1.0] * 4 + [2.4] + [1.2 * 3] * 30 + [1.0] * 25
    assert np.flatnonzero(learnt["held"] == 0).tolist() == [3, 4]
