"""A model fitted anew beside the one in service, with planted answers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.trace.fresh import fresh_beside_served
from mlmon_dagster.trace.sentences import _of_fresh
from tests.conftest import make_spec

FEATURES = {"x": {"type": "numeric"}}
COLUMNS = {"prediction_id": "id", "event_time": "at", "prediction": "decision", "actual": "came"}


def spec_of(task: str = "binary_classification", **changes: object) -> ModelSpec:
    return make_spec(task=task, features=FEATURES, slices=[], monitors={}, **changes)


def rows(stale: float, n: int = 6000, days: int = 30) -> pd.DataFrame:
    """Return rows whose truth follows x, and what a model that mixes it with noise served."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=n)
    start = pd.Timestamp("2024-01-01", tz="UTC")
    windows = start + pd.to_timedelta(np.arange(n) % days, unit="D")
    score = 1 / (1 + np.exp(-(x + stale * rng.normal(size=n))))
    return pd.DataFrame(
        {
            "x": x,
            "actual": (rng.random(n) < 1 / (1 + np.exp(-2 * x))).astype(int),
            "score": score,
            "prediction": (score > 0.5).astype(int),
            "window_start": windows,
        }
    )


class Knows:
    """A fitted model that knows the truth's law."""

    def predict_proba(self, found: pd.DataFrame) -> np.ndarray:
        p = 1 / (1 + np.exp(-2 * found["x"].to_numpy()))
        return np.column_stack([1 - p, p])


def test_a_stale_model_is_told_by_how_much_on_the_same_rows() -> None:
    found = fresh_beside_served(spec_of(), Knows(), mine := rows(stale=2.0), "June", 500)

    assert found.served == pytest.approx(roc_auc_score(mine["actual"], mine["score"]), abs=1e-12)
    assert found.fresh == pytest.approx(roc_auc_score(mine["actual"], mine["x"]), abs=1e-12)
    assert found.comparison is not None
    assert found.comparison.difference == pytest.approx(found.fresh - found.served, abs=1e-12)
    assert found.comparison.windows == 30
    assert found.comparison.verdict == "better"
    (said,) = _of_fresh(found)
    assert said.startswith("A model trained on June (500 rows) reaches ROC AUC .")
    assert said.endswith("retraining pays.")


def test_the_same_scores_gain_nothing() -> None:
    mine = rows(stale=0.0)
    found = fresh_beside_served(spec_of(), lambda features: mine["score"], mine, "June", 500)

    assert found.comparison is not None
    assert (found.comparison.difference, found.comparison.verdict) == (0.0, "not worse")
    assert next(_of_fresh(found)).endswith("retraining gains nothing for sure.")


def test_a_regression_is_compared_by_its_error_and_classes_by_right_decisions() -> None:
    mine = rows(stale=1.0)
    numbers = mine.assign(actual=mine["x"] * 3, prediction=mine["x"] * 3 + 1)
    numeric = spec_of("regression", columns=COLUMNS)
    found = fresh_beside_served(numeric, lambda features: features["x"] * 3, numbers, "June", 500)
    assert (found.metric, found.served, found.fresh) == ("mae", pytest.approx(1.0), 0.0)

    named = mine.assign(actual=mine["actual"].map({0: "no", 1: "yes"}), prediction="no")
    found = fresh_beside_served(
        spec_of("multiclass_classification", columns=COLUMNS),
        lambda features: np.where(features["x"] > 0, "yes", "no"),
        named, "June", 500,
    )  # fmt: skip
    assert found.metric == "accuracy"
    assert found.fresh > found.served


@pytest.mark.parametrize(
    ("fitted", "said"),
    [
        (7, "expected predict_proba, predict or a function, not int"),
        (lambda features: features["x"][:3], "a number for each of 6,000 rows"),
    ],
)
def test_what_gives_no_number_a_row_is_refused(fitted: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fresh_beside_served(spec_of(), fitted, rows(1.0), "June", 500)
