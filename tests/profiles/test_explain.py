"""SHAP values computed here are those that the model's own library would have logged."""

from __future__ import annotations

import datetime as dt
import logging
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.metrics.quality import fitting_link
from mlmon_dagster.profiles import Baseline, build_profiles, ensure_baseline
from mlmon_dagster.profiles.explain import explained
from mlmon_dagster.profiles.loss_columns import EXPLAINER, share_of, signed_of
from mlmon_dagster.profiles.measures import drift
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from tests.conftest import SPEC, make_events, make_spec, window
from tests.profiles import explained_models as models

# Imported by the tests alone: every worker collects them, one runs them.
LIBRARIES = ("lightgbm", "xgboost", "shap")
pytestmark = [
    pytest.mark.skipif(not all(map(find_spec, LIBRARIES)), reason="needs lightgbm, xgboost, shap"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
NOW = dt.datetime(2024, 2, 1, tzinfo=dt.UTC)
DAYS = ("2024-01-01", "2024-01-02")
FEATURES = {
    "age": {"type": "numeric"}, "region": {"type": "categorical"}, "balance": {"type": "numeric"},
}  # fmt: skip
COLUMNS: dict[str, Any] = SPEC["columns"]  # type: ignore[assignment]


def computing(name: str, share: float = 1.0, **more: Any) -> ModelSpec:
    explain = {"model": f"tests.profiles.explained_models:{name}", "share": share}
    return make_spec(features=FEATURES, explain=explain, **more)


def logging_spec() -> ModelSpec:
    columns = COLUMNS | {"shap": "shap_{feature}", "base_value": "base"}
    return make_spec(features=FEATURES, columns=columns)


def by_library(name: str, frame: pd.DataFrame) -> np.ndarray:
    """Ask the library itself for the values of age, region, balance and the base value."""
    rows = models.numbers(frame)
    if name == "lightgbm":
        found = models.fitted_lightgbm().predict(rows, pred_contrib=True)
    elif name == "xgboost":
        import xgboost

        booster = models.fitted_xgboost().get_booster()
        found = booster.predict(xgboost.DMatrix(rows), pred_contribs=True)
    else:
        import shap

        explainer = shap.TreeExplainer(models.fitted_boosting())
        base = np.full((len(rows), 1), np.ravel(explainer.expected_value)[0])
        found = np.hstack([explainer.shap_values(rows), base])
    return np.asarray(found, np.float64)[:, [2, 0, 1, 3]]


def land(store: Store, spec: ModelSpec, name: str, n: int = 200) -> None:
    """Append days of two datasets with scores of a model, and its SHAP values where logged."""
    log = store.event_log(spec)
    model = getattr(models, f"fitted_{name}")()
    for dataset in ("validation", "production"):
        for seed, day in enumerate(DAYS, start=2):
            events, _ = make_events(spec, day, n, dataset=dataset, prefix=dataset)
            frame = models.draw(n, seed)
            columns = {c: events[c] for c in events.column_names}
            columns |= {c: pa.array(frame[c]) for c in frame}
            columns["score"] = pa.array(
                model.predict_proba(models.numbers(frame))[:, 1].astype(float)
            )
            if spec.columns.shap:
                values = by_library(name, frame)
                names = [*(f"shap:{f}" for f in FEATURES), "base_value"]
                columns |= {c: pa.array(v) for c, v in zip(names, values.T, strict=True)}
            log.append("predictions", pa.table(columns), [f"{dataset}-{day}"])


def fitted(store: Store, spec: ModelSpec) -> tuple[Baseline, dict[str, Any]]:
    """Return the baseline, and the profiles of production."""
    baseline = ensure_baseline(store, spec, NOW)
    windows = [window(spec, day) for day in DAYS]
    store.inference_records(spec).rebuild(windows)
    source = store.inference_records(spec).from_sql(windows, ["production"])
    rows = explained(store.queries, spec, source)
    return baseline, build_profiles(store, spec, source, baseline.binnings, explained=rows)


@pytest.mark.proof
@pytest.mark.parametrize("name", ["lightgbm", "xgboost", "boosting"])
def test_computed_values_equal_those_that_the_library_would_have_logged(
    store: Store, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    from mlmon_dagster.store import open_store

    other = open_store(tmp_path_factory.mktemp("logged"))
    land(store, computing(name), name)
    land(other, logging_spec(), name)
    _, computed = fitted(store, computing(name))
    _, logged = fitted(other, logging_spec())
    other.close()

    for feature in FEATURES:
        for of in (share_of, signed_of):
            a, b = computed[of(feature)], logged[of(feature)]
            assert a.counts.sum() == b.counts.sum() == 400
            assert np.abs(a.total - b.total).max() <= 1e-9 * np.abs(b.total).max()
    assert fitting_link(computed) == fitting_link(logged) == ("logit", 0.0)


def test_a_forest_is_explained_in_the_space_of_its_probabilities(store: Store) -> None:
    land(store, computing("forest"), "forest")
    baseline, now = fitted(store, computing("forest"))
    assert fitting_link(baseline.windows, now) == ("identity", 0.0)


def test_the_sample_is_the_same_rows_every_day_and_says_what_explained_them(store: Store) -> None:
    spec = computing("lightgbm", share=0.25)
    land(store, spec, "lightgbm", n=400)
    baseline, now = fitted(store, spec)
    again = fitted(store, spec)[1]
    n = int(now[share_of("age")].counts[now[share_of("age")].cells["slice_key"] == "all"].sum())
    assert 0.2 * 800 < n < 0.3 * 800
    assert (again[signed_of("age")].total == now[signed_of("age")].total).all()
    assert baseline.binnings[EXPLAINER].categories[0].startswith("lightgbm 4.")
    assert now["age"].n.sum() == 800  # what is not explained is profiled all the same


def test_values_of_another_library_are_not_compared(store: Store) -> None:
    land(store, computing("lightgbm"), "lightgbm")
    baseline, _ = fitted(store, computing("lightgbm"))
    spec = computing("xgboost")
    windows = [window(spec, day) for day in DAYS]
    source = store.inference_records(spec).from_sql(windows, ["production"])
    now = build_profiles(
        store, spec, source, baseline.binnings, explained=explained(store.queries, spec, source)
    )
    frame = drift(spec, now, baseline.windows)
    assert set(frame.loc[frame["metric"] == "attribution_shift", "reason"]) == {"other_explainer"}
    # A baseline fitted with it is another one.
    assert ensure_baseline(store, spec, NOW).baseline_id != baseline.baseline_id


def test_a_version_that_has_no_model_is_left_out(store: Store) -> None:
    spec = computing("only_version_1")
    land(store, spec, "lightgbm")
    assert fitted(store, spec)[1][signed_of("age")].counts.sum() > 0
    source = store.inference_records(spec).from_sql(None, ["production"])
    other = f"(SELECT records.* REPLACE ('2' AS model_version) FROM {source} AS records)"
    found = explained(store.queries, spec, other)
    assert found is not None
    assert found.engine.query(f"SELECT * FROM {found.from_sql} AS r").num_rows == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "OSError: the registry does not answer"),
        ("not_prepared", "Error: "),
        ("missing", "AttributeError"),
    ],
)
def test_a_model_that_fails_is_told_and_leaves_all_else_as_it_is(
    store: Store, caplog: pytest.LogCaptureFixture, name: str, said: str
) -> None:
    spec = computing(name)
    land(store, spec, "lightgbm")
    with caplog.at_level(logging.WARNING):
        baseline, now = fitted(store, spec)
    assert said in caplog.text
    assert "Rows of credit, version 1, are not explained" in caplog.text
    assert now["age"].n.sum() == 400
    assert not now[share_of("age")].counts.sum()
    frame = drift(spec, now, baseline.windows)
    assert not (frame["metric"] == "attribution_shift").any() or set(
        frame.loc[frame["metric"] == "attribution_shift", "reason"]
    ) == {"no_attributions"}
