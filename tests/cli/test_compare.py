"""``mlmon compare`` and ``mlmon skew``: another version, and the same features from elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.spec import load_model
from tests.cli.conftest import Command
from tests.defs.small_model import DAYS, MODEL, NOW, customers, drop, landing, make_project
from tests.pipeline.looking import look

AT = ("--now", NOW.isoformat())
SEEN = DAYS[:12]  # days with ground truth
pytestmark = pytest.mark.slow


def served(day: object) -> pd.DataFrame:
    return customers(day)[0]  # type: ignore[arg-type]


@pytest.fixture
def shadowed(folder: Path) -> Path:
    """A project whose shadow guesses, and whose offline features shift a column in some rows."""
    rng = np.random.default_rng(3)
    days = [served(day) for day in SEEN if day not in (DAYS[4], DAYS[7])]
    shadow = pd.concat(days).assign(dataset="shadow", version="4")
    shadow["score"] = rng.random(len(shadow))
    shadow["decision"] = (shadow["score"] >= 0.5).astype(int)
    offline = pd.concat(days).assign(dataset="training")
    chosen = rng.choice(len(offline), len(offline) // 20, replace=False)
    age = offline["age"].to_numpy().copy()
    age[chosen] = age[np.roll(chosen, 1)]
    offline["age"] = age
    offline["balance"] = offline["balance"] * 100
    for name, frame in (("shadow", shadow), ("offline", offline)):
        drop(frame, landing(folder, "predictions") / f"{name}.parquet")
    look(make_project(folder), load_model(folder / "models" / f"{MODEL}.yaml"), "run")
    return folder


@pytest.mark.proof
def test_a_shadow_that_guesses_is_worse_and_a_skewed_feature_is_found_by_id(
    shadowed: Path, mlmon: Command
) -> None:
    span = ("--from", DAYS[0], "--to", DAYS[11])
    ended = mlmon("--project", shadowed, *AT, "compare", MODEL, *span)
    lines = {line.split("  ")[0]: line for line in ended.out.splitlines()}

    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"{MODEL}, {DAYS[0]} to {DAYS[11]}: 4 (")
    assert "on the same predictions." in ended.out
    for name in ("ROC AUC", "Share of right decisions", "Less squared error"):
        assert lines[name].rstrip().endswith("worse"), ended.out

    skewed = mlmon("--project", shadowed, *AT, "skew", MODEL, *span)
    rows = {line.split()[0]: line for line in skewed.out.splitlines()}
    assert skewed.code == 0, skewed.err
    assert " 100 % " in rows["balance"]
    assert "unit of 0.01" in rows["balance"]
    assert rows["age"].split()[2].startswith(("4", "5"))
    assert " 0 % " in rows["region"]
