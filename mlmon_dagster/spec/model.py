"""What a user declares about one deployed model; pure pydantic, free of dagster."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from mlmon_dagster.spec.actuals import ActualsPolicy
from mlmon_dagster.spec.alerting import AlertPolicy, SlackRoute
from mlmon_dagster.spec.baseline import (
    DATASETS,
    PRODUCTION,
    BaselineSpec,
    DatasetName,
    default_baseline,
)
from mlmon_dagster.spec.checks import find_problems
from mlmon_dagster.spec.conditions import Condition
from mlmon_dagster.spec.declaration import (
    Columns,
    Declaration,
    Granularity,
    SliceKey,
    Task,
    TimeSpec,
)
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
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.spec.retention import RetentionPolicy
from mlmon_dagster.spec.scalars import (
    MAX_HOURLY_WINDOWS,
)
from mlmon_dagster.spec.shap import shap_columns
from mlmon_dagster.spec.sources import Cursor, EpochUnit, FileSource, Source, Sources, SqlSource
from mlmon_dagster.spec.tasks import default_levels, default_performance

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


class ModelSpec(Declaration):
    """One monitored model: a declaration whose parts fit together, with its defaults."""

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
