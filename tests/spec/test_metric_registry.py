"""The one table of performance metrics, and that the page about them agrees with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlmon_dagster.spec.metric_registry import METRICS, is_loss
from tests.conftest import metrics_of

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def _shown(value: float) -> str:
    return {float("inf"): "inf", float("-inf"): "-inf"}.get(value, f"{value:g}")


@pytest.mark.parametrize("name", METRICS)
def test_the_page_gives_the_metrics_formula_direction_unit_and_range(name):
    info = METRICS[name]
    formula = info.formula.replace("|", "&#124;")
    ends = f"{_shown(info.low)} to {_shown(info.high)}"
    row = f"| `{name}` | {formula} | {info.better} | {info.unit} | {ends} |"
    pages = 1 if info.family == "business" else len(info.tasks)
    assert PAGE.count(row) == pages


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
