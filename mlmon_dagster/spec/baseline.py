"""What a window is compared with."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from mlmon_dagster.spec.scalars import AssetName, Declared, Duration, format_duration

DatasetName = Literal["production", "training", "validation", "shadow", "canary"]
BaselineKind = Literal["dataset", "moving", "previous", "same", "model_version"]

PRODUCTION = "production"
DATASETS: tuple[str, ...] = get_args(DatasetName)
LIVE = (PRODUCTION, "shadow", "canary")  # measured in every window; production alone is judged
_KINDS: tuple[BaselineKind, ...] = ("moving", "previous", "same", "model_version")
GRAINS: dict[str, dt.timedelta] = {
    "hour": dt.timedelta(hours=1),
    "day": dt.timedelta(days=1),
    "week": dt.timedelta(weeks=1),
    "month": dt.timedelta(days=31),
}
# Of windows that are longer than a day, 28 days would hold too few.
_DEFAULT_MOVING = {"week": dt.timedelta(weeks=26), "month": dt.timedelta(days=365)}
_USUAL_MOVING = dt.timedelta(days=28)
_ENOUGH = 14  # windows, from which on the spread between them is known
_FULL_WEEK = dt.timedelta(days=7)


class BaselineSpec(Declared):
    """What a window is compared with: another dataset, or earlier windows of production."""

    dataset: DatasetName = "validation"
    moving: Duration | None = None
    gap: Duration = dt.timedelta(0)
    previous: Literal[True] | None = None
    same: Literal["weekday", "hour"] | None = None
    weeks: int = Field(default=4, ge=1, le=52)
    model_version: str | None = None
    asset: AssetName | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        declared = [kind for kind in _KINDS if getattr(self, kind) is not None]
        has_dataset = "dataset" in self.model_fields_set
        if len(declared) + has_dataset > 1:
            named = [*(["dataset"] if has_dataset else []), *declared]
            raise ValueError(f"a baseline is of one kind; keep one of {', '.join(named)}")
        if has_dataset and self.dataset == PRODUCTION:
            raise ValueError(
                "production cannot be compared with itself as a whole; use {moving: 28d}, "
                "previous, or another dataset, such as validation"
            )
        if "gap" in self.model_fields_set and self.kind not in ("moving", "same"):
            raise ValueError("gap goes with moving or same")
        if "weeks" in self.model_fields_set and self.kind != "same":
            raise ValueError("weeks goes with same")
        if self.kind != "dataset":
            # Beside pydantic, so that it still counts as not declared.
            self.__dict__["dataset"] = PRODUCTION
        return self

    @property
    def kind(self) -> BaselineKind:
        """Which of the kinds it is."""
        return next((kind for kind in _KINDS if getattr(self, kind) is not None), "dataset")

    @property
    def is_rolling(self) -> bool:
        """Whether windows are compared with earlier windows of production."""
        return self.kind != "dataset"

    def problem(self, granularity: str, *, own: bool = False) -> str | None:
        """Say what does not fit windows of a granularity, or a monitor's own baseline."""
        if own and not self.is_rolling:
            return "another dataset goes under the model's baseline, not a monitor's"
        grain = GRAINS[granularity]
        if self.moving is not None and self.moving < grain:
            return f"moving {format_duration(self.moving)} holds no window of a {granularity}"
        if self.same == "hour" and granularity != "hour":
            return f"same: hour needs windows of an hour, not of a {granularity}"
        if self.same == "weekday" and granularity not in ("hour", "day"):
            return f"same: weekday needs windows of a day or an hour, not of a {granularity}"
        return None

    def windows_needed(self, granularity: str) -> int:
        """Return how many earlier windows there must be before a window is compared.

        Half of those that a moving baseline spans, but no more than 14 and a full week. Until
        then the model is learning.
        """
        grain = GRAINS[granularity]
        if self.kind == "moving":
            assert self.moving is not None  # that is its kind
            spanned = max(int(self.moving / grain), 1)
            return min(-(-spanned // 2), max(_ENOUGH, int(_FULL_WEEK / grain)))
        if self.kind == "same":
            return min(2, self.weeks)
        return 1

    def described(self) -> str:
        """Say in words what windows are compared with."""
        after = f", {format_duration(self.gap)} apart" if self.gap else ""
        return {
            "dataset": f"events of dataset {self.dataset!r}",
            "moving": f"the {format_duration(self.moving or self.gap)} before{after}",
            "previous": "the window before",
            "same": f"the same {self.same} of the {self.weeks} weeks before{after}",
            "model_version": f"earlier windows of model version {self.model_version!r}",
        }[self.kind]


def default_baseline(has_dataset: bool, granularity: str) -> BaselineSpec:
    """Return the baseline of a spec that declares none.

    The dataset validation where events name a dataset, else a moving one: 28 days, or half a year
    of weeks or a year of months.
    """
    if has_dataset:
        return BaselineSpec()
    return BaselineSpec(moving=_DEFAULT_MOVING.get(granularity, _USUAL_MOVING))


def _named(value: object) -> object:
    return {"previous": True} if value == "previous" else value


DeclaredBaseline = Annotated[
    BaselineSpec,
    BeforeValidator(_named, json_schema_input_type=Literal["previous"] | BaselineSpec),
]
