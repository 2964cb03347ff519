"""What a user declares about one deployed model; pure pydantic, free of dagster."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mlmon_dagster.spec.scalars import Duration, KOfN, WindowCount

Task = Literal["binary_classification", "multiclass_classification", "regression", "ranking"]
Granularity = Literal["hour", "day", "week", "month"]
Severity = Literal["WARN", "ERROR"]
FeatureType = Literal["numeric", "categorical", "boolean", "datetime", "text"]
DriftMethod = Literal["psi", "jensen_shannon", "ks", "chi_square"]
PerformanceMetric = Literal[
    "roc_auc", "f1", "precision", "recall", "accuracy", "brier", "log_loss", "calibration_error"
]
ALL = "all"


class _Declared(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


def _slice_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


SliceKey = Annotated[tuple[str, ...], BeforeValidator(_slice_tuple)]


class TimeSpec(_Declared):
    """When windows start and end, and how late events may come."""

    zone: str = "UTC"
    granularity: Granularity = "day"
    start: dt.date
    end: dt.date | None = None
    allowed_lateness: Duration = dt.timedelta(days=2)
    naive: Literal["refuse", "zone"] = "refuse"
    skew_tolerance: Duration = dt.timedelta(minutes=10)


class FileSource(_Declared):
    """Landing files of one stream: a glob under the project folder."""

    path: str
    format: Literal["auto", "parquet", "csv", "jsonl"] = "auto"
    settle: Duration = dt.timedelta(seconds=60)
    max_bad_rate: float = Field(default=0.01, ge=0, le=1)
    max_bytes: int = Field(default=4 * 1024**3, gt=0)
    max_rows: int = Field(default=20_000_000, gt=0)


class Sources(_Declared):
    """Where prediction events and ground truth land."""

    predictions: FileSource
    actuals: FileSource | None = None


class Columns(_Declared):
    """Names of the roles in the user's files; a role left out does not exist there."""

    prediction_id: str
    event_time: str
    score: str | None = None
    prediction: str | None = None
    actual: str | None = None
    actual_time: str | None = None
    dataset: str | None = None
    model_version: str | None = None
    latency_ms: str | None = None
    status: str | None = None
    trace_id: str | None = None
    outcome: str | None = None


class ActualsPolicy(_Declared):
    """When ground truth is expected, and when a window is closed."""

    expected_within: Duration = dt.timedelta(days=1)
    closed_after: Duration = dt.timedelta(days=90)
    min_coverage: float = Field(default=0.9, gt=0, le=1)


class Feature(_Declared):
    """One model input."""

    type: FeatureType
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    nullable: bool = False
    pii: bool = False
    description: str | None = None


class BaselineSpec(_Declared):
    """What a window is compared with: the events of another dataset."""

    dataset: str = "validation"


class Condition(_Declared):
    """A threshold; exactly one of the two sides."""

    above: float | None = None
    below: float | None = None


class _Monitor(_Declared):
    severity: Severity = "ERROR"
    windows: WindowCount = KOfN(1, 1)
    owner: str | None = None
    runbook: str | None = None


class SchemaMonitor(_Monitor):
    """Rows or files that break the declared schema."""

    bad_rate: Condition = Condition(above=0.0)


class FreshnessMonitor(_Monitor):
    """Predictions that stopped coming."""

    no_data_for: Duration = dt.timedelta(hours=26)


class QualityMonitor(_Monitor):
    """Nulls, not-a-number values, unseen categories and values out of range."""

    severity: Severity = "WARN"
    columns: Literal["all"] | tuple[str, ...] = "all"
    null_rate: Condition = Condition(above=0.2)
    nan_rate: Condition = Condition(above=0.01)
    unseen_rate: Condition = Condition(above=0.01)
    out_of_range_rate: Condition = Condition(above=0.01)
    min_rows: int = Field(default=30, ge=1)


class DriftMonitor(_Monitor):
    """A distribution that is really and largely unlike the baseline's."""

    severity: Severity = "WARN"
    windows: WindowCount = KOfN(2, 3)
    columns: Literal["all"] | tuple[str, ...] = "all"
    method: DriftMethod = "psi"
    above: float = Field(default=0.1, gt=0)
    q: float = Field(default=0.01, gt=0, lt=1)
    min_rows: int = Field(default=30, ge=1)
    slices: bool = False


class PerformanceMonitor(_Monitor):
    """Realized performance against the baseline (drop) or a fixed bound."""

    metric: PerformanceMetric = "roc_auc"
    windows: WindowCount = KOfN(2, 3)
    drop: float | None = Field(default=None, gt=0)
    above: float | None = None
    below: float | None = None
    slices: bool = False


class ServiceMonitor(_Monitor):
    """Latency, errors and volume of the serving system."""

    p95_latency_ms: Condition | None = None
    p99_latency_ms: Condition | None = None
    error_rate: Condition = Condition(above=0.01)
    n: Condition | None = None


def _listed(value: object) -> object:
    return (value,) if isinstance(value, dict | PerformanceMonitor) else tuple(value) if isinstance(value, list) else value


class Monitors(_Declared):
    """Everything that is watched; each family has defaults that suit most models."""

    schema_: SchemaMonitor = Field(default=SchemaMonitor(), alias="schema")
    freshness: FreshnessMonitor = FreshnessMonitor()
    quality: QualityMonitor = QualityMonitor()
    drift: DriftMonitor = DriftMonitor()
    performance: Annotated[tuple[PerformanceMonitor, ...], BeforeValidator(_listed)] = (
        PerformanceMonitor(drop=0.05),
    )
    service: ServiceMonitor = ServiceMonitor()


class SlackRoute(_Declared):
    """The Slack channel that hears of a model, and who is mentioned."""

    channel: str
    mention: str | None = None


class AlertPolicy(_Declared):
    """Where alerts go and how often they repeat."""

    slack: SlackRoute | None = None
    repeat: Duration = dt.timedelta(hours=24)


class ModelSpec(_Declared):
    """One monitored model: the whole of ``models/<model>.yaml``."""

    model: str
    task: Task
    description: str = ""
    owners: tuple[str, ...]
    time: TimeSpec
    source: Sources
    columns: Columns
    actuals: ActualsPolicy = ActualsPolicy()
    features: dict[str, Feature]
    baseline: BaselineSpec = BaselineSpec()
    slices: tuple[SliceKey, ...] = ()
    monitors: Monitors = Monitors()
    alerts: AlertPolicy = AlertPolicy()
