"""The SQL views of the state database: what others read is what our own reader says."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.store import Store
from mlmon_dagster.store.state import metric_log, monitor_results, schema, window_state
from mlmon_dagster.store.state.sql import read_frame
from mlmon_dagster.store.state.window_state import StepMark
from tests.site_pages import read_page

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "deploy/grafana/readonly.sql"
T0 = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
ORDER = ["window_start", "slice_key", "slice_value", "column_name", "metric", "dataset",
         "model_version"]  # fmt: skip


def computed(rng: np.random.Generator, now: dt.datetime) -> pd.DataFrame:
    """Return a random computation: some windows, slices that come and go, versions that repeat."""
    data, method = f"d{rng.integers(4)}", f"m{rng.integers(2)}"
    starts = [T0 + int(number) * DAY for number in rng.choice(4, 2, replace=False)]
    metrics = rng.choice(["psi", "null_rate", "roc_auc"], 2, replace=False)
    parts = ["all", *rng.choice(["JFK", "LGA", "EWR"], 2, replace=False)]
    rows = [
        {
            "model": str(rng.choice(["credit", "churn"])),
            "dataset": str(rng.choice(["production", "shadow"])),
            "window_start": start,
            "window_end": start + DAY,
            "granularity": "day",
            "slice_key": "all" if part == "all" else "origin",
            "slice_value": part,
            "column_name": str(rng.choice(["age", "plan"])),
            "metric": metric,
            "baseline_id": f"b{rng.integers(2)}",
            "method_version": method,
            "data_version": data,
            "value": float(rng.choice([rng.random(), np.nan])),
            "n": int(rng.integers(1000)),
            "computed_at": now,
        }
        for start, metric, part in itertools.product(starts, metrics, parts)
    ]
    found = pd.DataFrame(rows)
    is_distance = found["metric"].eq("psi") & found["value"].notna()
    lower = found["value"] - rng.choice([0.25, np.nan])
    return found.assign(
        by_chance=np.where(is_distance, rng.random(), np.nan),
        lower=lower,
        upper=found["value"] + (found["value"] - lower),
    )


def of_view(store: Store, view: sa.Table, model: str) -> pd.DataFrame:
    return read_frame(store.state, sa.select(view).where(view.c.model == model))


def in_order(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    return frame.sort_values(keys, ignore_index=True)[sorted(frame.columns)]


@pytest.mark.proof
def test_metrics_are_those_of_our_reader_after_every_tenth_of_100_random_recomputations(
    any_store: Store,
) -> None:
    rng = np.random.default_rng(7)
    for step in range(100):
        # The clock stands still now and then, as an injected one may.
        now = T0 + 10 * DAY + int(step // 3) * dt.timedelta(minutes=1)
        metric_log.append(any_store.state, computed(rng, now))
        if step % 10 < 9:
            continue
        for model in ("credit", "churn"):
            expected = in_order(metric_log.newest(any_store.state, model), ORDER)
            found = in_order(of_view(any_store, schema.mlmon_metric, model), ORDER)
            pd.testing.assert_frame_equal(found, expected)
    assert len(expected) > 30


def verdict(rng: np.random.Generator, now: dt.datetime) -> dict[str, object]:
    start = T0 + int(rng.integers(5)) * DAY
    family = str(rng.choice(["drift", "quality"]))
    return {
        "model": str(rng.choice(["credit", "churn"])),
        "monitor": f"{family}/{rng.choice(['psi', 'null_rate'])}",
        "family": family,
        "metric": "psi",
        "slice_key": "origin",
        "slice_value": str(rng.choice(["JFK", "LGA"])),
        "window_start": start,
        "window_end": start + DAY,
        "granularity": "day",
        "status": str(rng.choice(["OK", "WARN", "ERROR", "NO_DATA"])),
        "value": float(rng.random()),
        "data_version": f"d{rng.integers(9)}",
        "created_at": now,
    }


def test_verdicts_are_those_of_our_reader_after_100_random_recomputations(any_store: Store) -> None:
    rng = np.random.default_rng(9)
    keys = ["window_start", "monitor", "slice_key", "slice_value"]
    for step in range(100):
        now = T0 + 10 * DAY + step * dt.timedelta(minutes=1)
        monitor_results.append(any_store.state, [verdict(rng, now) for _ in range(5)])
    for model in ("credit", "churn"):
        found = of_view(any_store, schema.mlmon_monitor, model)
        expected = monitor_results.newest(any_store.state, model)[list(found.columns)]
        assert len(expected) > 30
        pd.testing.assert_frame_equal(in_order(found, keys), in_order(expected, keys))


def test_windows_tell_coverage_and_whether_their_numbers_are_current(any_store: Store) -> None:
    with any_store.state.begin() as conn:
        conn.execute(
            schema.window_state.insert(),
            [
                {"model": "credit", "window_start": T0 + k * DAY, "window_end": T0 + (k + 1) * DAY,
                 "n": n, "n_actual": 30, "n_exempt": 40, "input_revision": 2,
                 "computed_revision": computed}
                for k, (n, computed) in enumerate([(100, 2), (40, 1)])
            ],
        )  # fmt: skip
    found = of_view(any_store, schema.mlmon_window, "credit")
    assert found["actual_coverage"].fillna(-1.0).tolist() == [0.5, -1.0]
    assert found["is_current"].tolist() == [1, 0]


def test_windows_tell_their_refused_rows_each_once_and_how_mature_their_ground_truth_is(
    any_store: Store,
) -> None:
    refused = {"model": "credit", "stream": "predictions", "sha256": "a", "created_at": T0}
    with any_store.state.begin() as conn:
        conn.execute(
            schema.window_state.insert(),
            [
                {"model": model, "window_start": T0 + k * DAY, "window_end": T0 + (k + 1) * DAY}
                for model in ("credit", "churn")
                for k in range(2)
            ],
        )
        conn.execute(
            schema.dead_letter.insert(),
            [
                refused | {"row_number": row, "reason": why, "column_name": "", "window_start": at}
                for row, why, at in [
                    (1, "wrong_type", T0), (1, "future_time", T0), (2, "wrong_type", T0),
                    (3, "naive_time", None),
                ]
            ],
        )  # fmt: skip
        made = StepMark(1, "v", "mature")
        window_state.mark_step_done(conn, "credit", "performance", {T0: made}, T0)
    found = of_view(any_store, schema.mlmon_window, "credit")
    assert found["n_bad"].tolist() == [2, 0]
    assert found["maturity"].tolist() == ["mature", ""]
    assert of_view(any_store, schema.mlmon_window, "churn")["n_bad"].tolist() == [0, 0]


@pytest.mark.parametrize("view", schema.VIEWS, ids=lambda view: view.name)
def test_a_view_has_the_columns_that_its_page_lists(view: sa.Table, any_store: Store) -> None:
    with any_store.state.connect() as conn:
        found = list(conn.exec_driver_sql(f"SELECT * FROM {view.name} LIMIT 0").keys())
    section = read_page("dashboards.md").partition(f"### {view.name}\n")[2].partition("\n### ")[0]

    assert sorted(found) == sorted(view.c.keys())
    assert [name for name in found if f"`{name}`" not in section] == []


def test_the_role_for_reading_sees_the_views_and_nothing_else(postgres_store: Store) -> None:
    metric_log.append(
        postgres_store.state, computed(np.random.default_rng(1), T0).assign(model="credit")
    )
    with postgres_store.state.begin() as conn:
        conn.exec_driver_sql(ROLE.read_text())
    reader = sa.create_engine(postgres_store.state.url.set(username="mlmon_reader"))
    try:
        with reader.connect() as conn:
            counts = {
                view.name: conn.scalar(sa.select(sa.func.count()).select_from(view))
                for view in schema.VIEWS
            }
        assert counts["mlmon_metric"]
        for forbidden in (
            *(f"SELECT 1 FROM {table}" for table in schema.METADATA.tables),
            "DELETE FROM mlmon_window",
            "CREATE TABLE mine (n int)",
        ):
            with (
                pytest.raises(sa.exc.DBAPIError, match=r"denied|read-only|cannot delete"),
                reader.begin() as conn,
            ):
                conn.exec_driver_sql(forbidden)
    finally:
        reader.dispose()
        with postgres_store.state.begin() as conn:
            conn.exec_driver_sql("DROP OWNED BY mlmon_reader; DROP ROLE mlmon_reader")
