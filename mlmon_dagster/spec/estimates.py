"""Which metrics are estimated without ground truth, by task, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from mlmon_dagster.spec.metric_registry import BINARY, METRICS, MULTICLASS, REGRESSION
from mlmon_dagster.spec.monitors import EstimateMonitor
from mlmon_dagster.spec.names import listed

if TYPE_CHECKING:
    from mlmon_dagster.spec.declaration import Declaration

ESTIMATED: Final[dict[str, tuple[str, ...]]] = {
    BINARY: (
        "roc_auc", "pr_auc", "brier", "log_loss", "actual_rate", "accuracy", "balanced_accuracy",
        "precision", "recall", "specificity", "f1",
    ),
    MULTICLASS: ("accuracy", "macro_roc_auc", "brier", "log_loss"),
    REGRESSION: ("mae", "rmse"),
}  # fmt: skip


def estimated(metric: str) -> str:
    """Return the name of a metric's estimate."""
    return f"estimated_{metric}"


def residual(metric: str) -> str:
    """Return the name of what the estimate of a metric is above the realized value."""
    return f"{metric}_residual"


def estimated_metrics(spec: Declaration) -> tuple[str, ...]:
    """Return the metrics that can be estimated of a model, () if none can.

    A classifier's decisions are weighed by its scores, so that it must log them; what is learnt
    is learnt from actuals, so that there must be some.
    """
    columns = spec.columns
    if columns.actual is None:
        return ()
    if spec.task == BINARY and columns.score is None:
        return ()
    if spec.task == MULTICLASS and columns.scores is None:
        return ()
    return tuple(
        metric
        for metric in ESTIMATED.get(spec.task, ())
        if "prediction" not in METRICS[metric].needs or columns.prediction is not None
    )


def default_estimates(spec: Declaration) -> tuple[EstimateMonitor, ...]:
    """Return what is monitored of a model's estimates unless it says otherwise.

    Errors of a regression have a unit, so that no limit of theirs suits every model.
    """
    found = estimated_metrics(spec)
    wanted = {BINARY: "roc_auc", MULTICLASS: "accuracy"}.get(spec.task)
    return (EstimateMonitor(metric=wanted),) if wanted is not None and wanted in found else ()


def estimate_problems(spec: Declaration) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Find declared monitors of estimates that the model cannot have."""
    seen: set[str] = set()
    for index, monitor in enumerate(spec.monitors.estimated_performance):
        where = ("monitors", "estimated_performance", index)
        if monitor.metric in seen:
            yield where, f"{monitor.metric} is monitored twice; keep one"
        seen.add(monitor.metric)
        if problem := _problem(spec, monitor.metric):
            yield where, problem


def _problem(spec: Declaration, metric: str) -> str | None:
    if metric in estimated_metrics(spec):
        return None
    known = ESTIMATED.get(spec.task, ())
    if metric not in known:
        return (
            f"{metric} cannot be estimated without ground truth for {spec.task}; "
            f"what can be: {listed(known, 20)}"
        )
    if spec.columns.actual is None:
        return f"what {metric} is estimated from is learnt from actuals; declare columns.actual"
    scores = "columns.scores" if spec.task == MULTICLASS else "columns.score"
    return f"{metric} is estimated from {scores} and columns.prediction; declare them"
