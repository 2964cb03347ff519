"""Every metric of the other tasks, from rows through SQL profiles, against scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from mlmon_dagster.spec import ModelSpec
from tests.metrics import task_oracles
from tests.metrics.oracles import EXACT, Within
from tests.metrics.rows import make_spec, measured

CLASSES = ["a", "b b", "c"]


def of_rows(spec: ModelSpec, **columns: Any) -> pd.DataFrame:
    """Metrics of slice `all` by name and class, with bins of the very rows."""
    rows = pd.DataFrame(columns).assign(day=0, site="x")
    frame = measured(spec, rows, rows, ["performance"])
    frame = frame[frame["slice_key"] == "all"]
    return frame.set_index(frame["metric"] + frame["column_name"].str.removeprefix(":table"))


def regression(actual: Any, prediction: Any, quantile: float = 0.5) -> pd.DataFrame:
    spec = make_spec("regression", {"prediction": "p"}, quantile=quantile)
    return of_rows(spec, actual=actual, prediction=prediction)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_regression_metrics_are_the_same_in_every_unit(scale):
    rng = np.random.default_rng(1)
    actual = rng.normal(3, 2, 500) * scale
    prediction = actual + rng.standard_t(4, 500) * scale
    found = regression(actual, prediction, 0.8)["value"]
    rows = pd.DataFrame({"prediction": prediction, "actual": actual})
    for metric, oracle in task_oracles.REGRESSION.items():
        expected = oracle(rows)
        value, bound = expected if isinstance(expected, Within) else (expected, EXACT * scale)
        assert found[metric] == pytest.approx(value, rel=EXACT, abs=bound), metric


def test_one_row_and_huge_errors_have_finite_values():
    one = regression([2.0], [3.0])["value"]
    assert (one["mae"], one["rmse"], one["median_absolute_error"]) == (
        1,
        1,
        pytest.approx(1, rel=0.01),
    )
    huge = regression([1.0] * 20, [1e300] + [1.0] * 19)["value"]
    assert huge["mae"] == pytest.approx(1e35 / 20)
    assert huge["median_absolute_error"] == 0


def multiclass(actual: Any, prediction: Any, scores: Any, top_k: int = 2) -> pd.DataFrame:
    spec = make_spec(
        "multiclass_classification",
        {"prediction": "p", "scores": {c: f"s{c}" for c in CLASSES}},
        top_k=top_k,
    )
    columns = {f"score:{c.replace(' ', '%20')}": scores[:, i] for i, c in enumerate(CLASSES)}
    return of_rows(spec, actual=actual, prediction=prediction, **columns)


def test_metrics_of_each_class_are_scikit_learns():
    rng = np.random.default_rng(2)
    truth = rng.choice(3, 900, p=[0.6, 0.3, 0.1])
    logit = rng.normal(0, 1, (900, 3))
    logit[np.arange(900), truth] += 1
    scores = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    actual, predicted = (np.array(CLASSES)[x] for x in (truth, scores.argmax(axis=1)))
    found = multiclass(actual, predicted, scores)["value"]
    each = sk.f1_score(actual, predicted, average=None)
    assert [found[f"f1class:{c}"] for c in CLASSES] == pytest.approx(each, rel=EXACT)


def test_unseen_classes_are_one_class_more_and_right_only_when_equal():
    even = np.full((5, 3), 1 / 3)
    found = multiclass(["a", "a", "x", "x", "y"], ["a", "x", "x", "y", "b b"], even)["value"]
    assert found["accuracy"] == pytest.approx(2 / 5)
    assert found["unseen_class_rate"] == pytest.approx(3 / 5)
    assert found["recallclass:a"] == pytest.approx(1 / 2)
    assert found["log_loss"] == pytest.approx((2 * np.log(3) - 3 * np.log(1e-15)) / 5)


def test_labels_of_one_decision_stand_for_all_of_its_rows():
    actual = ["a"] * 40 + ["c"] * 10 + [None] * 50 + ["c"] * 50 + ["a"] * 50
    found = multiclass(actual, ["a"] * 100 + ["c"] * 100, np.full((200, 3), 1 / 3))
    assert found.loc["accuracy", "value"] == pytest.approx(0.5 * 40 / 50 + 0.5 * 50 / 100)
    assert found.loc["accuracy", "n"] == 150
    assert found.loc["recallclass:a", "value"] == pytest.approx(80 / (80 + 50))


def test_constant_and_absent_actuals_of_several_classes_are_defined():
    even = np.full((4, 3), 1 / 3)
    same = multiclass(["a"] * 4, ["a"] * 4, even)
    assert same.loc["macro_f1", "value"] == 1
    assert same.loc["mcc", "value"] == 0
    assert same.loc["macro_roc_auc", "reason"] == "few_of_rarer_class"
    perfect = multiclass(["a", "c"] * 2, ["a", "c"] * 2, even).loc["macro_f1"]
    assert perfect["value"] == 1
    assert perfect["lower"] < 0.9
    none = multiclass([None] * 4, ["a"] * 4, even)
    assert set(none.loc[["accuracy", "macro_f1", "mcc", "log_loss"], "reason"]) == {"no_actuals"}


def ranking(group: Any, rank: Any, relevance: Any, top_k: int = 5) -> pd.DataFrame:
    spec = make_spec("ranking", {"group": "g", "rank": "r"}, top_k=top_k)
    return of_rows(spec, group=[str(g) for g in group], rank=rank, actual=relevance)


def test_groups_without_actuals_are_left_out_and_without_relevant_rows_count_as_0():
    found = ranking([1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 1, 2], [1, None, 0, 0, None, None])
    assert found.loc["mrr", "value"] == pytest.approx(0.5)
    assert found.loc["mrr", "n"] == 2
    assert found.loc["ndcg", "value"] == pytest.approx(0.5)
    none = ranking([1, 1], [1, 2], [None, None])
    assert none.loc["ndcg", "reason"] == "no_actuals"
