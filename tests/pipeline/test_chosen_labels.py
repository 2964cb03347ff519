"""A healthy model of which mostly high scores are labelled has the rates of all its predictions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.store.state import metric_log
from tests.pipeline.late_labels import LateWorld, by_class

DAYS, ROWS = 8, 1_000


@pytest.mark.proof
def test_labels_of_a_tenth_chosen_by_high_score_change_no_verdict_and_no_rate(
    tmp_path: Path,
) -> None:
    """A tenth is labelled, of which half come true, though a quarter of all predictions do."""
    world = LateWorld(
        tmp_path,
        by_class((0, 0.5), (0, 0.5)),
        n=ROWS,
        baseline_days=20,
        actuals={"expected_within": "1d", "min_coverage": 0.05, "min_rows": 30},
        chosen=lambda score: 0.6 * score**2 + 0.03,
    )
    world.live(DAYS)

    found = metric_log.newest(world.project.store.state, "credit", slice_key="all")
    found = found[(found["dataset"] == "production") & found["value"].notna()]
    by_metric = {name: rows for name, rows in found.groupby("metric")}
    rates, right = by_metric["actual_rate"], by_metric["accuracy"]
    assert len(rates) >= DAYS - 1
    assert set(rates["method_version"]) == {METHOD}
    assert rates["n"].between(0.05 * ROWS, 0.16 * ROWS).all()
    income = np.random.default_rng(0).normal(size=1_000_000)
    score = 1 / (1 + np.exp(1.2 - 1.4 * income))
    for rows, truth in ((rates, score.mean()), (right, np.maximum(score, 1 - score).mean())):
        assert rows["value"].mean() == pytest.approx(truth, abs=0.06)  # of some 800 labels
        assert ((rows["lower"] <= truth) & (truth <= rows["upper"])).mean() >= 0.8
    bad = pd.concat([world.ever(f) for f in ("performance", "estimated_performance")])
    assert bad.empty, bad.to_string()
    judged = world.verdicts("performance", "roc_auc")
    judged = judged[judged["status"] != "NO_DATA"]
    assert len(judged)
    assert judged["message"].str.contains("the value is weighted back to all of them").all()
