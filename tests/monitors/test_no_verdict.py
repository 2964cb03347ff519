"""What every family says where it cannot judge, and where a window is past an error's limit."""

from __future__ import annotations

from typing import Any

import pytest

from mlmon_dagster.spec.declaration import ATTRIBUTION_SHIFT
from tests.conftest import SPEC, make_spec
from tests.monitors.cases import FEATURES, frame, metric, only, verdicts, window

MODEL = make_spec(
    features=FEATURES, slices=[], columns=SPEC["columns"] | {"shap": "shap_{feature}"},
    monitors={"service": {"p95_latency_ms": {"above": 250}}},
)  # fmt: skip
DRIFT = {"psi": "age", ATTRIBUTION_SHIFT: "age"}
BASELINE = {"baseline": frame([metric("roc_auc", 0.8, lower=0.79, upper=0.81, n=20_000)])}
MEASURED = {"roc_auc": {"lower": 0.1, "upper": 0.3}, "null_rate": {"lower": 0.9, "upper": 1.0}}


def name_of(metric_name: str) -> tuple[str, str, str]:
    """Return the family, the monitor and the column of a metric."""
    if metric_name in DRIFT:
        column = DRIFT[metric_name]
        return "drift", "/".join(["drift", metric_name, *{column} - {":table"}]), column
    family = {"null_rate": "quality", "roc_auc": "performance"}.get(metric_name, "service")
    column = "age" if family == "quality" else ":table"
    return family, "/".join([family, metric_name, *{column} - {":table"}]), column


def judged(name: str, value: float | None, of: Any = None, **fields: Any) -> dict[str, Any]:
    family, monitor, column = name_of(name)
    row = metric(name, value, column, **{"p_value": None if value is None else 0.0} | fields)
    known = {"model": MODEL, **(BASELINE if family == "performance" else {})} | (of or {})
    windows = known.pop("windows", None)
    return only(verdicts(family, [row], windows, **known), monitor)


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("psi", ["few_rows", "no_baseline", "few_baseline_rows", "all_null"]),
        (ATTRIBUTION_SHIFT, ["no_attributions", "few_rows", "no_baseline"]),
        ("roc_auc", ["no_actuals", "single_class", "few_of_rarer_class"]),
        ("p95_latency_ms", ["few_rows"]),
    ],
)
def test_a_missing_value_is_no_data_with_its_reason(name: str, reasons: list[str]) -> None:
    for reason in reasons:
        row = judged(name, None, reason=reason)
        assert (row["status"], row["reason"], row["value"]) == ("NO_DATA", reason, None)


@pytest.mark.parametrize("name", [*DRIFT, "roc_auc", "null_rate"])
def test_a_window_that_broke_the_schema_is_not_judged_but_for_its_quality(name: str) -> None:
    row = judged(name, 0.9, {"windows": [window(schema_broken=True)]}, **MEASURED.get(name, {}))
    wanted = ("WARN", "") if name == "null_rate" else ("NO_DATA", "schema")
    assert (row["status"], row["reason"]) == wanted


@pytest.mark.parametrize(
    ("name", "of", "reason"),
    [
        ("roc_auc", {"windows": [window(maturity="provisional")]}, "labels_still_coming"),
        ("roc_auc", {"baseline": None}, "learning"),
        ("null_rate", {"windows": [window(n=29, n_actual=29)]}, "few_rows"),
        ("psi", {"model": make_spec(features=FEATURES, monitors={"drift": {"min_rows": 2000}})},
         "few_rows"),
    ],
)  # fmt: skip
def test_what_a_window_or_a_baseline_lacks_is_the_reason_and_the_value_is_shown(
    name: str, of: dict[str, Any], reason: str
) -> None:
    n = 29 if name == "null_rate" else 1000
    row = judged(name, 0.2, of, n=n, **MEASURED.get(name, {}))
    assert (row["status"], row["reason"], row["value"]) == ("NO_DATA", reason, 0.2)


def test_what_was_not_computed_is_told_from_what_is_still_learnt() -> None:
    monitor = name_of(ATTRIBUTION_SHIFT)[1]
    for fields, reason in (({}, "not_computed"), ({"learning": True}, "learning")):
        row = only(verdicts("drift", [], [window(**fields)], model=MODEL), monitor)
        assert (row["status"], row["reason"]) == ("NO_DATA", reason)


@pytest.mark.parametrize(
    ("name", "monitors", "values"),
    [
        ("psi", {"drift": {"above": 0.1, "error_at": 0.25}}, (0.05, 0.2, 0.3)),
        ("psi", {"drift": {"severity": "ERROR"}}, (0.05, None, 1.0)),
        ("null_rate", {"quality": {"null_rate": {"above": 0.2, "error_at": 0.5}}}, (0.1, 0.3, 0.9)),
        (ATTRIBUTION_SHIFT, {"drift": {"attribution": {"above": 0.1, "error_at": 0.3}}},
         (0.05, -0.2, -0.4)),
    ],
)  # fmt: skip
def test_past_the_limit_of_an_error_it_is_one(
    name: str, monitors: dict[str, Any], values: tuple[float | None, ...]
) -> None:
    columns = {"columns": SPEC["columns"] | {"shap": "shap_{feature}"}, "slices": []}
    model = make_spec(features=FEATURES, monitors=monitors, **columns)
    for value, status in zip(values, ("OK", "WARN", "ERROR"), strict=True):
        if value is not None:
            assert judged(name, value, {"model": model}, lower=value)["status"] == status
