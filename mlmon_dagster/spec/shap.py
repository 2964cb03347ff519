"""Logged SHAP values: their columns, and how far a feature's share may move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from mlmon_dagster.spec.conditions import check_ladder
from mlmon_dagster.spec.scalars import Declared, shown, switched

if TYPE_CHECKING:
    pass

FEATURE: Final = "{feature}"  # in a pattern of column names


_PREFIX: Final = "shap:"


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
