"""The graph of one model, on a real instance and real stores."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pandas as pd
import pytest

from mlmon_dagster.defs.assets import asset_key, keys_of
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.tables.standing import overall, standing_of
from tests.defs.small_model import BROKEN, DAYS, LATE, MODEL, NOW, NULLED, SILENT, write_declaration
from tests.defs.worlds import World, opened

CHECKS = {
    "inference_store": "schema",
    "data_quality": "quality",
    "drift": "drift",
    "performance": "performance",
    "estimated_performance": "estimated_performance",
    "service_health": "service",
}
GOOD = dt.date(2024, 3, 3)
IDENTITY = ["window_start", "slice_key", "slice_value", "column_name", "metric", "model_version"]
NUMBERS = ["value", "lower", "upper", "n", "p_value", "reason", "data_version", "maturity"]


def evaluation(world: World, asset: str, day: dt.date) -> Any:
    record = world.evaluations(asset, CHECKS[asset])[str(day)]
    return record.event.dagster_event.asset_check_evaluation_data


def rows_of(evaluated: Any) -> list[dict[str, Any]]:
    return [record.data for record in evaluated.metadata["results"].records]


def test_a_range_run_gives_every_window_a_verdict_on_its_own_materialization(
    fortnight: World,
) -> None:
    for asset, family in CHECKS.items():
        materialized = {
            record.partition_key: record.storage_id
            for record in fortnight.instance.fetch_materializations(
                asset_key(fortnight.spec, asset), limit=100
            ).records
        }
        found = fortnight.evaluations(asset, family)
        assert sorted(k for k in found if k) == [str(day) for day in DAYS]
        waiting = {str(day) for day in LATE} if family == "performance" else set()
        for day, record in found.items():
            if day is None or day in waiting:
                continue
            target = record.event.dagster_event.asset_check_evaluation_data
            assert target.target_materialization_data.storage_id == materialized[day]


def test_the_numbers_of_each_window_are_on_its_own_materialization(fortnight: World) -> None:
    records = fortnight.instance.fetch_materializations(
        asset_key(fortnight.spec, "drift"), limit=100
    ).records
    metadata = {r.partition_key: r.asset_materialization.metadata for r in records}
    shown = metadata[str(NULLED)]["psi/balance"].value
    frame = fortnight.metrics(NULLED)
    mine = frame[(frame["metric"] == "psi") & (frame["column_name"] == "balance")]
    assert shown == pytest.approx(mine.loc[mine["slice_key"] == "all", "value"].item(), rel=1e-3)
    assert shown > 1 > metadata[str(GOOD)]["psi/balance"].value


def test_a_failed_check_shows_the_offending_values_first(fortnight: World) -> None:
    found = evaluation(fortnight, "data_quality", NULLED)
    first = rows_of(found)[0]
    assert not found.passed
    assert found.description == "balance is missing in every row (n 150), above 20 %."
    assert (first["column"], first["metric"], first["value"], first["n"]) == (
        "balance",
        "null_rate",
        1.0,
        150,
    )
    assert (found.metadata["failing"].value, first["status"]) == (1, "WARN")


def test_a_broken_window_is_told_and_the_others_are_computed(fortnight: World) -> None:
    broken = evaluation(fortnight, "inference_store", BROKEN)
    assert (broken.passed, broken.severity.value) == (False, "ERROR")
    assert "75 of 150 rows" in broken.description
    for family in ("drift", "performance"):
        assert set(fortnight.verdicts(family, BROKEN)["status"]) == {"NO_DATA"}
        assert set(fortnight.verdicts(family, BROKEN)["reason"]) == {"schema"}
        assert set(fortnight.verdicts(family, GOOD)["status"]) == {"OK"}
    assert not evaluation(fortnight, "drift", BROKEN).passed
    assert evaluation(fortnight, "drift", BROKEN + dt.timedelta(days=1)).passed


def test_a_window_without_data_does_not_pass_but_warns(fortnight: World) -> None:
    for asset in CHECKS:
        if asset != "service_health":
            found = evaluation(fortnight, asset, SILENT)
            assert (found.passed, found.severity.value) == (False, "WARN"), asset
            assert found.description == "No verdict: the window has no rows."
            assert {row["status"] for row in rows_of(found)} == {"NO_DATA"}


def test_a_window_that_waits_for_ground_truth_has_no_evaluation_and_hides_none(
    fortnight: World,
) -> None:
    for day in LATE:
        record = fortnight.evaluations("performance", "performance")[str(day)]
        assert record.status.value == "PLANNED"
        assert set(fortnight.verdicts("performance", day)["status"]) == {"NO_DATA"}
    latest = fortnight.evaluations("performance", "performance")[None].evaluation
    assert latest.passed
    assert latest.metadata["window"].value == str(LATE[0] - dt.timedelta(days=1))
    assert evaluation(fortnight, "drift", LATE[0]).passed


def test_a_day_of_23_hours_is_a_window_like_any_other(fortnight: World) -> None:
    frame = fortnight.metrics(dt.date(2024, 3, 10))
    assert set(frame["window_end"] - frame["window_start"]) == {pd.Timedelta(hours=23)}
    assert evaluation(fortnight, "performance", dt.date(2024, 3, 10)).passed


def test_a_window_computed_again_has_the_same_metrics_and_version(own_fortnight: World) -> None:
    before = own_fortnight.metrics()
    assert own_fortnight.compute([GOOD]).is_success
    after = own_fortnight.metrics()
    columns = IDENTITY + NUMBERS
    pd.testing.assert_frame_equal(before[columns], after[columns], rtol=1e-12, atol=1e-15)


def test_one_partition_by_its_key_is_computed_as_the_ui_does_it(own_fortnight: World) -> None:
    before = own_fortnight.metrics(GOOD)
    job = own_fortnight.launcher.definitions.resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=own_fortnight.instance,
        asset_selection=keys_of(own_fortnight.spec, windowed_of(own_fortnight.spec)),
        partition_key=str(GOOD),
        run_config={"loggers": {"console": {}}},
    )
    found = result.get_asset_check_evaluations()
    evaluations = [e for e in found if "mlmon" not in e.metadata]  # without what was known before
    assert {e.partition for e in evaluations} == {str(GOOD)}
    assert len(evaluations) == len(CHECKS)
    assert all(e.passed for e in evaluations)
    frame = own_fortnight.metrics(GOOD)
    # A number that came out the same keeps the run that measured it first.
    assert set(frame["run_id"]) <= {*before["run_id"], result.run_id}
    assert len(frame) == len(before)
    assert frame["value"].to_numpy() == pytest.approx(before["value"].to_numpy(), nan_ok=True)


@pytest.mark.proof
def test_a_model_without_a_baseline_says_so_and_is_judged_once_it_has_one(tmp_path: Any) -> None:
    from tests.defs.small_model import land_days, land_validation

    days = DAYS[:3]
    write_declaration(tmp_path)
    land_days(tmp_path, *days)
    with opened(tmp_path) as world:
        assert all(report.is_success for report in world.work())
        verdicts = world.verdicts("drift", days[0])
        assert set(verdicts["status"]) == {"NO_DATA"}
        assert not evaluation(world, "drift", days[0]).passed
        standings = standing_of(world.project.store, world.spec, NOW)
        assert overall([s for s in standings if s.family != "freshness"]) == "NO_DATA"
        land_validation(tmp_path)
        assert all(report.is_success for report in world.work())
        assert set(world.verdicts("drift", days[0])["status"]) == {"OK"}
        assert evaluation(world, "performance", days[2]).passed


def test_the_overview_lists_the_worst_model_first(own_fortnight: World) -> None:
    write_declaration(own_fortnight.folder, "silent")
    with opened(own_fortnight.folder) as world:
        calm = statuses(world)
        world.clock.moment = NOW
        assert calm == [("silent", "NO_DATA"), (MODEL, "OK")]
        land_null_day(world)
        world.clock.moment = NOW + dt.timedelta(days=1)
        world.work()
        # Nothing came for the other one though a day is over, which its freshness says.
        assert statuses(world) == [("silent", "ERROR"), (MODEL, "WARN")]


def statuses(world: World) -> list[tuple[str, str]]:
    """Materialize the overview and return its models and their status, in its order."""
    keys = world.launcher.overview_keys
    assert world.launcher.materialize(world.spec, (), keys=keys).is_success
    [record] = world.instance.fetch_materializations(keys[0], limit=1).records
    table = record.asset_materialization.metadata["status"]
    return [(row.data["model"], row.data["status"]) for row in table.records]


def land_null_day(world: World) -> None:
    """Land the day after the fortnight, without a single balance."""
    from tests.defs.small_model import customers, drop, landing

    predictions, _ = customers(dt.date(2024, 3, 15))
    predictions["balance"] = float("nan")
    drop(predictions, landing(world.folder, "predictions") / "null.parquet")
