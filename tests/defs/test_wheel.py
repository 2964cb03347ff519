"""The built wheel in a fresh project of a user who has Dagster assets and an executor already."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.built_wheel import build_wheel, install_wheel
from tests.defs.small_model import NULLED, land_days, land_validation

GOOD = (NULLED - dt.timedelta(days=2), NULLED - dt.timedelta(days=1))
DG = "import sys; from dagster_dg_cli.cli import main; sys.argv[0] = 'dg'; main()"
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
import shutil
from pathlib import Path
import dagster as dg
from mlmon_dagster import MonitoringResource

ROOT = Path(__file__).parents[3]

def export(stream):
    to = ROOT / "landing" / "churn" / stream
    to.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / "warehouse" / "landing" / "churn" / stream).iterdir():
        if not (to / file.name).exists():
            shutil.copyfile(file, to / file.name)

@dg.asset
def overview() -> None: ...

@dg.asset
def customers() -> None: ...

@dg.asset(deps=[customers])
def scores() -> None:
    export("predictions")

@dg.asset
def answers() -> None:
    export("actuals")

@dg.asset(deps=[scores, dg.AssetKey(["churn", "data_quality"])])
def promotion(monitoring: MonitoringResource) -> None:
    monitoring.gate("churn", "quality")

@dg.definitions
def own():
    return dg.Definitions(
        [overview, customers, scores, answers, promotion],
        executor=dg.in_process_executor,
        resources={"monitoring": MonitoringResource()},
    )
""",
}
# What the daemon does, in one process: the assets named, planned runs until nothing is left, and
# then the promotion.
MONITOR = """
import json
import sys
import dagster as dg
import mlmon_dagster
from proj.definitions import defs

defs = defs()
job = defs.resolve_implicit_global_asset_job_def()
quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

def run(keys, tags=None):
    found = job.execute_in_process(
        instance=instance, asset_selection=keys, tags=tags, run_config=quiet, raise_on_error=False
    )
    return found.success

with dg.DagsterInstance.get() as instance:
    planner = defs.resolve_sensor_def("mlmon_planner")
    planned = [run([dg.AssetKey(name) for name in sys.argv[1:]])] if sys.argv[1:] else []
    while True:
        context = dg.build_sensor_context(
            instance=instance, definitions=defs, sensor_name="mlmon_planner"
        )
        requests = planner.evaluate_tick(context).run_requests
        if not requests:
            break
        planned += [run(list(r.asset_selection or []), r.tags) for r in requests]
    promoted = run([dg.AssetKey("promotion")])
    windows = instance.get_materialized_partitions(dg.AssetKey(["churn", "data_quality"]))
    parents = defs.resolve_asset_graph().get(dg.AssetKey(["churn", "event_log"])).parent_keys
print(json.dumps({
    "from": mlmon_dagster.__file__, "planned": planned, "promoted": promoted,
    "windows": sorted(windows), "parents": sorted(key.to_user_string() for key in parents),
}))
"""


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


@dataclass(frozen=True)
class Wheel:
    """The wheel in an environment of its own, and a project beside it."""

    folder: Path

    @property
    def project(self) -> Path:
        return self.folder / "proj"

    def call(self, code: str, *arguments: str) -> str:
        """Run a program there; return what it printed."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLMON_", "DAGSTER_"))}
        done = subprocess.run(
            [str(self.folder / "environment/bin/python"), "-W", "ignore", "-c", code, *arguments],
            cwd=self.project,
            env=kept
            | {
                "PYTHONPATH": str(self.project / "src"),
                "COLUMNS": "300",
                "DAGSTER_HOME": str(self.folder / "dagster"),
                "DAGSTER_DISABLE_TELEMETRY": "1",
                "MLMON_PROJECT": str(self.project),
                "MLMON_NOW": f"{NULLED + dt.timedelta(days=1)}T12:00:00Z",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def landed(self) -> tuple[str, ...]:
        """Land validation and two days; return the words that scaffold a model from them."""
        land_validation(self.project / "warehouse")
        land_days(self.project / "warehouse", *GOOD)
        landing = (self.project / "warehouse" / "landing").glob
        predictions, actuals = (str(next(landing(f"*/{s}/2*"))) for s in ("predictions", "actuals"))
        return ("scaffold", "defs", KIND, "churn", "--from", predictions, "--actuals", actuals)


@pytest.fixture
def wheel(tmp_path: Path) -> Wheel:
    """The wheel, freshly built and installed, and a project with assets of its own."""
    pytest.importorskip("dagster_dg_cli")
    install_wheel(build_wheel(tmp_path), tmp_path / "environment")
    found = Wheel(tmp_path)
    for name, text in PROJECT.items():
        (found.project / name).parent.mkdir(parents=True, exist_ok=True)
        (found.project / name).write_text(text)
    (tmp_path / "dagster").mkdir()
    return found


@pytest.mark.slow
def test_a_model_that_the_wheel_scaffolds_is_loaded_beside_the_assets_of_the_project(
    wheel: Wheel,
) -> None:
    place, keys = json.loads(wheel.call(SCAFFOLD, *wheel.landed()).splitlines()[-1])

    assert Path(place).is_relative_to(wheel.folder / "environment")
    assert {"overview", "mlmon/overview", "churn/event_log", "churn/drift"} <= set(keys)


@pytest.mark.proof
def test_the_wheel_monitors_and_gates_in_a_fresh_project_with_assets_of_its_own(
    wheel: Wheel,
) -> None:
    call, warehouse = wheel.call, wheel.project / "warehouse"
    components = call(DG, "list", "components")
    assert KIND in components
    assert "mlmon_dagster.MonitoredModels" in components

    call(DG, *wheel.landed())
    written = wheel.project / "src" / "proj" / "defs" / "churn" / "defs.yaml"
    document = yaml.safe_load(written.read_text())
    spec = document["attributes"]
    for stream, asset in (("predictions", "scores"), ("actuals", "answers")):
        spec["source"][stream] = {
            "path": f"landing/churn/{stream}/*.parquet",
            "asset": asset,
        }
    spec["time"].pop("end", None)  # the sample is old, more is to come
    spec["features"]["balance"]["nullable"] = True
    spec["monitors"] = {"quality": {"severity": "ERROR", "null_rate": {"above": 0.2}}}
    written.write_text(yaml.safe_dump(document, sort_keys=False))

    call(DG, "check", "yaml")
    call(DG, "check", "defs")
    found = json.loads(call(DG, "list", "defs", "--json"))["assets"]
    listed = {asset["asset_key"] for asset in found}
    assert {"overview", "mlmon/overview", "churn/event_log", "churn/drift"} <= listed

    call(DG, "launch", "--assets", "customers,scores,answers,churn/event_log")
    good = json.loads(call(MONITOR).splitlines()[-1])
    assert Path(good["from"]).is_relative_to(wheel.folder / "environment")
    assert good["parents"] == ["answers", "scores"]
    assert good["windows"] == [str(day) for day in GOOD]
    assert all(good["planned"])
    assert good["promoted"]

    land_days(warehouse, NULLED)  # every balance is null
    bad = json.loads(call(MONITOR, "scores", "answers").splitlines()[-1])
    assert bad["windows"] == [*good["windows"], str(NULLED)]
    assert all(bad["planned"])
    assert not bad["promoted"]
