"""No metric without an oracle, and none without a line in docs/metrics.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

import mlmon_dagster
from mlmon_dagster.metrics.drift.distances import FURTHER
from mlmon_dagster.metrics.drift.null_distribution import DISTANCES
from mlmon_dagster.metrics.service import QUANTILES, STAGE_QUANTILES, TOKEN_QUANTILES
from mlmon_dagster.spec import declaration, monitors
from mlmon_dagster.spec.metric_registry import (
    AUTO,
    BINARY,
    GENERATION,
    METRICS,
    MULTICLASS,
    MULTILABEL,
    NOVEL,
    OFF_HEAP,
    REGRESSION,
    MetricFamily,
)
from mlmon_dagster.spec.monitors import (
    FreshnessMonitor,
    QualityMonitor,
    SchemaMonitor,
    ServiceMonitor,
)
from mlmon_dagster.spec.tasks import TASKS, estimated, residual
from tests.conftest import metrics_of
from tests.metrics.data_windows import data_world
from tests.metrics.test_estimate_oracles import binary_estimates, class_estimates, loss_estimates
from tests.metrics.windows import world
from tests.site_pages import read_page

pytestmark = pytest.mark.xdist_group("oracles")  # they share what was measured

PACKAGE = Path(mlmon_dagster.__file__).parent
PAGE = read_page("metrics.md")
# Name -> where its oracle is, for those that are not in the tables of `windows`.
DRIFT = dict.fromkeys((*DISTANCES, "ks", *FURTHER), "test_data_oracles")
SPANS = {
    *STAGE_QUANTILES, *TOKEN_QUANTILES, monitors.SPAN_COVERAGE, "span_error_bias",
    "span_latency_bias", "stage_error_rate", "stage_timeout_rate", "sum_tokens",
}  # fmt: skip
ORACLES: dict[str, str] = {
    **DRIFT,
    **dict.fromkeys(("mean_cost", "sum_cost"), "tests/pipeline/test_prices"),
    **dict.fromkeys(
        ("null_rate", "nan_rate", "inf_rate", "out_of_range_rate", "unseen_rate", "n",
         "error_rate", "p50_latency_ms", "p95_latency_ms", "p99_latency_ms"),
        "test_data_oracles",
    ),
    **{
        f"{name}_{kind}": "test_estimate_oracles"
        for name in ("demographic_parity", "equal_opportunity", "predictive_parity")
        for kind in ("difference", "ratio")
    },
    **{
        name(metric): "test_estimate_oracles"
        for metrics in (("roc_auc", "pr_auc", "brier", "log_loss", "actual_rate", "accuracy",
                         "balanced_accuracy", "precision", "recall", "specificity", "f1",
                         "macro_roc_auc", "macro_precision", "macro_recall", "macro_f1", "mae",
                         "rmse"),)
        for metric in metrics
        for name in (estimated, residual)
    },
    **dict.fromkeys((NOVEL, f"{NOVEL}{AUTO}", f"unseen_rate{AUTO}"), "test_novelty"),
    **{info.name: "test_evaluations" for info in METRICS.values() if GENERATION in info.tasks},
    "personal_rate": "test_personal",
    OFF_HEAP: "test_support",
    **dict.fromkeys((declaration.ATTRIBUTION, declaration.ATTRIBUTION_SHIFT), "test_attribution"),
    declaration.NOT_ADDITIVE: "test_additivity",
    "residual_drift": "test_data_oracles",  # it is the psi of a column
    **dict.fromkeys(("volume_drop", "volume_rise"), "test_estimate_oracles"),
    monitors.REPEATED_ROWS: "test_repeats",
    # Of windows, not of rows: counted by tests/monitors.
    **dict.fromkeys(("bad_rate", "duplicate_rate", "conflict_rate"), "monitors"),
    **dict.fromkeys(("no_data_for", "actuals_missing"), "monitors"),
    **dict.fromkeys((monitors.CLASS_RATE, monitors.PROMETHEUS), "store/test_prometheus_source"),
    **dict.fromkeys(SPANS, "test_span_oracles"),
    "expectations": "tests/ingest/test_declared_expectations",
}  # fmt: skip


def _audited() -> set[str]:
    tasks = (BINARY, MULTICLASS, MULTILABEL, REGRESSION, "ranking")
    return set(ORACLES).union(*(world(task).oracles for task in tasks))


def _literal_names() -> set[str]:
    """Find what the code writes after ``metric=``."""
    found = set()
    for path in [*(PACKAGE / "metrics").rglob("*.py"), *(PACKAGE / "families").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "metric":
                value = node.value
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    found.add(value.value)
    return found


def _limited() -> set[str]:
    """Name what a spec puts limits on by keys of their own."""
    return {
        name
        for monitor in (SchemaMonitor, FreshnessMonitor, QualityMonitor, ServiceMonitor)
        for name, field in monitor.model_fields.items()
        if "Condition" in str(field.annotation)
    }


def _declared() -> set[str]:
    """Name everything that the code can produce by its tables."""
    estimates = {
        f(m) for task in TASKS.values() for m in task.estimated for f in (estimated, residual)
    }
    named = {*METRICS, *DISTANCES, "ks", *FURTHER, *QUANTILES}
    named |= {declaration.ATTRIBUTION, declaration.ATTRIBUTION_SHIFT, declaration.NOT_ADDITIVE}
    named |= {monitors.CLASS_RATE, monitors.PROMETHEUS, monitors.REPEATED_ROWS}
    named |= {NOVEL, f"{NOVEL}{AUTO}", OFF_HEAP, *SPANS}
    return named | estimates | _literal_names() | _limited()


def _measured() -> set[str]:
    """Name everything that was measured of models of every task, with every option on."""
    tasks = (BINARY, MULTICLASS, MULTILABEL, REGRESSION, "ranking")
    frames = [data_world().frame, *(world(task).frame for task in tasks)]
    estimates = (binary_estimates(), class_estimates(), loss_estimates())
    found = set().union(*(frame["metric"] for frame in frames))
    return found.union(*(frame.index.get_level_values("metric") for frame in estimates))


def test_every_metric_that_the_code_names_or_computes_has_an_oracle():
    assert _declared() | _measured() == _audited()


def test_every_task_computes_every_metric_of_it():
    for task in (BINARY, MULTICLASS, REGRESSION, "ranking"):
        frame = world(task).frame
        computed = set(frame.loc[frame["family"].isin(get_args(MetricFamily)), "metric"])
        assert computed - set(metrics_of(task)) <= {"precision", "recall", "f1", "roc_auc"}
        assert set(metrics_of(task)) <= computed


def test_values_are_in_the_range_that_the_table_of_metrics_gives():
    for task in (BINARY, MULTICLASS, REGRESSION, "ranking"):
        frame = world(task).frame
        for metric in metrics_of(task):
            mine = frame.loc[frame["metric"] == metric, "value"].dropna()
            low, high = METRICS[metric].low, METRICS[metric].high
            if metric != "residual_drift":  # what chance adds is taken off
                assert mine.between(low - 1e-12, high + 1e-12).all(), metric


@pytest.mark.parametrize("metric", sorted(_declared()))
def test_every_metric_has_a_line_in_the_page_about_metrics(metric):
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    name = re.compile(rf"`{re.escape(metric)}`")
    if metric.endswith("_residual"):
        name = re.compile(r"`<metric>_residual`")
    assert any(name.search(row.split("|")[1]) for row in rows), metric


def _reasons() -> set[str]:
    frames = [data_world().frame, binary_estimates(), class_estimates(), loss_estimates()]
    frames += [world(task).frame for task in (BINARY, MULTICLASS, REGRESSION, "ranking")]
    return set().union(*(frame["reason"] for frame in frames)) - {""}


def test_every_reason_for_no_value_is_explained_in_the_page():
    assert {reason for reason in _reasons() if f"`{reason}`" not in PAGE} == set()
