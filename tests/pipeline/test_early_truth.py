"""Windows are judged before their ground truth is complete where what is missing is random."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.label_living import TRUTH, look_at
from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.store.alert_state import all_alerts, all_events
from mlmon_dagster.store.state import window_state
from tests.pipeline.late_labels import DAY, FIRST, LateWorld, by_class

UNIFORM = by_class((1, 6), (1, 6))


def live_and_fold(world: LateWorld, days: int) -> None:
    for _ in range(days):
        world.land_day()
        look_at(TRUTH, world.project, world.spec, f"run-{world.day}")
        fold_results(world.project.store, [world.spec], world.now)


def changes(world: LateWorld) -> list[tuple[str, str]]:
    """Return what was told of realized performance: kind and message."""
    with world.project.store.state.connect() as conn:
        alerts, events = all_alerts(conn, "credit"), all_events(conn, "credit")
    return [
        (event["kind"], event["message"])
        for key, about in events.items()
        if alerts[key]["family"] == "performance"
        for event in about
    ]


@pytest.mark.proof
def test_windows_are_judged_early_once_twenty_complete_ones_showed_that_labels_are_random(
    tmp_path: Path,
) -> None:
    """Labels 1 to 6 days late; from the 31st day on scores say nothing, which is told early."""
    world = LateWorld(tmp_path, UNIFORM, n=500, wrong=31)
    live_and_fold(world, 31)
    timing = window_state.timing_of(world.project.store.state, "credit")
    assert timing.early
    assert timing.due is not None
    found = world.verdicts("performance", "roc_auc").set_index("day")
    early = found[found["maturity"] == "early"]
    assert len(early)
    assert (early["status"] == "OK").all()
    assert early["message"].str.contains("Judged early: ").all()
    estimates = world.verdicts("estimated_performance", "estimated_roc_auc").set_index("day")
    said = estimates.loc[early.index, "message"]
    assert said.str.endswith("Ground truth is still coming.").all()
    # A window is judged with each delivery, and a verdict that stays says nothing new.
    assert changes(world) == []
    live_and_fold(world, 7)
    bad = world.ever("performance")
    bad = bad[bad["monitor"] == "performance/roc_auc"]
    assert (bad["window_start"] >= FIRST + 31 * DAY).all()
    assert bad["message"].str.contains("Judged early: ").any()
    assert [kind for kind, _ in changes(world)] == ["opened"]


@pytest.mark.proof
def test_positives_first_wait_until_negatives_are_there(tmp_path: Path) -> None:
    world = LateWorld(tmp_path, by_class((1, 4), (6, 6.5)), n=200)
    live_and_fold(world, 36)
    assert window_state.timing_of(world.project.store.state, "credit").due is not None
    assert "early" not in set(world.verdicts("performance", "roc_auc")["maturity"])
    rows = world.verdicts("performance", "calibration_gap").set_index("day")
    assert set(rows.loc[31:, "reason"]) == {"labels_still_coming"}
    assert not (rows["status"] == "WARN").any()
