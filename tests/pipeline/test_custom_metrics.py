"""Metrics that users write: computed of every window, held against the baseline's, told as any."""

from __future__ import annotations

import datetime as dt
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from mlmon_dagster.alerts.dispatching import dispatch
from mlmon_dagster.alerts.receivers.base import ConsoleReceiver
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import ModelSpec, load_model
from mlmon_dagster.store.state import metric_log, monitor_results
from tests.defs.small_model import (
    FIRST,
    MODEL,
    NOW,
    customers,
    drop,
    land_validation,
    landing,
    make_project,
    windows_of_days,
    write_declaration,
)
from tests.pipeline import own_metrics
from tests.pipeline.looking import look

pytestmark = pytest.mark.slow

OWN = own_metrics.__name__
DAYS = tuple(FIRST + dt.timedelta(days=i) for i in range(4))
SHIFTED = DAYS[-1]


def declare(folder: Path, *metrics: object, **changes: object) -> ModelSpec:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    own = json.loads(json.dumps(metrics))  # no object twice, which YAML would name
    declared = yaml.safe_load(path.read_text()) | {"metrics": own} | changes
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    return load_model(path)


def land(folder: Path, *, truth_until: dt.date = DAYS[-1]) -> Mapping[dt.date, pd.DataFrame]:
    """Land some days, on the last of which customers are younger; return what was served."""
    land_validation(folder)
    found = {day: customers(day, age=34 if day == SHIFTED else 40) for day in DAYS}
    drop(pd.concat(p for p, _ in found.values()), landing(folder, "predictions") / "p.parquet")
    known = [truth for day, (_, truth) in found.items() if day <= truth_until]
    drop(pd.concat(known), landing(folder, "actuals") / "a.parquet")
    return {day: served.merge(truth, on="id") for day, (served, truth) in found.items()}


def looked_at(folder: Path, spec: ModelSpec) -> Project:
    project = make_project(folder)
    look(project, spec, "run")
    return project


def verdict(project: Project, spec: ModelSpec, name: str, day: dt.date) -> Mapping[str, Any]:
    [window] = windows_of_days(spec, [day])
    rows = monitor_results.newest(
        project.store.state, MODEL, window.start, window.end, "custom"
    ).to_dict("records")
    [found] = [row for row in rows if row["metric"] == name]
    return {str(key): value for key, value in found.items()}


def stored(project: Project, name: str, dataset: str = "production") -> pd.DataFrame:
    return metric_log.newest(project.store.state, MODEL, metric=name, dataset=dataset)


def test_a_metric_is_what_its_function_says_of_the_rows_of_each_window(tmp_path: Path) -> None:
    gini = {"of": f"{OWN}:gini", "columns": ["score", "actual"], "better": "higher"}
    spec, served = declare(tmp_path, f"{OWN}:mean_age", gini), land(tmp_path)

    project = looked_at(tmp_path, spec)

    ages = [rows["age"].mean() for rows in served.values()]
    areas = [2 * roc_auc_score(rows["left"], rows["score"]) - 1 for rows in served.values()]
    assert stored(project, "mean_age")["value"].tolist() == pytest.approx(ages, abs=1e-9)
    assert stored(project, "gini")["value"].tolist() == pytest.approx(areas, abs=1e-9)
    of_baseline = stored(project, "mean_age", "validation")
    assert len(of_baseline) == 20
    assert set(of_baseline["baseline_kind"]) == {"dataset"}
    project.store.close()


def test_a_window_beyond_the_baselines_windows_fails_and_is_told(tmp_path: Path) -> None:
    spec, _ = declare(tmp_path, f"{OWN}:mean_age"), land(tmp_path)

    project = looked_at(tmp_path, spec)

    assert verdict(project, spec, "mean_age", DAYS[0])["status"] == "OK"
    failed = verdict(project, spec, "mean_age", SHIFTED)
    assert failed["status"] == "WARN"
    assert failed["monitor"] == "custom/mean_age"
    assert failed["p_value"] < 1e-3
    assert failed["lower"] < failed["value"] < failed["upper"] < failed["baseline_value"]
    assert "mean_age is 34" in failed["message"]
    assert "lower than the usual 39.8" in failed["message"]
    page = health_report(project.store, spec, NOW).html
    assert "Your own metrics" in page
    assert page.count("mean_age") > 3
    text = io.StringIO()
    console = ConsoleReceiver(text, hint="")
    dispatch(project.store, [spec], NOW, {"console": console, "slack": console})
    assert "mean_age is 34" in text.getvalue()
    project.store.close()


def test_what_is_better_or_less_than_the_change_that_counts_does_not_fail(tmp_path: Path) -> None:
    of: dict[str, object] = {"of": f"{OWN}:mean_age"}
    spec = declare(
        tmp_path,
        of | {"name": "falling", "better": "lower"},
        of | {"name": "coarse", "change": 8.0},
        of | {"name": "fine", "change": 2.0, "better": "neither"},
    )
    land(tmp_path)

    project = looked_at(tmp_path, spec)

    found = {m: verdict(project, spec, m, SHIFTED) for m in ("falling", "coarse", "fine")}
    assert [one["status"] for one in found.values()] == ["OK", "OK", "WARN"]
    assert found["fine"]["threshold"].startswith("outside ")
    project.store.close()


def test_a_function_that_fails_fails_its_own_metric_in_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    region: dict[str, object] = {"columns": ["region", "age"], "windows": "1 of 1"}
    spec = declare(
        tmp_path,
        f"{OWN}:mean_age",
        *({"of": f"{OWN}:{name}", **region} for name in ("failing", "first_name", "no_value")),
        {"of": "no_such_package.metrics:gone", **region},
        features={
            "age": {"type": "numeric", "min": 0, "pii": True},
            "region": {"type": "categorical"},
        },
    )
    land(tmp_path)

    with caplog.at_level(logging.INFO, "mlmon_dagster.families.custom"):
        project = looked_at(tmp_path, spec)

    raised = verdict(project, spec, "failing", DAYS[0])
    assert (raised["status"], raised["reason"]) == ("WARN", "raised")
    expected = f"{OWN}:failing raised ValueError: could not read '…' of 'region' for 1 March."
    assert raised["message"] == expected  # age is personal, so no value is shown
    assert "'north'" not in caplog.text
    no_number = verdict(project, spec, "first_name", DAYS[0])["message"]
    assert no_number == f"{OWN}:first_name returned a str, no number, for 1 March."
    gone = verdict(project, spec, "gone", DAYS[0])
    assert gone["status"] == "WARN"
    assert "cannot be imported: ModuleNotFoundError" in gone["message"]
    none = verdict(project, spec, "no_value", DAYS[0])
    assert (none["status"], none["reason"]) == ("NO_DATA", "undefined")
    assert verdict(project, spec, "mean_age", DAYS[0])["status"] == "OK"
    assert f"{OWN}:mean_age of {MODEL}: 4 windows in " in caplog.text
    project.store.close()


def test_what_needs_ground_truth_is_judged_once_it_is_there(tmp_path: Path) -> None:
    gini = {"of": f"{OWN}:gini", "columns": ["score", "actual"]}
    spec = declare(tmp_path, f"{OWN}:mean_age", gini, actuals={"expected_within": "60d"})
    land(tmp_path, truth_until=DAYS[1])

    project = looked_at(tmp_path, spec)

    assert verdict(project, spec, "gini", DAYS[1])["status"] == "OK"
    waits = verdict(project, spec, "gini", DAYS[2])
    assert (waits["status"], waits["reason"]) == ("NO_DATA", "labels_still_coming")
    assert verdict(project, spec, "mean_age", DAYS[2])["status"] == "OK"
    project.store.close()


def test_a_window_of_many_rows_is_sampled_by_id_and_one_of_few_is_not_judged(
    tmp_path: Path,
) -> None:
    counts = {"of": f"{OWN}:count_rows", "columns": ["age"]}
    spec = declare(
        tmp_path,
        counts | {"name": "sampled", "sample": 100},
        counts | {"name": "twice", "arguments": {"times": 2}},
        counts | {"name": "small", "min_rows": 151},
    )
    land(tmp_path)

    project = looked_at(tmp_path, spec)

    sampled = stored(project, "sampled")
    assert set(sampled["n"]) == {150}
    assert all(70 < value < 130 for value in sampled["value"])
    assert set(stored(project, "twice")["value"]) == {300.0}
    assert set(stored(project, "small")["reason"]) == {"few_rows"}
    project.store.close()


@pytest.mark.proof
def test_of_a_moving_baseline_windows_are_held_against_those_before_them(tmp_path: Path) -> None:
    days = [FIRST - dt.timedelta(days=14 - i) for i in range(18)]
    spec = declare(
        tmp_path,
        f"{OWN}:mean_age",
        baseline={"moving": "14d"},
        time={"zone": "America/New_York", "granularity": "day", "start": str(days[0])},
    )
    found = [customers(day, age=33 if day == days[-1] else 40) for day in days]
    drop(pd.concat(p for p, _ in found), landing(tmp_path, "predictions") / "p.parquet")

    project = looked_at(tmp_path, spec)
    look(project, spec, "again")  # the baseline comes first, and the windows at the next look

    assert verdict(project, spec, "mean_age", days[-1])["status"] == "WARN"
    assert verdict(project, spec, "mean_age", days[-2])["status"] == "OK"
    assert set(stored(project, "mean_age")["dataset"]) == {"production"}
    project.store.close()
