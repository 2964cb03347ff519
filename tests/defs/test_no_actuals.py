"""A model whose ground truth never comes is monitored for everything else, without noise."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pandas as pd
import pytest
import yaml

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.defs.checks import UNWATCHED
from mlmon_dagster.store.alert_state import ACTIVE
from mlmon_dagster.tables.alerts import list_alerts
from tests.defs.small_model import DAYS, MODEL, customers, drop, landing, write_declaration
from tests.defs.worlds import opened

pytestmark = pytest.mark.slow

SOME = DAYS[:2]
MOMENT = dt.datetime(2024, 3, 3, 12, tzinfo=dt.UTC)


def declare(folder: Path) -> None:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    del declared["source"]["actuals"], declared["actuals"]
    for name in ("actual", "actual_time"):
        del declared["columns"][name]
    del declared["monitors"]["performance"]
    path.write_text(yaml.safe_dump(declared, sort_keys=False))


def test_a_model_without_ground_truth_is_watched_for_everything_else(tmp_path: Path) -> None:
    declare(tmp_path)
    first = dt.date(2024, 2, 1)
    validation = [customers(first + dt.timedelta(days=i), "validation")[0] for i in range(20)]
    drop(pd.concat(validation), landing(tmp_path, "predictions") / "validation.parquet")
    for day in SOME:
        drop(customers(day)[0], landing(tmp_path, "predictions") / f"{day}.parquet")
    with opened(tmp_path, MOMENT) as world:
        assert world.launcher.materialize(world.spec, ("event_log", "baseline")).is_success
        report = world.compute(SOME)
        assert report.is_success, report.errors
        for family in ("drift", "quality", "schema"):
            assert set(world.verdicts(family, SOME[0])["status"]) <= {"OK", "NO_DATA"}, family
            assert "OK" in set(world.verdicts(family, SOME[0])["status"]), family
        assert world.verdicts("performance", SOME[0]).empty
        evaluations = world.evaluations("performance", "performance")
        assert {key for key, record in evaluations.items()} == {str(day) for day in SOME}
        for record in evaluations.values():
            found = record.event.dagster_event.event_specific_data
            assert found.passed
            assert found.description == UNWATCHED["performance"]
        fold_results(world.project.store, world.specs, MOMENT)
        open_alerts = [a for a in list_alerts(world.project.store) if a.state in ACTIVE]
        assert [a.monitor for a in open_alerts] == []
        assert world.requests() == []
