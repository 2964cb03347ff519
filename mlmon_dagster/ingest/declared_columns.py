"""What the files of a stream must contain: the declared columns, their types and their rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final, Literal

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import Feature, FeatureType, attributed
from mlmon_dagster.spec.evaluations import (
    Evaluation,
    find_truth,
    list_texts,
)
from mlmon_dagster.spec.monitors import shap_columns
from mlmon_dagster.spec.sources import FileSource, Source, Stream
from mlmon_dagster.spec.tasks import Answer, class_scores, task_of

Kind = Literal["id", "time", "number", "label", "boolean", "text", "labels", "vector"]

EXPECTED: Final[dict[Kind, str]] = {
    "id": "text or an integer",
    "time": "an ISO 8601 time with an offset, or a Parquet timestamp",
    "number": "a number",
    "label": "0 or 1",
    "boolean": "true or false",
    "text": "text",
    "labels": "a list of labels, or the labels with | between them",
    "vector": "a list of numbers",
}
_READ_AS: Final[dict[Answer, Kind]] = {
    "label": "label", "class": "text", "labels": "labels", "number": "number",
}  # fmt: skip
_FEATURE_KINDS: Final[dict[FeatureType, Kind]] = {
    "numeric": "number",
    "categorical": "text",
    "text": "text",
    "boolean": "boolean",
    "datetime": "time",
    "embedding": "vector",
}
# A declared role whose column a file may leave out.
_OPTIONAL: Final = {"latency_ms", "status", "trace_id", "base_value", "explainer"}


@dataclass(frozen=True)
class Notation:
    """How texts of a stream's files write numbers and times.

    Attributes:
        decimal: The sign before the fraction.
        thousands: The sign between thousands; "" for none.
        times: Formats of times, tried in this order; () for ISO 8601.
    """

    decimal: str = "."
    thousands: str = ""
    times: tuple[str, ...] = ()


_USUAL: Final = Notation()


@dataclass(frozen=True)
class Column:
    """One declared column of a stream.

    Attributes:
        name: Its name in the store.
        source: Its name in the landing files.
        kind: How its cells are read.
        must_exist: A file without it is refused.
        nullable: A row without it can be stored.
        is_feature: It is a model input, not a role.
        aliases: Its earlier names, in landing files and in the store, oldest first.
        words: Of a label, what is written for it, folded, and what that means; () for 0 and 1.
        notation: How its texts write numbers and times.
        evaluation: What is read as good, of a column of an evaluation.
    """

    name: str
    source: str
    kind: Kind
    must_exist: bool = True
    nullable: bool = True
    is_feature: bool = False
    aliases: tuple[str, ...] = ()
    words: tuple[tuple[str, float], ...] = ()
    notation: Notation = _USUAL
    evaluation: Evaluation | None = None

    @property
    def expected(self) -> str:
        """What a cell must be, for messages."""
        if self.words:
            return f"one of {', '.join(word for word, _ in self.words)}"
        if self.kind == "time" and self.notation.times:
            formats = ", ".join(self.notation.times)
            return f"a time written as {formats}, or ISO 8601 with an offset"
        return EXPECTED[self.kind]


def columns_of(spec: ModelSpec, stream: Stream) -> tuple[Column, ...]:
    """Return the declared columns of a stream, roles first."""
    found = _prediction_columns(spec) if stream == "predictions" else _actual_columns(spec)
    notation = _notation(spec.source.of(stream))
    if notation == _USUAL and spec.labels is None:
        return found
    words = spec.labels.meaning() if spec.labels is not None else ()
    return tuple(
        replace(column, notation=notation, words=words if column.kind == "label" else ())
        for column in found
    )


def _notation(source: Source | None) -> Notation:
    if not isinstance(source, FileSource):
        return _USUAL
    return Notation(source.decimal, source.thousands, source.time_format)


def reading_of(spec: ModelSpec, stream: Stream) -> str:
    """Return a digest of all that is declared of how a stream's files are read and judged.

    With the same digest, the same file is refused for the same reasons.
    """
    source = spec.source.of(stream)
    said = source.model_dump(mode="json", exclude={"path", "settle", "asset"}) if source else None
    judging = {"zone", "start", "end", "naive", "skew_tolerance"}
    time = spec.time.model_dump(mode="json", include=judging)
    parts: tuple[object, ...] = (
        spec.task, columns_of(spec, stream), spec.columns.id_parts, said, time,
    )  # fmt: skip
    refusing = [e for e in spec.expectations if e.stream == stream and e.severity == "refuse"]
    if refusing:
        parts += (refusing,)
    if spec.datasets is not None:
        parts += (spec.datasets.meaning(),)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def outcome_kind(spec: ModelSpec) -> Kind:
    """Return how predictions and actuals of the model's task are read."""
    return _READ_AS[task_of(spec).answer]


def is_output(name: str) -> bool:
    """Say whether a column of the store is what the model gave: score, decision or rank."""
    return name in {"score", "prediction", "rank"} or name.startswith("score:")


def is_probability(spec: ModelSpec, name: str) -> bool:
    """Say whether a value of a column outside [0, 1] is wrong for the model's task."""
    by_class = name.startswith("score:") or name == "examined"
    return by_class or (name == "score" and task_of(spec).answer == "label")


def _prediction_columns(spec: ModelSpec) -> tuple[Column, ...]:
    roles: tuple[tuple[str, Kind, bool], ...] = (
        ("prediction_id", "id", False),
        ("event_time", "time", False),
        ("dataset", "text", True),
        ("model_version", "text", True),
        ("prediction", outcome_kind(spec), False),
        ("score", "number", False),
        ("group", "id", not task_of(spec).is_grouped),
        ("rank", "number", False),
        ("examined", "number", True),
        ("latency_ms", "number", True),
        ("status", "text", True),
        ("trace_id", "text", True),
        ("base_value", "number", True),
        ("explainer", "text", True),
    )
    scores, own = spec.columns.scores or {}, spec.source.predictions.columns or {}
    by_class = tuple(
        Column(name, own.get(name, scores[label]), "number", nullable=False)
        for label, name in class_scores(spec).items()
    )
    shap = shap_columns(spec.columns.shap, spec.logged_features)
    by_feature = tuple(
        Column(name, own.get(name, shap[feature]), "number")
        for feature, name in attributed(spec).items()
    )
    features = tuple(
        _feature_column(name, feature) for name, feature in spec.logged_features.items()
    )
    return (*_declared(spec, roles, spec.source.predictions), *by_class, *by_feature, *features)


def _actual_columns(spec: ModelSpec) -> tuple[Column, ...]:
    # A null actual retracts an earlier one, so it is nullable; see `rows`.
    roles: tuple[tuple[str, Kind, bool], ...] = (
        ("prediction_id", "id", False),
        ("dataset", "text", True),
        ("actual", outcome_kind(spec), True),
        ("actual_time", "time", False),
    )
    own = (spec.source.actuals.columns if spec.source.actuals else None) or {}
    outcomes = tuple(
        Column(name, own.get(name, outcome.column), "number", must_exist=False)
        for name, outcome in spec.columns.outcomes.items()
    )
    found = (*_declared(spec, roles, spec.source.actuals), *outcomes)
    if spec.evaluations:
        found = _with_evaluations(spec, found)
    # An actual that names no dataset applies to its prediction_id in every dataset.
    return tuple(
        Column(c.name, c.source, c.kind, False, True) if c.name == "dataset" else c for c in found
    )


def _with_evaluations(spec: ModelSpec, columns: tuple[Column, ...]) -> tuple[Column, ...]:
    """Return the columns of the store for evaluations, each under its own name in the store."""
    own, truth = spec.evaluations, find_truth(spec.evaluations)
    found = []
    for column in columns:
        name = truth if column.name == "actual" else column.name
        if name in own:
            column = replace(column, source=name, must_exist=False, evaluation=own[name])
        found.append(column)
    texts = (Column(name, name, "text", must_exist=False) for name in list_texts(own))
    return (*found, *texts)


def _declared(
    spec: ModelSpec, roles: tuple[tuple[str, Kind, bool], ...], source: Source | None
) -> tuple[Column, ...]:
    own = (source.columns if source else None) or {}
    declared = spec.columns.declared()
    return tuple(
        Column(name, own.get(name, shared), kind, name not in _OPTIONAL, nullable)
        for name, kind, nullable in roles
        if (shared := declared.get(name)) is not None
    )


def _feature_column(name: str, feature: Feature) -> Column:
    kind = _FEATURE_KINDS[feature.type]
    source = feature.from_ or name
    must_exist = not feature.nullable
    return Column(name, source, kind, must_exist, is_feature=True, aliases=feature.alias)
