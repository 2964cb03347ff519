"""The monitors that a spec declares, one class per family, each with defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from mlmon_dagster.spec.metric_registry import METRICS
from mlmon_dagster.spec.names import did_you_mean, listed
from mlmon_dagster.spec.scalars import (
    Declared,
    Duration,
    KOfN,
    WindowCount,
    as_tuple,
    shown,
)

Severity = Literal["WARN", "ERROR"]
DriftMethod = Literal["psi", "jensen_shannon", "ks", "chi_square"]


class Condition(Declared):
    """A threshold; exactly one of the two sides."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("a condition needs exactly one of above and below")
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


def _columns(value: object) -> object:
    value = as_tuple(value)
    if value == "all" or (
        isinstance(value, tuple) and value and all(isinstance(name, str) for name in value)
    ):
        return value
    raise ValueError(f"write 'all' or a list of column names, not {shown(value)}")


def _rate(condition: Condition) -> Condition:
    if not 0 <= condition.bound <= 1:
        raise ValueError(f"a rate is between 0 and 1, not {condition.bound:g}; write 5 % as 0.05")
    return condition


def _listed(value: object) -> object:
    return (
        (value,)
        if isinstance(value, dict | PerformanceMonitor | EstimateMonitor)
        else as_tuple(value)
    )


_ALSO_CALLED = {"auc": "roc_auc", "average_precision": "pr_auc", "ece": "calibration_error"}


def _known_metric(metric: str) -> str:
    if metric not in METRICS:
        hint = did_you_mean(_ALSO_CALLED.get(metric, metric), METRICS) or "."
        raise ValueError(f"{shown(metric)} is not a metric{hint} Known: {listed(METRICS, 60)}")
    return metric


PerformanceMetric = Annotated[
    str, AfterValidator(_known_metric), WithJsonSchema({"enum": list(METRICS)})
]
RateCondition = Annotated[Condition, AfterValidator(_rate)]
MonitoredColumns = Annotated[
    Literal["all"] | tuple[str, ...],
    BeforeValidator(_columns),
    WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}}]}),
]


class _Monitor(Declared):
    severity: Severity = "ERROR"
    windows: WindowCount = KOfN(1, 1)
    owner: str | None = None
    runbook: str | None = None


class SchemaMonitor(_Monitor):
    """Rows or files that break the declared schema."""

    bad_rate: RateCondition = Condition(above=0.0)
    duplicate_rate: RateCondition | None = Condition(above=0.2)
    conflict_rate: RateCondition | None = Condition(above=0.01)


class FreshnessMonitor(_Monitor):
    """Predictions that stopped coming, and ground truth that is overdue."""

    no_data_for: Duration = dt.timedelta(hours=26)
    actuals_missing: RateCondition | None = Condition(above=0.5)


class QualityMonitor(_Monitor):
    """Nulls, not-a-number values, unseen categories and values out of range."""

    severity: Severity = "WARN"
    columns: MonitoredColumns = "all"
    null_rate: RateCondition = Condition(above=0.2)
    nan_rate: RateCondition = Condition(above=0.01)
    unseen_rate: RateCondition = Condition(above=0.01)
    out_of_range_rate: RateCondition = Condition(above=0.01)
    min_rows: int = Field(default=30, ge=1)


class DriftMonitor(_Monitor):
    """A distribution that is really and largely unlike the baseline's."""

    severity: Severity = "WARN"
    windows: WindowCount = KOfN(2, 3)
    columns: MonitoredColumns = "all"
    method: DriftMethod = "psi"
    above: float = Field(default=0.1, gt=0)
    q: float = Field(default=0.01, gt=0, lt=1)
    min_rows: int = Field(default=30, ge=1)
    slices: bool = False


class PerformanceMonitor(_Monitor):
    """Realized performance against the baseline (drop) or a fixed bound.

    ``drop`` is how much worse than the baseline, so for losses such as log_loss or rmse it is a
    rise; a metric that is best at 0 or has no better side takes only above and below.
    """

    metric: PerformanceMetric = "roc_auc"
    windows: WindowCount = KOfN(2, 3)
    drop: float | None = Field(default=None, gt=0)
    above: float | None = None
    below: float | None = None
    slices: bool = False

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if [self.drop, self.above, self.below].count(None) != 2:
            raise ValueError("a performance monitor needs exactly one of drop, above and below")
        if self.drop is not None and METRICS[self.metric].better == "neither":
            raise ValueError(
                f"{self.metric} has no better side to drop from; write above or below instead"
            )
        return self


class EstimateMonitor(_Monitor):
    """Performance estimated without ground truth, and the estimate's distance from the truth.

    ``drop`` is how much worse than the baseline's the estimate may be, and ``residual`` how much
    worse than the estimate the realized value may turn out, over the last ``over`` windows.
    """

    metric: PerformanceMetric = "roc_auc"
    severity: Severity = "WARN"
    windows: WindowCount = KOfN(2, 3)
    drop: float = Field(default=0.05, gt=0)
    residual: float = Field(default=0.03, gt=0)
    over: int = Field(default=7, ge=1, le=60)


class ServiceMonitor(_Monitor):
    """Latency, errors and volume of the serving system."""

    p95_latency_ms: Condition | None = None
    p99_latency_ms: Condition | None = None
    error_rate: RateCondition = Condition(above=0.01)
    n: Condition | None = None
    volume_drop: RateCondition | None = Condition(above=0.5)


class Monitors(Declared):
    """Everything that is watched; each family has defaults that suit most models."""

    schema_: SchemaMonitor = Field(default=SchemaMonitor(), alias="schema")
    freshness: FreshnessMonitor = FreshnessMonitor()
    quality: QualityMonitor = QualityMonitor()
    drift: DriftMonitor = DriftMonitor()
    performance: Annotated[tuple[PerformanceMonitor, ...], BeforeValidator(_listed)] = (
        PerformanceMonitor(drop=0.05),
    )
    estimated_performance: Annotated[tuple[EstimateMonitor, ...], BeforeValidator(_listed)] = ()
    service: ServiceMonitor = ServiceMonitor()

    def each(self) -> Iterator[tuple[tuple[str | int, ...], _Monitor]]:
        """Yield every declared monitor with its place in the spec, such as ``("drift",)``."""
        for name in ("schema", "freshness", "quality", "drift", "service"):
            yield (name,), getattr(self, "schema_" if name == "schema" else name)
        for index, monitor in enumerate(self.performance):
            yield ("performance", index), monitor
        for index, estimate in enumerate(self.estimated_performance):
            yield ("estimated_performance", index), estimate
