"""A declaration that does not load stops its own model, says so where people look, and no more."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from mlmon_dagster.defs.build import build_definitions
from mlmon_dagster.defs.delivery import dispatch_alerts
from mlmon_dagster.spec import read_models
from mlmon_dagster.store.state.schema import outbox
from mlmon_dagster.tables.alerts import list_alerts
from tests.defs.small_model import (
    DAYS,
    MODEL,
    NOW,
    NULLED,
    YAML,
    land_days,
    make_project,
    write_declaration,
)
from tests.defs.worlds import World, opened

NEXT = DAYS[-1] + dt.timedelta(days=1)
MISTAKE = "scor: score"
DECLARED = YAML.format(model="second", zone="UTC", start="2024-03-01")


def messages(world: World, about: str) -> list[str]:
    """Return what was written for people about something, oldest first."""
    with world.project.store.state.connect() as conn:
        rows = conn.execute(sa.select(outbox.c.payload).order_by(outbox.c.id)).scalars()
        return [row for row in rows if about in row]


def dispatch(world: World) -> None:
    """Let the dispatcher look, ten minutes later than before."""
    world.clock.moment += dt.timedelta(minutes=10)
    world.requests("mlmon_alert_dispatcher")


def test_of_two_models_one_broken_the_other_works_and_the_broken_one_is_told_once(
    own_fortnight: World,
) -> None:
    broken = own_fortnight.project.models_folder / "second.yaml"
    broken.write_text(DECLARED.replace("score: score", MISTAKE))
    with opened(own_fortnight.folder, NOW + dt.timedelta(days=1)) as world:
        graph = world.launcher.definitions.resolve_asset_graph()
        node = graph.get(dg.AssetKey(["second", "declaration"]))
        assert node.group_name == "second"
        assert "columns.scor: unknown key" in (node.description or "")
        assert dg.AssetKey([MODEL, "drift"]) in graph.get_all_asset_keys()

        land_days(world.folder, NEXT)
        reports = world.work()
        assert reports
        assert all(report.is_success for report in reports), reports
        assert world.evaluations("drift", "drift")[str(NEXT)].status.value == "SUCCEEDED"
        assert f"{NULLED}" in world.evaluations("data_quality", "quality")

        for _ in range(3):
            dispatch(world)
        [told] = messages(world, "second.yaml")
        assert "A model does not load and is not monitored" in told
        assert "columns.scor: unknown key" in told
        assert json.loads(told)
        assert [a.monitor for a in list_alerts(world.project.store, MODEL)]
        key = dg.AssetCheckKey(dg.AssetKey(["second", "declaration"]), "loads")
        history = world.instance.event_log_storage.get_asset_check_execution_history(key, limit=9)
        assert [record.status.value for record in history] == ["FAILED"]
        overview = world.launcher.run({}, world.launcher.overview_keys)
        assert overview.is_success
        event = world.instance.get_latest_materialization_event(dg.AssetKey(["mlmon", "overview"]))
        assert event is not None
        assert event.asset_materialization is not None
        assert "BROKEN" in str(event.asset_materialization.metadata["status"].value)

        broken.write_text(DECLARED)
        dispatch(world)
        after = messages(world, "second.yaml")
        assert "resolved, failed_spec of second.yaml" in after[-1]
        for _ in range(2):
            dispatch(world)
        assert messages(world, "second.yaml") == after
        [alert] = list_alerts(world.project.store, "Dagster")
        assert (alert.monitor, alert.state) == ("pipeline/spec/second.yaml", "RESOLVED")


def test_a_running_planner_leaves_a_broken_model_alone_until_it_is_mended(
    own_fortnight: World,
) -> None:
    world = own_fortnight
    world.work()
    dispatch(world)
    firing = {a.fingerprint for a in list_alerts(world.project.store, MODEL, "FIRING")}
    path = world.project.models_folder / f"{MODEL}.yaml"
    good = path.read_text()
    world.clock.moment = NOW + dt.timedelta(days=3)
    land_days(world.folder, NEXT)

    path.write_text(good.replace("score: score", MISTAKE))
    assert world.requests() == []
    for _ in range(2):
        dispatch(world)
    # A model that has nothing new for a day would be taken for removed, if it were not known.
    assert {a.fingerprint for a in list_alerts(world.project.store, MODEL, "FIRING")} == firing
    assert len(messages(world, "churn.yaml")) == 1

    path.write_text(good)
    assert any(str(NEXT) in str(request.tags) for request in world.requests())


def test_a_model_that_dagster_does_not_know_yet_waits_for_the_reload(own_fortnight: World) -> None:
    world = own_fortnight
    world.work()
    world.clock.moment = NOW + dt.timedelta(days=1)
    path = world.project.models_folder / f"{MODEL}.yaml"
    path.write_text(path.read_text().replace("America/New_York", "UTC"))
    write_declaration(world.folder, "second")
    land_days(world.folder, NEXT)
    definitions = world.launcher.definitions
    context = dg.build_sensor_context(
        instance=world.instance, definitions=definitions, sensor_name="mlmon_planner"
    )
    tick = definitions.resolve_sensor_def("mlmon_planner").evaluate_tick(context)

    assert not tick.run_requests
    assert "churn, second: new, or declared with other windows" in (tick.skip_message or "")


@pytest.mark.parametrize(
    ("alerts", "channel"), [('alerts: {slack: {channel: "#own"}}', "#own"), ("alerts: 3", None)]
)
def test_where_no_model_loads_the_broken_one_says_who_hears_of_it(
    tmp_path: Path, alerts: str, channel: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path)
    text = "".join(line for line in DECLARED.splitlines(True) if not line.startswith("alerts"))
    project.models_folder.mkdir()
    (project.models_folder / "second.yaml").write_text(f"{text}{alerts}\nmore: 1\n")
    models = read_models(project.models_folder, NOW)
    dg.Definitions.validate_loadable(build_definitions(models, project))

    for _ in range(2):
        report = dispatch_alerts(project, models.specs, None, NOW, models.broken)

    with project.store.state.connect() as conn:
        rows = conn.execute(sa.select(outbox.c.receiver, outbox.c.channel, outbox.c.status)).all()
    expected = ("slack", channel) if channel else ("console", "terminal")
    assert [tuple(row) for row in rows] == [(*expected, "sent")], report.text()
    assert "second.yaml" in capsys.readouterr().out
    project.store.close()
