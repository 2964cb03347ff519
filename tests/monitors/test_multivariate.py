from __future__ import annotations

import json

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec.monitors import CORRELATION_CHANGE, CORRELATION_SHIFT
from tests.conftest import make_spec
from tests.monitors.cases import metric, only, spec, verdicts

NAME = f"drift/{CORRELATION_SHIFT}"


def shift(value, p, **fields):
    return metric(CORRELATION_SHIFT, value, p_value=p, **fields)


def judged(rows, windows=None, **multivariate):
    model = spec(drift={"multivariate": multivariate or True})
    return only(verdicts("drift", rows, windows, model=model), NAME)


@pytest.mark.parametrize(
    ("value", "p", "status"),
    [(0.4, 1e-8, "WARN"), (0.4, 0.02, "OK"), (0.1, 1e-8, "OK"), (-0.1, 0.9, "OK")],
)
def test_a_correlation_fires_only_if_its_change_is_real_and_large(value, p, status):
    assert judged([shift(value, p)])["status"] == status


def test_the_sentence_names_the_pairs_that_changed_most():
    pairs = [
        metric(CORRELATION_CHANGE, v, c)
        for v, c in ((0.31, "age x city"), (-0.62, "age x |tenure|"))
    ]
    row = judged([shift(0.55, 1e-8), *pairs])
    assert row["message"] == (
        "Columns are correlated differently: age x |tenure| by -0.62, age x city by +0.31.\n"
        "Change of the correlation between columns is 0.55 beyond chance (n 1,000, "
        "baseline n 5,000), above 0.20."
    )
    assert json.loads(row["details"])["changes"] == {"age x |tenure|": -0.62, "age x city": 0.31}


def test_it_is_no_member_of_the_columns_family():
    rows = [shift(0.0, 0.9), metric("psi", 0.4, "age", p_value=0.008)]
    model = spec(drift={"multivariate": True})
    assert only(verdicts("drift", rows, model=model), "drift/psi/age")["family_size"] == 1


def test_it_is_off_unless_declared():
    assert NAME not in {row["monitor"] for row in verdicts("drift", [shift(0.9, 0.0)])}
    for off in (None, False):
        model = spec(drift={"multivariate": off})
        rows = verdicts("drift", [shift(0.9, 0.0)], model=model)
        assert NAME not in {row["monitor"] for row in rows}


def test_thresholds_that_make_no_sense_are_refused():
    for wrong in ({"above": 0}, {"above": 3.0}, {"above": 0.3, "error_at": 0.2}, {"over": 1}):
        with pytest.raises(ConfigError, match="multivariate"):
            make_spec(monitors={"drift": {"multivariate": wrong}})
