"""What a model of a task lacks, or says twice, is refused in its place."""

from __future__ import annotations

from typing import Any

import pytest

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import spec_from_mapping
from tests.spec.specs import REMOVED, mapping

NUMERIC = {"type": "numeric"}
CLASSES = {
    "task": "multiclass_classification",
    "columns__score": REMOVED,
    "columns__scores": {"a": "p_a", "b": "p_b"},
}
NUMBER = {"task": "regression", "columns__score": REMOVED}
RANKING = {"task": "ranking", "columns__prediction": REMOVED, "columns__group": "query"}
FAIR = {"slices": ["plan"], "fairness": {"slices": ["plan"]}}
LABELLESS = {"columns__actual": REMOVED}
EXISTS = {"expect": "expect_column_to_exist", "arguments": {"column": "age"}}
QUOTED = {"path": "landing/*.csv", "delimiter": '"'}
SHADOW = {"dataset": "shadow", "metric": "brier"}
CANARY = {"champion": "3", "challenger": "4", "metric": "accuracy", "share": 0.1}
VERSIONLESS = {"columns__model_version": REMOVED}


def compared(*declared: dict[str, Any]) -> dict[str, Any]:
    return {"monitors": {"versions": {"compare": list(declared)}}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"costs": {"fp": 1, "fn": 2}, "columns__prediction": REMOVED}, "costs: costs are of dec"),
        (FAIR | {"columns__prediction": REMOVED}, "fairness: fairness compares rates of decisi"),
        (FAIR | {"fairness": {"slices": ["plam"]}}, "slices.0: 'plam' is not among the slices; di"),
        (
            FAIR | {"fairness": {"slices": ["plan"], "reference": {"member": "yes"}}},
            "fairness.reference.member: 'member' is not under fairness.slices",
        ),
        (
            LABELLESS
            | {"expectations": [EXISTS | {"stream": "actuals"}], "source__actuals": REMOVED},
            "expectations.0.stream: the model has no ground truth; declare source.actuals",
        ),
        (
            NUMBER | {"monitors": {"versions": {"compare": [SHADOW]}}},
            "brier is compared of two scores of a class; not for regression",
        ),
        ({"columns__outcomes": {"age": "paid"}}, "outcomes.age: 'age' is the name of another colu"),
        ({"source__predictions": QUOTED}, "delimiter and quote are both"),
        ({"monitors": {"business": {"change": "often%"}}}, "'often%' is not a share; write 20% or"),
        (CLASSES | {"columns__score": "p_churn"}, "columns.score: a multiclass model has one sco"),
        (CLASSES | {"columns__prediction": REMOVED}, "columns: a multiclass model needs columns."),
        (CLASSES | {"columns__scores": {"a": "p_a"}}, "columns.scores: at least two classes"),
        (CLASSES | {"columns__scores": {"a": "p_a", "b": ""}}, "columns.scores.b: "),
        (CLASSES | {"classes": ["a", "c"]}, "columns.scores.b: 'b' is not among classes"),
        (CLASSES | {"columns__scores": {"a": "p", "b": "p"}}, "two classes have the same column"),
        (CLASSES | {"classes": ["a", "b", "a"]}, "classes: at least two different classes are"),
        (CLASSES | {"classes": [f"c{n}" for n in range(2000)]}, "classes: 2002 classes; at most"),
        (NUMBER | {"columns__prediction": REMOVED}, "columns: a regression model needs columns.p"),
        (NUMBER | {"features__residual": NUMERIC}, "'residual' is what the errors are called"),
        (NUMBER | {"columns__rank": "rank"}, "columns.rank: rank is for ranking, not for regress"),
        (RANKING | {"columns__score": REMOVED}, "columns: a ranking model needs columns.rank (1"),
        (RANKING | {"columns__prediction": "x"}, "columns.prediction: a ranking has no predicti"),
        (RANKING | {"columns__group": ""}, "columns.group: "),
        (RANKING | {"features__rank": NUMERIC}, "features.rank: 'rank' is a column of the store"),
        (
            {"monitors": {"estimated_performance": [{"metric": "log_loss", "shift": 1}] * 2}},
            "monitors.estimated_performance.1: log_loss is monitored twice; keep one",
        ),
        (
            {
                "monitors": {"estimated_performance": [{"metric": "f1", "drop": 0.1}]},
                "columns__prediction": REMOVED,
            },
            "f1 is estimated from columns.score and columns.prediction; declare them",
        ),
        ({"retention": {"versions": "1h"}}, "retention.versions: must be at least 1d: readers"),
        ({"retention": {"production": "1d"}}, "production: is shorter than actuals.closed_after"),
        ({"features__age__alias": ["plan"]}, "features.age.alias.0: 'plan' is in use; an alias"),
        ({"features__age__alias": [""]}, "features.age.alias.0: "),
        ({"expectations": [{"expect": "no such"}]}, "'no such' does not name an expectation"),
        ({"columns__base_value": "base"}, "columns.base_value: base_value is of logged SHAP val"),
        (
            {
                "columns__shap": "shap_{feature}",
                "columns__base_value": "base",
                "explain": {"base_value": 0.5},
            },
            "explain.base_value: base values are logged (columns.base_value); keep one",
        ),
        (
            {"effects": [{"cause": "age", "outcome": "actual", "within": ["age"]}]},
            "within.0: 'age' is the cause itself",
        ),
        (
            {
                "effects": [
                    {
                        "cause": "age",
                        "outcome": "actual",
                        "experiment": {"column": "plam", "control": "a", "treatment": "a"},
                    }
                ]
            },
            "experiment.column: 'plam' is no categorical or boolean feature; did you mean 'plan'?",
        ),
        (
            CLASSES | {"effects": [{"cause": "age", "outcome": "actual"}]},
            "the ground truth is no number",
        ),
        (compared({"metric": "roc_auc"}), "write dataset: shadow, dataset: canary, or both"),
        (compared(SHADOW | {"champion": "3"}), "write dataset: shadow, dataset: canary"),
        (compared(CANARY | {"challenger": "3"}), "are the same version"),
        (compared(SHADOW | {"share": 0.1}), "a shadow answers every request"),
        (compared(SHADOW, SHADOW), "brier of a shadow is compared twice"),
        (
            compared(CANARY, CANARY | {"metric": "brier", "share": 0.2}),
            "the split of one canary is watched",
        ),
        (compared(SHADOW | {"metric": "mae"}), "mae is for regression"),
        (compared(SHADOW | {"metric": "expected_value"}), "computed from costs"),
        (compared(CANARY) | VERSIONLESS, "columns.model_version; declare it"),
        (
            {"monitors": {"versions": {"staleness": {"above": "90d"}}}} | VERSIONLESS,
            "needs columns.model_version",
        ),
        (
            {"monitors": {"versions": {"skew": {"dataset": "production"}}}},
            "production is what another dataset is held",
        ),
        ({"monitors": {"versions": {"skew": {"columns": ["agee"]}}}}, "did you mean 'age'?"),
        ({"columns__shap": "shap"}, "does not say where a feature's name stands; write shap_{fea"),
        ({"columns__shap": {"age": "a", "plam": "b"}}, "'plam' is not a feature; did you mean 'p"),
        ({"columns__shap": {"age": "a", "plan": "a"}}, "two features have the same column"),
        ({"columns__shap": {"age": "a"}}, "at least two features"),
        ({"columns__shap": {"age": "plan", "plan": "x"}}, "'plan' is a feature; its SHAP values"),
        ({"columns__shap": {"age": "a'b", "plan": "x"}}, "holds a quote"),
        ({"monitors": {"drift": {"attribution": {"above": 0.2}}}}, "declare it, such as"),
        ({"baseline": {"moving": "28d", "dataset": "training"}}, "keep one of dataset, moving"),
        ({"baseline": {"moving": "2h"}}, "holds no window of a day"),
        ({"baseline": {"same": "hour"}}, "needs windows of an hour"),
        ({"baseline": {"previous": True, "gap": "1d"}}, "gap goes with moving or same"),
        ({"baseline": {"moving": "7d", "weeks": 2}}, "weeks goes with same"),
        ({"baseline": {"model_version": "3"}} | VERSIONLESS, "needs columns.model_version"),
        (
            {"monitors": {"drift": {"baseline": {"model_version": "3"}}}} | VERSIONLESS,
            "monitors.drift.baseline: needs columns.model_version",
        ),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str) else "",
)
def test_what_contradicts_itself_is_refused_in_its_place(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        spec_from_mapping(mapping(**changes))

    assert message in str(caught.value)
