"""The inputs of a model."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from mlmon_dagster.spec.scalars import Declared

FeatureType = Literal["numeric", "categorical", "boolean", "datetime", "text"]


class Feature(Declared):
    """One model input."""

    type: FeatureType
    from_: str | None = Field(default=None, alias="from")
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    nullable: bool = False
    pii: bool = False
    description: str | None = None

    @model_validator(mode="after")
    def _sensible_range(self) -> Self:
        if self.type != "numeric" and not (self.min is None and self.max is None):
            raise ValueError(f"min and max are for numeric features, not for {self.type} ones")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        return self
