"""Thresholds of the monitors."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from mlmon_dagster.spec.scalars import Declared


class Condition(Declared):
    """A threshold; exactly one of the two sides, and where it becomes an error."""

    above: float | None = None
    below: float | None = None
    error_at: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("a condition needs exactly one of above and below")
        check_ladder(self.error_at, above=self.above, below=self.below)
        return self

    @property
    def bound(self) -> float:
        """The threshold, whichever side it is on."""
        bound = self.above if self.above is not None else self.below
        assert bound is not None  # the validator saw to it
        return bound

    def fails(self, value: float) -> bool:
        """Tell whether a value is past the threshold (equal to it is still fine)."""
        return value > self.bound if self.above is not None else value < self.bound

    def is_error(self, value: float) -> bool:
        """Tell whether a value is past the second threshold, if there is one."""
        if self.error_at is None:
            return False
        return value > self.error_at if self.above is not None else value < self.error_at


def check_ladder(error_at: float | None, *, above: float | None, below: float | None) -> None:
    """Refuse an ``error_at`` that is not beyond the threshold; None is fine."""
    if error_at is None:
        return
    if (above is not None and error_at < above) or (below is not None and error_at > below):
        raise ValueError(f"error_at {error_at:g} must be further out than the first threshold")


def _rate(condition: Condition) -> Condition:
    if not 0 <= condition.bound <= 1:
        raise ValueError(f"a rate is between 0 and 1, not {condition.bound:g}; write 5 % as 0.05")
    return condition


RateCondition = Annotated[Condition, AfterValidator(_rate)]
