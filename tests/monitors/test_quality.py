from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.metrics.intervals import wilson
from mlmon_dagster.spec.monitors import Condition
from tests.monitors import planted
from tests.monitors.cases import DAY, metric, only, spec, verdicts


def rate(name: str, column: str, count: int, n: int) -> dict:
    lower, upper = wilson(count, n)
    return metric(name, count / n, column, n=n, lower=float(lower), upper=float(upper))


def test_a_column_of_nulls_fails_with_number_n_and_limit_in_one_sentence():
    row = only(verdicts("quality", [rate("null_rate", "age", 776, 776)]), "quality/null_rate/age")
    assert row["status"] == "WARN"
    assert row["message"] == "age is missing in every row (n 776), above 20 %."
    assert row["threshold"] == "above 0.20"
    assert json.loads(row["details"]) == {"count": 776, "n": 776}


def test_a_share_just_above_the_limit_is_not_written_as_the_limit():
    rows = [metric("unseen_rate", 0.0135, "city", n=2000, lower=0.009, upper=0.02)]
    said = only(verdicts("quality", rows), "quality/unseen_rate/city")["message"]
    assert said == "city has values never seen before in 1.35 % of rows (n 2,000), above 1 %."


def test_a_share_at_the_limit_is_fine():
    row = only(verdicts("quality", [rate("null_rate", "age", 20, 100)]), "quality/null_rate/age")
    assert row["status"] == "OK"
    assert row["message"] == "age is missing in 20 % of rows (n 100), not above 20 %."


@pytest.mark.parametrize(("count", "n", "status"), [(1, 60, "OK"), (2, 60, "OK"), (3, 60, "WARN")])
def test_one_or_two_rows_are_no_evidence_against_a_small_limit(count, n, status):
    rows = verdicts("quality", [rate("unseen_rate", "region", count, n)])
    assert only(rows, "quality/unseen_rate/region")["status"] == status


def test_with_a_limit_of_zero_one_row_fails():
    model = spec(quality={"unseen_rate": {"above": 0.0}})
    rows = verdicts("quality", [rate("unseen_rate", "region", 1, 5000)], model=model)
    assert only(rows, "quality/unseen_rate/region")["status"] == "WARN"


@pytest.mark.parametrize(("count", "status"), [(60, "OK"), (115, "OK"), (150, "WARN")])
def test_new_values_are_news_only_where_they_are_surely_far_above_the_usual(count, status):
    metrics = [rate("unseen_rate", "city", count, 1000), metric("unseen_rate_auto", 0.1, "city")]
    row = only(verdicts("quality", metrics), "quality/unseen_rate/city")
    assert (row["status"], row["threshold"]) == (status, "above 0.10")
    declared = spec(quality={"unseen_rate": {"above": 0.05}})
    row = only(verdicts("quality", metrics, model=declared), "quality/unseen_rate/city")
    assert (row["status"], row["threshold"]) == ("WARN", "above 0.05")


def test_a_feature_where_many_nulls_are_usual_has_a_limit_of_its_own():
    model = spec()
    age = model.features["age"].model_copy(update={"null_rate": Condition(above=0.5)})
    own = model.model_copy(update={"features": {**model.features, "age": age}})
    metrics = [rate("null_rate", "age", 300, 1000), rate("null_rate", "region", 300, 1000)]
    rows = verdicts("quality", metrics, model=own)
    row = only(rows, "quality/null_rate/age")
    assert (row["status"], row["threshold"]) == ("OK", "above 0.50")
    assert only(rows, "quality/null_rate/region")["status"] == "WARN"


@pytest.mark.parametrize(("count", "status"), [(8, "OK"), (50, "WARN")])
def test_a_feature_of_which_no_null_is_expected_warns_of_a_share_past_a_hundredth(count, status):
    row = only(
        verdicts("quality", [rate("null_rate", "city", count, 1000)]), "quality/null_rate/city"
    )
    assert (row["status"], row["threshold"]) == (status, "above 0.01")


@pytest.mark.parametrize("limit", [{"above": 0.002}, {"above": 0.6, "error_at": 0.7}])
def test_a_limit_of_all_features_counts_where_it_is_stricter_and_says_what_is_an_error(limit):
    metrics = [rate("null_rate", "city", 800, 1000)]
    row = only(verdicts("quality", metrics, model=spec(quality={"null_rate": limit})),
               "quality/null_rate/city")  # fmt: skip
    assert row["threshold"] == ("above 0.002" if limit["above"] < 0.01 else "above 0.01")
    assert row["status"] == ("ERROR" if "error_at" in limit else "WARN")


def sliced(name: str, column: str, counts: dict[str, tuple[int, int]], by: str = "region"):
    """Return the rate of the whole and of the values of a slice, from (count, rows) of each."""
    parts = [
        rate(name, column, *pair) | {"slice_key": by, "slice_value": value}
        for value, pair in counts.items()
    ]
    whole = [sum(pair[i] for pair in counts.values()) for i in range(2)]
    return [rate(name, column, *whole), *parts]


def test_nulls_of_one_slice_name_it():
    counts = {"north": (0, 500), "south": (48, 300), "west": (2, 200)}
    row = only(verdicts("quality", sliced("null_rate", "city", counts)), "quality/null_rate/city")
    assert row["message"] == (
        "city is missing in 5 % of rows (n 1,000), above 1 %. "
        "48 of these 50 rows have region = south, where it is 16 %."
    )
    assert [part["slice_value"] for part in json.loads(row["details"])["worst_slices"]] == ["south"]


@pytest.mark.parametrize(
    ("column", "by", "counts"),
    [
        ("city", "region", {"north": (26, 500), "south": (15, 300), "west": (9, 200)}),
        ("region", "region", {"(null)": (50, 50), "north": (0, 950)}),
        ("region", "age,region", {"(null)": (50, 50), "north": (0, 950)}),
    ],
)
def test_no_slice_is_named_where_lots_explain_it_or_it_is_the_column_itself(column, by, counts):
    model = spec(quality={"null_rate": {"above": 0.01}})
    row = only(verdicts("quality", sliced("null_rate", column, counts, by), model=model),
               f"quality/null_rate/{column}")  # fmt: skip
    assert row["status"] == "WARN"
    assert "worst_slices" not in json.loads(row["details"])


def test_unseen_values_are_named_unless_the_spec_says_that_they_are_personal():
    metrics = [rate("unseen_rate", column, 50, 500) for column in ("region", "name", "city")]
    unseen = {
        ("region", DAY): {"XX": 40, "YY": 10},
        ("name", DAY): {"Jane Doe": 50},
        ("city", DAY): {"12 Elm St": 50},
    }
    rows = verdicts("quality", metrics, unseen=unseen)
    assert json.loads(only(rows, "quality/unseen_rate/region")["details"])["unseen"] == {
        "XX": 40, "YY": 10,
    }  # fmt: skip
    assert "Jane" not in str(only(rows, "quality/unseen_rate/name"))
    assert "12 Elm St" in only(rows, "quality/unseen_rate/city")["message"]


def test_ranges_are_judged_only_where_declared_and_columns_only_where_chosen():
    metrics = [
        rate("out_of_range_rate", "age", 0, 500), rate("null_rate", "age", 0, 500),
        rate("null_rate", "region", 0, 500),
    ]  # fmt: skip
    found = {row["monitor"] for row in verdicts("quality", metrics)}
    assert {"quality/out_of_range_rate/age", "quality/null_rate/region"} <= found
    model = spec(quality={"columns": ["age"]})
    chosen = verdicts("quality", metrics, model=model)
    assert {row["column_name"] for row in chosen} == {"age"}


def test_shap_values_of_other_scores_fail_where_they_are_added_up():
    rows = verdicts("quality", [rate("not_additive_rate", ":table", 400, 1000)])
    row = only(rows, "quality/not_additive_rate")
    assert row["status"] == "WARN"
    assert row["message"] == (
        "SHAP values do not add up to the score in 40 % of rows (n 1,000), above 1 %."
    )
    assert not [r for r in verdicts("quality", []) if r["metric"] == "not_additive_rate"]


def test_a_verdict_names_the_value_that_makes_most_of_it_where_values_are_shown():
    def judged(column: str, **names: int) -> dict:
        unseen = {(column, DAY): names}
        rows = verdicts("quality", [rate("unseen_rate", column, 50, 500)], unseen=unseen)
        return json.loads(only(rows, f"quality/unseen_rate/{column}")["details"])

    assert judged("region", XX=30, YY=20)["term"] == "XX"
    assert "term" not in judged("region", XX=25, YY=25)
    assert "term" not in judged("name", XX=50)


def test_a_verdict_says_what_else_is_wrong_with_its_column():
    metrics = [
        rate("unseen_rate", "region", 0, 500), rate("null_rate", "region", 300, 500),
        rate("null_rate", "age", 0, 500),
    ]  # fmt: skip
    rows = verdicts("quality", metrics, constant={("age", DAY)})
    found = {r["monitor"]: json.loads(r["details"]).get("beside") for r in rows}
    assert found["quality/unseen_rate/region"] == ["null_rate"]
    assert found["quality/null_rate/region"] is None
    assert found["quality/null_rate/age"] == ["constant"]


def test_a_window_of_one_value_is_constant_unless_the_baseline_is():
    def put(column: str, value: object) -> planted.Fault:
        return lambda rows, _: rows.assign(**{column: value})

    rng = np.random.default_rng(0)
    faults = [put("channel", "web"), put("temp", 15.0), put("state", "new"), lambda rows, _: rows]
    days = {planted.DAY + pd.Timedelta(days=i): f(planted.draw(rng, 500), rng)
            for i, f in enumerate(faults)}  # fmt: skip
    rows = planted.world().judge(days, "quality")
    found = {(r["column_name"], r["window_start"].day - planted.DAY.day) for r in rows
             if "constant" in json.loads(r["details"]).get("beside", ())}  # fmt: skip
    assert found == {("channel", 0), ("temp", 1), ("state", 2)}
