"""Titles of messages fit a phone's line, whatever the families say and columns are called."""

from __future__ import annotations

import json
import math
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlmon_dagster.alerts.messages import view as say
from mlmon_dagster.alerts.messages.message import Message
from mlmon_dagster.alerts.messages.view import (
    MAX_TITLE,
    AlertView,
    Changes,
    Context,
    fit_title,
    view_of,
)
from mlmon_dagster.metrics.drift.column_change import ColumnChange
from mlmon_dagster.monitors.change_wording import in_words
from mlmon_dagster.monitors.wording import no_verdict, number, subject, told
from tests.alerts.worlds import day, spec_of
from tests.conftest import make_spec

SHORT, LONG = "age", "average_monthly_recurring_revenue_of_the_last_twelve_months_eur"
COLUMNS = (SHORT, LONG, "customer_lifetime_value_EUR_gross")
CHANGES = (
    ColumnChange("place", 5_512_345.5, 40.2), ColumnChange("place", 40.2, 55.123, spread=10),
    ColumnChange("above", 0.998), ColumnChange("missing", 0.3123, 0.0213),
    ColumnChange("unseen", 0.12, 0.001), ColumnChange("other", 0.31, 0.02),
    ColumnChange("value", 0.4512, 0.2012, "a value of forty characters and even more"),
    ColumnChange("width", 50, 25), ColumnChange("shape"),
    ColumnChange("range", 0.411, 0.283, low=40_123.4, high=1_052_123.7),
    ColumnChange("range", 0.411, 0.283, low=-math.inf, high=52),
    ColumnChange("ceiling", 0.1234, 0.1134, "1234567.8"), ColumnChange("floor", 0, 0.1134, "0.1"),
    ColumnChange("respelled", 0.41, 0.0, "'new york ' for 'New York'"),
    ColumnChange("rounded", 1.0, 0.1, factor=100.0), ColumnChange("cut", 1.0, 0.1, factor=0.001),
    ColumnChange("unit", 0.115, value="0", low=53.4, high=5_529.0, factor=1000.0),
    ColumnChange("unit", 1.0, value="0", low=53_412.3, high=552_921.1, factor=3.28084),
    ColumnChange("unit", 1.0, value="32", low=14.9, high=59.5, factor=1.8),
    ColumnChange("sign", 0.299, factor=-1.0), ColumnChange("swapped", value=LONG),
    ColumnChange("groups", 0.0123, 0.8123, low=3_812.4, high=8_251.1),
    ColumnChange("exchanged", 0.5123, 0.1523, "a value of forty characters and even more"),
    ColumnChange("step", 15.0, 14.0, factor=1.0),
)  # fmt: skip
SLICES = (
    {"slice_key": "all", "slice_value": "all"},
    {"slice_key": "country,payment_method", "slice_value": "Bosnia and Herzegovina,invoice"},
)
METRICS = {
    "quality": ("null_rate", "nan_rate", "unseen_rate", "out_of_range_rate"),
    "performance": ("roc_auc", "calibration_gap", "bias", "mae", "top_k_accuracy"),
    "estimated_performance": ("estimated_roc_auc", "roc_auc_residual"),
    "service": ("p95_latency_ms", "error_rate", "n"),
    "business": ("expected_value",),
    "schema": ("bad_rate", "duplicate_rate", "conflict_rate"),
    "freshness": ("actuals_missing", "no_data_for"),
    "versions": ("skew_rate", "canary_share"),
}
OF_COLUMNS = ("quality",)


def view(family: str, metric: str, column: str, message: str, **more: Any) -> AlertView:
    row = {
        "fingerprint": f"{family}{metric}{column}", "episode": 1, "model": "credit",
        "monitor": f"{family}/{metric}/{column}", "family": family, "metric": metric,
        "column_name": column, "slice_key": "all", "slice_value": "all", "severity": "WARN",
        "state": "FIRING",
        "value": 0.4, "message": message, "opened_window": day(1), "last_window_start": day(3),
        "owner": "", "runbook": "", "resolved_reason": "recovered", "muted_reason": "",
        "acked_by": None,
        "details": json.dumps(
            {"newest_window_end": day(3).isoformat(), "newest_value": 0.1234}
        ), **more,
    }  # fmt: skip
    return view_of(row)


def all_views(columns: tuple[str, ...] = COLUMNS) -> list[AlertView]:
    spec = make_spec(features={name: {"type": "numeric"} for name in columns})
    found = []
    for column, change in product(columns, CHANGES):
        said = told(in_words(spec, column, change), f"PSI of {column} is 0.61, above 0.10")
        found.append(view("drift", "psi", column, said))
    for family, metrics in METRICS.items():
        for metric, column, part in product(
            metrics, columns if family in OF_COLUMNS else (":table",), SLICES
        ):
            name = subject(metric, column, part)
            said = f"{name} is {number(0.6)} (n {123_456:,}), above {number(0.2)}, before 0.01"
            found.append(view(family, metric, column, told(said, "More."), **part))
            missing = no_verdict(name, "few_windows", 1_200)
            found.append(view(family, "no_verdict", ":table", missing))
    return found


def messages_of(context: Context, views: list[AlertView]) -> list[Message]:
    firing, n_more = views, views[:1]
    kinds = [
        Changes(**{kind: n_more})
        for kind in ("opened", "escalated", "revised", "resolved", "missed")
    ]
    return [
        say.head_message(context, firing),
        say.closed_message(context, firing),
        say.repeat_message(context, firing),
        say.missed_message(context, firing)[0],
        say.summary_message(context, firing),
        *(say.change_message(context, change, firing) for change in kinds),
    ]


@pytest.mark.parametrize(
    "model", ["credit", "late_payment_risk_of_small_business_customers_europe"]
)
def test_titles_of_each_alert_alone_and_of_each_third_with_eight_more_fit_and_lose_nothing(
    model: str,
) -> None:
    context = Context(spec_of(model))
    views = all_views()
    every = [
        (one, len(group), message)
        for i, one in enumerate(views)
        for group in ([one], [one, *views[i + 1 : i + 9]])[: 1 if i % 3 else 2]
        for message in messages_of(context, group)
    ]

    assert len(every) > 2_000
    too_long = [m.title for _, _, m in every if len(m.title) > MAX_TITLE or "\n" in m.title]
    assert not too_long
    lost = [
        (one.headline, m.title)
        for one, size, m in every
        if size == 1
        and one.headline not in m.title
        and not any(one.headline in item.sentence or one.name in item.sentence for item in m.items)
    ]
    assert not lost


def test_titles_name_the_column_or_metric_and_no_statistic() -> None:
    context = Context(spec_of("credit"))
    for one in all_views((SHORT,)):
        title = say.head_message(context, [one]).title
        about = one.row["column_name"]
        said = one.headline.split(": ")[0] if one.row["metric"] == "no_verdict" else one.headline
        metric = said.split(" is ")[0].split(" for ")[0].split(" of ")[0]
        assert (about if about != ":table" else metric) in title
        assert "PSI" not in title
        assert "p =" not in title


def test_a_feature_that_moved_is_told_before_the_score_that_it_moved() -> None:
    score = view("drift", "psi", "score", "score is 0.10 lower (median 0.42 to 0.33).")
    weight = view("drift", "psi", "weight", "weight is 1,000 times lower in every row.")

    found = say.worst_first([score, weight])

    assert [one.row["column_name"] for one in found] == ["weight", "score"]


@given(st.text(max_size=200), st.text(max_size=400), st.text(max_size=30))
def test_whatever_is_said_a_title_is_one_line_that_fits(before: str, text: str, rest: str) -> None:
    title = fit_title(before, text, rest)

    assert len(title) <= MAX_TITLE
    assert "\n" not in title


@given(st.text(max_size=200), st.text(max_size=400))
def test_what_stands_at_the_end_of_a_title_is_never_cut(before: str, text: str) -> None:
    rest = "; 12 still firing, 10 recovering"

    assert fit_title(before, text, rest).endswith(rest)


def test_a_title_drops_why_it_is_revised_before_what_is_wrong() -> None:
    title = fit_title(
        "credit: 1 revised after late data: ",
        "psi of balance is 0.56",
        "; 1 still firing, 1 recovering",
    )

    assert title == "credit: 1 revised: psi of balance is 0.56; 1 still firing, 1 recovering"


def test_the_summary_of_a_backfill_names_the_rows_of_its_worst_alert() -> None:
    worst, other = all_views((LONG,))[:2]
    commands = say.summary_message(Context(spec_of("credit")), [worst, other]).commands
    assert commands[0] == "mlmon alerts list --model credit"
    assert commands[-1] == f"mlmon rows {worst.row['fingerprint'][:8]}"


def test_the_summary_of_a_backfill_with_one_alert_is_titled_by_it() -> None:
    one, context = all_views((LONG,))[0], Context(spec_of("credit"))
    assert say.summary_message(context, [one]) == say.head_message(context, [one])
