"""Which spans are calls of a language model, and which records are evaluations of them.

A call becomes a prediction event and an evaluation a row of ground truth: lines of the landing
files that ingest reads. Names are those of OpenTelemetry's GenAI conventions (November 2026).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from mlmon_dagster.ingest.declared_columns import columns_of
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import FileSource

EVALUATION: Final = "gen_ai.evaluation.result"  # the name of a log record, or of a span's event
_NAME: Final = "gen_ai.evaluation.name"
_KEPT: Final = {
    _NAME: "name",
    "gen_ai.evaluation.score.value": "value",
    "gen_ai.evaluation.score.label": "label",
    "gen_ai.evaluation.explanation": "explanation",
    "error.type": "error",
    "mlmon.evaluation.by": "by",
}
_EVALUATOR: Final = "mlmon.evaluation.evaluator"
_LAST_USER: Final = ".last_user"  # ends the name of what a person said last, of messages
_MOST_TEXT = 100_000
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode


class Span(NamedTuple):
    """What is known of a span beside its attributes; a column may be any of it.

    Attributes:
        span_id: 16 hexadecimal digits; of an evaluation the call's.
        trace_id: 32 of them.
        name: Its name.
        start_time: In nanoseconds.
        duration_ms: How long it took.
        status: ok, error or timeout.
    """

    span_id: str
    trace_id: str
    name: str
    start_time: int
    duration_ms: float
    status: str


_OF_SPAN: Final = frozenset(Span._fields)


@dataclass(frozen=True)
class Calls:
    """How a model's calls and evaluations are known, and what of them is kept.

    Attributes:
        pattern: Of the names of spans that are calls; empty for none.
        sources: Columns of a landing file of calls.
        call: Column that names the call in a landing file of evaluations.
        at: Column of when an evaluation was given; empty if none is declared.
        has_evaluations: Whether the model takes any.
        evaluators: Name of an evaluation -> attribute that says who gave it.
    """

    pattern: str = ""
    sources: tuple[str, ...] = ()
    call: str = ""
    at: str = ""
    has_evaluations: bool = False
    evaluators: Mapping[str, str] = field(default_factory=dict)

    @property
    def wanted(self) -> frozenset[str]:
        """The attributes that are read."""
        found = {name.removesuffix(_LAST_USER) for name in self.sources} - _OF_SPAN
        if self.has_evaluations:
            found |= {*_KEPT, _EVALUATOR, self.call, *self.evaluators.values()}
        return frozenset(found)

    def is_call(self, name: str) -> bool:
        """Tell whether a span of this name is a call."""
        return bool(self.pattern) and fnmatchcase(name, self.pattern)


def calls_of(spec: ModelSpec) -> Calls:
    """Return how a model's calls and evaluations are known."""
    source, actuals = spec.source.predictions, spec.source.actuals
    pattern = source.spans if isinstance(source, FileSource) else None
    takes = bool(spec.evaluations) and isinstance(actuals, FileSource)
    of_truth = {c.name: c.source for c in columns_of(spec, "actuals")} if takes else {}
    return Calls(
        pattern or "",
        tuple(dict.fromkeys(c.source for c in columns_of(spec, "predictions"))) if pattern else (),
        of_truth.get("prediction_id", ""),
        of_truth.get("actual_time", ""),
        takes,
        {one.from_ or name: one.evaluator for name, one in spec.evaluations.items()
         if one.evaluator},
    )  # fmt: skip


def write_call(
    calls: Calls, span: Span, own: Mapping[str, str], resource: Mapping[str, str]
) -> bytes:
    """Return the line of a landing file that a call becomes.

    A column is a part of the span (`Span`), or an attribute of it or of its resource. Of
    ``gen_ai.input.messages.last_user`` it is the last text that a person wrote.
    """
    row: dict[str, object] = {}
    for source in calls.sources:
        if source in _OF_SPAN:
            value: object = getattr(span, source)
            row[source] = write_time(span.start_time) if source == "start_time" else value
        elif source.endswith(_LAST_USER):
            row[source] = _find_last_user(own.get(source.removesuffix(_LAST_USER), ""))
        else:
            text = own.get(source) or resource.get(source)
            row[source] = text[:_MOST_TEXT] if text else None
    return _encode(row).encode("ascii") + b"\n"


def write_evaluation(
    calls: Calls, span: Span, own: Mapping[str, str], resource: Mapping[str, str]
) -> bytes | None:
    """Return the line of a landing file that an evaluation becomes; None if it names no call.

    Args:
        calls: How it names the call.
        span: Where it hangs: the ids of the call, and when it was given.
        own: Its attributes.
        resource: Those of what sent it.
    """
    call = getattr(span, calls.call) if calls.call in _OF_SPAN else own.get(calls.call)
    if not call:
        return None
    row = {calls.call: call} | {key: own[name] for name, key in _KEPT.items() if name in own}
    if calls.at:
        row[calls.at] = write_time(span.start_time)
    named = calls.evaluators.get(own.get(_NAME, ""), _EVALUATOR)
    row["evaluator"] = own.get(named) or resource.get(named)
    return _encode(row).encode("ascii") + b"\n"


def write_time(moment: int) -> str:
    """Write nanoseconds since 1970 as ISO 8601, to the microsecond."""
    return (_EPOCH + dt.timedelta(microseconds=moment // 1_000)).isoformat()


def _find_last_user(messages: str) -> str | None:
    """Return the last text that a person wrote, of messages as JSON; None without any."""
    try:
        listed = json.loads(messages)
    except (ValueError, RecursionError):
        return None
    for message in reversed(listed if isinstance(listed, list) else []):
        if not isinstance(message, dict) or message.get("role") != "user":
            continue
        parts: Sequence[object] = message.get("parts") or ()
        texts = [
            part["content"]
            for part in parts
            if isinstance(part, dict) and isinstance(part.get("content"), str)
        ]
        if isinstance(message.get("content"), str):
            texts.append(message["content"])
        if texts:
            return "\n".join(texts)[:_MOST_TEXT]
    return None
