"""Worlds whose ground truth comes late: what is drawn, what counts, and a few of them lived."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from benchmarks.label_judging import (
    find_incidents,
    kind_of,
    measure_auc,
)
from benchmarks.label_laws import LAWS, SEGMENTS, TURNED, Knobs, World, draw_knobs
from benchmarks.label_living import Episode, live
from benchmarks.label_presence import (
    KINDS,
    PresenceWorld,
    draw_presence,
    find_false_silence,
    find_outage,
)


def knobs(law: str, fault: str = "", **changes: object) -> Knobs:
    usual = draw_knobs(3, fault, law, windows=90)
    fixed: dict[str, object] = {"granularity": "day", "rows": 400, "season": 1.0, "every": 1}
    return replace(usual, **{**fixed, "baseline": "labelled", **changes})


def lags(world: World) -> pd.DataFrame:
    """Return the labels of production with their lag in units and their true label."""
    rows = world.rows[["id", "at", "label", "score"]].rename(columns={"label": "truth"})
    found = world.labels[world.labels["dataset"] == "production"].merge(rows, on="id")
    return found.assign(lag=(found["known"] - found["at"]) / world.unit)


@pytest.mark.parametrize("law", LAWS)
def test_a_seed_draws_the_same_world_again(law: str) -> None:
    one, again = (
        World(draw_knobs(5, law=law, windows=40)),
        World(draw_knobs(5, law=law, windows=40)),
    )

    assert one.rows.equals(again.rows)
    assert one.labels.equals(again.labels)


@pytest.mark.parametrize("law", LAWS)
def test_labels_land_once_after_they_are_known(law: str) -> None:
    world = World(knobs(law))
    firsts = world.labels[~world.labels["is_correction"]]
    live_labels = world.labels[world.labels["look"] >= 0]
    landed = [world.look_after(look) for look in live_labels["look"]]

    assert not firsts["id"].duplicated().any()
    assert (live_labels["known"] <= pd.DatetimeIndex(landed)).all()
    assert (lags(world)["lag"] > 0).all()


def test_classes_come_in_the_order_of_their_law() -> None:
    first = lags(World(knobs("positives first"))).groupby("truth")["lag"].agg(["min", "max"])
    last = lags(World(knobs("negatives first"))).groupby("truth")["lag"].agg(["min", "max"])

    assert first.loc[True, "max"] < first.loc[False, "min"] == pytest.approx(60)
    assert last.loc[False, "max"] < last.loc[True, "min"]


def test_labels_chosen_by_score_are_of_higher_scores_and_those_at_random_are_not() -> None:
    chosen, drawn = World(knobs("10 % by score")), World(knobs("30 % at random"))
    n = (chosen.rows["dataset"] == "production").sum()

    assert len(lags(chosen)) / n == pytest.approx(0.1, abs=0.01)
    assert len(lags(drawn)) / n == pytest.approx(0.3, abs=0.02)
    assert lags(chosen)["score"].mean() > 1.2 * chosen.rows["score"].mean()
    assert lags(drawn)["score"].mean() == pytest.approx(drawn.rows["score"].mean(), abs=0.01)


def test_corrections_come_after_the_first_label_and_tell_the_truth() -> None:
    found = lags(World(knobs("corrected after 45")))
    second = found[found["is_correction"]]
    first = found[~found["is_correction"] & found["id"].isin(second["id"])]

    rarer = found.loc[~found["is_correction"], "truth"].value_counts().min()
    assert 0.02 < len(second) / rarer < 0.06  # of the other class as many
    assert (second["lag"] > 45).all()
    assert (second["label"] == second["truth"]).all()
    assert (first["label"] != first["truth"]).all()


def test_healthy_worlds_do_not_change_and_faults_do() -> None:
    healthy = World(knobs("1 to 20")).rows
    turned = World(knobs("1 to 20", "a segment turns"))
    bad = turned.rows[turned.rows["window"] >= turned.knobs.fault_from]
    aucs = {
        name: measure_auc(bad[bad["segment"] == name]) for name in SEGMENTS
    }  # of the segment that turned the score orders the outcomes the wrong way round
    first = healthy["window"] < 45
    halves = [measure_auc(half) for half in (healthy[first], healthy[~first])]

    assert halves[0] == pytest.approx(halves[1], abs=0.02)
    assert aucs.pop(TURNED) < 0.4 < 0.7 < min(aucs.values())


def episode(monitor: str, opened: int, ended: int | None, *, muted: str = "") -> Episode:
    family = monitor.partition("/")[0]
    return Episode(family, monitor, "", opened, ended, opened, "WARN", muted, "said")


def test_overlapping_episodes_of_one_kind_are_one_incident() -> None:
    world = World(knobs("1 to 20"))
    found = find_incidents(
        world,
        [
            episode("performance/roc_auc", 10, 20),
            episode("performance/pr_auc", 15, None),
            episode("performance/calibration_gap", 12, 14),
            episode("freshness/actuals_missing", 80, None),
            episode("freshness/no_data_for", 1, None),
            episode("performance/f1", 3, 5, muted="schema"),
        ],
    )

    said = [(one.kind, one.opened, one.ended, one.never_ends) for one in found]
    assert said == [
        ("performance", 10, None, True), ("calibration", 12, 14, False),
        ("coverage", 80, None, False),
    ]  # fmt: skip
    assert kind_of(episode("estimated_performance/roc_auc_residual", 1, 2)) == "estimates"


@pytest.mark.parametrize("seed", range(len(KINDS)))
def test_nothing_comes_when_nobody_works(seed: int) -> None:
    world = PresenceWorld(draw_presence(seed))
    at = pd.DatetimeIndex(world.rows["at"]).tz_convert(world.zone)

    assert world.is_open(at).all()
    assert world.knobs.outage not in set(at.date)
    assert world.knobs.outage.weekday() == 0
    assert all(world.events_at(look).empty for look in world.outage_looks())


def test_silence_is_right_in_the_outage_and_wrong_elsewhere() -> None:
    world = PresenceWorld(draw_presence(0))
    first = world.outage_looks().start
    silent, false = (
        episode("freshness/no_data_for", look, look + 1) for look in (first, first - 9)
    )

    assert find_outage(world, [false, silent]) == silent
    assert find_false_silence(world, [false, silent]) == [false]


@pytest.mark.proof
def test_a_healthy_world_with_weekly_labels_says_nothing_about_truth(tmp_path: Path) -> None:
    small = knobs("weekly batches", rows=150, base_rate=0.3, every=7, windows=22, fault_from=22)
    world = World(replace(small, baseline_share=1.0, has_segments=False))
    lived = live(world, tmp_path)

    assert find_incidents(world, lived.episodes) == []
