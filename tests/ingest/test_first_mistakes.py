"""A mistake in a first spec is mended by mending it: what was refused holds nothing in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.store import Store, open_store
from mlmon_dagster.store.state.model_history import find_changed_keys
from tests.ingest.landing import (
    ACTUALS,
    PREDICTIONS,
    credit_spec,
    events,
    everything,
    ingest,
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
    store: Store, project: Path, rows: int
) -> None:
    land_three(project, rows)
    ingest(store, spec_with_plan("numeric"), project)
    assert log_content(store, spec_with_plan("numeric"), provenance=False)["predictions"] == []

    mended = spec_with_plan("categorical")
    assert find_changed_keys(store.state, mended) == []
    again = ingest(store, mended, project)

    assert sum(file.n_new for file in again.files) == 3 * rows
    assert sum(file.n_bad for file in again.files) == 0
    assert "since the spec changed" in again.again
    with pytest.raises(ConfigError, match=r"features\.plan\.type is 'numeric'"):
        ingest(store, spec_with_plan("numeric"), project)


def test_what_was_mended_ends_as_if_it_had_been_right_at_once(
    store: Store, project: Path, tmp_path: Path
) -> None:
    land_three(project, 8)
    ingest(store, spec_with_plan("numeric"), project)
    ingest(store, spec_with_plan("categorical"), project)
    other = open_store(tmp_path / "other")
    ingest(other, spec_with_plan("categorical"), project)
    found, expected = (everything(s, spec_with_plan("categorical")) for s in (store, other))
    assert found["records"] == expected["records"]
    assert found["letters"] == expected["letters"] == []


def test_a_wrong_task_is_mended_while_only_refused_rows_came(store: Store, project: Path) -> None:
    frame = events(8, score=[0.5 + i for i in range(8)], decision=[3.5 + i for i in range(8)])
    land(project, f"{PREDICTIONS}/a.csv", frame)
    ingest(store, credit_spec(), project)

    regression = credit_spec(task="regression", columns__score=None)
    assert find_changed_keys(store.state, regression) == []
    assert sum(file.n_new for file in ingest(store, regression, project).files) == 8


def test_ground_truth_alone_fixes_the_key_and_the_task_but_no_type_of_a_feature(
    store: Store, project: Path
) -> None:
    land(project, f"{ACTUALS}/a.csv", truths(8))
    ingest(store, spec_with_plan("numeric"), project)

    assert find_changed_keys(store.state, spec_with_plan("categorical")) == []
    found = find_changed_keys(store.state, credit_spec(columns__prediction_id="version"))
    assert [key for key, _ in found] == ["columns.prediction_id"]
