"""What a user declares about one deployed model; pure pydantic, free of dagster."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from mlmon_dagster.spec.actuals import ActualsPolicy
from mlmon_dagster.spec.alerting import AlertPolicy, SlackRoute
from mlmon_dagster.spec.attribution import ShapColumns, attribution_column, shap_columns
from mlmon_dagster.spec.baseline import (
    DATASETS,
    PRODUCTION,
    BaselineSpec,
    DatasetName,
    DeclaredBaseline,
    default_baseline,
)
from mlmon_dagster.spec.checks import find_problems
from mlmon_dagster.spec.conditions import Condition
from mlmon_dagster.spec.estimates import default_estimates
from mlmon_dagster.spec.evaluation import Costs, Fairness
from mlmon_dagster.spec.features import Feature, FeatureType
from mlmon_dagster.spec.monitors import (
    FAMILIES,
    DriftMethod,
    DriftMonitor,
    EstimateMonitor,
    FreshnessMonitor,
    Monitors,
    PerformanceMetric,
    PerformanceMonitor,
    QualityMonitor,
    SchemaMonitor,
    ServiceMonitor,
    Severity,
)
from mlmon_dagster.spec.retention import RetentionPolicy
from mlmon_dagster.spec.scalars import (
    MAX_HOURLY_WINDOWS,
    Date,
    Declared,
    Duration,
    Names,
    as_tuple,
)
from mlmon_dagster.spec.sources import Cursor, EpochUnit, FileSource, Source, Sources, SqlSource
from mlmon_dagster.spec.tasks import default_levels, default_performance, score_column

__all__ = [
    "ALL",
    "DATASETS",
    "FAMILIES",
    "MAX_HOURLY_WINDOWS",
    "PRODUCTION",
    "ActualsPolicy",
    "AlertPolicy",
    "BaselineSpec",
    "Columns",
    "Condition",
    "Costs",
    "Cursor",
    "DatasetName",
    "DriftMethod",
    "DriftMonitor",
    "EpochUnit",
    "EstimateMonitor",
    "Fairness",
    "Feature",
    "FeatureType",
    "FileSource",
    "FreshnessMonitor",
    "Granularity",
    "ModelSpec",
    "Monitors",
    "PerformanceMetric",
    "PerformanceMonitor",
    "QualityMonitor",
    "RetentionPolicy",
    "SchemaMonitor",
    "ServiceMonitor",
    "Severity",
    "SlackRoute",
    "SliceKey",
    "Source",
    "Sources",
    "SqlSource",
    "Task",
    "TimeSpec",
]

Task = Literal["binary_classification", "multiclass_classification", "regression", "ranking"]
Granularity = Literal["hour", "day", "week", "month"]

ALL = "all"


def _slice_tuple(value: object) -> object:
    return (value,) if isinstance(value, str) else as_tuple(value)


SliceKey = Annotated[tuple[str, ...], BeforeValidator(_slice_tuple)]


Key = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=2)]


class TimeSpec(Declared):
    """When windows start and end, and how late events may come."""

    zone: str = "UTC"
    granularity: Granularity = "day"
    start: Date
    end: Date | None = None
    allowed_lateness: Duration = dt.timedelta(days=2)
    naive: Literal["refuse", "zone"] = "refuse"
    skew_tolerance: Duration = dt.timedelta(minutes=10)


class Columns(Declared):
    """Names of the roles in the user's files; a role left out does not exist there."""

    prediction_id: str | Key
    event_time: str
    score: str | None = None
    scores: dict[str, str] | None = None
    shap: ShapColumns = None
    prediction: str | None = None
    group: str | None = None
    rank: str | None = None
    actual: str | None = None
    actual_time: str | None = None
    dataset: str | None = None
    model_version: str | None = None
    latency_ms: str | None = None
    status: str | None = None
    trace_id: str | None = None
    outcome: str | None = None

    @property
    def id_parts(self) -> tuple[str, ...]:
        """The columns that identify an event together; () if one column does."""
        return () if isinstance(self.prediction_id, str) else self.prediction_id

    def declared(self) -> dict[str, str]:
        """Return role -> column of the files, for the roles that exist.

        The score of a class has a role of its own, ``score:<class>``, and so have the SHAP values
        of a feature, ``shap:<feature>``; the parts of an id are joined.
        """
        found: dict[str, str] = {}
        for role, name in self:
            if role == "shap":
                shap = shap_columns(name, {})
                found |= {attribution_column(feature): column for feature, column in shap.items()}
            elif isinstance(name, dict):
                found |= {score_column(label): column for label, column in name.items()}
            elif isinstance(name, tuple):
                found[role] = " + ".join(name)
            elif name is not None:
                found[role] = name
        return found


class ModelSpec(Declared):
    """One monitored model: the whole of ``models/<model>.yaml``."""

    model: str
    task: Task
    description: str = ""
    owners: Names
    time: TimeSpec
    source: Sources
    columns: Columns
    actuals: ActualsPolicy = ActualsPolicy()
    features: dict[str, Feature]
    baseline: DeclaredBaseline = BaselineSpec()
    slices: Annotated[tuple[SliceKey, ...], BeforeValidator(as_tuple)] = ()
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
    costs: Costs | None = None
    fairness: Fairness | None = None
    top_k: int = Field(default=5, ge=1, le=1000)
    top_share: float = Field(default=0.1, gt=0, lt=1)
    quantile: float = Field(default=0.5, gt=0, lt=1)
    monitors: Monitors = Monitors()
    alerts: AlertPolicy = AlertPolicy()
    retention: RetentionPolicy = RetentionPolicy()

    def shows_values_of(self, column: str) -> bool:
        """Tell whether values of a feature may be in messages: its spec says so, or it is a slice.

        A feature that nobody has marked may be personal; its values are shown on demand only.
        """
        feature = self.features.get(column)
        is_slice = any(column in key for key in self.slices)
        return feature is not None and not feature.pii and (feature.pii is False or is_slice)

    @model_validator(mode="after")
    def _defaults_of_the_whole(self) -> Self:
        if isinstance(self.columns.shap, str):
            shap = shap_columns(self.columns.shap, self.features)
            self.__dict__["columns"] = self.columns.model_copy(update={"shap": shap})
        # Beside pydantic, so that a default still counts as not declared.
        if "baseline" not in self.model_fields_set:
            has_dataset = self.columns.dataset is not None
            self.__dict__["baseline"] = default_baseline(has_dataset, self.time.granularity)
        monitors = self.monitors.model_copy()
        if "performance" not in self.monitors.model_fields_set:
            monitors.__dict__["performance"] = default_performance(self)
        monitors.__dict__["performance"] += default_levels(self, monitors.performance)
        self.__dict__["monitors"] = monitors
        if "estimated_performance" not in self.monitors.model_fields_set:
            monitors = self.monitors.model_copy()
            monitors.__dict__["estimated_performance"] = default_estimates(self)
            self.__dict__["monitors"] = monitors
        return self

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        problems = find_problems(self)
        if problems:
            text = "; ".join(f"{'.'.join(map(str, p.path))}: {p.message}" for p in problems)
            # The loader reads the list again, to give each problem its own line.
            raise PydanticCustomError(
                "spec_problems", "{text}", {"text": text, "problems": problems}
            )
        return self

    @property
    def has_actuals(self) -> bool:
        """Whether ground truth can ever arrive for this model."""
        return self.columns.actual is not None and self.source.actuals is not None
