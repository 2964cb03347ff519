from __future__ import annotations

import datetime as dt
import json

import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.spec.custom_metrics import CustomMetric
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.store.state import schema
from tests.monitors.cases import DAY, NOW, evaluate, frame, metric, spec, verdicts, window

ROWS = [
    metric("null_rate", 0.0, "age", lower=0.0, upper=0.01),
    metric("psi", 0.02, "age", p_value=0.3),
    metric("roc_auc", 0.8, lower=0.77, upper=0.83),
    metric("mean_outcome", 9.0, lower=8.0, upper=10.0),
    metric("version_age_days", 12.0),
    metric("error_rate", 0.0, lower=0.0, upper=0.01),
]


OWN = CustomMetric(of="tests.pipeline.own_metrics:mean_age")


def everything(**options: object) -> list[dict]:
    declared = spec(business={"change": "20%"}, versions={"staleness": {"above": "90d"}})
    return evaluate(
        declared.model_copy(update={"metrics": (OWN,)}),
        frame(ROWS), [window()],
        **({"now": NOW, "run_id": "r7", "is_backfill": True} | options),
    )  # fmt: skip


def test_every_family_judges_every_window():
    assert {row["family"] for row in everything()} == set(FAMILIES)


def test_rows_fit_the_table_of_results():
    known = {column.name for column in schema.monitor_result.columns} - {"id", "folded_at"}
    engine = sa.create_engine("sqlite://")
    schema.METADATA.create_all(engine, tables=[schema.monitor_result])
    rows = everything()
    for row in rows:
        assert set(row) == known
        json.loads(row["details"])
    with engine.begin() as conn:
        conn.execute(sa.insert(schema.monitor_result), rows)


def test_run_backfill_time_and_owner_are_handed_through():
    for row in everything():
        assert row["run_id"] == "r7"
        assert row["is_backfill"] is True
        assert row["created_at"] == NOW
        assert row["owner"] == "team:risk"
        assert row["window_start"] == dt.datetime(2024, 1, 10, tzinfo=dt.UTC)
        is_of_actuals = row["monitor"] == "freshness/actuals_missing"
        assert row["data_version"] == ("actuals:no_rows" if is_of_actuals else "v1")


def test_a_monitors_own_owner_runbook_and_windows_win():
    model = spec(quality={"owner": "ops@example.com", "runbook": "https://r", "windows": "2 of 5"})
    row = verdicts("quality", ROWS, model=model)[0]
    assert (row["owner"], row["runbook"]) == ("ops@example.com", "https://r")
    assert (row["k"], row["of_n"]) == (2, 5)


def test_the_verdict_is_on_all_versions_together():
    rows = [
        metric("psi", 3.0, "age", p_value=1e-9, model_version="2", n=9000),
        metric("psi", 0.0, "age", p_value=0.5),
    ]
    assert [row["status"] for row in verdicts("drift", rows)] == ["OK"]


def test_without_metrics_there_is_no_verdict_rather_than_ok():
    for family in ("quality", "drift", "performance", "service"):
        rows = verdicts(family, [], [window(n=0)])
        assert rows
        assert {row["status"] for row in rows} == {"NO_DATA"}
        assert {row["reason"] for row in rows} == {"no_rows"}
        assert all(row["message"].startswith("No verdict on ") for row in rows)


@pytest.mark.parametrize(
    ("family", "name"),
    [("drift", "psi"), ("quality", "null_rate")],
)
def test_a_window_is_judged_the_same_whatever_windows_are_judged_with_it(family, name):
    """Some columns have a number in one window only."""
    later = DAY + pd.Timedelta(days=1)
    rows = [
        metric(name, 0.0, "age", p_value=0.5),
        metric(name, 0.0, "age", p_value=0.5, window_start=later),
        metric(name, 0.0, "region", p_value=0.5, window_start=later),
    ]
    windows = [window(), window(later)]
    together = verdicts(family, rows, windows)
    alone = [row for one in windows for row in verdicts(family, rows, [one])]
    lived = [
        row
        for one in windows
        for row in verdicts(
            family, [r for r in rows if r["window_start"] == one["window_start"]], [one]
        )
    ]

    assert together == alone == lived
