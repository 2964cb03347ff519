"""The monitor of what no single column shows."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BeforeValidator, Field, model_validator

from mlmon_dagster.spec.conditions import check_ladder
from mlmon_dagster.spec.scalars import Declared, switched

SHIFT: Final = "correlation_shift"  # of a window, at column `:table`
CHANGE: Final = "correlation_change"  # of one of its pairs


class Multivariate(Declared):
    """How far the correlation of any two columns may move from the baseline's."""

    above: float = Field(default=0.2, gt=0, le=2)
    error_at: float | None = None

    @model_validator(mode="after")
    def _ladder(self) -> Self:
        check_ladder(self.error_at, above=self.above, below=None)
        return self


DeclaredMultivariate = Annotated[Multivariate | None, BeforeValidator(switched)]
