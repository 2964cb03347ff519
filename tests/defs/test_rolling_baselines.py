"""A model without a baseline dataset is compared with its own earlier windows, from profiles."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from mlmon_dagster.report.health import health_report
from mlmon_dagster.spec.steps import windowed_of
from mlmon_dagster.store.erasure.erase import erase
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.sql import read_frame
from tests.defs.small_model import (
    DAYS,
    NOW,
    ROWS,
    customers,
    drop,
    landing,
    write_declaration,
)
from tests.defs.test_planning import asked
from tests.defs.worlds import World, made_once, opened

pytestmark = pytest.mark.slow

LAST = DAYS[6]
JUDGED = DAYS[4]  # the first with four earlier windows


@pytest.fixture
def moving(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Eight days of a model that is compared with the eight days before, all computed."""
    made = made_once(tmp_path_factory.getbasetemp(), "moving", partial(compute, "{moving: 8d}"))
    yield from copied(made, tmp_path)


@pytest.fixture
def apart(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same, compared with the two days before the last one."""
    make = partial(compute, "{moving: 2d, gap: 1d}")
    yield from copied(made_once(tmp_path_factory.getbasetemp(), "apart", make), tmp_path)


def copied(made: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(made, tmp_path / "copy")
    with opened(tmp_path / "copy", NOW) as world:
        yield world


def compute(baseline: str, folder: Path) -> None:
    """Declare the model, land eight days of it and compute what the planner asks for."""
    path = folder / "models" / "churn.yaml"
    write_declaration(folder)
    path.write_text(
        path.read_text()
        .replace("slices: [region]", f"baseline: {baseline}\nslices: [region]")
        .replace("dataset: dataset, ", "")
    )
    for day in DAYS[:8]:
        frames = customers(day)
        for stream, frame in zip(("predictions", "actuals"), frames, strict=True):
            drop(
                frame.drop(columns="dataset", errors="ignore"),
                landing(folder, stream) / f"{day}.parquet",
            )
    with opened(folder, NOW) as world:
        world.launcher.materialize(world.spec, ("event_log",))
        world.work()


def psi(world: World, day: dt.date) -> pd.DataFrame:
    frame = world.metrics(day)
    return frame[(frame["metric"] == "psi") & (frame["slice_key"] == "all")]


def test_windows_are_learning_until_there_are_enough_and_then_judged(moving: World) -> None:
    assert set(moving.verdicts("drift", DAYS[3])["reason"]) == {"learning"}
    assert set(moving.verdicts("performance", DAYS[3])["reason"]) == {"learning"}
    judged = psi(moving, JUDGED)
    assert set(judged["baseline_kind"]) == {"moving"}
    assert set(judged["n_baseline"]) == {4 * ROWS}
    assert set(psi(moving, DAYS[7])["n_baseline"]) == {7 * ROWS}
    assert set(moving.verdicts("drift", JUDGED)["status"]) == {"OK"}
    found = moving.verdicts("performance", JUDGED).set_index("metric")["status"]
    # Four windows do not say how far they stray.
    assert found.to_dict() == {"roc_auc": "OK", "calibration_gap": "NO_DATA"}
    assert moving.requests() == []
    # The newest windows with ground truth begin while the model was learning.
    assert moving.spec.model in health_report(moving.project.store, moving.spec, NOW).html


@pytest.mark.proof
def test_numbers_are_stored_with_the_maturity_of_their_ground_truth_and_nothing_else(
    moving: World,
) -> None:
    told = read_frame(moving.project.store.state, sa.select(schema.mlmon_metric.c.maturity))
    assert {"mature"} <= set(told["maturity"]) <= {"", "provisional", "mature", "closed"}


@pytest.mark.proof
def test_windows_computed_together_are_compared_with_what_each_alone_is(apart: World) -> None:
    alone = {day: psi(apart, day)["value"].tolist() for day in DAYS[2:8]}
    assert all(alone.values())

    # The first of them has nothing before it, the second has the day before the first.
    assert apart.compute(DAYS[1:8], ("drift",)).is_success

    assert {day: psi(apart, day)["value"].tolist() for day in DAYS[2:8]} == alone
    assert set(apart.verdicts("drift", DAYS[2])["reason"]) != {"learning"}


@pytest.mark.proof
def test_baselines_of_earlier_windows_are_answered_without_reading_a_row(moving: World) -> None:
    before = moving.metrics()
    store = Path(moving.project.store_root)
    for rows in ("inference_records", "event_log"):
        shutil.rmtree(store / rows)
    assert moving.compute(DAYS[:8], ("drift", "performance")).is_success
    names = ["window_start", "column_name", "metric", "slice_value", "value", "baseline_id"]
    assert moving.metrics()[names].equals(before[names])


def test_late_rows_of_an_earlier_window_judge_the_later_ones_again(moving: World) -> None:
    frame = customers(DAYS[2], n=90)[0].drop(columns="dataset")
    frame["id"] = "late-" + frame["id"]
    drop(frame, landing(moving.folder, "predictions") / "late.parquet")
    moving.launcher.materialize(moving.spec, ("event_log",))
    moving.work()
    assert set(psi(moving, JUDGED)["n_baseline"]) == {4 * ROWS + 90}
    assert moving.requests() == []


def test_late_ground_truth_of_earlier_windows_and_what_is_compared_with_them_is_one_look(
    moving: World,
) -> None:
    for day, other in ((DAYS[1], "north"), (DAYS[3], "south")):
        for stream, frame in zip(("predictions", "actuals"), customers(day, n=90), strict=True):
            rows = frame.drop(columns="dataset", errors="ignore")
            drop(
                rows.assign(id=other + rows["id"]),
                landing(moving.folder, stream) / f"{other}.parquet",
            )
    moving.launcher.materialize(moving.spec, ("event_log",))

    requests = moving.requests()
    moving.run(requests)

    assert asked(requests) == [(str(DAYS[1]), str(DAYS[7]), set(windowed_of(moving.spec)))]
    assert set(psi(moving, JUDGED)["n_baseline"]) == {4 * ROWS + 180}
    assert moving.requests() == []


@pytest.mark.proof
def test_a_window_whose_earlier_windows_are_gone_has_no_distance_any_more(apart: World) -> None:
    assert psi(apart, DAYS[2])["value"].notna().all()
    ids = customers(DAYS[0])[0]["id"].tolist()

    erase(apart.project.store, apart.spec, ids, now=NOW)
    apart.work()

    assert psi(apart, DAYS[2])["value"].isna().all()
    verdicts = apart.verdicts("drift", DAYS[2])
    assert set(verdicts["status"]) == {"NO_DATA"}
    assert psi(apart, DAYS[3])["value"].notna().all(), "DAYS[1] is still there"


@pytest.mark.proof
def test_ids_that_are_new_by_nature_are_usual_among_earlier_windows_and_a_new_category_is_not(
    tmp_path: Path,
) -> None:
    write_declaration(tmp_path)
    path = tmp_path / "models" / "churn.yaml"
    path.write_text(
        path.read_text()
        .replace("slices: [region]", "baseline: {moving: 40d}\nslices: [region]")
        .replace("dataset: dataset, ", "")
        .replace("features:\n", "features:\n  agent: {type: categorical}\n")
    )
    first, news = DAYS[0] - dt.timedelta(days=20), 18
    rng = np.random.default_rng(3)
    for number in range(news + 1):
        day = first + dt.timedelta(days=number)
        frame = customers(day)[0].drop(columns="dataset")
        # A tenth of the rows are of agents of that day; the last day has a region nobody knew.
        new = rng.random(len(frame)) < 0.1
        frame["agent"] = np.where(new, f"a{number}", rng.choice(["x", "y"], len(frame)))
        if number == news:
            frame.loc[frame.index[:8], "region"] = "moon"
        drop(frame, landing(tmp_path, "predictions") / f"{day}.parquet")
    path.write_text(path.read_text().replace(f"start: {DAYS[0]}", f"start: {first}"))
    with opened(tmp_path, NOW) as world:
        world.launcher.materialize(world.spec, ("event_log",))
        world.work()
        found = {
            number: world.verdicts("quality", first + dt.timedelta(days=number))
            for number in range(news + 1)
        }
        unseen = {
            number: rows[rows["metric"] == "unseen_rate"].set_index("column_name")["status"]
            for number, rows in found.items()
        }
        assert {s for n in range(14) for s in unseen[n]} == {"NO_DATA"}
        assert {n: unseen[n]["agent"] for n in range(14, news + 1)} == dict.fromkeys(
            range(14, news + 1), "OK"
        )
        assert [unseen[n]["region"] for n in (news - 1, news)] == ["OK", "WARN"]
        assert world.requests() == []
