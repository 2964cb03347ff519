"""A mistake in a first spec is mended by mending it: what was refused holds nothing in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store.state.model_history import find_changed_keys
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    World,
    credit_spec,
    events,
    land,
    log_content,
    truths,
)

PLANS = ["basic", "plus", "pro"]


def spec_with_plan(type_: str, **changes: Any) -> ModelSpec:
    return credit_spec(features__plan={"type": type_}, **changes)


def land_three(project: Path, rows: int) -> None:
    for day in range(3):
        frame = events(rows, rows * day, f"2024-02-0{day + 1}")
        plans = [PLANS[i % 3] for i in range(rows)]
        land(project, f"{PREDICTIONS}/{day}.csv", frame.assign(plan=plans))
        land(project, f"{ACTUALS}/{day}.csv", truths(rows, rows * day))


@pytest.mark.parametrize("rows", [8, 40], ids=["rows refused", "whole files refused"])
def test_the_type_of_a_feature_of_which_nothing_is_stored_is_mended_and_all_rows_come_in(
    world: World, rows: int
) -> None:
    land_three(world.project, rows)
    world.ingest(spec_with_plan("numeric"))
    assert (
        log_content(world.store, spec_with_plan("numeric"), provenance=False)["predictions"] == []
    )

    mended = spec_with_plan("categorical")
    assert find_changed_keys(world.store.state, mended) == []
    again = world.ingest(mended)

    assert sum(file.n_new for file in again.files) == 3 * rows
    assert sum(file.n_bad for file in again.files) == 0
    assert "since the spec changed" in again.again
    with pytest.raises(ConfigError, match=r"features\.plan\.type is 'numeric'"):
        world.ingest(spec_with_plan("numeric"))


def test_a_wrong_task_is_mended_while_only_refused_rows_came(world: World) -> None:
    frame = events(8, score=[0.5 + i for i in range(8)], decision=[3.5 + i for i in range(8)])
    world.land(f"{PREDICTIONS}/a.csv", frame)
    world.ingest()

    regression = credit_spec(task="regression", columns__score=None)
    assert find_changed_keys(world.store.state, regression) == []
    assert sum(file.n_new for file in world.ingest(regression).files) == 8


def test_ground_truth_alone_fixes_the_key_and_the_task_but_no_type_of_a_feature(
    world: World,
) -> None:
    world.land(f"{ACTUALS}/a.csv", truths(8))
    world.ingest(spec_with_plan("numeric"))

    assert find_changed_keys(world.store.state, spec_with_plan("categorical")) == []
    found = find_changed_keys(world.store.state, credit_spec(columns__prediction_id="version"))
    assert [key for key, _ in found] == ["columns.prediction_id"]
