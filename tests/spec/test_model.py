"""What does not fit together in a spec is refused, with the place and the way out."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from typing import Any

import dagster as dg
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, spec_from_mapping
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.monitors import Attribution, Condition, PerformanceMonitor
from mlmon_dagster.spec.names import (
    RESERVED_COLUMNS,
    column_problem,
    feature_problem,
    model_problem,
    owner_problem,
)
from mlmon_dagster.spec.scalars import KOfN, format_duration, parse_duration, parse_k_of_n
from tests.spec.specs import REMOVED, mapping, spec

NUMERIC = {"type": "numeric"}


def classes_of(**declared: object) -> dict[str, Any]:
    return {"monitors": {"service": {"classes": {"slow": declared}}}}


def spans_of(**declared: object) -> dict[str, Any]:
    return {"monitors": {"service": declared}}


def asked_of(**declared: object) -> dict[str, Any]:
    return {"monitors": {"service": {"prometheus": declared}}}


def test_the_defaults_watch_everything() -> None:
    declared = spec()

    assert declared.monitors.drift.columns == "all"
    assert declared.monitors.drift.windows == KOfN(2, 3)
    assert declared.monitors.performance == (
        PerformanceMonitor(drop=0.05),
        PerformanceMonitor(
            metric="calibration_gap", shift=0.02, of_rate=0.25, severity="WARN", windows=KOfN(1, 1)
        ),
    )
    assert declared.baseline.dataset == "validation"
    assert declared.has_actuals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "Churn"}, "model: 'Churn' cannot name a model"),
        ({"model": "2churn"}, "for instance model_2churn"),
        ({"model": "x" * 64}, "at most 63"),
        ({"model": "mlmon"}, "taken by the tool itself"),
        ({"task": "regression"}, "columns.score: a regression has no score"),
        ({"task": "ranking"}, "a ranking model needs columns.group"),
        ({"task": "binary"}, "did you mean 'binary_classification'?"),
        ({"owners": ["bob"]}, "owners.0: 'bob' is not an owner"),
        ({"owners": []}, "at least one owner"),
        ({"time__zone": "Europe"}, "time.zone: 'Europe' is not a time zone"),
        ({"time__zone": "../../etc/passwd"}, "is not a time zone"),
        ({"time__start": dt.date(1500, 1, 1)}, "not between the years 1970 and 2200"),
        ({"time__end": dt.date(2024, 1, 1)}, "time.end: 2024-01-01 is not after time.start"),
        ({"time__granularity": "minute"}, "is not one of 'hour', 'day', 'week' or 'month'"),
        (
            {"time__granularity": "hour", "time__end": dt.date(2027, 1, 1)},
            "time.granularity: 26,304 hourly windows from 2024-01-01 to 2027-01-01 are more than",
        ),
        (
            {"time__granularity": "hour", "time__zone": "Australia/Lord_Howe"},
            "clocks in Australia/Lord_Howe change by less than an hour",
        ),
        ({"time__allowed_lateness": "-1d"}, "is not a duration"),
        ({"time__allowed_lateness": "99999w"}, "is longer than 10 years"),
        ({"source__predictions": {"path": "~/in/*.parquet"}}, "must be a path below the project"),
        ({"source__predictions": {"path": "a/../../b.csv"}}, "climbs with '..'"),
        ({"source__predictions": {"path": "ftp://host/*.parquet"}}, "cannot be read"),
        ({"source__predictions": {"path": "C:\\x"}}, "must be a path below the project"),
        ({"source__predictions": {"path": ""}}, "source.predictions.path: a path is printable"),
        ({"columns__actual": REMOVED}, "source.actuals needs columns.actual"),
        ({"columns__score": REMOVED, "columns__prediction": REMOVED}, "needs columns.score or"),
        ({"columns__score": "p'churn"}, 'columns.score: "p\'churn" holds a quote'),
        ({"columns__score": "p\nchurn"}, "cannot be printed"),
        ({"columns__score": " p"}, "starts or ends with a space"),
        ({"columns__score": ""}, "1 to 255 bytes"),
        ({"columns__score": "é" * 200}, "1 to 255 bytes"),
        ({"columns__score": "Churns"}, "columns.prediction: 'churns' and 'Churns' differ"),
        ({"features__Plan": NUMERIC}, "features.Plan: 'Plan' and 'plan' differ in upper"),
        ({"features__ASKED_AT": NUMERIC}, "columns.event_time: 'asked_at' and 'ASKED_AT' differ"),
        ({"features": {}}, "at least one feature"),
        ({"features__churned": NUMERIC}, "is the ground truth, not a feature"),
        ({"features__my age": NUMERIC}, "for instance my_age"),
        ({"features__1st": NUMERIC}, "for instance feature_1st"),
        ({"features__" + "x" * 64: NUMERIC}, "at most 63"),
        ({"features__score": NUMERIC}, "'score' is a column of the store itself"),
        ({"features__plan": {"type": "categorical", "min": 1}}, "for numeric features, not for"),
        ({"features__age": {"type": "numeric", "min": 2, "max": 1}}, "min 2 is greater than max"),
        ({"baseline": {"dataset": "production"}}, "production cannot be compared with itself"),
        ({"baseline": {"dataset": "valid"}}, "did you mean 'validation'?"),
        ({"baseline": {}, "columns__dataset": REMOVED}, "needs columns.dataset"),
        ({"slices": ["plann"]}, "slices.0: 'plann' is not a feature; did you mean 'plan'?"),
        ({"slices": ["plan", "age"]}, "slices.1: 'age' is numeric; slices are by"),
        ({"slices": ["email"]}, "'email' is marked pii"),
        ({"slices": [["plan", "plan"]]}, "1 to 3 different columns"),
        ({"slices": [["plan", "member"], ["member", "plan"]]}, "slices.1: the slice member x plan"),
        ({"slices": ["model_version"], "columns__model_version": REMOVED}, "is not a feature"),
        ({"slices": [1]}, "expected a list, found 1"),
        ({"monitors": {"drift": {"columns": ["agee"]}}}, "monitors.drift.columns.0: 'agee' is not"),
        ({"monitors": {"drift": {"columns": ["age", "age"]}}}, "is listed twice"),
        ({"monitors": {"drift": {"columns": "age"}}}, "write 'all' or a list of column names"),
        ({"monitors": {"drift": {"above": 0}}}, "monitors.drift.above: should be greater than 0"),
        (
            {"monitors": {"quality": {"null_rate": {"above": 0.1, "below": 0.2}}}},
            "monitors.quality.null_rate: a condition needs exactly one of above and below",
        ),
        ({"monitors": {"quality": {"null_rate": {"above": 5}}}}, "a rate is between 0 and 1"),
        (
            {"monitors": {"performance": {"metric": "f1"}}},
            "exactly one of drop, change, shift, above and below",
        ),
        (
            {"monitors": {"performance": {"drop": 0.1, "below": 0.5}}},
            "exactly one of drop, change, shift",
        ),
        (
            {"monitors": {"performance": {"metric": "roc_auc", "drop": 0.1, "of_rate": 0.2}}},
            "of_rate goes with the shift of a calibration_gap",
        ),
        ({"monitors": {"performance": {"metric": "auc", "drop": 0.1}}}, "did you mean 'roc_auc'?"),
        ({"monitors": {"performance": [{"drop": 0.1}, {"drop": 0.2}]}}, "roc_auc is monitored twi"),
        (
            {"monitors": {"performance": {"drop": 0.1}}, "columns__score": REMOVED},
            "roc_auc is computed from columns.score",
        ),
        (
            {
                "monitors": {"performance": {"metric": "f1", "drop": 0.1}},
                "columns__prediction": REMOVED,
            },
            "f1 is computed from columns.prediction",
        ),
        (
            {"monitors": {"performance": {"drop": 0.1}}, "source__actuals": REMOVED},
            "performance needs ground truth",
        ),
        ({"monitors": {"service": {"p95_latency_ms": {"above": 1}}}}, "needs columns.latency_ms"),
        ({"monitors": {"service": {"error_rate": {"above": 0.1}}}}, "needs columns.status"),
        (
            {"spans": {"join": "id", "sampling": "tail", "version": "model"}},
            "spans.version: needs sampling: unbiased",
        ),
        (spans_of(span_coverage={"below": 0.9}), "span_coverage needs spans"),
        (spans_of(stages={"fetch": {"p95_ms": {"above": 9}}}), "'fetch' is not among spans.stages"),
        (spans_of(stages={"fetch": {"error_rate": {"above": 9}}}), "a rate is between 0 and 1"),
        (classes_of(when="nobody = 1"), "monitors.service.classes.slow.when: "),
        (classes_of(when="score > 2", above=5), "a rate is between 0 and 1"),
        (classes_of(when="score > 2", error_at=0.1), "exactly one of above and below"),
        (asked_of(), "Prometheus needs url, or url_env"),
        (asked_of(url="http://p:9090", url_env="P"), "Prometheus needs url, or url_env"),
        (asked_of(url="p:9090"), "monitors.service.prometheus.url: "),
        (asked_of(url="ftp://p"), "starts with http:// or https://"),
        (asked_of(url="http://me:secret@p"), "use url_env"),
        (asked_of(url="http://p", token_env="ey.J0"), "the name of an environment variable"),
        (asked_of(url="http://p", metrics={"Bad Name": {"query": "up"}}), "Bad Name"),
        ({"monitors": {"freshness": {"no_data_for": "0s"}}}, "must be longer than 0s"),
        ({"monitors": {"drift": {"owner": "x"}}}, "monitors.drift.owner: 'x' is not an owner"),
        ({"monitors": {"drift": {"runbook": "javascript:x"}}}, "is an http(s) address"),
        ({"monitors": {"drfit": {}}}, "monitors.drfit: unknown key; did you mean 'drift'?"),
        (
            {"monitors": {"performance": [{"drop": 0.1, "severty": "WARN"}]}},
            "monitors.performance.0.severty: unknown key; did you mean 'severity'?",
        ),
        ({"actuals": {"expected_within": "3d", "closed_after": "1d"}}, "closes before its actuals"),
        ({"actuals": {"min_coverage": 90}}, "actuals.min_coverage: should be less than or equal"),
        ({"alerts": {"slack": {"channel": "ml alerts"}}}, "is not a Slack channel"),
        ({"alerts": {"slack": {"channel": "#x", "mention": "a\nb"}}}, "printable text"),
        (
            {"alerts": {"slack": {"channel": "#x", "mention": "@oncall"}}},
            "alerts.slack.mention: Slack shows '@oncall' as plain text and notifies nobody. Write "
            "'<!subteam^S0123ABCD>' for a user group",
        ),
        ({"alerts": {"slack": {"channel": "#x", "mention": "<@U012ABCDE|ana>"}}}, "<@U0123ABCD>"),
        ({"alerts": {"slack": {"channel": "#x", "mention": "<!date^1^{time}|x>"}}}, "@channel"),
        ({"alerts": {"slack": {"channel": "#x", "mention": "@here @channel"}}}, "need a group"),
        (
            {
                "alerts": {
                    "routes": [{"family": "drift", "slack": {"channel": "#x", "mention": "a"}}]
                }
            },
            "alerts.routes.0.slack.mention: Slack shows 'a' as plain text",
        ),
        (
            {"alerts": {"apprise": {"url_env": "HOOK", "mention": "@here"}}},
            "alerts.apprise.mention: mention is a key of slack; here a text calls nobody by name",
        ),
        (
            {"alerts": {"pagerduty": {"key_env": "KEY", "mention": "@here"}}},
            "the escalation policy of the service says who is called",
        ),
        ({"alerts": {"repeat": "0s"}}, "alerts.repeat: must be longer than 0s"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_refused_in_its_place(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_mapping(mapping(**changes))

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"columns__score": "P(churn) in % — näher"},
        {"columns__trace_id": "id"},
        {"features__type": NUMERIC},
        {"features__asked_at": {"type": "datetime"}},
        {"slices": ["model_version", ["plan", "member", "model_version"]]},
        {"time__granularity": "hour", "time__end": dt.date(2026, 1, 1)},
        {"time__granularity": "hour", "time__zone": "Asia/Kolkata"},
        {"time__start": "2024-01-01"},
        {"monitors": {"drift": {"columns": ["score", "age"]}}},
        {"monitors": {"drift": {"columns": ["signed_up"]}}},
        {"monitors": {"performance": []}, "source__actuals": REMOVED},
        {"source__actuals": REMOVED, "columns__actual": REMOVED},
        {"columns__dataset": REMOVED},
        {"alerts": {"slack": {"channel": "C0123456789"}}},
        {"baseline": {"dataset": "training"}},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_unusual_but_right_is_accepted(changes: dict[str, Any]) -> None:
    assert isinstance(spec_from_mapping(mapping(**changes)), ModelSpec)


def test_shap_columns_are_a_pattern_of_every_feature_or_a_mapping_of_some() -> None:
    features = {"age": NUMERIC, "balance": NUMERIC, "plan": {"type": "categorical"}}
    every = spec(features=features, columns__shap="shap_{feature}")
    assert attributed(every) == {name: f"shap:{name}" for name in features}
    assert every.columns.declared()["shap:age"] == "shap_age"
    assert every.monitors.drift.attribution == Attribution(above=0.1)
    some = spec(features=features, columns__shap={"balance": "b", "age": "a"})
    assert list(attributed(some)) == ["age", "balance"]
    assert attributed(spec()) == {}
    off = spec(columns__shap="{feature}_shap", monitors={"drift": {"attribution": False}})
    assert off.monitors.drift.attribution is None


def test_versions_are_compared_only_where_that_is_declared() -> None:
    shadow = {"dataset": "shadow", "metric": "roc_auc"}
    canary = {"champion": "3", "challenger": "4", "metric": "accuracy", "share": 0.1}
    assert not spec().monitors.versions.is_declared
    declared = spec(monitors={"versions": {"compare": shadow, "skew": True}}).monitors.versions
    [one] = declared.compare
    assert (one.gain, one.how, one.margin) == ("shadow_roc_auc_gain", "shadow", 0.01)
    assert declared.skew is not None
    assert (declared.skew.dataset, declared.skew.above) == ("training", 0.001)
    both = {"compare": [shadow, canary, canary | {"metric": "brier"}]}
    watched = spec(monitors={"versions": both}).monitors.versions.canary
    assert watched is not None
    assert watched.metric == "accuracy"


def test_python_users_see_the_same_problems() -> None:
    with pytest.raises(ValidationError, match=r"owners\.0: 'bob' is not an owner.*slices\.0: 'x'"):
        ModelSpec.model_validate(mapping(owners=["bob"], slices=["x"]))


def test_a_spec_cannot_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        spec().model = "other"  # type: ignore[misc]


def test_specs_share_the_defaults_that_they_do_not_change() -> None:
    assert spec(model="one").retention is spec(model="other").retention


def test_a_condition_is_broken_past_its_bound_only() -> None:
    assert Condition(above=0.2).fails(0.21)
    assert not Condition(above=0.2).fails(0.2)
    assert Condition(below=10.0).fails(9.0)
    assert not Condition(below=10.0).fails(10.0)


@given(seconds=st.integers(0, 3660 * 86_400))
def test_durations_read_back_as_written(seconds: int) -> None:
    duration = dt.timedelta(seconds=seconds)

    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize(
    "text", ["", "1", "d", "1 day", "-1d", "1e3s", "1d2h", "٣d", "1000000000s", "9" * 400 + "d"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"duration|longer than"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "2", "0 of 3", "4 of 3", "1 of 31", "two of 3", "2 of 999"])
def test_what_is_no_window_count_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a window count"):
        parse_k_of_n(text)


@given(name=st.text(max_size=70) | st.from_regex(r"[a-z][a-z0-9_]*", fullmatch=True))
def test_an_accepted_name_is_one_that_dagster_and_sql_take(name: str) -> None:
    if model_problem(name) is None:
        dg.AssetSpec(dg.AssetKey([name, "drift"]), group_name=name)
    if feature_problem(name) is None:
        assert name.isidentifier()
        assert name.isascii()
        assert len(name) <= 63
        assert name.lower() not in RESERVED_COLUMNS
    if column_problem(name) is None:
        assert name.isprintable()
        assert not set("'\"`") & set(name)


@given(owner=st.emails() | st.text(max_size=30).map("team:{}".format) | st.text(max_size=30))
def test_an_accepted_owner_is_one_that_dagster_takes(owner: str) -> None:
    if owner_problem(owner) is None:
        dg.AssetSpec("x", owners=[owner])


def test_reading_specs_needs_neither_pandas_nor_dagster() -> None:
    code = (
        "import sys, mlmon_dagster.spec; "
        "print([m for m in ('pandas', 'numpy', 'dagster', 'scipy', 'duckdb') if m in sys.modules])"
    )

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "short",
    [
        {"slices": ["plan", ["plan", "country"]]},
        {"baseline": "previous"},
        {"fairness": {"slices": "plan"}},
        {"alerts": {"digest": "daily", "email": {"to": "ml@example.com"}}},
        {"alerts": {"digest": False, "routes": [{"family": "drift", "severity": "ERROR"}]}},
        {"monitors": {"drift": {"attribution": False}}},
        {"monitors": {"performance": {"metric": "f1", "change": "5%", "windows": "2 of 3"}}},
    ],
)
def test_the_json_schema_takes_what_may_be_written_short(short: dict[str, object]) -> None:
    """Editors and ``dg check yaml`` go by it."""
    declared = json.loads(json.dumps(mapping(**short), default=str))
    jsonschema.validate(declared, ModelSpec.model_json_schema())
