"""Healthy models whose labels are late raise nothing, and are judged once the labels are there."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from mlmon_dagster.cli import cli
from mlmon_dagster.pipeline.plan import plan
from mlmon_dagster.profiles.arrivals import describe_arrivals, load_arrivals
from mlmon_dagster.spec.windows import age_step
from mlmon_dagster.store.state import window_state
from tests.pipeline.late_labels import DAY, FIRST, Lag, LateWorld, by_class

OF_TRUTH = ("freshness", "performance", "estimated_performance")
UNIFORM = by_class((1, 20), (1, 20))
DEFAULTS = by_class((1, 22), (30, 30.5))


def failed(world: LateWorld) -> pd.DataFrame:
    """Return the verdicts about ground truth that ever failed."""
    found = pd.concat([world.ever(family) for family in OF_TRUTH])
    return found[["monitor", "window_start", "message"]]


def judged_days(world: LateWorld, metric: str = "calibration_gap") -> set[int]:
    rows = world.verdicts("performance", metric)
    return set(rows[rows["status"] != "NO_DATA"]["day"])


@pytest.mark.slow
def test_when_labels_came_is_counted_by_age_class_and_quarter_of_the_score(tmp_path: Path) -> None:
    """Two days, of which positives came a day later and negatives have not come."""
    world = LateWorld(tmp_path, by_class((1, 1), (9, 9)), n=60, baseline_days=0)
    world.live(4)
    first = FIRST + DAY * 4
    stored = window_state.load_arrivals(world.project.store.state, "credit", first, FIRST, 9)
    oldest = stored[-1]
    assert oldest.window_start == FIRST
    (positives,) = world.verdicts("freshness", "actuals_missing")["n"].head(1)
    assert positives == 60
    assert '"n":60' in oldest.arrivals
    assert '"0"' not in oldest.arrivals
    # A label known on the next day lands with the file of that day, early on the one after it.
    (age, *quarters), *_ = json.loads(oldest.arrivals)["arrived"]["1"]
    assert age == 2
    assert 0 < sum(quarters) < 60
    # Of the scores of positives, which these are all.
    assert len(quarters) == 4
    assert max(quarters) - min(quarters) <= 1
    assert age_step(2) == 2
    assert describe_arrivals(world.project.store.state, world.spec).startswith(
        "how late it comes is not known yet"
    )


@pytest.mark.long
@pytest.mark.proof
@pytest.mark.parametrize(
    ("lag", "days", "due"),
    [(UNIFORM, 36, 20), (DEFAULTS, 40, 31)],
    ids=["1 to 20 days", "positives first"],
)
def test_a_healthy_model_with_late_labels_is_never_wrong_and_is_judged_in_time(
    tmp_path: Path, lag: Lag, days: int, due: int
) -> None:
    """No verdict on its freshness, calibration or estimates fails, however few labels there are."""
    world = LateWorld(tmp_path, lag, n=300)
    world.live(days)

    bad = failed(world)
    calibrated = bad[~bad["monitor"].isin(["performance/roc_auc"])]  # .05 of 300 rows is chance
    assert calibrated.empty, calibrated.to_string()
    assert set(range(days - due - 4)) <= judged_days(world)
    newest = world.verdicts("performance", "calibration_gap").iloc[-1]
    assert newest["reason"] == "labels_still_coming"
    assert "It is usually judged by" in newest["message"]


@pytest.mark.long
@pytest.mark.proof
def test_a_label_job_that_stops_is_told_and_over_when_it_has_caught_up(tmp_path: Path) -> None:
    """Labels of the 30th to the 39th day come on the 40th."""
    world = LateWorld(tmp_path, UNIFORM, n=300, delivered=lambda day: 40 if 30 <= day < 40 else day)
    world.live(38)
    late = world.verdicts("freshness", "actuals_missing")
    assert "ERROR" in set(late["status"])
    assert late[late["status"] == "ERROR"]["message"].str.startswith("Ground truth is late").all()
    world.live(6)
    late = world.verdicts("freshness", "actuals_missing")
    assert "ERROR" not in set(late["status"])


@pytest.mark.long
@pytest.mark.proof
def test_history_that_is_imported_is_learnt_from_the_times_it_gives(tmp_path: Path) -> None:
    """Forty days that come at once are judged at once, but for those still waiting."""
    world = LateWorld(tmp_path, UNIFORM, n=200)
    for _ in range(40):
        world.land_day()
    world.look()
    known = load_arrivals(world.project.store.state, world.spec)
    assert known is not None
    assert known.is_dated
    timing = window_state.timing_of(world.project.store.state, "credit")
    assert timing.due is not None
    assert dt.timedelta(days=19) <= timing.due <= dt.timedelta(days=23)
    world.look()
    assert set(range(15)) <= judged_days(world)


def test_a_window_that_waits_says_why_as_of_the_newest_look(tmp_path: Path) -> None:
    """It was not due, then none of it came, then a little: nothing else of it changed."""
    world = LateWorld(
        tmp_path, by_class((1, 1), (1, 1)), n=60, baseline_days=0,
        actuals={"expected_within": "1d"}, delivered=lambda day: 99,
    )  # fmt: skip
    world.live(1)

    def said() -> tuple[str, str]:
        row = world.verdicts("performance", "calibration_gap").iloc[0]
        return row["reason"], row["message"].partition(":")[0]

    assert said() == ("labels_still_coming", "Ground truth is still coming")
    world.now += DAY * 5
    world.look()
    assert said() == ("no_actuals", "Ground truth is late")
    (labels,) = world.waiting.pop(99)
    world.land("actuals", "few", labels.head(5))
    world.now += DAY
    world.look()
    assert said() == ("labels_still_coming", "Ground truth is late")
    first = world.verdicts("performance", "calibration_gap").iloc[0]["created_at"]
    world.now += DAY
    world.look()  # as long as the reason is the same, so is the verdict
    assert world.verdicts("performance", "calibration_gap").iloc[0]["created_at"] == first


@pytest.mark.proof
def test_what_a_run_learns_ends_the_wait_of_other_windows_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third of all labels come, once a week; the fourth delivery shows that no more ever do."""
    world = LateWorld(
        tmp_path, by_class((0, 0), (0, 0)), baseline_days=10,
        chosen=lambda score: score / 3, delivered=lambda day: (day // 7 + 1) * 7,
    )  # fmt: skip
    world.live(21)
    world.land_day()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    asked = ["--project", str(tmp_path), "--now", world.now.isoformat(), "run", "credit"]
    ended = CliRunner().invoke(cli, asked)
    assert ended.exit_code == 0, ended.output
    assert "credit: 2024-03-10 to 2024-03-10, 1 window\n" in ended.output
    assert judged_days(world) == {9}
    assert plan(world.project, world.spec, world.now) == []
