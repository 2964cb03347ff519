"""What a window is compared with."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import model_validator

from mlmon_dagster.spec.scalars import Declared

DatasetName = Literal["production", "training", "validation", "shadow", "canary"]

PRODUCTION = "production"
DATASETS: tuple[str, ...] = get_args(DatasetName)


class BaselineSpec(Declared):
    """What a window is compared with: the events of another dataset."""

    dataset: DatasetName = "validation"

    @model_validator(mode="after")
    def _not_itself(self) -> Self:
        if self.dataset == PRODUCTION:
            raise ValueError(
                "production cannot be compared with itself; use validation, training, shadow "
                "or canary"
            )
        return self
