"""Every metric of realized performance of random rows, against scikit-learn, scipy or formulas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from mlmon_dagster.spec.metric_registry import (
    BINARY,
    MULTICLASS,
    MULTILABEL,
    RANKING,
    REGRESSION,
)
from tests.metrics.oracles import EXACT, Within
from tests.metrics.windows import oracle_names, world

pytestmark = pytest.mark.xdist_group("oracles")  # they share what was measured

TASKS = (BINARY, MULTICLASS, MULTILABEL, REGRESSION, RANKING)


def assert_agrees(row: pd.Series, expected: object) -> None:
    """Fail unless a metric is what it must be: value, value within a bound, or reason."""
    if isinstance(expected, str):
        assert (row["reason"], np.isnan(row["value"])) == (expected, True), row.to_dict()
        assert np.isnan([row["lower"], row["upper"]]).all()
        return
    value, bound = expected if isinstance(expected, Within) else (expected, 0.0)
    assert row["value"] == pytest.approx(value, rel=EXACT, abs=max(bound, EXACT)), row.to_dict()
    assert row["reason"] in ("", "few_rows")
    assert row["reason"] == "" or np.isnan([row["lower"], row["upper"]]).all()
    assert not row["lower"] > row["value"]
    assert not row["upper"] < row["value"]
    assert not np.isinf([row["lower"], row["upper"]]).any()


@pytest.mark.parametrize(
    ("task", "metric"), [(task, name) for task in TASKS for name in oracle_names(task)]
)
def test_a_metric_of_random_rows_is_its_oracles(task, metric):
    found = world(task)
    assert_agrees(found.row("random", metric), found.oracles[metric](found.windows["random"]))
