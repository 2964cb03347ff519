"""A run's process builds the models that it computes, and any other process all of them."""

import json
import multiprocessing
import subprocess
import sys
import types
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._grpc.impl import start_run_in_subprocess
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import serialize_value

from mlmon_dagster.defs.instance import models_of_own_run, open_instance
from tests.conftest import SPEC
from tests.defs.small_model import make_project

MODULE = ModuleCodePointer("mlmon_dagster.definitions", "defs", None)
ORIGIN = JobPythonOrigin("__ASSET_JOB", RepositoryPythonOrigin(sys.executable, MODULE))
BUILT = (
    "import json, sys; from mlmon_dagster.definitions import defs\n"
    "print(json.dumps(sorted({key.path[0] for key in"
    " defs.resolve_asset_graph().materializable_asset_keys})))"
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of three models."""
    (tmp_path / "models").mkdir()
    for name in ("a", "b", "c"):
        text = json.dumps({**SPEC, "model": name})  # JSON is YAML
        (tmp_path / "models" / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("MLMON_PROJECT", str(tmp_path))
    return tmp_path


def told(folder: Path, *keys: str) -> tuple[str, str]:
    """Create a run of some assets; return its id, and what Dagster tells the run's process."""
    with open_instance(make_project(folder)) as instance:
        run = instance.create_run(
            job_name="__ASSET_JOB",
            run_id=None,
            run_config=None,
            status=None,
            tags=None,
            root_run_id=None,
            parent_run_id=None,
            step_keys_to_execute=None,
            execution_plan_snapshot=None,
            job_snapshot=None,
            parent_job_snapshot=None,
            asset_selection=frozenset(map(dg.AssetKey.from_user_string, keys)) or None,
            asset_check_selection=None,
            resolved_op_selection=None,
            op_selection=None,
            remote_job_origin=None,
            job_code_origin=ORIGIN,
            asset_graph=AssetGraph.from_assets([]),
        )
        return run.run_id, serialize_value(
            ExecuteRunArgs(ORIGIN, run.run_id, instance.get_ref(), set_exit_code_on_failure=True)
        )


def test_a_run_builds_the_models_that_it_computes(home: Path) -> None:
    _, arguments = told(home, "b/event_log", "b/baseline")
    shown = [sys.executable, "-c", BUILT]
    of_run = subprocess.run([*shown, "execute_run", arguments], capture_output=True, text=True)
    of_any = subprocess.run(shown, capture_output=True, text=True)
    assert json.loads(of_run.stdout) == ["b", "mlmon"], of_run.stderr
    assert json.loads(of_any.stdout) == ["a", "b", "c", "mlmon"], of_any.stderr


@pytest.mark.proof
def test_such_a_run_computes_what_it_is_asked_for(home: Path) -> None:
    """Also what serves all models together, of which it has built none."""
    for keys in (("b/event_log", "b/baseline"), ("mlmon/overview",)):
        run_id, arguments = told(home, *keys)
        done = subprocess.run(
            [sys.executable, "-m", "dagster", "api", "execute_run", arguments],
            capture_output=True,
            text=True,
        )
        with open_instance(make_project(home)) as instance:
            run = instance.get_run_by_id(run_id)
            assert run is not None
            assert run.status is dg.DagsterRunStatus.SUCCESS, done.stderr
    with open_instance(make_project(home)) as instance:
        overview = dg.AssetKey(["mlmon", "overview"])
        [record] = instance.fetch_materializations(overview, limit=1).records
        assert record.asset_materialization is not None
        assert record.asset_materialization.metadata["models"].value == 3


def test_the_child_of_a_code_server_knows_its_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, arguments = told(home, "b/event_log", "mlmon/overview")
    child = types.SimpleNamespace(_target=start_run_in_subprocess, _args=(arguments, None))
    monkeypatch.setattr(multiprocessing, "current_process", lambda: child)
    assert models_of_own_run() == {"b", "mlmon"}


@pytest.mark.parametrize("arguments", ["{}", "no JSON", '{"__class__": "Unknown"}'])
def test_arguments_of_another_kind_are_no_reason_to_leave_out_a_model(
    arguments: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "execute_run", arguments])
    assert models_of_own_run() is None


def test_a_run_of_no_named_asset_builds_every_model(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "execute_run", told(home)[1]])
    assert models_of_own_run() is None


class Elsewhere(NoOpComputeLogManager):
    """Stands for a bucket that keeps what runs print."""


def test_what_a_run_of_the_command_line_prints_is_filed_only_where_somebody_says_so(
    home: Path,
) -> None:
    with open_instance(make_project(home)) as instance:
        assert type(instance.compute_log_manager) is NoOpComputeLogManager
    file = home / "dagster.yaml"
    named = file.read_text().replace(
        "module: dagster._core.storage.local_compute_log_manager\n"
        "  class: LocalComputeLogManager\n  config:\n    base_dir: .mlmon/dagster/logs",
        f"module: {__name__}\n  class: Elsewhere",
    )
    file.write_text(named)

    with open_instance(make_project(home)) as instance:
        assert type(instance.compute_log_manager) is Elsewhere
