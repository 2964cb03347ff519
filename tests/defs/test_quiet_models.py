"""Of many models the planner looks at those that moved, and at each of them every few minutes."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from mlmon_dagster.defs import sensors
from mlmon_dagster.pipeline.quiet_models import LOOKED_AT_EVERY, QuietModels
from mlmon_dagster.spec import window_containing
from tests.conftest import SPEC, make_spec
from tests.defs.small_model import LATE, MODEL, land_truth, make_project
from tests.defs.worlds import World

pytestmark = pytest.mark.slow
SOON = dt.timedelta(seconds=30)


@pytest.fixture
def looks(own_fortnight: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that the planner looked at, of a project that has many."""
    found: list[str] = []
    plan_model = sensors._plan_model

    def looked_at(tick: sensors.Tick, spec: sensors.ModelSpec, n: int) -> sensors.Found:
        found.append(spec.model)
        return plan_model(tick, spec, n)

    monkeypatch.setattr(sensors, "_plan_model", looked_at)
    monkeypatch.setattr(sensors, "FEW", 0)
    return found


def after(world: World, time: dt.timedelta, looks: list[str]) -> list[str]:
    """Move the clock, let the planner look, and return what it looked at."""
    world.clock.moment += time
    looks.clear()
    world.requests()
    return looks


def quieted(world: World, looks: list[str]) -> bool:
    """Let the planner look until it does not; files that were just written wait for a look."""
    return any(after(world, SOON, looks) == [] for _ in range(4))


@pytest.mark.proof
def test_a_model_that_did_not_move_is_not_looked_at_again(
    own_fortnight: World, looks: list[str]
) -> None:
    """Until its time has come; new files and new inputs bring it back."""
    world = own_fortnight
    assert quieted(world, looks)
    assert after(world, LOOKED_AT_EVERY * 2, looks) == [MODEL]
    assert quieted(world, looks)

    land_truth(world.folder, LATE[0])
    assert after(world, SOON, looks) == [MODEL]
    assert after(world, SOON, looks) == [MODEL]  # the run it asked for has not begun
    world.work()
    assert quieted(world, looks)


@pytest.mark.proof
def test_the_end_of_a_window_is_looked_at_at_once(own_fortnight: World, looks: list[str]) -> None:
    world = own_fortnight
    end = window_containing(world.spec.time, world.clock.moment).end
    world.clock.moment = end - dt.timedelta(minutes=4)
    assert quieted(world, looks)
    world.clock.moment = end - 2 * SOON
    assert after(world, SOON, looks) == []
    assert after(world, SOON, looks) == [MODEL]


@pytest.mark.parametrize(
    ("predictions", "moves"),
    [
        ({"path": "landing/*.parquet"}, True),
        ({"path": "landing/*/p.parquet"}, False),
        ({"path": "s3://bucket/p/*.parquet"}, False),
        ({"path": "landing/*.parquet", "asset": "raw/predictions"}, False),
    ],
)
def test_only_a_folder_that_tells_of_new_files_lets_a_model_be_quiet(
    tmp_path: Path, predictions: dict[str, str], moves: bool
) -> None:
    project = make_project(tmp_path)
    columns = {name: column for name, column in SPEC["columns"].items() if name != "outcomes"}
    spec = make_spec(source={"predictions": predictions}, columns=columns)
    assert (QuietModels(project).folders(spec) is not None) == moves


def test_a_changed_declaration_is_looked_at_at_once(tmp_path: Path) -> None:
    quiet = QuietModels(make_project(tmp_path))
    spec, changed = make_spec(), make_spec(description="Changed.")
    quiet.note(spec, quiet.folders(spec), {})
    assert quiet.is_quiet(spec, {})
    assert not quiet.is_quiet(changed, {})
    assert not quiet.is_quiet(spec, {spec.model: (1,)})
