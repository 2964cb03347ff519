"""The monitors that a spec declares, one class per family with defaults, and their thresholds."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from mlmon_dagster.spec.baseline import DatasetName, DeclaredBaseline
from mlmon_dagster.spec.metric_registry import COUNTED, METRICS, of_outcome
from mlmon_dagster.spec.names import (
    BUSINESS,
    CUSTOM,
    DRIFT,
    ESTIMATED_PERFORMANCE,
    FRESHNESS,
    NO_VERDICT,
    PERFORMANCE,
    QUALITY,
    SCHEMA,
    SERVICE,
    TABLE,
    VERSIONS,
    offer,
)
from mlmon_dagster.spec.scalars import (
    Declared,
    Duration,
    KOfN,
    WindowCount,
    as_tuple,
    shown,
    switched,
)
from mlmon_dagster.spec.spans import stage_column

Severity = Literal["WARN", "ERROR"]
Layer = Literal["System", "Data", "Model", "Business"]
# Name -> what people call it, of every drift distance. Read as text from where the formulas are,
# since importing those would load numpy into every process that reads a spec.
DISTANCES: Final = dict(
    re.findall(
        r'^@?(?:always|of_bins|of_values|delta)\("(\w+)", "(.+?)"',
        (Path(__file__).parents[1] / "metrics/drift/distances.py").read_text(),
        re.MULTILINE,
    )
)
if TYPE_CHECKING:
    DriftMethod = str
else:
    DriftMethod = Literal[tuple(DISTANCES)]
FEATURE: Final = "{feature}"  # in a pattern of column names
_PREFIX: Final = "shap:"
SUSTAINED_SHIFT: Final = "sustained_shift"  # of a column, over its newest windows
SUSTAINED_WINDOWS: Final = (7, 14, 28)  # that are judged as one
REPEATED_ROWS: Final = "repeated_rows"  # of a window, those of one of the windows before
RELEASE_CHANGE: Final = "release_change"  # of a version beside the one that it replaced
GAIN: Final = "_gain"  # ends the name of what another version is better by
CANARY_SHARE: Final = "canary_share"
SKEW_RATE: Final = "skew_rate"
VERSION_AGE: Final = "version_age_days"
CLASS_RATE: Final = "class_rate"
PROMETHEUS: Final = "prometheus"
SPAN_COVERAGE: Final = "span_coverage"


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


class _Shift(Declared):
    """How far something may move from the baseline's, and from where on that is an error."""

    above: float
    error_at: float | None = None

    @model_validator(mode="after")
    def _ladder(self) -> Self:
        check_ladder(self.error_at, above=self.above, below=None)
        return self


class Attribution(_Shift):
    """How far a feature's share of the attributions may move from the baseline's."""

    above: float = Field(default=0.1, gt=0, lt=1)


class Sustained(_Shift):
    """How far the newest windows together may be from the baseline's, in spreads of the rows."""

    above: float = Field(default=0.15, gt=0)


DeclaredAttribution = Annotated[
    Attribution | None, BeforeValidator(switched, json_schema_input_type=Attribution | bool | None)
]
DeclaredSustained = Annotated[
    Sustained | None, BeforeValidator(switched, json_schema_input_type=Sustained | bool | None)
]


def _pattern(value: object) -> object:
    if isinstance(value, str) and value.count(FEATURE) != 1:
        raise ValueError(
            f"{shown(value)} does not say where a feature's name stands; write shap_{FEATURE}, or "
            "a mapping {feature: column}"
        )
    return value


ShapColumns = Annotated[
    dict[str, str] | str | None,
    BeforeValidator(_pattern),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"\{feature\}"},
                {"type": "object", "additionalProperties": {"type": "string"}},
                {"type": "null"},
            ]
        }
    ),
]


def attribution_column(feature: str) -> str:
    """Return the store's column of a feature's SHAP values."""
    return f"{_PREFIX}{feature}"


def shap_columns(
    declared: Mapping[str, str] | str | None, features: Mapping[str, object]
) -> dict[str, str]:
    """Return feature -> column of the user's files, a pattern filled in with every feature."""
    if isinstance(declared, str):
        return {name: declared.replace(FEATURE, name) for name in features}
    return dict(declared or {})


def _share(value: object) -> object:
    """Read 20% as 0.2."""
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            raise ValueError(f"{shown(value)} is not a share; write 20% or 0.2") from None
    return value


def _columns(value: object) -> object:
    value = as_tuple(value)
    if value == "all" or (
        isinstance(value, tuple) and value and all(isinstance(name, str) for name in value)
    ):
        return value
    raise ValueError(f"write 'all' or a list of column names, not {shown(value)}")


def _listed(value: object) -> object:
    return (
        (value,)
        if isinstance(value, dict | PerformanceMonitor | EstimateMonitor | VersionComparison)
        else as_tuple(value)
    )


_ALSO_CALLED = {"auc": "roc_auc", "average_precision": "pr_auc", "ece": "calibration_error"}


def _known_metric(metric: str) -> str:
    if metric not in METRICS:
        known = offer(_ALSO_CALLED.get(metric, metric), METRICS, 60)
        raise ValueError(f"{shown(metric)} is not a metric{known}")
    return metric


Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=float | str)]
PerformanceMetric = Annotated[
    str, AfterValidator(_known_metric), WithJsonSchema({"enum": list(METRICS)})
]
MonitoredColumns = Annotated[
    Literal["all"] | tuple[str, ...],
    BeforeValidator(_columns),
    WithJsonSchema({"anyOf": [{"const": "all"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Monitor(Declared):
    """What every monitor declares: how bad a failure is, how many must fail, who is told."""

    severity: Severity = "ERROR"
    windows: WindowCount = KOfN(1, 1)
    owner: str | None = None
    runbook: str | None = None


class SchemaMonitor(Monitor):
    """Rows or files that break the declared schema."""

    bad_rate: RateCondition = Condition(above=0.0)
    duplicate_rate: RateCondition | None = Condition(above=0.2)
    conflict_rate: RateCondition | None = Condition(above=0.01)


class FreshnessMonitor(Monitor):
    """Predictions that stopped coming, and ground truth that is overdue."""

    no_data_for: Duration = dt.timedelta(hours=26)
    actuals_missing: RateCondition | None = Condition(above=0.5)


class QualityMonitor(Monitor):
    """Nulls, not-a-number values, unseen categories, values out of range, SHAP of other scores."""

    severity: Severity = "WARN"
    columns: MonitoredColumns = "all"
    null_rate: RateCondition = Condition(above=0.2)
    nan_rate: RateCondition = Condition(above=0.01)
    unseen_rate: RateCondition = Condition(above=0.01)
    out_of_range_rate: RateCondition = Condition(above=0.01)
    not_additive_rate: RateCondition = Condition(above=0.01)
    personal_rate: RateCondition = Condition(above=0.005)
    min_rows: int = Field(default=30, ge=1)


class DriftMonitor(Monitor):
    """A distribution that is really and largely unlike the baseline's."""

    severity: Severity = "WARN"
    windows: WindowCount = KOfN(2, 3)
    columns: MonitoredColumns = "all"
    baseline: DeclaredBaseline | None = None
    method: DriftMethod = "psi"
    also: Annotated[tuple[DriftMethod, ...], BeforeValidator(as_tuple)] = ()
    above: float = Field(default=0.1, gt=0)
    error_at: float | None = None
    q: float = Field(default=0.01, gt=0, lt=1)
    min_rows: int = Field(default=30, ge=1)
    slices: bool = False
    attribution: DeclaredAttribution = Attribution()
    sustained: DeclaredSustained = Sustained()
    repeated_rows: RateCondition | None = Condition(above=0.1)

    @model_validator(mode="after")
    def _threshold_in_the_unit(self) -> Self:
        check_ladder(self.error_at, above=self.above, below=None)
        if self.method == "wasserstein" and "above" not in self.model_fields_set:
            raise ValueError("wasserstein has no unit-free default; write above as well")
        return self


class PerformanceMonitor(Monitor):
    """Realized performance against the baseline (drop) or a fixed bound.

    ``drop`` is how much worse than the baseline, so for losses such as log_loss or rmse it is a
    rise; a metric that is best at 0 or has no better side takes only shift, above and below.
    ``shift`` is how far the newest ``over`` windows may be from the baseline's, either way, or
    ``of_rate`` of how often the rarer outcome comes, if that is less.
    """

    metric: PerformanceMetric = "roc_auc"
    evaluation: str | None = None
    windows: WindowCount = KOfN(2, 3)
    drop: float | None = Field(default=None, gt=0)
    change: Annotated[Share, Field(gt=0)] | None = None
    shift: float | None = Field(default=None, gt=0)
    of_rate: Annotated[Share, Field(gt=0)] | None = None
    over: int = Field(default=5, ge=1, le=60)
    above: float | None = None
    below: float | None = None
    error_at: Share | None = None
    slices: bool = False

    @model_validator(mode="after")
    def _one_condition(self) -> Self:
        if [self.drop, self.change, self.shift, self.above, self.below].count(None) != 4:
            raise ValueError(
                "a performance monitor needs exactly one of drop, change, shift, above and below"
            )
        if self.shift is None and "over" in self.model_fields_set:
            raise ValueError("over goes with shift, which is of the newest windows together")
        if self.of_rate is not None and (self.shift is None or self.metric != "calibration_gap"):
            raise ValueError("of_rate goes with the shift of a calibration_gap")
        if self.shift is not None and self.slices:
            raise ValueError("shift is of whole windows; slices cannot be judged by it")
        if (self.drop or self.change) is not None and METRICS[self.metric].better == "neither":
            raise ValueError(
                f"{self.metric} has no better side to drop from; write shift, above or below "
                "instead"
            )
        limits = (self.drop, self.change, self.shift, self.above)
        worse = next((v for v in limits if v is not None), None)
        check_ladder(self.error_at, above=worse, below=self.below)
        return self

    @property
    def is_relative(self) -> bool:
        """Whether the bound depends on the baseline's value."""
        return (self.drop or self.change or self.shift) is not None

    @property
    def column(self) -> str:
        """What column of the stored metrics it is of."""
        return self.evaluation or TABLE

    @property
    def series(self) -> str:
        """The metric with its outcome, such as ``mean_outcome/revenue``."""
        return of_outcome(self.metric, None if self.column == TABLE else self.column)

    def allowed(self, baseline: float) -> float:
        """Return how much worse than the baseline's value is still fine."""
        return self.drop if self.drop is not None else (self.change or 0.0) * abs(baseline)

    def is_error(self, value: float, worse: float, baseline: float | None) -> bool:
        """Tell whether a value, or how much worse it is, is past the second threshold."""
        if self.error_at is None:
            return False
        if self.above is not None:
            return value > self.error_at
        if self.below is not None:
            return value < self.error_at
        scale = 1.0 if self.change is None or baseline is None else abs(baseline)
        return worse >= self.error_at * scale


class BusinessMonitor(PerformanceMonitor):
    """What came of the predictions, against the baseline or a fixed bound, as of performance."""

    metric: PerformanceMetric = "mean_outcome"
    outcome: str | None = None
    severity: Severity = "WARN"

    @model_validator(mode="after")
    def _has_an_interval(self) -> Self:
        if self.is_relative and self.metric in COUNTED:
            raise ValueError(
                f"{self.metric} is counted and has no interval, so a change cannot be "
                "distinguished from chance; write above or below, or judge the mean"
            )
        return self

    @property
    def column(self) -> str:
        """The outcome that it is of."""
        return self.outcome or TABLE


class EstimateMonitor(Monitor):
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


class Objective(Declared):
    """A promise on requests: which share of them is to be good, over which time."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    good: str
    target: float = Field(gt=0, lt=1)
    over: Duration = dt.timedelta(days=28)


class _Limited(Declared):
    """What has a threshold if somebody says one, and is stored in any case."""

    above: float | None = None
    below: float | None = None
    error_at: float | None = None

    @property
    def limit(self) -> Condition | None:
        """The condition; None if it is only stored."""
        if (self.above, self.below, self.error_at) == (None, None, None):
            return None
        return Condition(above=self.above, below=self.below, error_at=self.error_at)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        _ = self.limit  # one that cannot be is refused here
        return self


class RequestClass(_Limited):
    """Requests of a kind, such as those that timed out or were answered by a default."""

    when: str

    @model_validator(mode="after")
    def _of_a_rate(self) -> Self:
        if self.limit is not None:
            _rate(self.limit)
        return self


class PrometheusMetric(_Limited):
    """A number of the serving system."""

    query: str = Field(min_length=1, max_length=10_000)
    unit: str = Field(default="", max_length=20)


def _env_name(value: str) -> str:
    if not value.isidentifier():
        raise ValueError(
            "write the name of an environment variable, such as PROMETHEUS_TOKEN; the value itself "
            "does not belong in this file"
        )
    return value


EnvName = Annotated[str, AfterValidator(_env_name)]
MetricName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Prometheus(Declared):
    """A Prometheus that is asked at the end of each window.

    In queries ``$window`` is the window's length, ``$model`` the model and ``$match`` what `match`
    says, the labels that select the model.
    """

    url: str | None = None
    url_env: EnvName | None = None
    token_env: EnvName | None = None
    match: str = ""
    metrics: dict[MetricName, PrometheusMetric] = Field(default={})


class StageLimits(Declared):
    """How long a stage may take, how often a request may call it, and how often it may fail."""

    p95_ms: Condition | None = None
    p99_ms: Condition | None = None
    p95_calls: Condition | None = None
    error_rate: RateCondition | None = None
    timeout_rate: RateCondition | None = None

    @property
    def limits(self) -> dict[str, Condition | None]:
        """Metric -> condition."""
        return {
            "p95_stage_ms": self.p95_ms,
            "p99_stage_ms": self.p99_ms,
            "p95_stage_calls": self.p95_calls,
            "stage_error_rate": self.error_rate,
            "stage_timeout_rate": self.timeout_rate,
        }


class ServiceMonitor(Monitor):
    """Latency, errors and volume of the serving system."""

    p95_latency_ms: Condition | None = None
    p99_latency_ms: Condition | None = None
    error_rate: RateCondition = Condition(above=0.01)
    n: Condition | None = None
    volume_drop: RateCondition | None = Condition(above=0.5)
    volume_rise: Condition | None = Condition(above=0.7)
    objectives: Annotated[tuple[Objective, ...], BeforeValidator(as_tuple)] = ()
    classes: dict[MetricName, RequestClass] = Field(default={})
    prometheus: Prometheus | None = None
    stages: dict[str, StageLimits] = Field(default={})
    span_coverage: RateCondition | None = None
    mean_cost: Condition | None = None
    sum_cost: Condition | None = None

    @property
    def limits(self) -> dict[tuple[str, str], Condition]:
        """Metric and name -> condition, of what is declared by name, and of spans."""
        asked = self.prometheus.metrics if self.prometheus else {}
        named: list[tuple[str, Mapping[str, _Limited]]] = [
            (CLASS_RATE, self.classes),
            (PROMETHEUS, asked),
        ]
        limits = {
            (metric, name): one.limit
            for metric, declared in named
            for name, one in declared.items()
        } | {
            (metric, stage_column(stage)): limit
            for stage, declared in self.stages.items()
            for metric, limit in declared.limits.items()
        }
        limits[SPAN_COVERAGE, TABLE] = self.span_coverage
        return {key: limit for key, limit in limits.items() if limit is not None}


ComparedMetric = Literal["roc_auc", "accuracy", "brier", "mae", "expected_value"]


class VersionComparison(Declared):
    """One version held against the one in service, by one metric.

    A ``dataset`` holds the answers of the other one: ``shadow`` to the same requests, ``canary`` to
    requests of its own; or both answer requests of production, ``champion`` and ``challenger``.
    """

    metric: ComparedMetric
    dataset: Literal["shadow", "canary"] | None = None
    champion: str | None = None
    challenger: str | None = None
    share: float | None = Field(default=None, gt=0, lt=1)
    margin: float = Field(default=0.01, ge=0)
    over: int = Field(default=60, ge=8, le=400)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = [name for name in (self.champion, self.challenger) if name is not None]
        if (self.dataset is None) != (len(named) == 2) or len(named) == 1:
            raise ValueError(
                "write dataset: shadow, dataset: canary, or both champion and challenger"
            )
        if len(set(named)) == 1:
            raise ValueError("champion and challenger are the same version")
        if self.share is not None and self.how == "shadow":
            raise ValueError("a shadow answers every request; share goes with a canary")
        return self

    @property
    def how(self) -> Literal["shadow", "canary"]:
        """Whether the same predictions are compared, or others."""
        return "shadow" if self.dataset == "shadow" else "canary"

    @property
    def gain(self) -> str:
        """Name of the stored metric: how much better the other version is."""
        return f"{self.how}_{self.metric}{GAIN}"

    @property
    def split(self) -> tuple[str | float | None, ...]:
        """How requests are split between the two versions."""
        return (self.dataset, self.champion, self.challenger, self.share)


class Skew(Declared):
    """Features as they were served, beside the same predictions' in another dataset."""

    dataset: DatasetName = "training"
    columns: MonitoredColumns = "all"
    above: float = Field(default=0.001, ge=0, lt=1)


class Staleness(Declared):
    """How long the version in service may have been in service."""

    above: Duration


class Release(Declared):
    """A version beside the one that it replaced, of other days; see `families.releases`."""

    margin: float = Field(default=0.01, gt=0, lt=1)


class VersionsMonitor(Monitor):
    """Other versions, the features that the present one is served, and its age."""

    severity: Severity = "WARN"
    compare: Annotated[
        tuple[VersionComparison, ...],
        BeforeValidator(
            _listed, json_schema_input_type=VersionComparison | tuple[VersionComparison, ...]
        ),
    ] = ()
    skew: Annotated[
        Skew | None, BeforeValidator(switched, json_schema_input_type=Skew | bool | None)
    ] = None
    staleness: Staleness | None = None
    release: Annotated[
        Release | None, BeforeValidator(switched, json_schema_input_type=Release | bool | None)
    ] = Release()

    @property
    def is_declared(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.compare or self.skew or self.staleness)

    @property
    def canary(self) -> VersionComparison | None:
        """The comparison whose split of the requests is watched."""
        return next((one for one in self.compare if one.share is not None), None)


class Monitors(Declared):
    """Everything that is watched; each family has defaults that suit most models."""

    schema_: SchemaMonitor = Field(default=SchemaMonitor(), alias="schema")
    freshness: FreshnessMonitor = FreshnessMonitor()
    quality: QualityMonitor = QualityMonitor()
    drift: DriftMonitor = DriftMonitor()
    performance: Annotated[
        tuple[PerformanceMonitor, ...],
        BeforeValidator(
            _listed, json_schema_input_type=PerformanceMonitor | tuple[PerformanceMonitor, ...]
        ),
    ] = (PerformanceMonitor(drop=0.05),)
    estimated_performance: Annotated[
        tuple[EstimateMonitor, ...],
        BeforeValidator(
            _listed, json_schema_input_type=EstimateMonitor | tuple[EstimateMonitor, ...]
        ),
    ] = ()
    service: ServiceMonitor = ServiceMonitor()
    business: Annotated[
        tuple[BusinessMonitor, ...],
        BeforeValidator(
            _listed, json_schema_input_type=BusinessMonitor | tuple[BusinessMonitor, ...]
        ),
    ] = ()
    versions: VersionsMonitor = VersionsMonitor()

    def declared(self, family: str) -> Monitor | tuple[Monitor, ...]:
        """Return what is declared under a family's name: one monitor, or as many as one likes.

        Nothing of a family whose monitors are declared elsewhere, as custom metrics are.
        """
        found: Monitor | tuple[Monitor, ...]
        found = getattr(self, "schema_" if family == SCHEMA else family, ())
        return found

    def each(self) -> Iterator[tuple[tuple[str | int, ...], Monitor]]:
        """Yield every declared monitor with its place in the spec, such as ``("drift",)``.

        Families that take a list come last.
        """
        lists = list[tuple[str, tuple[Monitor, ...]]]()
        for name in FAMILIES:
            declared = self.declared(name)
            if isinstance(declared, tuple):
                lists.append((name, declared))
            else:
                yield (name,), declared
        for name, monitors in lists:
            for index, monitor in enumerate(monitors):
                yield (name, index), monitor


@dataclass(frozen=True)
class DeclaredFamily:
    """What is known of a family of monitors before anything is computed.

    What it measures and how it judges is the module of its name in ``families/``.

    Attributes:
        name: Its key below ``monitors``.
        asset: The asset that carries its check.
        check: What the check says when it fails.
        layer: What it looks at.
        cause: Its place in the order of causes, the lowest first: what breaks a family breaks those
            behind it. 0 is what breaks outside the data.
        deps: The assets that its own asset is computed from; none if it judges what is counted
            anyway, so that its check is on an asset of the store.
        kinds: Icons of its own asset in the UI.
        description: What its own asset is, for a person who sees it in the UI.
        formulas: Where, below ``metrics/``, the formulas are that its numbers come from.
        breaks_windows: Whether a failure may say that a window is not fit to be judged, which
            mutes the alerts of `is_muted`.
        breaks_columns: Whether a failure says so of a column.
        is_muted: Whether its alerts are muted where a broken window explains them.
        is_by_column: Whether they are, too, where a broken column does.
        is_of_truth: Whether it is judged by ground truth, and again once that counts as complete.
        is_by_clock: Whether time alone makes a verdict, so that it is judged at every look.
        has_numbers: Whether its verdicts are about numbers that charts and commands show.
        next_steps: Metric or column -> what the reader of its alert does next, in one line; the
            empty name is that of all others. ``{model}`` and ``{id}`` are filled in.
    """

    name: str
    asset: str
    check: str
    layer: Layer
    cause: int
    next_steps: Mapping[str, str]
    deps: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()
    description: str = ""
    formulas: tuple[str, ...] = ()
    breaks_windows: bool = False
    breaks_columns: bool = False
    is_muted: bool = False
    is_by_column: bool = False
    is_of_truth: bool = False
    is_by_clock: bool = False
    has_numbers: bool = True

    @property
    def label(self) -> str:
        """What people call it."""
        return self.name.replace("_", " ")

    @property
    def is_measured(self) -> bool:
        """Whether it has an asset of its own."""
        return bool(self.deps)


# By name, in the order in which people look at them.
FAMILIES: Final[Mapping[str, DeclaredFamily]] = {
    family.name: family
    for family in (
        DeclaredFamily(
            SCHEMA,
            "inference_store",
            "Rows or files of this window broke the declared schema.",
            "Data",
            2,
            {
                "": "Read what was refused (mlmon rows {id}), correct it where it is written and "
                "write it again.",
                "duplicate_rate": "Ask the producer why rows come twice; the copies: mlmon "
                "rows {id}.",
                "conflict_rate": "Ask the producer which of two rows of one id is right; "
                "both: mlmon rows {id}.",
                "expectations": "Read which expectation failed (mlmon expectations {model}); "
                "correct the feed or the suite.",
            },
            breaks_windows=True,
            has_numbers=False,
        ),
        DeclaredFamily(
            FRESHNESS,
            "event_log",
            "Predictions have stopped coming: no event for longer than the limit.",
            "Data",
            1,
            {
                "": "Ask who sends the predictions whether the job runs; then mlmon run {model}.",
                "actuals_missing": "Ask who delivers ground truth whether the job runs; "
                "then mlmon run {model}.",
            },
            breaks_windows=True,
            is_by_clock=True,
            has_numbers=False,
        ),
        DeclaredFamily(
            QUALITY,
            "data_quality",
            "A column has too many null, not-a-number, unseen or out-of-range values.",
            "Data",
            3,
            {
                "": "Ask the owner of this feed what changed on that day; the rows: mlmon "
                "rows {id}.",
            },
            ("profiles",),
            frozenset({"pandas"}),
            "Shares of null, not-a-number, unseen and out-of-range values per column.",
            ("quality.py",),
            breaks_columns=True,
        ),
        DeclaredFamily(
            DRIFT,
            "drift",
            "A column's distribution is really and largely unlike the baseline's.",
            "Data",
            4,
            {
                "": "Ask the owner of this feed. If the change is meant: mlmon baseline "
                "promote {model}.",
                **dict.fromkeys(
                    ("score", "prediction"),
                    "Find which feature moved it, or what changed in the model; where labels "
                    "have come: mlmon trace {model}.",
                ),
                REPEATED_ROWS: "Ask the owner of this feed whether rows of that day were sent "
                "again.",
                "actual": "Ask who delivers ground truth whether what counts as true is another "
                "thing now.",
            },
            ("profiles", "baseline"),
            frozenset({"scipy", "pandas"}),
            "Distance of every column from the baseline, with the bias of small windows taken off.",
            ("drift",),
            is_muted=True,
            is_by_column=True,
        ),
        DeclaredFamily(
            PERFORMANCE,
            "performance",
            "Realized performance fell below the baseline or a fixed bound.",
            "Model",
            8,
            {
                "": "Find the rows that are worse (mlmon trace {model}); then roll back, "
                "retrain or repair the feed.",
                **dict.fromkeys(
                    ("good_rate", "mean_value"),
                    "Read the worst calls (mlmon rows of the alert); then roll back the model, "
                    "the prompt or what it looks up.",
                ),
                "judge_agreement": "See where judge and people disagree (mlmon rows of the alert); "
                "a judge that errs more says less of the calls.",
                "failed_rate": "Ask the owner of the judge why its evaluations fail.",
                RELEASE_CHANGE: "See where it is worse by the trace of the message; go back to the "
                "version before if they are.",
            },
            ("profiles", "baseline"),
            frozenset({"scipy", "pandas"}),
            "Realized performance with intervals, for rows whose ground truth has arrived.",
            ("performance", "means.py", "late_truth/rectified.py", "quality.py"),
            is_muted=True,
            is_of_truth=True,
        ),
        DeclaredFamily(
            ESTIMATED_PERFORMANCE,
            "estimated_performance",
            "The estimate fell below the baseline's, or the truth turned out worse than the "
            "estimate: concept drift.",
            "Model",
            7,
            {
                "": "Find what moved the scores (mlmon trace {model}); then roll back, "
                "retrain or repair the feed.",
            },
            ("profiles", "baseline"),
            frozenset({"scipy", "pandas"}),
            "Performance without ground truth, from what the baseline's scores meant, with the "
            "band that the truth will lie in; once the truth is there, how far the estimate was "
            "off.",
            ("estimated",),
            is_muted=True,
            is_of_truth=True,
        ),
        DeclaredFamily(
            SERVICE,
            "service_health",
            "Latency, errors or volume are past their bounds.",
            "System",
            5,
            {
                "": "Ask who runs the service; the rows: mlmon rows {id}.",
                "volume_drop": "Ask who sends the requests whether fewer are meant; then "
                "mlmon run {model}.",
                "volume_rise": "Ask who sends the requests whether more are meant, or a feed was "
                "sent twice.",
            },
            ("profiles",),
            frozenset({"pandas"}),
            "Volume, latency percentiles and error rate of the serving system.",
            ("service.py",),
        ),
        DeclaredFamily(
            BUSINESS,
            "business_impact",
            "Predictions are worth less than the baseline's, or than a fixed bound.",
            "Business",
            9,
            {
                "": "Find the rows that are worth less: mlmon rows {id}. Then ask who owns "
                "the decisions.",
            },
            ("profiles", "baseline"),
            frozenset({"pandas"}),
            "The results of predictions: the mean outcome, and what decisions were worth at the "
            "declared costs, for rows whose ground truth has arrived.",
            ("business.py", "means.py", "late_truth/rectified.py"),
            is_muted=True,
            is_of_truth=True,
        ),
        DeclaredFamily(
            VERSIONS,
            "versions",
            "A challenger is worse, a canary did not get its share, features are served "
            "otherwise than computed, or the version is old.",
            "Model",
            6,
            {
                "": "Compare the versions (mlmon compare {model}) before more requests go to "
                "the new one.",
                "skew_rate": "Ask who computes the features online; the columns that differ: "
                "mlmon skew {model}.",
                "version_age_days": "Retrain, or allow more under versions.staleness.",
            },
            ("inference_store", "profiles"),
            frozenset({"scipy", "pandas"}),
            "Another version compared with the one in service, on the same predictions or on "
            "others; served features compared with those computed offline; the version's age.",
            ("versions.py", "performance", "means.py", "late_truth/rectified.py"),
            is_muted=True,
            is_of_truth=True,
        ),
        DeclaredFamily(
            CUSTOM,
            "custom_metrics",
            "A metric of your own is unlike the baseline's windows, or its function failed.",
            "Model",
            10,
            {
                "": "Ask the author of the metric what moves it; the rows: mlmon rows {id}.",
            },
            ("profiles", "baseline"),
            frozenset({"python", "pandas"}),
            "Numbers that your own functions compute from the rows of each window.",
            ("windows/custom.py",),
            is_muted=True,
            is_of_truth=True,
        ),
    )
}


def advise(model: str, family: str, metric: str, column: str, alert_id: str) -> str:
    """Say in one line what the reader of an alert does next, with the command.

    Args:
        model: The alert's model.
        family: Its family; one that is not declared is what breaks outside the data.
        metric: Its metric.
        column: Its column, or ``:table``.
        alert_id: Its id, as commands take it.
    """
    if metric == NO_VERDICT:
        return f"See what is missing: mlmon status {model}."
    if family not in FAMILIES:
        return "Read the run's log, remove the cause and run it again; mlmon doctor says more."
    steps = FAMILIES[family].next_steps
    return steps.get(metric, steps.get(column, steps[""])).format(model=model, id=alert_id)
