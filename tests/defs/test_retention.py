"""Numbers of windows whose rows are gone stay what they were, whoever asks to compute them."""

import datetime as dt

import dagster as dg

from mlmon_dagster.defs.sensors import MAINTENANCE_KEY
from mlmon_dagster.spec.declaration import RetentionPolicy
from mlmon_dagster.store.erasure import erase
from mlmon_dagster.store.state import window_state
from mlmon_dagster.store.upkeep.maintenance import delete_by_age
from tests.defs.small_model import DAYS, NOW, windows_of_days
from tests.defs.worlds import World


def test_windows_past_retention_keep_their_numbers(own_fortnight: World) -> None:
    world, store = own_fortnight, own_fortnight.project.store
    before = world.metrics()
    kept_from, newest = windows_of_days(world.spec, [DAYS[4], DAYS[-1]])
    age = newest.end - kept_from.start
    spec = world.spec.model_copy(update={"retention": RetentionPolicy(production=age)})
    assert delete_by_age(store, spec, NOW, dry_run=False)
    old, kept = DAYS[2], DAYS[5]
    with store.state.begin() as conn:
        late = windows_of_days(world.spec, [old])
        window_state.mark_inputs(conn, world.spec, late, NOW + dt.timedelta(hours=1))
    assert world.requests() == []
    assert world.compute([old]).is_success
    assert world.compute([old, *DAYS[3:5], kept]).is_success
    after = world.metrics()
    past = before["window_start"] < windows_of_days(world.spec, [DAYS[4]])[0].start
    assert past.sum() > 200
    assert after[past].equals(before[past])
    assert len(after) == len(before)


def test_an_erasure_is_computed_by_the_planner_without_the_row(own_fortnight: World) -> None:
    world, store = own_fortnight, own_fortnight.project.store
    (window,) = windows_of_days(world.spec, [DAYS[3]])
    records = store.inference_records(world.spec)
    rows = records.read([window], ["production"])
    one = rows.column("prediction_id")[0].as_py()
    erase.erase(store, world.spec, [one], now=NOW, recompute=True)
    assert all(report.is_success for report in world.work())
    assert len(world.ran) == 1
    metrics = world.metrics(DAYS[3])
    n = metrics[(metrics["slice_key"] == "all") & (metrics["metric"] == "null_rate")]["n"]
    assert set(n) == {rows.num_rows - 1}


def test_upkeep_is_an_asset_that_says_what_it_did(own_fortnight: World) -> None:
    world = own_fortnight
    result = dg.materialize(
        [world.launcher.definitions.get_assets_def(MAINTENANCE_KEY)],
        instance=world.instance,
        run_config={"ops": {"mlmon__maintenance": {"config": {"dry_run": True}}}},
    )
    assert result.success
    metadata = result.asset_materializations_for_node("mlmon__maintenance")[0].metadata
    assert metadata["dry run"].value in (True, "True", 1)
    assert (metadata["rows"].value, metadata["files"].value) == (0, 0)
