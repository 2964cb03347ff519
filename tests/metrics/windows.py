"""One random and many degenerate windows of every task, with a baseline, measured once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.metric_registry import BINARY, MULTICLASS, MULTILABEL, RANKING, REGRESSION
from mlmon_dagster.spec.tasks import BETWEEN, NO_LABELS
from tests.metrics import oracles, task_oracles
from tests.metrics.oracles import CLASSES, COSTS, MAX_WEIGHT, QUANTILE, TOP_K, Oracle
from tests.metrics.rows import make_spec, measured
from tests.metrics.task_oracles import SCORES

ROWS = 120
LARGEST = float(np.finfo(float).max)
INT64 = (2.0**63, -(2.0**63), 2.0**53, 0.0)  # the ends of int64, as floats
Rng = np.random.Generator
Make = Callable[[Rng, int], dict[str, Any]]


class World(NamedTuple):
    """A model, its windows by name, what oracles they have, and what was measured."""

    spec: ModelSpec
    windows: dict[str, pd.DataFrame]
    oracles: dict[str, Oracle]
    frame: pd.DataFrame

    def row(self, window: str, metric: str, column: str = ":table") -> pd.Series:
        """Return the metric of a window at slice `all`."""
        frame = self.frame
        day = list(self.windows).index(window)
        if column == ":table" and metric in oracles.OUTCOMES:
            column = "outlay" if metric.endswith("_cost") else "outcome"
        found = frame[
            (frame["day"] == day) & (frame["metric"] == metric) & (frame["slice_key"] == "all")
            & (frame["column_name"] == column) & frame["family"].isin(["performance", "business"])
        ]  # fmt: skip
        assert len(found) == 1, (window, metric, len(found))
        return found.iloc[0]


def _some(rng: Rng, values: Any, missing: float) -> Any:
    """Lose a share of the values."""
    gone = rng.random(len(values)) < missing
    return np.where(gone, None, np.asarray(values, dtype=object))


def _window(rng: Rng, make: Make, n: int, **fixed: Any) -> pd.DataFrame:
    rows = pd.DataFrame({"site": rng.choice(["n", "s"], n), "lag": rng.uniform(1, 9, n)})
    for name, values in (make(rng, n) | fixed).items():
        rows[name] = values if np.ndim(values) else [values] * n
    gains = np.random.default_rng(n).lognormal(2, 2, n) - 5  # a heavy tail, and losses
    one, other = (_some(child, gains, 0.3) for child in rng.spawn(2))
    return rows if "outcome" in rows else rows.assign(outcome=one, outlay=other)


def _binary(rng: Rng, n: int) -> dict[str, Any]:
    score = rng.beta(1, 2, n)
    actual = (rng.random(n) < score).astype(float)
    return {
        "score": _some(rng, score, 0.05),
        "prediction": _some(rng, (score > 0.4).astype(float), 0.05),
        "actual": _some(rng, actual, 0.04),  # fewer labels than .95 are weighed back to all
    }


def _ties(rng: Rng, n: int) -> dict[str, Any]:
    score = rng.choice([0.1, 0.3, 0.35, 0.8], n)
    return _binary(rng, n) | {"score": score, "actual": (rng.random(n) < score).astype(float)}


ALTERNATE = np.arange(ROWS) % 2.0
BINARY_WINDOWS: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "random": (_binary, 3 * ROWS, {}),
    "one_row": (_binary, 1, {"score": 0.3, "prediction": 1.0, "actual": 1.0}),
    "one_row_without_anything": (_binary, 1, dict.fromkeys(("score", "prediction", "actual"))),
    "all_null": (_binary, ROWS, dict.fromkeys(("score", "prediction", "actual"))),
    "no_actuals": (_binary, ROWS, {"actual": np.nan}),
    "no_outputs": (_binary, ROWS, {"score": None, "prediction": None}),
    "only_positives": (_binary, ROWS, {"actual": 1.0}),
    "only_negatives": (_binary, ROWS, {"actual": 0.0}),
    "constant_score": (_binary, ROWS, {"score": 0.5, "prediction": 1.0, "actual": ALTERNATE}),
    "sure_and_wrong": (_binary, ROWS, {"score": ALTERNATE, "actual": 1 - ALTERNATE}),
    "sure_and_right": (_binary, ROWS, {"score": ALTERNATE, "prediction": ALTERNATE,
                                       "actual": ALTERNATE}),
    "denormal_scores": (_binary, ROWS, {"score": 5e-324, "actual": ALTERNATE}),
    "never_positive": (_binary, ROWS, {"prediction": 0.0, "actual": 0.0}),
    "ties": (_ties, 2 * ROWS, {}),
}  # fmt: skip


def _multiclass(rng: Rng, n: int) -> dict[str, Any]:
    truth = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    logit = rng.normal(0, 1, (n, 3))
    logit[np.arange(n), truth] += 1
    scores = np.exp(logit) / np.exp(logit).sum(axis=1, keepdims=True)
    names = np.array([*CLASSES, "new", "other"], dtype=object)
    unseen = rng.random((2, n)) < 0.05
    predicted = np.where(unseen[0], rng.integers(3, 5, n), scores.argmax(axis=1))
    truth = np.where(unseen[1], rng.integers(3, 5, n), truth)
    return {
        "prediction": names[predicted],
        "actual": _some(rng, names[truth], 0.04),
        **dict(zip(SCORES, scores.T, strict=True)),
    }


EVEN = dict.fromkeys(SCORES, 1 / 3)
MULTICLASS_WINDOWS: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "random": (_multiclass, 3 * ROWS, {}),
    "one_row": (_multiclass, 1, {"prediction": "a", "actual": "c"}),
    "all_null": (_multiclass, ROWS, dict.fromkeys(("prediction", "actual", *SCORES))),
    "no_actuals": (_multiclass, ROWS, {"actual": None}),
    "one_class": (_multiclass, ROWS, {"prediction": "a", "actual": "a"}),
    "unseen_and_equal": (_multiclass, ROWS, {"prediction": "new", "actual": "new"}),
    "unseen_and_different": (_multiclass, ROWS, {"prediction": "new", "actual": "other"}),
    "ties": (_multiclass, ROWS, EVEN),
    "sure": (_multiclass, ROWS, {**dict(zip(SCORES, (1.0, 0.0, 0.0), strict=True))}),
}


def _multilabel(rng: Rng, n: int) -> dict[str, Any]:
    truth = rng.random((n, 4)) < [0.5, 0.3, 0.05, 0.04]
    given = truth ^ (rng.random((n, 4)) < 0.15)
    names = np.array([*CLASSES, "new"])
    prediction, actual = (
        np.array([BETWEEN.join(sorted(names[row])) or NO_LABELS for row in rows], dtype=object)
        for rows in (given, truth)
    )
    return {"prediction": _some(rng, prediction, 0.1), "actual": _some(rng, actual, 0.04)}


MULTILABEL_WINDOWS: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "random": (_multilabel, 3 * ROWS, {}),
    "one_row": (_multilabel, 1, {"prediction": "a|c", "actual": "a"}),
    "all_null": (_multilabel, ROWS, {"prediction": None, "actual": None}),
    "no_actuals": (_multilabel, ROWS, {"actual": None}),
    "no_labels": (_multilabel, ROWS, {"prediction": NO_LABELS, "actual": NO_LABELS}),
    "never_given": (_multilabel, ROWS, {"prediction": NO_LABELS}),
    "all_labels": (_multilabel, ROWS, {"prediction": BETWEEN.join(CLASSES),
                                       "actual": BETWEEN.join(CLASSES)}),
    "unseen_and_equal": (_multilabel, ROWS, {"prediction": "new", "actual": "new"}),
}  # fmt: skip


def _regression(rng: Rng, n: int) -> dict[str, Any]:
    actual = rng.normal(3, 2, n)
    return {
        "prediction": _some(rng, actual + rng.standard_t(4, n), 0.1),
        "actual": _some(rng, actual, 0.04),  # fewer than .95 are weighed back to all
    }


SIGNS = np.where(np.arange(ROWS) % 2, 1.0, -1.0)
ODD = np.resize([np.nan, np.inf, -np.inf, 1.0], ROWS)
REGRESSION_WINDOWS: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "random": (_regression, 3 * ROWS, {}),
    "one_row": (_regression, 1, {"prediction": 3.0, "actual": 2.5}),
    "all_null": (_regression, ROWS, {"prediction": None, "actual": None}),
    "no_actuals": (_regression, ROWS, {"actual": np.nan}),
    "no_predictions": (_regression, ROWS, {"prediction": np.nan, "actual": 1.0}),
    "infinite": (_regression, ROWS, {"prediction": np.inf, "actual": -np.inf}),
    "not_finite": (_regression, ROWS, {"prediction": ODD, "actual": 2.0}),
    "constant": (_regression, ROWS, {"prediction": 7.0, "actual": 7.0}),
    "constant_actuals": (_regression, ROWS, {"actual": 7.0}),
    "zeros": (_regression, ROWS, {"prediction": 0.0, "actual": 0.0}),
    "1e300": (_regression, ROWS, {"prediction": 1e300 * SIGNS, "actual": -1e300 * SIGNS}),
    "one_1e300": (_regression, ROWS, {"prediction": np.where(np.arange(ROWS) == 5, 1e300, 3.0),
                                      "actual": np.linspace(-1, 7, ROWS)}),
    "largest": (_regression, ROWS, {"prediction": LARGEST * SIGNS, "actual": -LARGEST * SIGNS}),
    "denormal": (_regression, ROWS, {"prediction": 0.0, "actual": 5e-324}),
    "int64": (_regression, ROWS, {"prediction": np.resize(INT64, ROWS),
                                  "actual": np.resize(INT64[::-1], ROWS)}),
    "tiny_errors": (_regression, ROWS, {"prediction": 3.0, "actual": 3 + 1e-7 * SIGNS}),
}  # fmt: skip


def _ranking(rng: Rng, n: int) -> dict[str, Any]:
    group = np.arange(n) // 6
    return {
        "group": [f"g{k}" for k in group],
        "rank": rng.permutation(n).astype(float),
        "actual": _some(rng, rng.integers(0, 4, n) * (rng.random(n) < 0.5) * 1.0, 0.2),
        "examined": _some(rng, rng.choice([0.0, 0.02, 0.3, 0.6, 1.0], n), 0.1),
    }


RANKING_WINDOWS: dict[str, tuple[Make, int, dict[str, Any]]] = {
    "random": (_ranking, 3 * ROWS, {}),
    "one_row": (_ranking, 1, {"actual": 1.0}),
    "all_null": (_ranking, ROWS, {"actual": None}),
    "none_relevant": (_ranking, ROWS, {"actual": 0.0}),
    "negative": (_ranking, ROWS, {"actual": -SIGNS}),
    "not_finite": (_ranking, ROWS, {"actual": ODD}),
    "1e300": (_ranking, ROWS, {"actual": np.where(np.arange(ROWS) % 3, 1e300, 1.0)}),
    "largest": (_ranking, ROWS, {"actual": LARGEST}),
    "denormal": (_ranking, ROWS, {"actual": 5e-324}),
    "int64": (_ranking, ROWS, {"actual": np.resize(INT64, ROWS)}),
    "none_examined": (_ranking, ROWS, {"examined": None}),
    "all_seen": (_ranking, ROWS, {"examined": 1.0}),
    "equal_ranks": (_ranking, ROWS, {"rank": 1.0}),
    "ranks_of_any_size": (_ranking, ROWS, {"rank": np.resize([1e300, -1e300, 0.5, 7.0, 9.0, 8.0],
                                                             ROWS)}),
}  # fmt: skip

_MODELS: dict[str, tuple[Make, dict[str, Any], dict[str, Any], Any, dict[str, Oracle]]] = {
    BINARY: (_binary, {"score": "s", "prediction": "p"},
             {"costs": COSTS, "slices": ["site"], "fairness": {"slices": ["site"]}},
             BINARY_WINDOWS, oracles.BINARY),
    MULTICLASS: (_multiclass, {"prediction": "p", "scores": {c: f"s{c}" for c in CLASSES}},
                 {"top_k": TOP_K}, MULTICLASS_WINDOWS, task_oracles.MULTICLASS),
    MULTILABEL: (_multilabel, {"prediction": "p"}, {"classes": list(CLASSES)},
                 MULTILABEL_WINDOWS, task_oracles.MULTILABEL),
    REGRESSION: (_regression, {"prediction": "p"}, {"quantile": QUANTILE}, REGRESSION_WINDOWS,
                 task_oracles.REGRESSION),
    RANKING: (_ranking, {"group": "g", "rank": "r", "examined": "e"},
              {"top_k": TOP_K, "max_weight": MAX_WEIGHT}, RANKING_WINDOWS,
              task_oracles.RANKING),
}  # fmt: skip


def window_names(task: str) -> list[str]:
    """Return the names of a task's windows, without measuring them."""
    return list(_MODELS[task][3])


def oracle_names(task: str) -> list[str]:
    """Return the metrics of a task that have an oracle, without measuring them."""
    return [*_MODELS[task][4], *oracles.OUTCOMES]


def baseline(task: str) -> pd.DataFrame:
    """Return 16 windows of 60 rows."""
    rng = np.random.default_rng(7)
    return _window(rng, _MODELS[task][0], 960).assign(day=np.arange(960) // 60)


@cache
def world(task: str) -> World:
    """Return all windows of a task, measured with the baseline's bins."""
    _, columns, sections, windows, known = _MODELS[task]
    outcomes = {"outcome": "o", "outlay": {"column": "o2", "better": "lower"}}
    spec, then = make_spec(task, {"outcomes": outcomes, **columns}, **sections), baseline(task)
    rng = np.random.default_rng(11)
    built = {name: _window(rng, *window[:2], **window[2]) for name, window in windows.items()}
    current = pd.concat([rows.assign(day=i) for i, rows in enumerate(built.values())])
    known = known | oracles.OUTCOMES
    return World(spec, built, known, measured(spec, current, then))
