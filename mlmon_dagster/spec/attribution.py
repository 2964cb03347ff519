"""How much each feature counts for a model's outputs: SHAP values that are logged with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mlmon_dagster.spec.conditions import check_ladder
from mlmon_dagster.spec.names import column_problem, did_you_mean, listed
from mlmon_dagster.spec.scalars import Declared, shown, switched

if TYPE_CHECKING:
    from mlmon_dagster.spec.model import ModelSpec

ATTRIBUTION: Final = "attribution"  # of a feature
SHIFT: Final = "attribution_shift"  # of the same, from the baseline's
FEATURE: Final = "{feature}"  # in a pattern of column names
_PREFIX: Final = "shap:"
Found = Iterator[tuple[tuple[str | int, ...], str]]


class Attribution(Declared):
    """How far a feature's share of the attributions may move from the baseline's."""

    above: float = Field(default=0.1, gt=0, lt=1)
    error_at: float | None = None

    @model_validator(mode="after")
    def _ladder(self) -> Self:
        check_ladder(self.error_at, above=self.above, below=None)
        return self


def _pattern(value: object) -> object:
    if isinstance(value, str) and value.count(FEATURE) != 1:
        raise ValueError(
            f"{shown(value)} does not say where a feature's name stands; write shap_{FEATURE}, or "
            "a mapping {feature: column}"
        )
    return value


DeclaredAttribution = Annotated[Attribution | None, BeforeValidator(switched)]
ShapColumns = Annotated[
    dict[str, str] | str | None,
    BeforeValidator(_pattern),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"\{feature\}"},
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"type": "null"},
            ]
        }
    ),
]


def attribution_column(feature: str) -> str:
    """Return the store's column of a feature's SHAP values."""
    return f"{_PREFIX}{feature}"


def shap_columns(
    declared: Mapping[str, str] | str | None, features: Mapping[str, object]
) -> dict[str, str]:
    """Return feature -> column of the user's files, a pattern filled in with every feature."""
    if isinstance(declared, str):
        return {name: declared.replace(FEATURE, name) for name in features}
    return dict(declared or {})


def attributed(spec: ModelSpec) -> dict[str, str]:
    """Return feature -> the store's column of its SHAP values, in the order of the features."""
    known = shap_columns(spec.columns.shap, spec.features)
    return {name: attribution_column(name) for name in spec.features if name in known}


def attribution_problems(spec: ModelSpec) -> Found:
    """Find SHAP columns of no feature, or of two, and a monitor without them."""
    columns = shap_columns(spec.columns.shap, spec.features)
    for name, column in columns.items():
        where = ("columns", "shap", name)
        if name not in spec.features:
            hint = did_you_mean(name, spec.features) or "."
            yield where, f"'{name}' is not a feature{hint} Known: {listed(spec.features)}"
        elif problem := column_problem(column):
            yield where, problem
        elif column in spec.features:
            yield where, f"'{column}' is a feature; its SHAP values are another column"
    if spec.columns.shap is not None and len(columns) < 2:
        yield ("columns", "shap"), "a share needs the SHAP values of at least two features"
    if len(set(columns.values())) < len(columns):
        yield ("columns", "shap"), "two features have the same column"
    monitor = spec.monitors.drift
    wanted = "attribution" in monitor.model_fields_set and monitor.attribution is not None
    if wanted and spec.columns.shap is None:
        yield (
            ("monitors", "drift", "attribution"),
            f"attributions are measured from columns.shap; declare it, such as shap_{FEATURE}",
        )
