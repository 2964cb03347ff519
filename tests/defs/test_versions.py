"""The family `versions` in the graph: an asset and a check of models that declare it alone."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec import load_model
from tests.defs.small_model import MODEL
from tests.defs.worlds import World, opened
from tests.pipeline.test_versions import DAYS, LAST, MOMENT, declare, land, noisy, shadowed

pytestmark = pytest.mark.slow


def worked(world: World) -> None:
    assert world.launcher.materialize(world.spec, ("event_log", "baseline")).is_success
    reports = world.work()
    assert all(report.is_success for report in reports)


@pytest.mark.proof
def test_the_asset_is_of_models_that_declare_it_and_measures_every_window_once_it_is_declared(
    tmp_path: Path,
) -> None:
    declare(tmp_path, None)
    land(tmp_path, shadowed(noisy(0.5)))
    with opened(tmp_path, MOMENT) as world:
        worked(world)
        graph = world.launcher.definitions.resolve_asset_graph()
        assert dg.AssetKey([MODEL, "versions"]) not in graph.get_all_asset_keys()
        path = declare(
            tmp_path,
            {
                "compare": {"dataset": "shadow", "metric": "accuracy"},
                "staleness": {"above": "9d"},
            },
        )

        asked = plan(world.project, load_model(path), MOMENT)
        assert {request.assets for request in asked} == {("versions",)}
        assert {w.key for request in asked for w in request.windows} == set(map(str, DAYS))
    with opened(tmp_path, MOMENT) as world:
        world.work()
        assert world.requests() == []
        checks = world.evaluations("versions", "versions")
        assert {day: record.status.value for day, record in checks.items()} == {
            **{str(day): "SUCCEEDED" for day in DAYS},
            str(LAST): "FAILED",
        }
        [row] = world.verdicts("versions", LAST).query("status == 'NO_DATA'").to_dict("records")
        assert row["reason"] == "undecided"
        html = health_report(world.project.store, world.spec, MOMENT).html
        assert ">Versions</h2>" in html
        assert "Gain of the shadow in Accuracy" in html
        assert "Days that the version has served" in html
