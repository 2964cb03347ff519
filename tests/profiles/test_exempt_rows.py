"""Rows that ground truth never comes for are neither missing nor what labelled rows stand for."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from mlmon_dagster.metrics.late_truth.rectified import METHOD
from mlmon_dagster.profiles import build_profiles
from mlmon_dagster.profiles.fit import fit_binnings
from mlmon_dagster.profiles.measures import measure
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store
from tests.conftest import make_events, make_spec, window
from tests.metrics.rows import make_spec as make_task
from tests.profiles.records import DuckEngine

NOW = dt.datetime(2024, 3, 1, tzinfo=dt.UTC)
N, EXEMPT = 2_000, 0.2
NEVER = {"no_actual_when": "status = 'cancelled'"}


def put(table: pa.Table, name: str, values: list[object]) -> pa.Table:
    """Return a table with another content of one column."""
    place = table.schema.get_field_index(name)
    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


def live(
    store: Store, spec: ModelSpec, labelled: str
) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Serve a day of which a fifth is cancelled, mostly low scores; return its metrics and rows.

    Args:
        store: Where it is.
        spec: The model.
        labelled: ``all`` rows but the cancelled, or ``high``: half of these, mostly high scores.
    """
    rng = np.random.default_rng(5)
    predictions, actuals = make_events(spec, n=N)
    score = predictions["score"].to_numpy()
    is_exempt = rng.uniform(size=N) < 2 * EXEMPT * (1 - score)
    is_labelled = ~is_exempt
    if labelled == "high":
        is_labelled &= rng.uniform(size=N) < 0.1 + 0.8 * score
    status = ["cancelled" if exempt else "ok" for exempt in is_exempt]
    log = store.event_log(spec)
    log.append("predictions", put(predictions, "status", status), ["p"])
    log.append("actuals", actuals.filter(pa.array(is_labelled)), ["a"])
    day = window(spec, "2024-01-01")
    records = store.inference_records(spec)
    records.rebuild([day])
    source = records.from_sql([day], ["production"])
    profiles = build_profiles(store, spec, source, fit_binnings(store, spec, source))
    found = measure(spec, "performance", profiles, None)
    truth = pd.DataFrame(
        {
            "score": score,
            "actual": actuals["actual"].to_numpy(),
            "decided": score > 0.5,
            "labelled": is_labelled,
        }
    )
    whole = found[(found["slice_key"] == "all") & (found["column_name"] == ":table")]
    return whole.set_index("metric"), truth, is_exempt


def test_exempt_rows_are_not_missing_so_that_metrics_are_plain(store: Store) -> None:
    """A fifth never gets ground truth and all others have it: nothing is weighted."""
    found, rows, is_exempt = live(store, make_spec(actuals=NEVER), "all")
    assert is_exempt.mean() == pytest.approx(EXEMPT, abs=0.03)
    assert not (found["method_version"] == METHOD).any()
    rest = rows[~is_exempt]
    assert found.loc["actual_rate", "value"] == pytest.approx(rest["actual"].mean())
    right = (rest["decided"] == rest["actual"]).mean()
    assert found.loc["accuracy", "value"] == pytest.approx(right)
    assert found.loc["predicted_rate", "value"] == pytest.approx(rows["decided"].mean())


def test_undeclared_they_are_missing_and_values_are_of_all_rows(store: Store) -> None:
    """The same rows of a model that does not say that a fifth never gets ground truth."""
    found, rows, _ = live(store, make_spec(), "all")
    assert found.loc["actual_rate", "method_version"] == METHOD
    # A fifth is not labelled: the estimate's own error is about .007.
    assert found.loc["actual_rate", "value"] == pytest.approx(rows["actual"].mean(), abs=0.02)


def test_labels_chosen_by_score_are_weighted_back_to_the_expected_rows(store: Store) -> None:
    """Half of what is expected is labelled, mostly high scores, and the rest is not all rows."""
    found, rows, is_exempt = live(store, make_spec(actuals=NEVER), "high")
    rest, labelled = rows[~is_exempt], rows[rows["labelled"]]
    assert found.loc["actual_rate", "method_version"] == METHOD
    truth = rest["actual"].mean()
    # 800 labels: the standard error of the estimate is about .016.
    assert found.loc["actual_rate", "value"] == pytest.approx(truth, abs=0.04)
    assert labelled["actual"].mean() > truth + 0.08
    assert rows["actual"].mean() < truth - 0.04
    gap = rest["score"].mean() - truth
    assert found.loc["calibration_gap", "value"] == pytest.approx(gap, abs=0.04)


@pytest.mark.parametrize("task", ["multiclass_classification", "regression"])
def test_exempt_rows_of_other_tasks_are_not_missing(task: str) -> None:
    """A third never gets ground truth; what is left is fully covered."""
    rng = np.random.default_rng(1)
    n, is_exempt = 600, np.arange(600) % 3 == 0
    is_multiclass = task != "regression"
    labels = np.array(["a", "b", "c"])
    score = rng.dirichlet([1, 1, 1], size=n)
    actual = labels[[rng.choice(3, p=p) for p in score]] if is_multiclass else rng.normal(size=n)
    answer = labels[score.argmax(axis=1)] if is_multiclass else rng.normal(size=n)
    columns = {"prediction": "p", "status": "s"}
    scores = {"scores": {"a": "pa", "b": "pb", "c": "pc"}} if is_multiclass else {}
    spec = make_task(task, columns=columns | scores, actuals=NEVER)
    start = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    kind = pa.string() if is_multiclass else pa.float64()
    times = pa.array([start] * n, pa.timestamp("us", "UTC"))
    records = pa.table(
        {
            "window_start": times,
            "event_time": times,
            "actual_time": times,
            "dataset": ["production"] * n,
            "model_version": pa.array([None] * n, pa.string()),
            "site": ["x"] * n,
            "prediction_id": [f"{i:05}" for i in range(n)],
            "nonfinite": pa.array([None] * n, pa.list_(pa.string())),
            "status": ["cancelled" if exempt else "ok" for exempt in is_exempt],
            "prediction": pa.array(answer.tolist(), kind),
            "actual": pa.array(
                [None if e else y for e, y in zip(is_exempt, actual.tolist(), strict=True)], kind
            ),
            **{f"score:{name}": score[:, i] for i, name in enumerate(labels)},
        }
    )
    engine = DuckEngine(records=records)
    profiles = build_profiles(engine, spec, "records", fit_binnings(engine, spec, "records"))
    found = measure(spec, "performance", profiles, None)
    assert not (found["method_version"] == METHOD).any()
    whole = found[found["column_name"] == ":table"].set_index("metric")
    if is_multiclass:
        right = (answer == actual)[~is_exempt].mean()
        assert whole.loc["accuracy", "value"] == pytest.approx(right)
