"""SHAP columns in a spec: a pattern or a mapping, of features that exist."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import attributed
from mlmon_dagster.spec.monitors import Attribution
from tests.conftest import SPEC, make_spec

TWO = {"age": {"type": "numeric"}, "balance": {"type": "numeric"}}
COLUMNS = SPEC["columns"]


def with_shap(shap: object, **monitors: object) -> ModelSpec:
    return make_spec(
        features=TWO,
        slices=[],
        columns=COLUMNS | {"shap": shap},
        monitors={"performance": [], **monitors},
    )


def test_a_pattern_is_filled_in_with_every_feature() -> None:
    spec = with_shap("shap_{feature}")
    assert spec.columns.shap == {"age": "shap_age", "balance": "shap_balance"}
    assert attributed(spec) == {"age": "shap:age", "balance": "shap:balance"}
    assert spec.columns.declared()["shap:age"] == "shap_age"


def test_a_mapping_may_leave_features_out() -> None:
    features = TWO | {"region": {"type": "categorical"}}
    shap = {"balance": "b", "age": "a"}
    columns = COLUMNS | {"shap": shap}
    spec = make_spec(features=features, slices=[], columns=columns, monitors={"performance": []})
    assert list(attributed(spec)) == ["age", "balance"]


def test_without_shap_columns_there_is_nothing_attributed() -> None:
    assert attributed(make_spec()) == {}


@pytest.mark.parametrize(
    ("shap", "message"),
    [
        ("shap", "does not say where a feature's name stands; write shap_{feature}"),
        ({"age": "a", "balence": "b"}, "'balence' is not a feature; did you mean 'balance'?"),
        ({"age": "a", "balance": "a"}, "two features have the same column"),
        ({"age": "a"}, "at least two features"),
        ({"age": "balance", "balance": "x"}, "'balance' is a feature; its SHAP values are another"),
        ({"age": "a'b", "balance": "x"}, "holds a quote"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(shap: object, message: str) -> None:
    with pytest.raises((ConfigError, ValidationError)) as told:
        with_shap(shap)
    assert message in str(told.value)
    assert "shap" in str(told.value)


def test_the_monitor_is_on_by_default_and_can_be_switched_off() -> None:
    assert with_shap("{feature}_shap").monitors.drift.attribution == Attribution(above=0.1)
    off = with_shap("{feature}_shap", drift={"attribution": False})
    assert off.monitors.drift.attribution is None
    with pytest.raises((ConfigError, ValidationError), match="declare it, such as"):
        make_spec(monitors={"drift": {"attribution": {"above": 0.2}}})
