"""Every task through the real graph: spec, files, records, profiles, metrics, verdicts."""

from __future__ import annotations

import pytest

from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.profiles import load_baseline
from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.state import metric_log, monitor_results
from mlmon_dagster.tables.periods import NONE, period_names, periods_of
from mlmon_dagster.tables.rows import rows_of
from tests.conftest import metrics_of
from tests.defs.small_model import make_project, windows_of_days
from tests.defs.task_models import DAYS, DECLARATIONS, NOW, land

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", DECLARATIONS)
def test_a_model_of_every_task_is_measured_and_its_bad_day_found(task, tmp_path):
    spec = land(tmp_path, task)
    project = make_project(tmp_path, lambda: NOW)
    windows = windows_of_days(spec, DAYS)
    with open_instance(project) as instance:
        launcher = Launcher(project, [spec], instance)
        for assets, days in (
            (("event_log", "baseline"), ()),
            (windowed_of(spec), windows),
            (("performance_trace", "health_report"), ()),
        ):
            report = launcher.materialize(spec, assets, days)
            assert report.is_success, report.errors
    found = metric_log.newest(project.store.state, spec.model, slice_key="all")
    # None of them declares outcomes.
    wanted = {name for name in metrics_of(task) if METRICS[name].family != "business"}
    assert wanted <= set(found["metric"])
    verdicts = monitor_results.newest(
        project.store.state, spec.model, windows[0].start, windows[-1].end, "performance"
    )
    first = verdicts[verdicts["metric"] == spec.monitors.performance[0].metric]
    statuses = first.sort_values("window_start")["status"].tolist()
    assert statuses == ["OK", "OK", "ERROR"]
    sliced = metric_log.newest(project.store.state, spec.model, slice_key="site")
    whole = found[found["metric"] == first["metric"].iloc[0]]
    parts = sliced[sliced["metric"] == first["metric"].iloc[0]]
    assert parts.groupby("window_start")["n"].sum().tolist() == whole["n"].tolist()
    assert rows_of(project.store, spec, windows[-1:], limit=5).n == 240
    [month] = periods_of(project.store, spec, load_baseline(project.store, spec))
    said = dict(zip(period_names(spec), month.values, strict=True))
    unsaid = {name for name, value in said.items() if value == NONE}
    assert month.coverage == "100.0%"
    assert unsaid <= {"Estimated mean absolute error"}, said  # its spec wants none
    project.store.close()


def test_without_a_baseline_nulls_are_judged_and_undeclared_classes_wait(tmp_path, monkeypatch):
    task = "multiclass_classification"
    declared = DECLARATIONS[task].replace(
        ', scores: {cat: p_cat, dog: p_dog, "red fox": p_fox}', ""
    )
    declared = declared.replace("top_k: 2\n", "").replace(
        ", {metric: top_k_accuracy, below: 0.9}", ""
    )
    monkeypatch.setitem(DECLARATIONS, task, declared)
    spec = land(tmp_path, task, datasets=("production",))
    project = make_project(tmp_path, lambda: NOW)
    windows = windows_of_days(spec, DAYS)
    with open_instance(project) as instance:
        launcher = Launcher(project, [spec], instance)
        for assets, days in ((("event_log", "baseline"), ()), (windowed_of(spec), windows)):
            report = launcher.materialize(spec, assets, days)
            assert report.is_success, report.errors
    rows = monitor_results.newest(
        project.store.state, spec.model, windows[0].start, windows[-1].end
    )
    found = {m: set(s) for m, s in rows.groupby("metric")["status"]}
    reasons = {m: set(s) for m, s in rows.groupby("metric")["reason"]}
    assert found["null_rate"] == {"OK"}
    for metric in ("psi", "unseen_rate", "macro_f1"):
        assert (found[metric], reasons[metric]) == ({"NO_DATA"}, {"learning"}), metric
    project.store.close()
