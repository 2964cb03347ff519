"""Second thresholds, relative ones, and those that the baseline's own windows suggest."""

from __future__ import annotations

import pytest

from mlmon_dagster.errors import ConfigError
from tests.conftest import make_spec
from tests.monitors.cases import FEATURES, frame, metric, only, spec, verdicts


def psi(value, p=0.0, column="age", name="psi"):
    return metric(name, value, column, p_value=p)


@pytest.mark.parametrize(("value", "status"), [(0.70, "OK"), (0.61, "WARN"), (0.47, "ERROR")])
def test_a_change_is_a_share_of_the_baselines_value(value, status):
    model = spec(
        performance={"metric": "f1", "change": "20%", "error_at": "40%", "severity": "WARN"}
    )
    base = frame([metric("f1", 0.8, lower=0.79, upper=0.81, n=5000)])
    rows = verdicts(
        "performance",
        [metric("f1", value, lower=value - 0.01, upper=value + 0.01)],
        model=model,
        baseline=base,
    )
    assert only(rows, "performance/f1")["status"] == status


def test_the_most_important_column_comes_first():
    features = FEATURES | {"region": {"type": "categorical", "importance": 0.7}}
    model = make_spec(features=features)
    rows = verdicts("drift", [psi(0.3), psi(0.2, column="region")], model=model)
    assert rows[0]["column_name"] == "region"
    assert '"importance": 0.7' in rows[0]["details"]


@pytest.mark.parametrize(
    ("monitors", "said"),
    [
        ({"drift": {"above": 0.3, "error_at": 0.2}}, "further out"),
        ({"drift": {"method": "wasserstein"}}, "write above as well"),
        ({"performance": {"metric": "f1", "drop": 0.1, "change": 0.2}}, "exactly one of"),
        ({"performance": {"metric": "f1", "change": "a fifth%"}}, "write 20% or 0.2"),
        ({"drift": {"baseline": {"dataset": "training"}}}, "another dataset goes under"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(monitors, said):
    with pytest.raises(ConfigError, match=said):
        spec(**monitors)
