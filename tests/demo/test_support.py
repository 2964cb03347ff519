"""The support story: what was drawn is what is told, and the page says what the demo prints."""

from __future__ import annotations

import datetime as dt
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.demo.support import FIRST_DAY, LAUNCH, NEW, OTHER_JUDGE, Support
from tests.defs.small_model import VARIABLES

PAGE = (Path(__file__).parents[2] / "docs" / "demo.md").read_text()
DAY = dt.timedelta(days=1)


def evaluate(support: Support, day: dt.date) -> pd.DataFrame:
    """Return what comes on a day of evaluations."""
    return support.draw_evaluations(day, support.draw_calls(day), support.draw_calls(day - DAY))


def test_a_day_is_drawn_alike_whenever_it_is_drawn() -> None:
    one, other = Support(), Support()
    for day in (FIRST_DAY, LAUNCH):
        pd.testing.assert_frame_equal(one.draw_calls(day), other.draw_calls(day))
        pd.testing.assert_frame_equal(evaluate(one, day), evaluate(other, day))


def test_nobody_asks_about_virtual_cards_before_they_are_launched() -> None:
    support = Support()
    intent = dict(zip(support.questions["text"], support.questions["intent"], strict=True))

    def share(day: dt.date) -> float:
        return float(support.draw_calls(day)["question"].map(intent).isin(NEW).mean())

    assert max(share(LAUNCH - i * DAY) for i in range(1, 60)) == 0
    assert 0.12 < share(LAUNCH) < 0.28


def test_people_judge_and_customers_speak_of_what_was_drawn() -> None:
    support = Support()
    days = [FIRST_DAY + i * DAY for i in range(20)]
    calls = pd.concat(support.draw_calls(day) for day in days)
    said = pd.concat(evaluate(support, day) for day in days)
    both = said.merge(calls[["call", "is_good"]], on="call")
    people = both[both["name"] == "correct"]
    assert ((people["label"] == "correct") == people["is_good"]).all()
    judge = both[both["name"] == "faithful"]
    passed = judge["value"] >= 4
    assert passed[judge["is_good"]].mean() == pytest.approx(0.93, abs=0.01)
    assert (~passed[~judge["is_good"]]).mean() == pytest.approx(0.82, abs=0.03)
    assert len(judge) == len(calls)
    week = evaluate(support, OTHER_JUDGE[0])
    assert set(week.dropna(subset=["evaluator"])["evaluator"]) == {"judge-small/1"}


def test_vectors_of_one_intent_are_nearer_to_each_other_than_to_others() -> None:
    support = Support()
    intents = support.questions["intent"].to_numpy()
    vectors = support.vectors
    rng = np.random.default_rng(1)
    some = rng.choice(len(vectors), 600, replace=False)
    alike = intents[some][:, None] == intents[some]
    near = vectors[some] @ vectors[some].T
    np.fill_diagonal(alike, val=False)
    assert near[alike].mean() > near[~alike].mean() + 0.2


@pytest.mark.proof
def test_the_support_story_ends_with_what_the_page_shows(tmp_path: Path) -> None:
    table = re.search(r"```\n(assistant by month\n.*?)```", PAGE, re.DOTALL)
    alerts = re.search(r"(Alerts of the quarter \(.*?)```", PAGE, re.DOTALL)
    assert table is not None
    assert alerts is not None
    words = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(tmp_path), "demo"]
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}

    ended = subprocess.run(
        [*words, "--story", "support"], capture_output=True, text=True, env=env, check=False
    )

    assert ended.returncode == 0, ended.stdout[-3_000:] + ended.stderr[-3_000:]
    assert table[1] in ended.stdout
    assert alerts[1] in ended.stdout
