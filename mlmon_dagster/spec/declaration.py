"""What may be declared about one deployed model, as it was written; pure pydantic."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    WrapSerializer,
    model_validator,
)

from mlmon_dagster.spec.alerting import AlertPolicy
from mlmon_dagster.spec.baseline import DATASETS, BaselineSpec, DeclaredBaseline
from mlmon_dagster.spec.custom_metrics import CustomMetrics
from mlmon_dagster.spec.derived import (
    COST,
    EMBEDDED,
    EMBEDDED_ROWS,
    LANGUAGE,
    NOVELTY,
    Description,
    DescriptionKind,
    Descriptions,
    Prices,
    is_known,
    name_derived,
)
from mlmon_dagster.spec.evaluations import AT, Evaluation, find_truth
from mlmon_dagster.spec.known_events import KnownEvent
from mlmon_dagster.spec.metric_registry import NAMED
from mlmon_dagster.spec.monitors import (
    FEATURE,
    EnvName,
    Monitors,
    RateCondition,
    ShapColumns,
    attribution_column,
    shap_columns,
)
from mlmon_dagster.spec.names import (
    DRIFT,
    RESERVED_COLUMNS,
    Found,
    column_problem,
    offer,
    score_column,
)
from mlmon_dagster.spec.scalars import (
    FUNCTION,
    AssetName,
    Date,
    Declared,
    Duration,
    Listed,
    Names,
    Words,
    as_tuple,
    fold_word,
    format_duration,
    shown,
)
from mlmon_dagster.spec.sources import Sources, Stream
from mlmon_dagster.spec.spans import Spans

Task = Literal[
    "binary_classification", "multiclass_classification", "multilabel_classification", "regression",
    "ranking", "generation",
]  # fmt: skip
Granularity = Literal["hour", "day", "week", "month"]

FeatureType = Literal["numeric", "categorical", "boolean", "datetime", "text", "embedding"]
SHORTEST_VERSIONS = dt.timedelta(days=1)
SHORTEST_CLOSING = dt.timedelta(days=90)  # unless declared, whatever is learnt
ATTRIBUTION: Final = "attribution"  # of a feature
ATTRIBUTION_SHIFT: Final = "attribution_shift"  # of the same, from the baseline's
NOT_ADDITIVE: Final = "not_additive_rate"


class RetentionPolicy(Declared):
    """How long rows of each dataset, old versions, refused data and so on are kept."""

    production: Duration | None = None
    training: Duration | None = None
    validation: Duration | None = None
    shadow: Duration | None = None
    canary: Duration | None = None
    spans: Duration | None = None
    versions: Duration = dt.timedelta(days=30)
    profiles: Duration | None = None
    dead_letter: Duration | None = None
    quarantine: Duration | None = None
    min_cell: int = Field(default=10, ge=0)

    def of_dataset(self, dataset: str) -> dt.timedelta | None:
        """Return how long rows of a dataset are kept; None is for ever."""
        kept: dt.timedelta | None = getattr(self, dataset)
        return kept


def retention_problems(spec: Declaration) -> Found:
    """Find ages that are too short; ground truth that is learnt may take `SHORTEST_CLOSING`."""
    kept = spec.retention
    awaited = spec.actuals.closed_after
    awaited = SHORTEST_CLOSING if awaited is None else awaited
    if kept.versions < SHORTEST_VERSIONS:
        yield (
            ("retention", "versions"),
            "must be at least 1d: readers hold lists of files, which must not vanish under them",
        )
    for name in ("production", "profiles"):
        age = getattr(kept, name)
        if age is not None and age < awaited:
            yield (
                ("retention", name),
                f"is shorter than actuals.closed_after ({format_duration(awaited)}); windows "
                "would lose their rows while their ground truth is still awaited",
            )


class Feature(Declared):
    """One model input."""

    type: FeatureType
    from_: str | None = Field(default=None, alias="from")
    alias: Annotated[tuple[str, ...], BeforeValidator(as_tuple)] = ()
    min: float | None = None
    max: float | None = None
    unit: str | None = None
    nullable: bool = False
    null_rate: RateCondition | None = None
    pii: bool | None = None  # its values are personal; None: nobody has said, which counts as no
    describe: Descriptions = ()
    embedder: str | None = None
    prices: Prices | None = None
    importance: float | None = Field(default=None, ge=0)
    description: str | None = None

    @model_validator(mode="after")
    def _sensible_limits(self) -> Self:
        if self.type != "numeric" and not (self.min is None and self.max is None):
            raise ValueError(f"min and max are for numeric features, not for {self.type} ones")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is greater than max {self.max:g}")
        if self.describe and self.type != "text":
            raise ValueError(f"describe is for text, not for {self.type} features")
        if self.embedder is not None and self.type != "embedding":
            raise ValueError(f"embedder is for embeddings, not for {self.type} features")
        if self.prices is not None and self.type != "numeric":
            raise ValueError(f"prices are for numeric features, not for {self.type} ones")
        if self.prices is not None and (self.from_ is not None or self.alias):
            raise ValueError("a feature with prices is computed: leave out from and alias")
        return self


class DerivedFeature(Feature):
    """A column that is computed from others, and is judged as every feature is.

    Nobody's text is in it, so that its values may be shown where the text's may not.

    Attributes:
        of: The feature that it is computed from.
        described: What is computed from it.
    """

    of: str
    described: Description

    @property
    def kind(self) -> DescriptionKind:
        """What it is."""
        return self.described.kind if self.prices is None else COST

    @property
    def most_rows(self) -> int | None:
        """How many rows of a window it is computed for; None for all."""
        return self.kind.most_rows


def is_sampled(feature: Feature) -> bool:
    """Say whether a feature is computed for some rows of each window only."""
    if feature.type == "embedding":
        return True
    return isinstance(feature, DerivedFeature) and feature.most_rows is not None


def is_slow(feature: Feature) -> bool:
    """Say whether a feature takes too long to be computed for every row that is looked at."""
    return isinstance(feature, DerivedFeature) and feature.described.name == LANGUAGE


def sampled_features(spec: Declaration) -> dict[str, int]:
    """Return the features that are computed for some rows of a window -> at most how many."""
    found = {n: f.most_rows for n, f in spec.derived_features.items() if f.most_rows is not None}
    vectors = (n for n, f in spec.features.items() if f.type == "embedding")
    return found | dict.fromkeys(vectors, EMBEDDED_ROWS)


def _with_derived(features: dict[str, Feature]) -> dict[str, Feature]:
    """Add the columns that are computed from texts, each behind its text."""
    found: dict[str, Feature] = {}
    for name, feature in features.items():
        found[name] = feature
        if feature.prices is not None:
            declared = {key: getattr(feature, key) for key in feature.model_fields_set}
            own = {"of": feature.prices.by, "described": Description(name=name), "pii": False}
            found[name] = DerivedFeature(**declared | own)
        embedded = [Description(name=each) for each in EMBEDDED]
        for one in embedded if feature.type == "embedding" else feature.describe:
            if is_known(one):  # else a problem of the spec
                found[name_derived(name, one.name)] = DerivedFeature(
                    type=one.kind.type,
                    unit=one.kind.unit,
                    nullable=True,
                    pii=False,
                    of=name,
                    described=one,
                )
    return found


def _without_derived(
    features: dict[str, Feature], handler: SerializerFunctionWrapHandler
) -> object:
    """Write what was declared, which says the rest."""
    return handler({n: _declared(f) for n, f in features.items() if _is_declared(f)})


def _is_declared(feature: Feature) -> bool:
    return not isinstance(feature, DerivedFeature) or feature.prices is not None


def _declared(feature: Feature) -> Feature:
    if not isinstance(feature, DerivedFeature):
        return feature
    said = feature.model_fields_set & Feature.model_fields.keys()
    return Feature(**{key: getattr(feature, key) for key in said})


Features = Annotated[
    dict[str, Feature], AfterValidator(_with_derived), WrapSerializer(_without_derived)
]


def alias_problems(spec: Declaration) -> Found:
    """Find earlier names of features that are in use, or no names."""
    roles = spec.columns.declared().values()
    taken = {*spec.features, *roles, *(f.from_ for f in spec.features.values() if f.from_)}
    for name, feature in spec.features.items():
        for index, old in enumerate(feature.alias):
            problem = column_problem(old)
            if old in taken:
                problem = f"'{old}' is in use; an alias is a name that the feature had before"
            if problem:
                yield ("features", name, "alias", index), problem
            taken.add(old)


class Costs(Declared):
    """What one row of each outcome costs; a gain is a negative cost."""

    tp: float = 0.0
    fp: float = 0.0
    fn: float = 0.0
    tn: float = 0.0


def _check_words(meaning: Iterable[tuple[str, object]], empty: str) -> None:
    """Refuse folded words that stand there twice, and an empty one, with what that would be."""
    folded = [word for word, _ in meaning]
    if "" in folded:
        raise ValueError(empty)
    if twice := sorted({word for word in folded if folded.count(word) > 1}):
        raise ValueError(f"{shown(twice[0])} stands there twice, capitals left aside")


def words_of_path(path: str) -> list[str]:
    """Return the words of a file's path, in small letters.

    Example:
        >>> words_of_path("in/2018_Reference-v2.csv")
        ['in', '2018', 'reference', 'v2', 'csv']
    """
    return [word for word in re.split(r"[\W_]+", path.lower()) if word]


class Labels(Declared):
    """How decisions and ground truth of a binary model are written; capitals do not matter."""

    positive: Words
    negative: Words

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        _check_words(self.meaning(), "an empty cell is no label; it says that nothing is known")
        return self

    def meaning(self) -> tuple[tuple[str, float], ...]:
        """Return each word, folded, with what it means: 1.0 or 0.0."""
        said = ((self.positive, 1.0), (self.negative, 0.0))
        return tuple((fold_word(word), n) for words, n in said for word in words)


class Datasets(Declared):
    """What a dataset is called where its own name is not written; capitals do not matter.

    Of `columns.dataset` these are values; without that column, words of a file's path.
    """

    production: Words | None = None
    validation: Words | None = None
    training: Words | None = None
    shadow: Words | None = None
    canary: Words | None = None

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        empty = "an empty cell names no dataset; events without one are of production"
        _check_words(self.meaning(), empty)
        for word, dataset in self.meaning():
            if word in DATASETS and word != dataset:
                raise ValueError(f"{shown(word)} is a dataset, and cannot mean {dataset}")
        return self

    def meaning(self) -> tuple[tuple[str, str], ...]:
        """Return each word, folded, with the dataset that it means."""
        return tuple((fold_word(word), name) for name, words in self for word in words or ())

    def of_path(self, path: str) -> str | None:
        """Return the dataset that a word of a file's path means.

        None if it has no such word. Of two datasets both names, which is no dataset, so that the
        rows are refused and say so.
        """
        told = dict(self.meaning())
        found = list(dict.fromkeys(told[word] for word in words_of_path(path) if word in told))
        return " and ".join(found) or None


class Fairness(Declared):
    """Slices whose rates are compared with those of a reference group."""

    slices: Listed
    reference: dict[str, str] | None = None


class ActualsPolicy(Declared):
    """When ground truth is expected, and when a window is closed.

    What is not declared is learnt from how late ground truth comes.
    """

    expected_within: Duration | None = None
    closed_after: Duration | None = None
    min_coverage: float | None = Field(default=None, gt=0, le=1)
    min_rows: int = Field(default=30, ge=1)
    no_actual_when: str | None = None
    unmatched_after: Duration = dt.timedelta(days=90)
    unit: str | None = Field(default=None, min_length=1, max_length=20)


SliceKey = Listed


Key = Annotated[tuple[str, ...], BeforeValidator(as_tuple), Field(min_length=2)]


def _holidays(value: object) -> object:
    """Read one entry as the tuple of it; YAML gives a day as a date."""
    entries = value if isinstance(value, list | tuple) else [value]
    return tuple(str(entry) if type(entry) is dt.date else entry for entry in entries)


Holidays = Annotated[
    tuple[str, ...],
    BeforeValidator(_holidays, json_schema_input_type=str | tuple[str, ...]),
]


class TimeSpec(Declared):
    """When windows start and end, and how late events may come."""

    zone: str = "UTC"
    granularity: Granularity = "day"
    start: Date
    end: Date | None = None
    allowed_lateness: Duration = dt.timedelta(days=2)
    naive: Literal["refuse", "zone"] = "refuse"
    skew_tolerance: Duration = dt.timedelta(minutes=10)
    holidays: Holidays = ()


class Outcome(Declared):
    """What came of a prediction for the business, in a column that comes with the ground truth.

    ``kind``: an ``amount``, or a ``rate`` of what happened (above 0) or did not. ``worth`` is what
    one more of it brings in the spec's currency; of an outcome in that currency it is 1.
    """

    column: str
    unit: str | None = None
    kind: Literal["amount", "rate"] = "amount"
    better: Literal["higher", "lower"] = "higher"
    worth: float | None = Field(default=None, gt=0, allow_inf_nan=False)


def _outcomes(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    return {name: {"column": c} if isinstance(c, str) else c for name, c in value.items()}


Outcomes = Annotated[
    dict[str, Outcome],
    BeforeValidator(_outcomes, json_schema_input_type=dict[str, str | Outcome]),
]


class Columns(Declared):
    """Names of the roles in the user's files; a role left out does not exist there."""

    prediction_id: str | Key
    event_time: str
    score: str | None = None
    scores: dict[str, str] | None = None
    shap: ShapColumns = None
    base_value: str | None = None
    explainer: str | None = None
    prediction: str | None = None
    group: str | None = None
    rank: str | None = None
    examined: str | None = None
    actual: str | None = None
    actual_time: str | None = None
    dataset: str | None = None
    model_version: str | None = None
    latency_ms: str | None = None
    status: str | None = None
    trace_id: str | None = None
    outcomes: Outcomes = Field(default={})

    @property
    def id_parts(self) -> tuple[str, ...]:
        """The columns that identify an event together; () if one column does."""
        return () if isinstance(self.prediction_id, str) else self.prediction_id

    @property
    def outputs(self) -> list[str]:
        """The roles of what the model gives, as far as they exist: score and prediction."""
        return [role for role in ("score", "prediction") if getattr(self, role) is not None]

    def declared(self) -> dict[str, str]:
        """Return role -> column of the files, for the roles that exist.

        An outcome's role is its name.

        The score of a class has a role of its own, ``score:<class>``, and so have the SHAP values
        of a feature, ``shap:<feature>``; the parts of an id are joined.
        """
        found: dict[str, str] = {}
        for role, name in self:
            if role == "shap":
                shap = shap_columns(name, {})
                found |= {attribution_column(feature): column for feature, column in shap.items()}
            elif role == "outcomes":
                found |= {outcome: declared.column for outcome, declared in name.items()}
            elif isinstance(name, dict):
                found |= {score_column(label): column for label, column in name.items()}
            elif isinstance(name, tuple):
                found[role] = " + ".join(name)
            elif name is not None:
                found[role] = name
        return found


def with_evaluations(columns: Columns, evaluations: Mapping[str, Evaluation]) -> Columns:
    """Return the roles with those of evaluations: each an outcome, one of them ground truth."""
    found = {
        name: Outcome(column=one.from_ or name, kind="amount" if one.good is None else "rate")
        for name, one in evaluations.items()
    }
    truth = find_truth(evaluations)
    own = {"actual": found[truth].column} if truth is not None else {}
    at = {"actual_time": columns.actual_time or AT}
    return columns.model_copy(update={**own, **at, "outcomes": found})


_EXPECTATION = re.compile(r"expect_[a-z0-9_]+")


class Explain(Declared):
    """How logged SHAP values are read."""

    base_value: float | None = Field(default=None, allow_inf_nan=False)
    tolerance: float = Field(default=0.001, gt=0, lt=1)


class Expectation(Declared):
    """One of the user's own Great Expectations, on top of those that follow from the spec."""

    expect: str
    arguments: dict[str, object] = Field(default={})
    severity: Literal["WARN", "ERROR", "refuse"] = "WARN"
    stream: Stream = "predictions"

    @model_validator(mode="after")
    def _names_an_expectation(self) -> Self:
        if not _EXPECTATION.fullmatch(self.expect) and not FUNCTION.fullmatch(self.expect):
            raise ValueError(
                f"{shown(self.expect)} does not name an expectation; write one of Great "
                "Expectations, such as expect_column_values_to_match_regex, or package.module:Class"
            )
        return self


class Registry(Declared):
    """The registered model of MLflow whose versions serve, and the aliases that are followed."""

    mlflow: str = Field(min_length=1, max_length=256, pattern=r"^[^/:]+$")
    url_env: EnvName = "MLFLOW_TRACKING_URI"
    token_env: EnvName | None = None
    aliases: Listed = ("champion",)
    tags: bool = True

    @model_validator(mode="after")
    def _follows_an_alias(self) -> Self:
        if not self.aliases or len({*self.aliases}) < len(self.aliases):
            raise ValueError("aliases: name at least one, and none twice")
        return self


class Experiment(Declared):
    """An arm that was drawn by lot for each request, so that its difference is an effect."""

    column: str
    control: str
    treatment: str
    share: float = Field(default=0.5, gt=0, lt=1)


class DeclaredEffect(Declared):
    """A logged cause, such as latency, whose part in the outcome people want to know."""

    cause: str = "latency_ms"
    per: float = Field(default=100.0, gt=0, allow_inf_nan=False)
    outcome: str = ""  # the first that is declared
    within: Names = ()
    experiment: Experiment | None = None


def _as_tags(value: object) -> object:
    """Write values that are no text as the JSON that Dagster reads in a tag."""
    if not isinstance(value, dict):
        return value
    return {name: v if isinstance(v, str) else json.dumps(v) for name, v in value.items()}


def _check_tags(tags: dict[str, str]) -> dict[str, str]:
    for name in tags:
        if name.startswith("mlmon/"):
            raise ValueError(f"'{name}': names below mlmon/ are our own")
        if not _TAG.fullmatch(name):
            raise ValueError(
                f"{shown(name)} cannot name a tag; write at most 63 letters, digits, '.', '_' or "
                "'-', after a prefix and '/' if you like, such as dagster-k8s/config"
            )
    return tags


_TAG = re.compile(r"([A-Za-z0-9_.-]{1,63}/)?[A-Za-z0-9_.-]{1,63}")
RunTags = Annotated[dict[str, str], BeforeValidator(_as_tags), AfterValidator(_check_tags)]


EngineName = Literal["local", "ray", "spark"]  # each but this process a module of `engines`
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)


class Compute(Declared):
    """Where work on many rows is done; by default as the environment says."""

    engine: EngineName | None = None
    at_least: int = Field(default=1_000_000, ge=0)


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
    features: Features
    baseline: DeclaredBaseline = BaselineSpec()
    slices: Annotated[tuple[SliceKey, ...], BeforeValidator(as_tuple)] = ()
    labels: Labels | None = None
    datasets: Datasets | None = None
    classes: Annotated[tuple[str, ...] | None, BeforeValidator(as_tuple)] = None
    costs: Costs | None = None
    currency: str | None = Field(default=None, pattern=r"^\S{1,8}$")
    fairness: Fairness | None = None
    effects: Annotated[tuple[DeclaredEffect, ...], BeforeValidator(as_tuple)] = ()
    explain: Explain = Explain()
    spans: Spans | None = None
    registry: Registry | None = None
    expectations: Annotated[tuple[Expectation, ...], BeforeValidator(as_tuple)] = ()
    evaluations: dict[str, Evaluation] = Field(default={})
    top_k: int = Field(default=5, ge=1, le=1000)
    max_weight: float = Field(default=10.0, ge=1, le=1e6)
    top_share: float = Field(default=0.1, gt=0, lt=1)
    quantile: float = Field(default=0.5, gt=0, lt=1)
    metrics: CustomMetrics = ()
    monitors: Monitors = Monitors()
    alerts: AlertPolicy = AlertPolicy()
    events: Annotated[tuple[KnownEvent, ...], BeforeValidator(as_tuple)] = ()
    retention: RetentionPolicy = RetentionPolicy()
    run_tags: RunTags = Field(default={})
    key_prefix: AssetName | None = None
    compute: Compute = Compute()

    def shows_values_of(self, column: str) -> bool:
        """Tell whether values of a feature may be in messages: those of all that are not personal.

        Of free text, which may hold anything, only where its spec says that it is not.
        """
        feature = self.features.get(column)
        if feature is not None and feature.type == "embedding":
            return True  # what is shown is how many numbers it has
        if feature is None or feature.pii:
            return False
        return feature.pii is False or feature.type != "text"

    @property
    def logged_features(self) -> dict[str, Feature]:
        """The features that events hold, without what is computed from them."""
        return {n: f for n, f in self.features.items() if not isinstance(f, DerivedFeature)}

    @property
    def shown_texts(self) -> list[str]:
        """The texts whose words may be shown: their spec says that they hold nobody's data."""
        return [
            name
            for name, feature in self.logged_features.items()
            if feature.type == "text" and self.shows_values_of(name)
        ]

    @property
    def derived_features(self) -> dict[str, DerivedFeature]:
        """The columns that are computed from features, and that no event holds."""
        return {n: f for n, f in self.features.items() if isinstance(f, DerivedFeature)}

    @property
    def priced_features(self) -> list[str]:
        """The features that are what a row costs."""
        return [name for name, f in self.derived_features.items() if f.prices is not None]

    @property
    def names_datasets(self) -> bool:
        """Whether events say which dataset they are of, by a column or by their files' names."""
        return self.columns.dataset is not None or self.datasets is not None

    @property
    def has_versions(self) -> bool:
        """Whether events say which version answered, themselves or by their spans."""
        by_spans = self.spans is not None and self.spans.version is not None
        return self.columns.model_version is not None or by_spans

    @property
    def has_actuals(self) -> bool:
        """Whether ground truth can ever arrive for this model."""
        return self.columns.actual is not None and self.source.actuals is not None

    @property
    def embeddings(self) -> list[str]:
        """The features that are vectors."""
        return [name for name, feature in self.features.items() if feature.type == "embedding"]

    @property
    def novelty_columns(self) -> dict[str, str]:
        """What says of each row whether it is unlike the baseline's -> the embedding it is of."""
        return {name_derived(name, NOVELTY): name for name in self.embeddings}

    def find_vectors(self, column: str) -> str | None:
        """Return the embedding that one of `novelty_columns` is of; None of any other column."""
        feature = self.features.get(column)
        if not isinstance(feature, DerivedFeature) or feature.described.name != NOVELTY:
            return None
        return feature.of if self.features[feature.of].type == "embedding" else None

    @property
    def waits_for_truth(self) -> bool:
        """Whether nothing of a window's ground truth is judged until all of it may have come.

        Evaluations come one by one: a judge speaks of all calls long before people do of some.
        """
        return not self.evaluations


def outcome_worth(spec: Declaration, outcome: str) -> float | None:
    """Return what one more of an outcome is worth in the currency, below 0 if less is better.

    None where nothing says so.
    """
    declared = spec.columns.outcomes[outcome]
    if spec.currency is None:
        return None
    worth = declared.worth or (1.0 if declared.unit == spec.currency else None)
    return -worth if worth is not None and declared.better == "lower" else worth


def is_told_in_money(spec: Declaration) -> bool:
    """Say whether a model declares what comes of it: outcomes, or costs in a currency."""
    outcomes = not spec.evaluations and spec.columns.outcomes
    return bool(outcomes or (spec.costs and spec.currency))


def outcome_problems(spec: Declaration) -> Found:
    """Find outcomes whose names are taken, or whose worth has no unit."""
    if spec.evaluations:
        return  # which are outcomes by themselves
    taken = {*spec.features, *RESERVED_COLUMNS}
    if spec.columns.outcomes and spec.source.actuals is None:
        yield ("columns", "outcomes"), "outcomes come with the ground truth; declare source.actuals"
    for name, outcome in spec.columns.outcomes.items():
        where = ("columns", "outcomes", name)
        if problem := column_problem(name):
            yield where, problem
        elif name in taken:
            yield where, f"'{name}' is the name of another column; an outcome has its own"
        if problem := column_problem(outcome.column):
            yield (*where, "column"), problem
        if outcome.worth is not None and spec.currency is None:
            yield (*where, "worth"), "say in which currency, at the top: currency: EUR"


def attributed(spec: Declaration) -> dict[str, str]:
    """Return feature -> the store's column of its SHAP values, in the order of the features."""
    known = shap_columns(spec.columns.shap, spec.logged_features)
    return {name: attribution_column(name) for name in spec.logged_features if name in known}


def attribution_problems(spec: Declaration) -> Found:
    """Find SHAP columns of no feature, or of two, and a monitor without them."""
    columns = shap_columns(spec.columns.shap, spec.logged_features)
    for name, column in columns.items():
        where = ("columns", "shap", name)
        if name not in spec.logged_features:
            yield where, f"'{name}' is not a feature{offer(name, spec.logged_features)}"
        elif problem := column_problem(column):
            yield where, problem
        elif column in spec.logged_features:
            yield where, f"'{column}' is a feature; its SHAP values are another column"
    if spec.columns.shap is not None and len(columns) < 2:
        yield ("columns", "shap"), "a share needs the SHAP values of at least two features"
    if len(set(columns.values())) < len(columns):
        yield ("columns", "shap"), "two features have the same column"
    for name in ("base_value", "explainer"):
        if getattr(spec.columns, name) is not None and spec.columns.shap is None:
            yield ("columns", name), f"{name} is of logged SHAP values; declare columns.shap"
    if spec.explain.base_value is not None and spec.columns.base_value is not None:
        yield ("explain", "base_value"), "base values are logged (columns.base_value); keep one"
    monitor = spec.monitors.drift
    wanted = "attribution" in monitor.model_fields_set and monitor.attribution is not None
    if wanted and not attributed(spec):
        yield (
            ("monitors", DRIFT, "attribution"),
            f"attributions are measured from columns.shap; declare it, such as shap_{FEATURE}",
        )


def effect_problems(spec: Declaration, effect: DeclaredEffect) -> Found:
    """Find what is wrong with a cause and what it is held against.

    Args:
        spec: The model.
        effect: Declared there, or asked of it.
    """
    kinds = ("numeric", "categorical", "boolean")
    fit = {n: f.type for n, f in spec.features.items() if f.type in kinds}
    roles = ["latency_ms"] if spec.columns.latency_ms is not None else []
    numbers = [*roles, *(n for n, kind in fit.items() if kind == "numeric")]
    if effect.cause not in numbers:
        said = f"'{effect.cause}' is no number that is logged"
        yield ("cause",), said + offer(effect.cause, numbers)
    known = [*spec.columns.outcomes, *(["actual"] if spec.columns.actual is not None else [])]
    if spec.source.actuals is None or not (effect.outcome or spec.columns.outcomes):
        yield ("outcome",), "declare columns.outcomes and source.actuals"
    elif effect.outcome and effect.outcome not in known:
        yield ("outcome",), f"'{effect.outcome}' is no outcome{offer(effect.outcome, known)}"
    elif effect.outcome == "actual" and spec.task in NAMED:
        yield ("outcome",), "the ground truth is no number; declare columns.outcomes"
    for index, column in enumerate(effect.within):
        if column == effect.cause:
            yield ("within", index), f"'{column}' is the cause itself"
        elif column not in fit:
            said = f"'{column}' is no feature with values to compare within"
            yield ("within", index), said + offer(column, fit)
    arm = effect.experiment
    arms = [n for n, kind in fit.items() if kind != "numeric"]
    if arm is not None and arm.column not in arms:
        said = f"'{arm.column}' is no categorical or boolean feature"
        yield ("experiment", "column"), said + offer(arm.column, arms)
    if arm is not None and arm.control == arm.treatment:
        yield ("experiment", "treatment"), f"'{arm.treatment}' is the control as well"
