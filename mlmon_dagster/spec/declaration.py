"""What may be declared about one deployed model, as it was written; pure pydantic."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mlmon_dagster.spec.actuals import ActualsPolicy
from mlmon_dagster.spec.alerting import AlertPolicy
from mlmon_dagster.spec.baseline import (
    BaselineSpec,
    DeclaredBaseline,
)
from mlmon_dagster.spec.evaluation import Costs, Fairness
from mlmon_dagster.spec.features import Feature
from mlmon_dagster.spec.monitors import (
    Monitors,
)
from mlmon_dagster.spec.names import score_column
from mlmon_dagster.spec.retention import RetentionPolicy
from mlmon_dagster.spec.scalars import (
    Date,
    Declared,
    Duration,
    Names,
    as_tuple,
)
from mlmon_dagster.spec.shap import ShapColumns, attribution_column, shap_columns
from mlmon_dagster.spec.sources import Sources

Task = Literal["binary_classification", "multiclass_classification", "regression", "ranking"]
Granularity = Literal["hour", "day", "week", "month"]


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


class Declaration(Declared):
    """The whole of ``models/<model>.yaml``, each part right by itself."""

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

    @property
    def has_actuals(self) -> bool:
        """Whether ground truth can ever arrive for this model."""
        return self.columns.actual is not None and self.source.actuals is not None
