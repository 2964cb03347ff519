"""`examples/retrain` from end to end: drift, a failing check, a new version, recovered."""

from __future__ import annotations

import datetime as dt
import importlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest

from mlmon_dagster.defs.assets import RANGE_END, RANGE_START

EXAMPLE = Path(__file__).parents[2] / "examples" / "retrain"
# A backfill policy is beta in Dagster; an example is to be what a user writes.
pytestmark = pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
SERVED = ("features", "predictions", "outcomes")


@dataclass
class Daemon:
    """Does by hand what Dagster's daemon does."""

    code: ModuleType
    instance: dg.DagsterInstance

    def run(self, assets: Sequence[str | dg.AssetKey], **tags: str) -> bool:
        job = self.code.defs.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey.from_coercible(asset) for asset in assets]
        result = job.execute_in_process(
            instance=self.instance,
            asset_selection=keys,
            tags=tags,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        return result.success

    def serve(self, first: str, last: str) -> bool:
        days = {RANGE_START: first, RANGE_END: last}
        return all(self.run([asset], **days) for asset in SERVED)

    def tick(self, sensor: str) -> Sequence[dg.RunRequest]:
        defs = self.code.defs
        resources = {"monitoring": defs.resources["monitoring"]} if "retrain" in sensor else None
        context = dg.build_sensor_context(
            instance=self.instance, definitions=defs, sensor_name=sensor, resources=resources
        )
        found = defs.resolve_sensor_def(sensor).evaluate_tick(context)
        return found.run_requests or []

    def monitor(self) -> None:
        while requests := self.tick("mlmon_planner"):
            for request in requests:
                assert self.run(list(request.asset_selection or []), **request.tags)

    def performance(self) -> dict[str | None, bool]:
        """Return whether the check passed, by day."""
        key = dg.AssetCheckKey(self.code.PERFORMANCE, "performance")
        history = self.instance.event_log_storage.get_asset_check_execution_history(key, limit=50)
        return {record.partition: record.status.value == "SUCCEEDED" for record in history[::-1]}


@contextmanager
def example(folder: Path, instance: dg.DagsterInstance) -> Iterator[Daemon]:
    """Copy the example to a folder, and load it from there."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns(".*", "data", "landing"))
    with pytest.MonkeyPatch.context() as monkeypatch, instance:
        monkeypatch.setenv("MLMON_PROJECT", str(folder))
        monkeypatch.syspath_prepend(folder)
        yield Daemon(importlib.import_module("retrain.definitions"), instance)
    for name in [name for name in sys.modules if name.partition(".")[0] == "retrain"]:
        del sys.modules[name]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with example(tmp_path / "retrain", dg.DagsterInstance.ephemeral()) as found:
        yield found


def live_two_good_days(daemon: Daemon) -> None:
    assert daemon.run(["features"], **{RANGE_START: "2024-04-29", RANGE_END: "2024-04-30"})
    assert daemon.run(["trained_model", "champion"])
    assert daemon.serve("2024-05-04", "2024-05-05")
    daemon.monitor()


def live_the_shock(daemon: Daemon) -> None:
    assert daemon.serve("2024-05-06", "2024-05-07")
    daemon.monitor()


@pytest.mark.proof
def test_a_failing_check_stops_the_rollout_and_trains_a_version_that_is_good_again(
    daemon: Daemon,
) -> None:
    code, sensor = daemon.code, "retrain_when_performance_failed"
    graph = code.defs.resolve_asset_graph()
    parents = graph.get(dg.AssetKey(["loans", "event_log"])).parent_keys
    assert parents == {dg.AssetKey("predictions"), dg.AssetKey("outcomes")}

    live_two_good_days(daemon)
    assert daemon.performance() == {"2024-05-04": True, "2024-05-05": True}
    assert daemon.tick(sensor) == []
    assert daemon.run(["rollout"])
    assert (code.PROJECT / "data" / "rollout.txt").read_text() == "1"

    live_the_shock(daemon)
    failing = {day: ok for day, ok in daemon.performance().items() if day and day > "2024-05-05"}
    assert failing == {"2024-05-06": False, "2024-05-07": False}
    assert not daemon.run(["rollout"])  # the gate is closed: the old version goes no further

    [request] = daemon.tick(sensor)
    assert request.run_key == "2024-05-07"
    assert daemon.run(["trained_model", "champion"])
    assert code.REGISTRY.champion().number == 2
    assert daemon.tick(sensor) == []  # it was trained on that day: one failure asks once
    assert not daemon.run(["rollout"])  # and has not yet shown what it can do

    assert daemon.serve("2024-05-08", "2024-05-08")
    daemon.monitor()
    assert daemon.performance()["2024-05-08"]
    assert daemon.tick(sensor) == []
    assert daemon.run(["rollout"])
    assert (code.PROJECT / "data" / "rollout.txt").read_text() == "2"


def test_the_world_of_the_example_differs_in_nothing_but_what_debts_mean(daemon: Daemon) -> None:
    day = dt.date(2024, 5, 6)
    before, after = daemon.code.Bank(shock="").customers(day), daemon.code.Bank().customers(day)
    columns = ["application", *daemon.code.FEATURES]
    assert before[columns].equals(after[columns])
    correlations = [rows["debt_share"].corr(rows["defaulted"]) for rows in (before, after)]
    assert correlations[0] > 0.3 > -0.3 > correlations[1]
