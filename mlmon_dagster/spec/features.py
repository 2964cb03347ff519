"""The inputs of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from mlmon_dagster.spec import names
from mlmon_dagster.spec.scalars import Declared, as_tuple

FeatureType = Literal["numeric", "categorical", "boolean", "datetime", "text"]


class Feature(Declared):
    """One model input."""

    type: FeatureType
    from_: str | None = Field(default=None, alias="from")
    alias: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    nullable: bool = False
    pii: bool | None = None  # None: nobody has said that its values may be shown
    importance: float | None = Field(default=None, ge=0)
    description: str | None = None

    @model_validator(mode="after")
    def _sensible_range(self) -> Self:
        if self.type != "numeric" and not (self.min is None and self.max is None):
            raise ValueError(f"min and max are for numeric features, not for {self.type} ones")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        return self


def alias_problems(
    features: Mapping[str, Feature], roles: Iterable[str]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong with the features' earlier names, by their path in ``features``."""
    taken = {*features, *roles, *(f.from_ for f in features.values() if f.from_)}
    for name, feature in features.items():
        for index, old in enumerate(feature.alias):
            problem = names.column_problem(old)
            if old in taken:
                problem = f"'{old}' is in use; an alias is a name that the feature had before"
            if problem:
                yield (name, "alias", index), problem
            taken.add(old)
