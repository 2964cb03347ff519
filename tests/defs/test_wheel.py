"""The built wheel in a fresh project of a user who has Dagster assets and an executor already."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.built_wheel import build_wheel, install_wheel
from tests.defs.small_model import NULLED, land_days, land_validation

GOOD = (NULLED - dt.timedelta(days=2), NULLED - dt.timedelta(days=1))
# The files that `create-dagster project` writes, as far as they are read.
PROJECT = {
    "pyproject.toml": """\
[project]
name = "proj"
version = "0.1.0"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "proj"
registry_modules = ["proj.components.*"]
""",
    "src/proj/__init__.py": "",
    "src/proj/definitions.py": """\
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
""",
    "src/proj/defs/__init__.py": "",
    "src/proj/defs/own.py": """\
import dagster as dg
from mlmon_dagster import MonitoringResource

@dg.asset
def overview() -> None: ...

@dg.definitions
def own():
    return dg.Definitions(
        [overview],
        executor=dg.in_process_executor,
        resources={"monitoring": MonitoringResource()},
    )
""",
}
# In one process: what `dg scaffold defs` writes, and what Dagster loads from it.
SCAFFOLD = """
import sys
from dagster_dg_cli.cli import main
sys.argv[0] = "dg"
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
import json
import mlmon_dagster
from proj.definitions import defs
keys = defs().resolve_asset_graph().get_all_asset_keys()
print(json.dumps([mlmon_dagster.__file__, sorted(key.to_user_string() for key in keys)]))
"""
KIND = "mlmon_dagster.MonitoredModel"


@pytest.mark.proof
def test_a_model_that_the_wheel_scaffolds_is_loaded_beside_the_assets_of_the_project(
    tmp_path: Path,
) -> None:
    pytest.importorskip("dagster_dg_cli")
    install_wheel(build_wheel(tmp_path), tmp_path / "environment")
    project, warehouse = tmp_path / "proj", tmp_path / "proj" / "warehouse"
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    (tmp_path / "dagster").mkdir()
    land_validation(warehouse)
    land_days(warehouse, *GOOD)
    predictions, actuals = (
        str(next((warehouse / "landing").glob(f"*/{stream}/2*")))
        for stream in ("predictions", "actuals")
    )
    words = ("scaffold", "defs", KIND, "churn", "--from", predictions, "--actuals", actuals)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLMON_", "DAGSTER_"))}
    own = {
        "PYTHONPATH": str(project / "src"),
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLMON_PROJECT": str(project),
        "MLMON_NOW": f"{NULLED + dt.timedelta(days=1)}T12:00:00Z",
    }
    done = subprocess.run(
        [str(tmp_path / "environment/bin/python"), "-W", "ignore", "-c", SCAFFOLD, *words],
        cwd=project,
        env=kept | own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    place, keys = json.loads(done.stdout.splitlines()[-1])

    assert Path(place).is_relative_to(tmp_path / "environment")
    assert {"overview", "mlmon/overview", "churn/event_log", "churn/drift"} <= set(keys)
