"""A cold start learns, a promoted period is the new normal, and a lost Dagster home is refilled."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.history import report_history
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.profiles import fit_period
from mlmon_dagster.store import baselines
from mlmon_dagster.tables.alerts import list_alerts
from tests.defs.small_model import DAYS, FIRST, NOW, land_days, windows_of_days, write_declaration
from tests.defs.worlds import World, opened

pytestmark = pytest.mark.slow


@pytest.fixture
def cold(tmp_path: Path) -> Iterator[World]:
    """A project that went live without any baseline."""
    folder = tmp_path / "cold"
    write_declaration(folder)
    land_days(folder, FIRST)
    with opened(folder, NOW) as world:
        world.launcher.materialize(world.spec, ("event_log", "baseline"))
        world.compute([FIRST])
        yield world


def test_a_cold_start_says_learning_and_opens_no_alert(cold: World) -> None:
    for family in ("drift", "performance", "estimated_performance"):
        found = cold.verdicts(family, FIRST)
        assert set(found["status"]) == {"NO_DATA"}, family
        assert set(found["reason"]) == {"learning"}, family
    quality = cold.verdicts("quality", FIRST).groupby("metric")["status"].unique()
    assert {name: list(found) for name, found in quality.items()} == {
        "nan_rate": ["OK"],
        "null_rate": ["OK"],
        "out_of_range_rate": ["OK"],
        "unseen_rate": ["NO_DATA"],  # nothing is known yet that a value could be new against
    }
    fold_results(cold.project.store, cold.specs, NOW)
    firing = [alert for alert in list_alerts(cold.project.store) if alert.state == "FIRING"]
    assert not [alert for alert in firing if alert.family != "freshness"]


def promote(world: World, first: dt.date, last: dt.date) -> tuple[int, str]:
    store, spec = world.project.store, world.spec
    days = [day for day in DAYS if first <= day <= last]
    windows = windows_of_days(spec, days)
    fitted = fit_period(store, spec, windows, NOW)
    with store.state.begin() as conn:
        number = baselines.promote_baseline(
            conn, spec.model, (windows[0].start, windows[-1].end), fitted.baseline_id,
            author="ann", note="", now=NOW,
        )  # fmt: skip
    return number, fitted.baseline_id


@pytest.mark.proof
def test_a_promoted_period_is_the_baseline_of_the_windows_after_it_until_undone(
    own_fortnight: World,
) -> None:
    world = own_fortnight
    before = world.metrics()
    number, baseline_id = promote(world, DAYS[1], DAYS[3])
    world.clock.moment = NOW + dt.timedelta(minutes=1)
    world.work()
    drift = world.metrics()
    drift = drift[drift["metric"] == "psi"]
    end = windows_of_days(world.spec, [DAYS[3]])[0].end
    later = drift[drift["window_start"] >= end]
    assert set(later["baseline_id"]) == {baseline_id}
    assert baseline_id not in set(drift[drift["window_start"] < end]["baseline_id"])
    with world.project.store.state.begin() as conn:
        assert baselines.undo_promotion(conn, number, author="bob", now=NOW)
    world.clock.moment = NOW + dt.timedelta(minutes=2)
    world.work()
    after = world.metrics()
    names = ["window_start", "column_name", "metric", "slice_value", "value", "baseline_id"]
    assert after[names].equals(before[names])
    assert world.requests() == []


@pytest.mark.proof
def test_a_new_dagster_home_is_told_every_partition_and_check(own_fortnight: World) -> None:
    world = own_fortnight
    shutil.rmtree(world.folder / ".mlmon" / "dagster")
    with open_instance(world.project) as instance:
        key = asset_key(world.spec, "drift")
        assert not instance.get_materialized_partitions(key)
        told = report_history(world.project, world.spec, instance)
        assert told.n_materializations
        again = report_history(world.project, world.spec, instance)
        assert (again.n_materializations, again.n_checks) == (told.n_materializations, 0)
        assert instance.get_materialized_partitions(key) == {str(day) for day in DAYS}
        performance = asset_key(world.spec, "performance")
        record = instance.fetch_materializations(performance, limit=100).records
        assert any(
            "roc_auc" in r.asset_materialization.metadata for r in record if r.asset_materialization
        )
        history = instance.event_log_storage.get_asset_check_execution_history(
            dg.AssetCheckKey(key, "drift"), limit=100
        )
        assert {r.partition for r in history} == {str(day) for day in DAYS}
