"""The change of the mean raw score is the sum of the features' parts, and says when it is not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlmon_dagster.trace.raw_score import BASE_VALUE, RawScore, explain_score
from mlmon_dagster.trace.sentences import describe_score
from tests.metrics.test_additivity import FEATURES, WEIGHTS, profiled, rows, spec_of


def split(spec: Any, baseline: pa.Table, now: pa.Table) -> RawScore:
    base, other = profiled(spec, baseline, now)
    found = explain_score(spec, other, base)
    assert found is not None
    return found


def shifted(rng: np.random.Generator, by: dict[str, float], n: int = 4_000, **how: Any) -> pa.Table:
    """Return records of 10 days whose features add so much more to the log-odds of each row."""
    table = rows(rng, n, days=10, **how)
    score = table["score"].to_numpy()
    raw = np.log(score / (1 - score))
    for name, more in by.items():
        column = f"shap:{name}"
        values = table[column].to_numpy() + more
        table = table.set_column(table.column_names.index(column), column, pa.array(values))
    place = table.column_names.index("score")
    return table.set_column(place, "score", pa.array(1 / (1 + np.exp(-raw - sum(by.values())))))


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_add_up_to_the_change_of_the_logged_score(seed: int) -> None:
    rng = np.random.default_rng(seed)
    then, now = shifted(rng, {}), shifted(rng, {"temp": -0.22, "hour": -0.06, "origin": 0.03})
    found = split(spec_of(), then, now)
    means = []
    for table in (now, then):
        score = table["score"].to_numpy()
        means.append(np.log(score / (1 - score)).mean())
    assert found.change == pytest.approx(means[0] - means[1], rel=1e-9)
    assert abs(found.rest) <= 1e-9 * abs(found.change)
    effects = dict(zip(found.split.parts, found.split.effects, strict=True))
    for name in WEIGHTS:
        moved = [t[f"shap:{name}"].to_numpy().mean() for t in (now, then)]
        assert effects[name] == pytest.approx(moved[0] - moved[1], abs=1e-12)


def test_the_sentence_says_what_fell_by_how_much_and_which_features_did_it() -> None:
    rng = np.random.default_rng(0)
    found = split(spec_of(), shifted(rng, {}), shifted(rng, {"temp": -0.5, "hour": -0.2}))
    said = describe_score(found)
    assert said.startswith("The mean score (log-odds) fell by .")
    assert said.index("temp -.") < said.index("hour -.") < said.index("the other 2 ")
    assert "not explained" not in said


@pytest.mark.proof
def test_margins_between_windows_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = []
    for _ in range(10):
        found = split(spec_of(), shifted(rng, {}, 1_000), shifted(rng, {"temp": -0.3}, 1_000))
        truth = np.array([-0.3 if name == "temp" else 0.0 for name in FEATURES])
        held += (np.abs(found.split.effects - truth) <= found.split.margins).tolist()
    assert 0.85 <= np.mean(held) <= 1.0


def test_a_base_value_that_changes_is_a_part_of_its_own() -> None:
    rng = np.random.default_rng(2)
    spec = spec_of(columns={"base_value": "base"})

    def with_base(table: pa.Table, base: float) -> pa.Table:
        score = table["score"].to_numpy()
        raw = np.log(score / (1 - score)) + base + 1.2
        place = table.column_names.index("score")
        table = table.set_column(place, "score", pa.array(1 / (1 + np.exp(-raw))))
        return table.append_column("base_value", pa.array(np.full(len(raw), base)))

    found = split(spec, with_base(shifted(rng, {}), -1.2), with_base(shifted(rng, {}), -2.0))
    effects = dict(zip(found.split.parts, found.split.effects, strict=True))
    assert effects[BASE_VALUE] == pytest.approx(-0.8, abs=1e-12)
    assert abs(found.rest) <= 1e-9 * abs(found.change)


def test_probabilities_are_named_as_such() -> None:
    rng = np.random.default_rng(3)
    found = split(spec_of(), rows(rng, space="identity"), rows(rng, space="identity"))
    assert found.name == "the mean score (probability)"


def test_what_does_not_add_up_is_not_split_and_says_so() -> None:
    rng = np.random.default_rng(4)
    good = rows(rng)
    wrong = good.set_column(
        good.column_names.index("score"), "score", pa.array(rng.uniform(0.1, 0.9, 400))
    )
    found = split(spec_of(), wrong, wrong)
    assert found.problem == "not_additive"
    assert not len(found.split.effects)
    assert "of the rows do not add up to the score, so it is not split." in describe_score(found)


def test_values_of_different_explainers_are_not_split() -> None:
    rng = np.random.default_rng(5)
    spec = spec_of(columns={"explainer": "by"})
    same = split(spec, rows(rng, explainer="a 1"), rows(rng, explainer="a 1"))
    assert (same.problem, len(same.split.effects)) == ("", len(WEIGHTS))
    other = split(spec, rows(rng, explainer="a 1"), rows(rng, explainer="a 2"))
    assert other.problem == "other_explainer"
    assert "of different explainers" in describe_score(other)


def test_without_explained_rows_there_is_nothing_to_say() -> None:
    rng = np.random.default_rng(6)
    table = rows(rng)
    none = pa.nulls(400, pa.float64())
    empty = table.set_column(table.column_names.index("shap:temp"), "shap:temp", none)
    base, now = profiled(spec_of(), table, empty)
    assert explain_score(spec_of(), now, base) is None
    assert explain_score(spec_of(), {}, base) is None
