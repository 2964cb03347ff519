"""Overview and reports are made by the planner when what they show changed, and only then."""

from __future__ import annotations

import datetime as dt

import pytest

from mlmon_dagster.defs.assets import OVERVIEW_KEY, keys_of
from mlmon_dagster.spec.steps import REPORTED
from tests.defs.small_model import DAYS, NOW, customers, drop, landing
from tests.defs.worlds import World


def n_made(world: World) -> dict[str, int]:
    keys = [OVERVIEW_KEY, *keys_of(world.spec, REPORTED)]
    return {
        key.path[-1]: len(world.instance.fetch_materializations(key, limit=100).records)
        for key in keys
    }


def test_they_are_there_once_the_planner_worked_and_not_made_again_for_nothing(
    own_fortnight: World,
) -> None:
    assert set(n_made(own_fortnight).values()) == {0}
    own_fortnight.work()
    made = n_made(own_fortnight)
    assert min(made.values()) >= 1
    own_fortnight.requests("mlmon_alert_dispatcher")
    own_fortnight.work()
    made = n_made(own_fortnight)
    for _ in range(3):
        own_fortnight.requests("mlmon_alert_dispatcher")
        assert own_fortnight.requests(with_reports=True) == []
    assert n_made(own_fortnight) == made


@pytest.mark.proof
def test_a_new_day_is_in_them_after_the_planner_worked(own_fortnight: World) -> None:
    own_fortnight.work()
    own_fortnight.requests("mlmon_alert_dispatcher")
    own_fortnight.work()
    made = n_made(own_fortnight)
    predictions, _ = customers(DAYS[-1] + dt.timedelta(days=1))
    drop(predictions, landing(own_fortnight.folder, "predictions") / "more.parquet")
    own_fortnight.clock.moment = NOW + dt.timedelta(days=1)
    own_fortnight.work()
    assert all(n > made[name] for name, n in n_made(own_fortnight).items())
    [record] = own_fortnight.instance.fetch_materializations(OVERVIEW_KEY, limit=1).records
    [row] = record.asset_materialization.metadata["status"].records
    assert row.data["window"] == str(DAYS[-1] + dt.timedelta(days=1))


def test_a_run_of_them_that_failed_is_not_asked_for_again_until_something_changes(
    own_fortnight: World,
) -> None:
    own_fortnight.requests()  # the first look judges how fresh the data is
    first = {request.run_key for request in own_fortnight.requests(with_reports=True)}
    again = {request.run_key for request in own_fortnight.requests(with_reports=True)}
    assert first == again != set()
