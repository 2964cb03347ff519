"""``mlmon effect``: what slow requests and other causes go with, from a project's own records."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import mlmon_dagster as mm
from mlmon_dagster.pipeline.ingest import ingest
from mlmon_dagster.pipeline.run import run
from mlmon_dagster.spec import complete_windows, load_model
from mlmon_dagster.work import Work
from tests.cli.conftest import Command
from tests.defs.small_model import customers, drop, landing, make_project, write_declaration

MODEL = "churn"
DAYS = tuple(dt.date(2024, 3, 1) + dt.timedelta(days=day) for day in range(20))
NOW = dt.datetime(2024, 3, 21, 6, tzinfo=dt.UTC)
AT = ("--now", NOW.isoformat())
SPAN = ("--from", DAYS[0], "--to", DAYS[-1])
pytestmark = pytest.mark.slow


def served(day: dt.date) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return customers who pay .02 less a millisecond; in the west all is slower and cheaper.

    Half of them were slowed by 40 ms, by lot. A twentieth failed: no latency, and nothing paid.
    """
    predictions, truths = customers(day)
    rng, n = np.random.default_rng(day.toordinal()), len(predictions)
    west = (predictions["region"] == "west").to_numpy()
    arm = rng.integers(0, 2, n)
    latency = rng.lognormal(4.6, 0.4, n) * np.where(west, 1.8, 1.0) + 40 * arm
    paid = 20 - 0.02 * latency - 6 * west + rng.normal() + rng.normal(0, 1, n)
    failed = rng.random(n) < 0.05
    latency, paid = np.where(failed, np.nan, latency), np.where(failed, 0.0, paid)
    predictions = predictions.assign(latency_ms=latency, arm=np.where(arm, "slowed", "as is"))
    return predictions, truths.assign(revenue=paid)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project of twenty days whose files hold what was paid."""
    folder = tmp_path / "shop"
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["columns"]["outcomes"] = {"revenue": "revenue"}
    declared["features"]["arm"] = {"type": "categorical"}
    arm = {"column": "arm", "control": "as is", "treatment": "slowed"}
    declared["effects"] = [{"within": ["region"], "experiment": arm}]
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    for stream, frames in zip(
        ("predictions", "actuals"), zip(*map(served, DAYS), strict=True), strict=True
    ):
        drop(pd.concat(frames), landing(folder, stream) / "all.parquet")
    project = make_project(folder, lambda: NOW)
    try:
        spec = load_model(path)
        windows = complete_windows(spec.time, NOW)
        work = Work(project, spec, windows, NOW, "run", False)
        ingest(work, print)
        run(work, ("inference_store",))
    finally:
        project.store.close()
    return folder


def test_the_declared_effect_is_told_with_its_arm_its_failures_and_its_ranges(
    shop: Path, mlmon: Command
) -> None:
    ended = mlmon("--project", shop, *AT, "effect", MODEL, *SPAN)
    trial, unit, slope, plain, failed = ended.out.splitlines()[2:7]

    assert ended.code == 0, ended.err
    assert trial.startswith("Drawn by lot: arm slowed has -0.")
    assert "an effect" in trial
    assert unit.startswith("The arm moved latency_ms by +4")
    assert slope.startswith("100 ms more latency_ms goes with -2")
    assert slope.endswith("of the same region and its window: an association, not yet an effect.")
    assert plain.startswith("Over all rows it would be -")
    assert failed.startswith("5.") or failed.startswith("4.")
    table = ended.out.splitlines()[7:]
    assert table[0].split() == ["latency_ms", "rows", "mean", "adjusted", "from", "to"]
    assert len([line for line in table if line.strip()]) == 11

    found = mm.open(shop).effect(MODEL, first=DAYS[0], last=DAYS[-1])
    assert found.effect is not None
    assert found.effect.slope.lower < -0.02 < found.effect.slope.upper
    assert found.effect.unadjusted.upper < -0.022
    assert found.trial is not None
    assert found.trial.is_valid


def test_another_cause_is_asked_for_by_options(shop: Path, mlmon: Command) -> None:
    ended = mlmon(
        "--project", shop, *AT, "effect", MODEL, *SPAN,
        "--cause", "age", "--per", "10", "--within", "region,arm",
    )  # fmt: skip

    assert ended.code == 0, ended.err
    assert "10 more age goes with" in ended.out
    assert "among rows of the same region and arm and its window" in ended.out


def test_what_cannot_be_asked_says_what_can(shop: Path, mlmon: Command) -> None:
    def said(*options: object) -> str:
        ended = mlmon("--project", shop, *AT, "effect", MODEL, *options)
        assert ended.code == 2
        return ended.err

    assert "cause: 'agee' is no number that is logged; did you mean 'age'?" in said(
        "--cause", "agee"
    )
    assert "'nowhere' is no feature with values to compare within" in said("--within", "nowhere")
    assert "more than 0, such as 100" in said("--per", "0")
    assert "no complete window" in said("--from", "2030-01-01")
