"""The keys of a model's assets: the user's prefix, and what happens to a key that is taken."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from mlmon_dagster import MonitoredModel, MonitoredModels, build_definitions
from mlmon_dagster.alerts.messages.view import dagster_links
from mlmon_dagster.commands.options import models_of as declared_models
from mlmon_dagster.defs.assets import OVERVIEW_KEY, asset_key
from mlmon_dagster.defs.delivery import observe_dagster, observe_declarations
from mlmon_dagster.defs.instance import models_of, open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.spec import load_model, read_models
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.state import window_state
from tests.conftest import SPEC
from tests.defs.graphql import ui_of
from tests.defs.small_model import (
    DAYS,
    FIRST,
    NOW,
    land_days,
    land_validation,
    make_project,
    windows_of_days,
    write_declaration,
)

# What Dagster itself warns of while it loads a folder of definitions.
beta_inside = pytest.mark.filterwarnings(
    "ignore::dagster.BetaWarning", "ignore::dagster.PreviewWarning"
)
OURS = {"event_log", "inference_store", "performance", "landing"}


def keys_in(definitions: dg.Definitions) -> set[str]:
    return {k.to_user_string() for k in definitions.resolve_asset_graph().get_all_asset_keys()}


def under(prefix: str, definitions: dg.Definitions) -> bool:
    return {f"{prefix}/{name}" for name in OURS} <= keys_in(definitions)


def test_the_prefix_stands_before_the_models_name_wherever_it_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a call, in the environment, in the declaration, which wins."""
    write_declaration(tmp_path)
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    models = read_models(tmp_path / "models", NOW)
    project = project_from_environment()
    assert under("churn", build_definitions(models, project))
    assert under("ml/churn", build_definitions(models, project, key_prefix="ml"))
    assert under("a/b/churn", build_definitions(models, project, key_prefix=["a", "b"]))

    monkeypatch.setenv("MLMON_KEY_PREFIX", "env/ml")
    project = project_from_environment()
    assert under("env/ml/churn", build_definitions(models, project))
    assert under("ml/churn", build_definitions(models, project, key_prefix="ml"))
    [spec] = declared_models(project).specs
    assert asset_key(spec, "drift").to_user_string() == "env/ml/churn/drift"

    path = tmp_path / "models" / "churn.yaml"
    path.write_text(path.read_text() + "key_prefix: own\n")
    own = build_definitions(read_models(tmp_path / "models", NOW), project, key_prefix="ml")
    assert under("own/churn", own)
    groups = {spec.group_name for spec in own.resolve_all_asset_specs()}
    assert groups == {"churn", "mlmon"}


@pytest.mark.parametrize("prefix", ["a b", "a//b", "/a", "ü"])
def test_what_dagster_cannot_take_as_a_prefix_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    path = tmp_path / "models" / "churn.yaml"
    write_declaration(tmp_path)
    path.write_text(path.read_text() + f"key_prefix: '{prefix}'\n")
    with pytest.raises(ConfigError, match=r"key_prefix: .*is not the key of an asset"):
        load_model(path)
    monkeypatch.setenv("MLMON_KEY_PREFIX", prefix)
    with pytest.raises(ConfigError, match=r"MLMON_KEY_PREFIX: .*is not the key of an asset"):
        project_from_environment(tmp_path)


def test_a_model_under_a_prefix_is_computed_judged_and_told_like_any_other(tmp_path: Path) -> None:
    """Through the planner; a step that fails is this model's, and links lead to its assets."""
    path = tmp_path / "models" / "churn.yaml"
    write_declaration(tmp_path)
    path.write_text(path.read_text() + "key_prefix: ml/monitoring\n")
    spec = load_model(path)
    land_validation(tmp_path)
    land_days(tmp_path, FIRST)
    project = make_project(tmp_path, lambda: NOW)
    models = read_models(project.models_folder, NOW)
    with open_instance(project) as instance:
        launcher = Launcher(project, models, instance)
        while reports := list(launcher.tick("mlmon_planner")):
            assert all(report.is_success for report in reports)
        drift = asset_key(spec, "drift")
        assert drift.to_user_string() == "ml/monitoring/churn/drift"
        assert FIRST.isoformat() in instance.get_materialized_partitions(drift)
        assert window_state.load(project.store.state, "churn")
        assert {"churn"} in [models_of(run) for run in instance.get_runs()]
        clicked = dg.DagsterRun("job", asset_selection=frozenset([drift]))  # without our tags
        assert models_of(clicked) == {"churn"}

        for file in tmp_path.glob("**/event_log/churn/**/*.parquet"):
            file.write_bytes(b"PAR1")
        failed = launcher.materialize(spec, windowed_of(spec), windows_of_days(spec, [DAYS[0]]))
        assert failed.errors[0].startswith("inference_store: ")
        assert observe_dagster(project, models.specs, instance, NOW) == 1

    row = {"model": "churn", "family": "drift", "metric": "psi"}
    view = type("View", (), {"row": row, "details": {}})()
    addresses = dict(dagster_links("http://ui", {"churn": "ml/monitoring"})(view))
    assert addresses["Asset"] == "http://ui/assets/ml/monitoring/churn/drift"


# A key that is taken

OWN = """
@dg.asset(key=["churn", "performance"])
def performance(): ...
"""
TAKEN = "model 'churn' and your own definitions both have an asset of this key: churn/performance"


def test_a_key_of_the_users_leaves_out_that_model_alone_and_says_how_to_mend_it(
    tmp_path: Path,
) -> None:
    """The location loads; the UI shows what is wrong, and it is an alert as a broken file is."""
    write_declaration(tmp_path)
    write_declaration(tmp_path, "credit")
    with ui_of(
        tmp_path, own=OWN, assets="performance", options=", beside=dg.Definitions([performance])"
    ) as (ask, _):
        nodes = ask("{ assetNodes { assetKey { path } description } }")["assetNodes"]
    shown = {"/".join(node["assetKey"]["path"]): node["description"] for node in nodes}
    assert {key for key in shown if key.startswith("churn/")} == {
        "churn/performance", "churn/declaration"
    }  # fmt: skip
    assert TAKEN in shown["churn/declaration"]
    assert "key_prefix: monitoring" in shown["churn/declaration"]
    assert "monitoring/churn" in shown["churn/declaration"]
    assert "credit/performance" in shown

    project = make_project(tmp_path)
    models = read_models(project.models_folder, NOW)
    mine = dg.Definitions([dg.AssetSpec(["churn", "performance"])])
    merged = dg.Definitions.merge(mine, build_definitions(models, project, beside=mine))
    assert "churn/declaration" in keys_in(merged)
    again = dg.Definitions.merge(
        mine, build_definitions(models, project, beside=mine, key_prefix="ml")
    )
    assert under("ml/churn", again)


def test_a_taken_key_fires_an_alert_until_a_prefix_is_written(tmp_path: Path) -> None:
    """As the dispatcher sees it: with what the planner's models are at each tick."""
    from mlmon_dagster.defs.build import leave_out_taken

    write_declaration(tmp_path)
    project = make_project(tmp_path)
    taken = {dg.AssetKey(["churn", "performance"])}
    models = leave_out_taken(read_models(project.models_folder, NOW), taken)
    assert [broken.name for broken in models.broken] == ["churn"]
    assert observe_declarations(project, models.again(NOW).broken, NOW) == 1
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(path.read_text() + "key_prefix: ml\n")
    mended = models.again(NOW + dt.timedelta(minutes=1))
    assert (len(mended.specs), mended.broken) == (1, ())


def test_models_that_a_program_declares_are_left_out_alike(tmp_path: Path) -> None:
    spec = write_declaration(tmp_path)
    mine = dg.Definitions([dg.AssetSpec(["churn", "landing"])])
    found = build_definitions([spec], make_project(tmp_path), beside=mine)
    assert keys_in(dg.Definitions.merge(mine, found)) == {
        "churn/landing", "churn/declaration", OVERVIEW_KEY.to_user_string(), "mlmon/maintenance"
    }  # fmt: skip


@beta_inside
def test_components_see_the_assets_of_the_rest_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a component of the folder of models, and in one component a model."""
    write_declaration(tmp_path)
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    monkeypatch.setenv("MLMON_NOW", NOW.isoformat())
    other = json.loads(json.dumps(SPEC)) | {"model": "credit"}
    for component, attributes, prefix in (
        (MonitoredModels, None, ""),
        (MonitoredModels, {"key_prefix": "{{ env.PREFIX }}"}, "ml/"),
        (MonitoredModel, {**other, "model": "churn"}, ""),
        (MonitoredModel, {**other, "model": "churn", "key_prefix": "ml"}, "ml/"),
    ):
        monkeypatch.setenv("PREFIX", "ml")
        with create_defs_folder_sandbox() as sandbox:
            yaml = {"component_cls": component} | (
                {"defs_yaml_contents": {"type": f"mlmon_dagster.{component.__name__}"}}
            )
            if attributes:
                yaml["defs_yaml_contents"]["attributes"] = attributes
            sandbox.scaffold_component(**yaml, defs_path="monitoring")
            (sandbox.defs_folder_path / "own.py").write_text(f"import dagster as dg\n{OWN}")
            with sandbox.build_all_defs() as definitions:
                found = keys_in(definitions)
        assert "churn/performance" in found
        if prefix:
            assert "ml/churn/performance" in found
        else:
            assert {key for key in found if key.startswith("churn/")} == {
                "churn/performance", "churn/declaration"
            }  # fmt: skip
