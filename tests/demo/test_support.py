"""The support story: what was drawn is what is told."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.demo.support import FIRST_DAY, LAUNCH, NEW, OTHER_JUDGE, Support

DAY = dt.timedelta(days=1)


def evaluate(support: Support, day: dt.date) -> pd.DataFrame:
    """Return what comes on a day of evaluations."""
    return support.draw_evaluations(day, support.draw_calls(day), support.draw_calls(day - DAY))


@pytest.fixture(scope="module")
def support() -> Support:
    """What takes seconds to prepare and is only drawn from."""
    return Support()


def test_a_day_is_drawn_alike_whenever_it_is_drawn(support: Support) -> None:
    other = Support()
    for day in (FIRST_DAY, LAUNCH):
        pd.testing.assert_frame_equal(support.draw_calls(day), other.draw_calls(day))
        pd.testing.assert_frame_equal(evaluate(support, day), evaluate(other, day))


def test_nobody_asks_about_virtual_cards_before_they_are_launched(support: Support) -> None:
    intent = dict(zip(support.questions["text"], support.questions["intent"], strict=True))

    def share(day: dt.date) -> float:
        return float(support.draw_calls(day)["question"].map(intent).isin(NEW).mean())

    assert max(share(LAUNCH - i * DAY) for i in range(1, 60)) == 0
    assert 0.12 < share(LAUNCH) < 0.28


def test_people_judge_and_customers_speak_of_what_was_drawn(support: Support) -> None:
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


def test_vectors_of_one_intent_are_nearer_to_each_other_than_to_others(support: Support) -> None:
    intents = support.questions["intent"].to_numpy()
    vectors = support.vectors
    rng = np.random.default_rng(1)
    some = rng.choice(len(vectors), 600, replace=False)
    alike = intents[some][:, None] == intents[some]
    near = vectors[some] @ vectors[some].T
    np.fill_diagonal(alike, val=False)
    assert near[alike].mean() > near[~alike].mean() + 0.2
