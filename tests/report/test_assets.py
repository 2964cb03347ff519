"""The two assets and the command, on a world that is computed already."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from mlmon_dagster.cli import cli
from mlmon_dagster.defs.assets import REPORTS, trace_performance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.project import Project
from mlmon_dagster.spec.steps import BY_NAME, assets_of
from mlmon_dagster.work import Work
from tests.conftest import SPEC
from tests.report.worlds import MODEL, NOW, REGIONS, SECRET, World, declare

pytestmark = pytest.mark.xdist_group("report")  # they share a world

Metadata = dict[str, dg.MetadataValue]


@pytest.fixture(scope="module")
def metadata(world: World) -> Iterator[dict[str, Metadata]]:
    with dg.DagsterInstance.ephemeral() as instance:
        launcher = Launcher(world.project, [world.spec], instance)
        report = launcher.materialize(world.spec, tuple(REPORTS))
        assert report.is_success, report.errors
        found = {}
        for name in REPORTS:
            event = instance.get_latest_materialization_event(dg.AssetKey(["credit", name]))
            assert event is not None
            assert event.asset_materialization is not None
            found[name] = dict(event.asset_materialization.metadata)
        yield found


def test_the_trace_shows_a_table_per_metric(metadata: dict[str, Metadata]) -> None:
    found = metadata["performance_trace"]
    table = found["slices/accuracy"].records

    assert found["n"].value > 0
    assert found["change/accuracy"].value < 0
    assert [r.data["slice"] for r in table[:2]] == ["all", f"region = {REGIONS[0]}"]
    assert {"mix", "within", "share"} <= set(table[0].data)
    assert "share" not in found["slices/roc_auc"].records[0].data


def test_the_report_lies_where_its_metadata_says(
    world: World, metadata: dict[str, Metadata]
) -> None:
    path = Path(str(metadata["health_report"]["path"].value))

    assert path == world.project.folder / ".mlmon" / "reports" / "credit" / "health.html"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_no_markdown_is_in_the_metadata(metadata: dict[str, Metadata]) -> None:
    values = [value for entries in metadata.values() for value in entries.values()]
    assert not any(isinstance(value, dg.MarkdownMetadataValue) for value in values)


def test_no_values_of_pii_columns_are_in_the_metadata(metadata: dict[str, Metadata]) -> None:
    assert SECRET not in repr(metadata)


def test_the_assets_are_described_like_the_others(world: World) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Launcher(world.project, [world.spec], instance).definitions.resolve_asset_graph()
    for name in REPORTS:
        node = graph.get(dg.AssetKey(["credit", name]))
        assert node.group_name == "credit"
        assert node.partitions_def is None
        assert node.description
        assert node.owners == ["team:risk"]
        assert node.kinds == BY_NAME[name].kinds
        assert node.tags["mlmon/model"] == "credit"
        assert node.pools == {"credit"}
        own = {info.name for info in assets_of(world.spec)}
        assert {key.path[-1] for key in node.parent_keys} == own.intersection(BY_NAME[name].deps)


def test_a_model_without_ground_truth_says_why_there_is_no_trace(tmp_path: Path) -> None:
    project = Project(tmp_path, str(tmp_path / "store"), now=lambda: NOW)
    numbers = trace_performance(Work(project, declare(), (), NOW, "run", False))

    assert numbers == {"n": 0, "reason": "no window has mature ground truth yet"}
    project.store.close()


def test_the_command_writes_the_report_where_it_is_told_to(world: World, tmp_path: Path) -> None:
    models, out = world.project.models_folder, tmp_path / "new" / "credit.html"
    models.mkdir()
    (models / "credit.yaml").write_text(yaml.safe_dump({**SPEC, **MODEL}))
    options = ["--project", str(world.project.folder), "--now", NOW.isoformat()]
    result = CliRunner().invoke(cli, [*options, "report", "credit", "--output", str(out)])

    assert result.exit_code == 0, result.output
    assert re.fullmatch(rf"credit: ERROR, \d alerts? firing\. {out}\n", result.output)
    assert "The change since the baseline" in out.read_text(encoding="utf-8")
