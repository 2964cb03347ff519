"""First lines of drift: what a person says who knows no statistics, within 80 characters."""

from __future__ import annotations

import math

import pytest

from mlmon_dagster.metrics.drift.column_change import ColumnChange as Change
from mlmon_dagster.monitors.change_wording import describe_nature, in_words
from mlmon_dagster.spec import ModelSpec
from tests.conftest import make_spec
from tests.monitors.cases import metric, only, verdicts

FEATURES = {
    "age": {"type": "numeric", "unit": "years"},
    "temp": {"type": "numeric"},
    "humid": {"type": "numeric", "unit": "%"},
    "hour": {"type": "numeric", "unit": "local hour of departure"},
    "income": {"type": "numeric", "pii": True},
    "region": {"type": "categorical", "pii": False},
    "city": {"type": "categorical"},
    "signed_up": {"type": "datetime"},
    "comment": {"type": "text"},
}
DAY = 86_400.0


def model() -> ModelSpec:
    return make_spec(features=FEATURES)


@pytest.mark.parametrize(
    ("column", "change", "said"),
    [
        ("age", Change("place", 55, 40), "age is 15 years higher (median 40 to 55)"),
        ("temp", Change("place", 40, 55), "temp is 15 lower (median 55 to 40)"),
        ("humid", Change("place", 25, 51), "humid is 26 points lower (median 51 to 25)"),
        ("hour", Change("place", 10, 14), "hour is 4 lower (median 14 to 10)"),
        ("temp", Change("place", 4, 40), "temp is 10 times lower (median 40 to 4)"),
        ("temp", Change("place", 400, 40), "temp is 10 times as high (median 40 to 400)"),
        ("temp", Change("place", 400, 40, is_mean=True),
         "temp is 10 times as high (mean 40 to 400)"),
        ("temp", Change("above", 0.998),
         "temp lies above everything seen before in 99.8 % of rows"),
        ("temp", Change("missing", 0.3, 0.02), "temp is missing in 30 % of rows, before in 2 %"),
        ("temp", Change("value", 1.0, 0.0, "50"), "temp is 50 in every row"),
        ("temp", Change("width", 50, 25), "temp varies 2 times as much as before"),
        ("temp", Change("shape"), "temp is distributed differently from before"),
        ("age", Change("range", 0.41, 0.28, low=40, high=52),
         "age is 40 to 52 years in 41 % of rows, before in 28 %"),
        ("humid", Change("range", 0.3, 0.4, low=-math.inf, high=52),
         "humid is at most 52 points in 30 % of rows, before in 40 %"),
        ("signed_up", Change("range", 0.3, 0.2, low=5 * DAY, high=math.inf),
         "signed_up is at least 5 days in 30 % of rows, before in 20 %"),
        ("income", Change("range", 0.3, 0.2, low=1234, high=math.inf),
         "one range of income is in 30 % of rows, before in 20 %"),
        ("region", Change("value", 0.45, 0.2, "north"),
         "region is north in 45 % of rows, before in 20 %"),
        ("city", Change("unseen", 0.12, 0.001),
         "city has new values in 12 % of rows, before in 0.1 %"),
        ("signed_up", Change("place", 5 * DAY, 2 * DAY),
         "signed_up is 3 days older (median 2 to 5)"),
        ("comment", Change("place", 60, 40), "comment is 20 characters longer (median 40 to 60)"),
        ("score", Change("place", 0.18, 0.24), "score is 0.06 lower (median 0.24 to 0.18)"),
    ],
)  # fmt: skip
def test_the_first_line_says_what_changed(column, change, said):
    assert in_words(model(), column, change) == said
    assert len(f"flight_delay: {said}") <= 80


def test_the_value_is_named_unless_its_column_is_personal():
    change = Change("value", 0.45, 0.2, "Springfield")
    assert (
        in_words(model(), "city", change) == "city is Springfield in 45 % of rows, before in 20 %"
    )
    assert in_words(model(), "income", change) == (
        "income has one value (not shown: personal) in 45 % of rows, before in 20 %"
    )
    assert in_words(model(), "comment", change) == (
        "comment has one value in 45 % of rows, before in 20 %"
    )


def test_a_long_value_is_cut():
    said = in_words(model(), "city", Change("value", 0.45, 0.2, "x" * 200))
    assert said == f"city is {'x' * 39}… in 45 % of rows, before in 20 %"


def test_numbers_of_a_personal_column_are_told_by_its_spread_alone():
    said = in_words(model(), "income", Change("place", 55, 40, spread=10))
    assert said == "income is 1.5 standard deviations higher than before"
    assert in_words(model(), "income", Change("value", 1.0, 0.0, "50")) == (
        "income is the same in every row"
    )


def test_a_verdict_says_what_changed_and_the_statistics_in_a_second_line():
    rows = [metric("psi", 0.63, "age", p_value=1e-8, by_chance=0.02)]
    told = only(
        verdicts("drift", rows, changes=lambda column, start, others: Change("place", 55, 40)),
        "drift/psi/age",
    )["message"]
    assert told == (
        "age is 15 higher (median 40 to 55).\n"
        "PSI of age is 0.63; an unchanged day has 0.02 on average, and 0.10 more fails "
        "(n 1,000, baseline n 5,000)."
    )


def test_nothing_is_worked_out_of_columns_that_do_not_fail():
    def fail(column, start, others):
        raise AssertionError(column)

    rows = [metric("psi", 0.01, "age", p_value=0.5)]
    assert only(verdicts("drift", rows, changes=fail), "drift/psi/age")["status"] == "OK"


@pytest.mark.parametrize(
    ("change", "nature"),
    [
        (None, {}),
        (Change("place", 55, 40, away=1.5, wide=1.0), {"place": 1.5, "width": 1.0}),
        (Change("below", 0.9), {}),
        (Change("unit", 1.0, factor=1000.0), {}),
        (Change("rounded", factor=0.5), {"term": "rounded 0.5"}),
        (Change("value", 0.12, 0.0, value="7"), {}),
        (Change("value", 1.0, 0.0, value="7"), {"term": "value"}),
        (Change("range", 0.2, 0.1), {}),
        (Change("missing", 0.4), {"term": "missing"}),
    ],
)  # fmt: skip
def test_what_place_and_width_say_is_no_term_of_a_change(change, nature):
    assert describe_nature(change) == nature
