"""Every metric beside its oracle; of degenerate windows the documented value or reason."""

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
from tests.metrics.rows import measured
from tests.metrics.windows import LARGEST, World, baseline, oracle_names, window_names, world

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


# What a row of the baseline may be that is far off, or that says nothing.
BAD_ROWS = {
    "off_by_1e8": {"prediction": 1e8},
    "actual_1e300": {"actual": -1e300},
    "largest": {"prediction": LARGEST, "actual": -LARGEST},
}


@pytest.mark.parametrize(
    ("task", "window"), [(t, name) for t in TASKS for name in window_names(t) if name != "random"]
)
def test_degenerate_windows_have_the_documented_value_or_reason(task, window):
    found = world(task)
    for metric, oracle in found.oracles.items():
        assert_agrees(found.row(window, metric), oracle(found.windows[window]))


def _against(task: str, then: pd.DataFrame) -> World:
    """Measure the random window with another baseline."""
    known, rows = world(task), world(task).windows["random"]
    frame = measured(known.spec, rows.assign(day=0), then, ["performance", "business"])
    return World(known.spec, {"random": rows}, known.oracles, frame)


WITHOUT_INTERVAL = ("total_outcome", "total_cost", "outcome_top_share")


@pytest.mark.parametrize("bad", BAD_ROWS)
def test_a_bad_row_of_the_baseline_changes_no_metric_of_a_window(bad):
    """It would, if it stretched the unit that losses are summed in, or their bins."""
    then = baseline(REGRESSION)
    for name, value in BAD_ROWS[bad].items():
        then.loc[3, name] = value
    found = _against(REGRESSION, then)
    for metric, oracle in found.oracles.items():
        row = found.row("random", metric)
        assert_agrees(row, oracle(found.windows["random"]))
        if not np.isnan(row["value"]) and metric not in WITHOUT_INTERVAL:
            assert row["lower"] < row["value"] < row["upper"], metric


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["one_row", "without_outputs"])
def test_a_baseline_that_says_nothing_leaves_the_windows_metrics_as_they_are(task, kind):
    then = baseline(task)
    if kind == "one_row":
        then = then.iloc[:1]
    else:
        names = [n for n in ("score", "prediction", "actual", "rank") if n in then]
        then = then.assign(**dict.fromkeys(names))
    found = _against(task, then)
    for metric, oracle in found.oracles.items():
        assert_agrees(found.row("random", metric), oracle(found.windows["random"]))
    values = found.frame[["value", "lower", "upper"]]
    assert not np.isinf(values).any(axis=None)
    missing = found.frame["value"].isna()
    assert (found.frame.loc[missing, "reason"] != "").all()


@pytest.mark.parametrize("task", [BINARY, RANKING])
def test_a_window_without_rows_has_no_metrics(task):
    known = world(task)
    assert (
        len(measured(known.spec, known.windows["random"].iloc[:0].assign(day=0), baseline(task)))
        == 0
    )


def test_every_number_of_a_degenerate_window_is_finite_and_inside_its_interval():
    for task in TASKS:
        frame = world(task).frame
        assert not np.isinf(frame[["value", "lower", "upper", "p_value"]]).any(axis=None)
        known = frame[frame["value"].notna()]
        slack = 1e-9 * known["value"].abs().clip(lower=1)
        assert not (known["lower"] > known["value"] + slack).any()
        assert not (known["upper"] < known["value"] - slack).any()
        assert (frame.loc[frame["value"].isna(), "reason"] != "").all()
