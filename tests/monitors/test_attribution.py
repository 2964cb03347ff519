from __future__ import annotations

import json

import pytest

from mlmon_dagster.spec.declaration import ATTRIBUTION, ATTRIBUTION_SHIFT
from tests.conftest import SPEC, make_spec
from tests.monitors.cases import FEATURES, metric, only, verdicts

COLUMNS = SPEC["columns"] | {"shap": "shap_{feature}"}


def model(**drift):
    return make_spec(
        features=FEATURES, columns=COLUMNS, slices=[],
        monitors={"performance": [], "drift": drift},
    )  # fmt: skip


def shift(value, p, feature="age", **fields):
    return metric(ATTRIBUTION_SHIFT, value, feature, p_value=p, **fields)


def judged(rows, windows=None, **attribution):
    found = verdicts("drift", rows, windows, model=model(attribution=attribution or True))
    return only(found, f"drift/{ATTRIBUTION_SHIFT}/age")


@pytest.mark.parametrize(
    ("value", "p", "status"),
    [(0.2, 1e-8, "WARN"), (-0.2, 1e-8, "WARN"), (0.2, 0.02, "OK"), (0.05, 1e-8, "OK")],
)
def test_a_feature_fires_only_if_its_change_is_real_and_large(value, p, status):
    assert judged([shift(value, p)])["status"] == status


def test_the_sentence_says_how_much_it_counts_now_and_counted_before():
    row = judged([shift(-0.31, 1e-8), metric(ATTRIBUTION, 0.12, "age")])
    assert row["message"] == (
        "age has 12 % of the attributions, in the baseline 43 %; 10 points of change fail "
        "(n 1,000, baseline n 5,000)."
    )
    assert json.loads(row["details"])["attribution"] == 0.12


def test_the_features_of_a_window_are_one_family():
    rows = [shift(0.3, 0.012), shift(0.0, 0.5, "region"), shift(0.0, 0.9, "city")]
    row = judged(rows)
    assert row["family_size"] == 3
    assert row["p_adjusted"] == pytest.approx(0.036)
    assert row["status"] == "OK"
    assert "This may be chance (adjusted p 0.04)" in row["message"]


def test_switched_off_or_without_shap_values_it_says_nothing():
    rows = [shift(0.4, 0.0)]
    for spec in (model(attribution=False), make_spec(features=FEATURES, slices=[])):
        found = verdicts("drift", rows, model=spec)
        assert not [row for row in found if ATTRIBUTION_SHIFT in row["monitor"]]


def test_columns_are_listed_by_attribution_unless_the_spec_says_how_important_they_are():
    rows = [metric("psi", 0.0, name, p_value=0.9) for name in ("age", "city", "region")]
    rows += [metric(ATTRIBUTION, share, name) for name, share in (("city", 0.6), ("region", 0.3))]

    def order(spec):
        found = verdicts("drift", rows, model=spec)
        return [row["column_name"] for row in found if row["metric"] == "psi"]

    assert order(model()) == ["city", "region", "age"]
    told = FEATURES | {"region": FEATURES["region"] | {"importance": 1.0}}
    spec = make_spec(features=told, columns=COLUMNS, slices=[], monitors={"performance": []})
    assert order(spec)[0] == "region"


def test_drift_is_listed_by_distance_times_attribution_and_says_what_the_model_makes_of_it():
    far = {"age": 0.9, "city": 0.5, "region": 0.3}
    rows = [metric("psi", value, name, p_value=1e-8) for name, value in far.items()]
    rows += [metric(ATTRIBUTION, s, n) for n, s in (("age", 0.01), ("city", 0.6), ("region", 0.3))]
    found = [row for row in verdicts("drift", rows, model=model()) if row["metric"] == "psi"]

    assert [row["column_name"] for row in found] == ["city", "region", "age"]
    assert found[0]["message"].endswith(". The column has 60 % of the model's attributions.")
    assert [json.loads(row["details"])["impact"] for row in found] == [0.3, 0.09, 0.009]
    told = FEATURES | {"region": FEATURES["region"] | {"importance": 1.0}}
    spec = make_spec(features=told, columns=COLUMNS, slices=[], monitors={"performance": []})
    declared = [row for row in verdicts("drift", rows, model=spec) if row["metric"] == "psi"]
    assert declared[0]["column_name"] == "region"
    assert "impact" not in json.loads(declared[0]["details"])
