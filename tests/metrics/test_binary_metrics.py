"""What binary models have beyond the areas: separation, costs, fairness, coverage bias."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats
from sklearn import metrics as sk

from mlmon_dagster.metrics.business import business_metrics
from mlmon_dagster.metrics.performance.binary import (
    average_precision,
    ks_separation,
    lift,
    performance_metrics,
)
from mlmon_dagster.metrics.performance.fairness import fairness_metrics
from mlmon_dagster.metrics.statistics import concat
from tests.metrics.samples import cells, confusion_statistics, score_statistics

BINS = 1024
RNG = np.random.default_rng(8)


def binned(score: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    place = np.floor((special.logit(score) + 14) / 28 * BINS).clip(0, BINS - 1).astype(int)
    return tuple(np.bincount(place[actual == k], minlength=BINS)[None] for k in (0, 1))


@pytest.mark.parametrize(("base", "sharp"), [(0.0, 1.0), (-4.0, 1.5), (1.0, 4.0)])
def test_separation_metrics_are_scipys_and_scikit_learns_within_the_stated_bound(base, sharp):
    score = special.expit(RNG.normal(base, sharp, 20_000))
    actual = (RNG.random(20_000) < score).astype(int)
    counts = binned(score, actual)
    ap = average_precision(*counts)
    assert abs(ap.value[0] - sk.average_precision_score(actual, score)) <= ap.bound[0] + 1e-12
    ks = ks_separation(*counts)
    exact = stats.ks_2samp(score[actual == 1], score[actual == 0]).statistic
    assert ks.value[0] - 1e-12 <= exact <= ks.value[0] + ks.bound[0] + 1e-12
    top = lift(*counts, 0.1)
    best = np.argsort(-score)[:2000]
    assert abs(top.value[0] - actual[best].mean() / actual.mean()) <= top.bound[0] + 1e-9


def test_tied_scores_give_exactly_scikit_learns_average_precision():
    score = RNG.choice([0.1, 0.3, 0.35, 0.8], 500)
    actual = (RNG.random(500) < score).astype(int)
    found = average_precision(*binned(score, actual)).value[0]
    assert found == pytest.approx(sk.average_precision_score(actual, score), abs=1e-12)


def test_decisions_are_scikit_learns_and_costs_are_added_up():
    actual, predicted = RNG.integers(0, 2, 300), RNG.integers(0, 2, 300)
    tn, fp, fn, tp = sk.confusion_matrix(actual, predicted).ravel()
    counts = {"tn": tn, "fp": fp, "fn": fn, "tp": tp}
    costs = {"tp": -10.0, "fp": 2.0, "fn": 30.0, "tn": 0.0}
    confusion = confusion_statistics(**counts)
    found = performance_metrics(None, confusion).set_index("metric")["value"]
    assert found["specificity"] == pytest.approx(tn / (tn + fp), rel=1e-12)
    exact = sk.balanced_accuracy_score(actual, predicted)
    assert found["balanced_accuracy"] == pytest.approx(exact, rel=1e-12)
    assert found["mcc"] == pytest.approx(sk.matthews_corrcoef(actual, predicted), rel=1e-9)
    total = sum(costs[name] * n for name, n in counts.items())
    [worth] = business_metrics({}, costs, {"prediction": confusion})["value"]
    assert worth == pytest.approx(-total / 300, rel=1e-12)


@pytest.mark.parametrize("metric", ["pr_auc", "ks_separation", "lift", "mcc", "brier"])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (0, 500), (3, 500)])
def test_empty_and_single_class_windows_are_no_data_or_in_range(metric, counts):
    n_pos, n_neg = counts
    negatives, positives = np.zeros((1, BINS), int), np.zeros((1, BINS), int)
    negatives[0, 500], positives[0, 520] = n_neg, n_pos
    score = score_statistics(negatives, positives)
    confusion = confusion_statistics(tp=n_pos, tn=n_neg)
    row = performance_metrics(score, confusion).set_index("metric").loc[metric]
    if np.isnan(row["value"]):
        assert row["reason"]
    else:  # the ends are NaN where one row cannot tell them
        assert not row["lower"] > row["value"]
        assert not row["upper"] < row["value"]


def test_counts_beyond_32_bits_do_not_overflow():
    big = 3_000_000_000
    found = performance_metrics(None, confusion_statistics(tp=big, tn=big, fp=big, fn=big))
    values = found.set_index("metric")["value"]
    assert values["accuracy"] == pytest.approx(0.5)
    assert values["mcc"] == pytest.approx(0, abs=1e-12)


def groups(**counts: dict[str, int]) -> pd.DataFrame:
    parts = []
    for name, group in counts.items():
        part = confusion_statistics(**group)
        parts.append(type(part)(**{**part.__dict__, "cells": cells(1, key="sex", value=name)}))
    whole = concat(parts)
    return fairness_metrics(whole, {"sex": "f"})


def test_gaps_of_rates_are_differences_and_ratios_to_the_reference():
    frame = groups(
        f={"tp": 40, "fn": 10, "fp": 10, "tn": 40}, m={"tp": 20, "fn": 20, "fp": 10, "tn": 50}
    )
    found = frame.set_index(["slice_value", "metric"])["value"]
    assert found["m", "demographic_parity_difference"] == pytest.approx(0.3 - 0.5)
    assert found["m", "equal_opportunity_ratio"] == pytest.approx(0.5 / 0.8)
    assert found["m", "predictive_parity_difference"] == pytest.approx(20 / 30 - 40 / 50)
    assert found["all", "demographic_parity_difference"] == pytest.approx(-0.2)
    row = frame[(frame["metric"] == "demographic_parity_difference")].iloc[0]
    assert row["lower"] == pytest.approx(-0.3248, abs=2e-3)  # Newcombe's, of 30 and 50 in 100
    assert row["upper"] == pytest.approx(-0.0648, abs=2e-3)


def test_a_missing_reference_or_a_small_group_is_no_data():
    assert set(groups(m={"tp": 50}, n={"tp": 50})["reason"]) == {"no_reference"}
    small = groups(f={"tp": 50, "fp": 50}, m={"tp": 3})
    assert set(small["reason"]) == {"few_rows"}
