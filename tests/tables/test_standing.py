"""What a model's status says of families that could judge, failed, or could not."""

from __future__ import annotations

import pytest

from mlmon_dagster.spec import parse_model
from mlmon_dagster.tables.standing import Standing, describe_standing, overall
from tests.alerts.worlds import result


@pytest.mark.parametrize(
    ("statuses", "status"),
    [
        (("OK", "OK", "-"), "OK"),
        (("OK", "NO_DATA", "-"), "NO_DATA"),
        (("WARN", "NO_DATA"), "WARN"),
        (("ERROR", "WARN", "NO_DATA"), "ERROR"),
        (("-", "-"), "NO_DATA"),
        ((), "NO_DATA"),
    ],
)
def test_what_was_not_judged_is_not_healthy(statuses, status):
    assert overall([Standing("drift", one, "", "") for one in statuses]) == status


SPEC = """
model: churn
task: binary_classification
owners: [team:growth]
time: {zone: UTC, start: 2026-03-01}
source: {predictions: {path: "a/*.csv"}, actuals: {path: "b/*.csv"}}
columns: {prediction_id: id, event_time: at, score: p, prediction: said, actual: churned}
features: {age: {type: numeric}}
"""


@pytest.mark.parametrize(
    ("said", "family", "reason"),
    [
        ("baseline: {moving: 28d}", "estimated_performance", ": estimates need a fixed baseline"),
        ("datasets: {validation: old}", "estimated_performance", ""),
        ("baseline: {moving: 28d}", "performance", ""),
    ],
)
def test_a_family_without_verdicts_says_what_its_spec_lacks(said, family, reason):
    spec = parse_model(f"{SPEC}{said}\n", "churn.yaml")
    (found,) = [one for one in describe_standing(spec, []) if one.family == family]
    assert found.text.startswith(f"nothing to judge{reason}")
    assert reason or found.text == "nothing to judge"


def test_of_a_model_without_ground_truth_no_performance_is_judged():
    text = SPEC.replace(', actuals: {path: "b/*.csv"}', "").replace(", actual: churned", "")
    by_family = {one.family: one.text for one in describe_standing(parse_model(text, "m.yaml"), [])}
    assert by_family["performance"] == "nothing to judge: no ground truth is declared"
    assert by_family["estimated_performance"] == "nothing to judge"


def test_what_was_not_judged_has_not_passed():
    spec = parse_model(f"{SPEC}baseline: {{moving: 28d}}\n", "churn.yaml")
    judged = [
        result(1, status, column_name=column, reason=reason)
        for status, column, reason in (
            ("OK", "age", ""), ("NO_DATA", "plan", "learning"), ("NO_DATA", "income", "learning")
        )
    ]  # fmt: skip

    def said(rows):
        return {one.family: one.text for one in describe_standing(spec, rows)}["drift"]

    assert said(judged) == (
        "1 verdict passed, 2 not judged: learning; there is no baseline yet to compare with"
    )
    assert said(judged[:1]) == "1 verdict, all passed"
