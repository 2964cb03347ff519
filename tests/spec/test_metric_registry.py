"""The one table of performance metrics."""

from __future__ import annotations

from mlmon_dagster.spec.metric_registry import is_loss
from tests.conftest import metrics_of


def test_losses_are_worse_when_higher_and_every_task_has_metrics():
    assert is_loss("rmse")
    assert not is_loss("roc_auc")
    assert not is_loss("me")
    assert all(
        metrics_of(task)
        for task in (
            "binary_classification",
            "multiclass_classification",
            "regression",
            "ranking",
        )
    )
