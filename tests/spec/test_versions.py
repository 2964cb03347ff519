"""What `monitors.versions` may say, and what is said of what it may not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.files.loader import spec_from_mapping
from tests.defs.small_model import FIRST, MODEL, YAML

SHADOW = {"dataset": "shadow", "metric": "roc_auc"}
CANARY = {"champion": "3", "challenger": "4", "metric": "accuracy", "share": 0.1}


def declared(versions: dict[str, Any], **changed: Any) -> ModelSpec:
    values = yaml.safe_load(YAML.format(model=MODEL, zone="UTC", start=FIRST))
    values["monitors"]["versions"] = versions
    for key, value in changed.items():
        values["columns"][key] = value
        if value is None:
            del values["columns"][key]
    return spec_from_mapping(values)


def test_nothing_is_declared_by_default_and_one_mapping_is_a_list_of_one() -> None:
    assert not declared({}).monitors.versions.is_declared
    [one] = declared({"compare": SHADOW}).monitors.versions.compare
    assert (one.gain, one.how, one.margin) == ("shadow_roc_auc_gain", "shadow", 0.01)
    skew = declared({"skew": True}).monitors.versions.skew
    assert skew is not None
    assert (skew.dataset, skew.above) == ("training", 0.001)


def test_the_split_of_one_canary_is_watched_whatever_metrics_it_is_compared_by() -> None:
    spec = declared({"compare": [SHADOW, CANARY, {**CANARY, "metric": "brier"}]})
    canary = spec.monitors.versions.canary
    assert canary is not None
    assert canary.metric == "accuracy"


@pytest.mark.parametrize(
    ("versions", "changed", "said"),
    [
        ({"compare": {"metric": "roc_auc"}}, {}, "write dataset: shadow, dataset: canary, or both"),
        ({"compare": {**SHADOW, "champion": "3"}}, {}, "write dataset: shadow, dataset: canary"),
        ({"compare": {**CANARY, "challenger": "3"}}, {}, "are the same version"),
        ({"compare": {**SHADOW, "share": 0.1}}, {}, "a shadow answers every request"),
        ({"compare": [SHADOW, SHADOW]}, {}, "roc_auc of a shadow is compared twice"),
        (
            {"compare": [CANARY, {**CANARY, "metric": "brier", "share": 0.2}]},
            {},
            "the split of one canary is watched",
        ),
        ({"compare": {**SHADOW, "metric": "mae"}}, {}, "mae is for regression"),
        ({"compare": {**SHADOW, "metric": "expected_value"}}, {}, "computed from costs"),
        ({"compare": CANARY}, {"model_version": None}, "columns.model_version; declare it"),
        ({"staleness": {"above": "90d"}}, {"model_version": None}, "needs columns.model_version"),
        ({"skew": {"dataset": "production"}}, {}, "production is what another dataset is held"),
        ({"skew": {"columns": ["agee"]}}, {}, "did you mean 'age'?"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_the_way(
    versions: dict[str, Any], changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(versions, **changed)
    assert said in str(caught.value)
