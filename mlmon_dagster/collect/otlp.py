"""Spans and log records in OpenTelemetry's own protocol: OTLP over HTTP, JSON and protobuf.

OTLP's JSON is not protobuf's: ids are hexadecimal, and numbers of 64 bits are text. Both forms are
read by the same code and give the same rows. Answers are the protocol's: 200 with the number of
rows that were refused, and a status that says whether sending again helps.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, Final, Literal, NamedTuple

from mlmon_dagster.collect.body import unpacked
from mlmon_dagster.collect.calls import (
    EVALUATION,
    Calls,
    Span,
    calls_of,
    write_call,
    write_evaluation,
)
from mlmon_dagster.collect.collector import Collector
from mlmon_dagster.collect.landing import Target
from mlmon_dagster.collect.problem import Problem
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.spans import TOKEN_ATTRIBUTES, VERSION

Signal = Literal["traces", "logs"]
JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"
MODEL, PREDICTION_ID = "mlmon.model", "mlmon.prediction_id"
# Names of the feature-flag conventions as of November 2026, older ones after them.
_VARIANT: Final = ("feature_flag.result.variant", "feature_flag.variant")
_FLAG: Final = "feature_flag.key"
_ERROR: Final = "error.type"
_WANTED: Final = frozenset(
    (
        MODEL,
        PREDICTION_ID,
        VERSION,
        *chain(*TOKEN_ATTRIBUTES.values()),
        *_VARIANT,
        _FLAG,
        _ERROR,
        "service.name",
    )
)
_TIMEOUT: Final = re.compile(r"time.?out|timed.?out|deadline|^408$|^504$", re.IGNORECASE)
_HEX_16, _HEX_32 = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{32}")
_ERROR_STATUS, _ERROR_SEVERITY = 2, 17
_MOST_NAME, _MOST_TEXT = 255, 1_000
_MOST_FLAGS = 100  # of a span: one line that is too long makes a whole file unreadable
_DAY = 86_400 * 10**9  # in nanoseconds
_MOST_DAYS = 32  # of a request
_LATEST = 7_258_118_400_000_000_000  # the year 2200, in nanoseconds
_MOST_INTEGER = 1 << 62
_NO_EXTRA: Final = (
    "Protobuf needs the extra 'otlp' of mlmon-dagster on this server; or let the exporter send "
    "JSON: OTEL_EXPORTER_OTLP_PROTOCOL=http/json."
)
# A number of 400 digits is JSON, and more than a float can be.
_MALFORMED = (TypeError, AttributeError, KeyError, ValueError, RecursionError, OverflowError)
_encode = json.JSONEncoder(check_circular=False, separators=(",", ":")).encode
Attributes = dict[str, str]
Node = Any  # of JSON, or of a message of the untyped library


class _Raw(NamedTuple):
    """A span or log record as both forms give it; times in nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    start: int
    end: int
    status: int
    message: str
    attributes: Attributes
    flags: tuple[Attributes, ...]  # of events that evaluate a feature flag
    evaluations: tuple[tuple[int, Attributes], ...] = ()  # of the call, and when they were given


@dataclass(frozen=True)
class Taken:
    """What became of a request's rows.

    Attributes:
        lines: Lines of landing files by where they go.
        refused: Why rows were refused -> how many.
    """

    lines: dict[Target, list[bytes]]
    refused: Counter[str]

    @property
    def n_rows(self) -> int:
        """How many rows are taken in."""
        return sum(map(len, self.lines.values()))


class _Model(NamedTuple):
    """What a model takes of spans and log records.

    Attributes:
        join: The attribute that names the prediction.
        kept: The attributes that are kept.
        service: What sends them; None for any.
        age: For how many nanoseconds they are kept.
        calls: How its calls and evaluations are known.
    """

    join: str
    kept: frozenset[str]
    service: str | None
    age: int
    calls: Calls


class Spans:
    """Takes in spans and log records for the models that declare them.

    Args:
        specs: The models; those without ``spans`` take none.
        targets: Model -> where its landing files go.
        collector: Makes rows durable.
    """

    def __init__(
        self, specs: Sequence[ModelSpec], targets: Mapping[str, Target], collector: Collector
    ) -> None:
        self.targets = targets
        self._models = {
            spec.model: _Model(
                spec.spans.attribute or PREDICTION_ID, spec.spans.kept, spec.spans.service,
                _find_retention(spec), calls_of(spec),
            )
            for spec in specs
            if spec.model in targets and spec.spans is not None
        }  # fmt: skip
        self._services = {one.service: name for name, one in self._models.items() if one.service}
        self._wanted = _WANTED.union(
            *(one.kept | one.calls.wanted | {one.join} for one in self._models.values())
        )
        self._collector = collector

    async def take(
        self, signal: Signal, form: str, encoding: str, body: bytes, sees: Callable[[str], bool]
    ) -> tuple[bytes, Taken]:
        """Take in a request; return its answer once all that it tells as taken is durable.

        Args:
            signal: What the body holds.
            form: Its media type.
            encoding: Its content encoding.
            body: As it came.
            sees: Whether the caller may send to a model.

        Raises:
            Problem: If the body cannot be read, or rows cannot be stored.
        """
        limits = self._collector.limits

        def read() -> Taken:
            return self.read(signal, form, unpacked(body, encoding, limits.max_plain), sees)

        taken = await self._collector.in_thread(read)
        for target, lines in taken.lines.items():
            await self._collector.stored(target, lines)
        return answer_of(signal, form, taken.refused), taken

    def read(
        self, signal: Signal, form: str, plain: bytes, sees: Callable[[str], bool] = lambda _: True
    ) -> Taken:
        """Read a body into lines of landing files.

        Raises:
            Problem: If it cannot be read, or holds more rows than are taken at once.
        """
        lines: dict[Target, list[bytes]] = {}
        refused: Counter[str] = Counter()
        kind = "span" if signal == "traces" else "log"
        now = time.time_ns()
        latest = min(now + _DAY, _LATEST)
        days: set[tuple[str, int]] = set()
        max_rows = self._collector.limits.max_rows
        try:
            for n, (resource, raw) in enumerate(_read(signal, form, plain, self._wanted)):
                if n >= max_rows:
                    raise Problem("too_large", f"More than {max_rows:,} rows; send fewer at once.")
                model = self._model_of(resource, raw.attributes)
                # An evaluation is a row of ground truth, and no log of its trace beside that.
                is_evaluation = kind == "log" and raw.name == EVALUATION
                names_response = is_evaluation and not raw.trace_id
                why = "" if names_response else _fault(raw, kind, latest)
                why = why if model else "no declared model is named"
                if why or model is None or not sees(model):
                    refused[why or "the token is for another model"] += 1
                    continue
                if raw.start < now - self._models[model].age:
                    refused["the start is older than what the model keeps (retention)"] += 1
                    continue
                day = (model, raw.start // _DAY)
                if day not in days and len(days) == _MOST_DAYS:
                    # Each day is a partition of the table: a file, whatever it holds.
                    refused[f"a request holds {_MOST_DAYS} days at most; send others apart"] += 1
                    continue
                days.add(day)
                if not is_evaluation:
                    own = self._models[model]
                    line = _line(kind, resource, raw, own.join, own.kept)
                    lines.setdefault(self.targets[model], []).append(line)
                for target, said in self._find_calls(model, kind, resource, raw, refused):
                    lines.setdefault(target, []).append(said)
        except _MALFORMED as error:
            raise Problem("malformed", f"The body is no OTLP {signal}: {_said(error)}.") from None
        return Taken(lines, refused)

    def _find_calls(
        self, model: str, kind: str, resource: Attributes, raw: _Raw, refused: Counter[str]
    ) -> Iterator[tuple[Target, bytes]]:
        """Yield what a record says of calls: that it is one, or what is thought of one."""
        calls, targets = self._models[model].calls, self._collector.targets
        given = list(raw.evaluations)
        if kind == "log" and raw.name == EVALUATION:
            given.append((raw.start, raw.attributes))
        if not given and not calls.is_call(raw.name):
            return
        span = Span(
            raw.span_id, raw.trace_id, raw.name, raw.start, (raw.end - raw.start) / 1e6,
            _status_of(raw),
        )  # fmt: skip
        events = targets.get((model, "predictions"))
        if kind == "span" and calls.is_call(raw.name) and events is not None:
            yield events, write_call(calls, span, raw.attributes, resource)
        truth = targets.get((model, "actuals")) if calls.has_evaluations else None
        for at, own in given:
            if truth is None:
                refused["an evaluation, and the model declares none"] += 1
                continue
            said = raw.attributes | own
            line = write_evaluation(calls, span._replace(start_time=at), said, resource)
            if line is None:
                refused[f"an evaluation that names no call ({calls.call})"] += 1
            else:
                yield truth, line

    def _model_of(self, resource: Attributes, own: Attributes) -> str | None:
        model = own.get(MODEL) or resource.get(MODEL)
        if model is None:
            model = self._services.get(resource.get("service.name", ""))
        if model is None and len(self._models) == 1 and not self._services:
            [model] = self._models
        return model if model in self._models else None


def _find_retention(spec: ModelSpec) -> int:
    """Return for how many nanoseconds a model keeps spans; what is older would be deleted."""
    ages = (spec.retention.spans, spec.retention.of_dataset(PRODUCTION))
    seconds = min((age.total_seconds() for age in ages if age is not None), default=None)
    return _LATEST if seconds is None else int(seconds) * 10**9


def _said(error: Exception) -> str:
    """Name an error without the values in its text."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    return type(error).__name__


def _fault(raw: _Raw, kind: str, latest: int) -> str:
    is_log = kind == "log"
    if not _HEX_32.fullmatch(raw.trace_id) or not raw.trace_id.strip("0"):
        return "trace_id is not 16 bytes" if raw.trace_id or not is_log else "a log has no trace_id"
    if not (_HEX_16.fullmatch(raw.span_id) and raw.span_id.strip("0")) and not (
        is_log and not raw.span_id.strip("0")
    ):
        return "span_id is not 8 bytes"
    if raw.parent_id and not _HEX_16.fullmatch(raw.parent_id):
        return "parent_span_id is not 8 bytes"
    if not 0 < raw.start < latest:
        return "the start lies ahead, or is missing"
    return "" if raw.start <= raw.end < latest else "the end lies before the start, or ahead"


def _line(kind: str, resource: Attributes, raw: _Raw, join: str, kept: frozenset[str]) -> bytes:
    own = raw.attributes
    named = [(name, own.get(name) or resource.get(name)) for name in sorted(kept)]
    flags = {}
    for found in (own, *raw.flags):
        if key := found.get(_FLAG):
            flags[key] = next((found[name] for name in _VARIANT if name in found), "")
    row: dict[str, object] = {
        "kind": kind,
        "trace_id": raw.trace_id,
        "span_id": raw.span_id,
        "parent_id": raw.parent_id or None,
        "name": _text(raw.name, _MOST_NAME),
        "service": _text(resource.get("service.name", ""), _MOST_NAME) or None,
        "start_us": raw.start // 1_000,
        "duration_ms": (raw.end - raw.start) / 1e6 if kind == "span" else None,
        "status": _status_of(raw),
        "message": _text(raw.message, _MOST_TEXT) or None,
        "prediction_id": _text(own.get(join, ""), _MOST_TEXT) or None,
        "model_version": _text(own.get(VERSION) or resource.get(VERSION, ""), _MOST_NAME) or None,
        "flags": [_text(f"{k}={v}", _MOST_NAME) for k, v in sorted(flags.items())[:_MOST_FLAGS]],
        "attributes": [f"{name}={_text(value, _MOST_NAME)}" for name, value in named if value],
        **{column: _count(own, names) for column, names in TOKEN_ATTRIBUTES.items()},
    }
    return _encode(row).encode("ascii") + b"\n"


def _status_of(raw: _Raw) -> str:
    if raw.status != _ERROR_STATUS:
        return "ok"
    is_late = _TIMEOUT.search(raw.attributes.get(_ERROR, "")) or _TIMEOUT.search(raw.message)
    return "timeout" if is_late else "error"


def _text(text: str, most: int) -> str:
    if not text.isascii():  # half a surrogate pair is no text
        text = text.encode("utf-8", "replace").decode()
    return text[:most]


def _count(own: Attributes, names: Sequence[str]) -> int | None:
    for name in names:
        text = own.get(name, "")
        if text.isascii() and text.isdigit() and len(text) <= 18:
            return int(text)
    return None


class _Form(NamedTuple):
    """How a form of the protocol is read, under the names that fields have in protobuf.

    Attributes:
        get: Returns a field of a node; nothing if JSON does not have it.
        kind: Returns which field an attribute's value is in.
    """

    get: Callable[[Node, str], Any]
    kind: Callable[[Node], str | None]


@cache
def _spell_in_json(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


_KINDS: Final = {
    _spell_in_json(kind): kind
    for kind in (
        "string_value", "int_value", "double_value", "bool_value", "array_value", "kvlist_value",
    )
}  # fmt: skip


def _find_kind_in_json(value: Node) -> str | None:
    for name, kind in _KINDS.items():
        if name in value:
            return kind
    return None


_IN_JSON: Final = _Form(lambda node, name: node.get(_spell_in_json(name)), _find_kind_in_json)
_IN_PROTOBUF: Final = _Form(getattr, lambda value: value.WhichOneof("value"))
_LEVELS: Final[dict[Signal, tuple[str, str, str]]] = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
_FLAG_EVENTS: Final = ("feature_flag", "feature_flag.evaluation")


def _read(
    signal: Signal, media_type: str, plain: bytes, wanted: frozenset[str]
) -> Iterator[tuple[Attributes, _Raw]]:
    """Yield the rows of a body, each with the attributes of what sent it."""
    if media_type == JSON:
        form, document = _IN_JSON, json.loads(plain)
        if not isinstance(document, dict):
            raise TypeError("no object")
    else:
        form, document = _IN_PROTOBUF, _parse_protobuf(signal, plain)
    outer, inner, rows = _LEVELS[signal]
    convert = _read_span if signal == "traces" else _read_log
    for group in form.get(document, outer) or ():
        sender = form.get(group, "resource")
        resource = _read_attributes(sender, form, wanted) if sender else {}
        for scope in form.get(group, inner) or ():
            for row in form.get(scope, rows) or ():
                yield resource, convert(row, form, wanted)


def _parse_protobuf(signal: Signal, plain: bytes) -> Node:
    try:
        from google.protobuf.message import DecodeError
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
        )
    except ImportError:
        raise Problem("unsupported_media_type", _NO_EXTRA) from None
    kind: Node = ExportTraceServiceRequest if signal == "traces" else ExportLogsServiceRequest
    try:
        return kind.FromString(plain)
    except DecodeError:
        raise ValueError("no message") from None


def _read_span(span: Node, form: _Form, wanted: frozenset[str]) -> _Raw:
    get = form.get
    status = get(span, "status")
    flags, evaluations = [], []
    for event in get(span, "events") or ():
        name = get(event, "name")
        if name in _FLAG_EVENTS:
            flags.append(_read_attributes(event, form, wanted))
        elif name == EVALUATION:
            at = _integer(get(event, "time_unix_nano"))
            evaluations.append((at, _read_attributes(event, form, wanted)))
    return _Raw(
        _id(get(span, "trace_id")),
        _id(get(span, "span_id")),
        _id(get(span, "parent_span_id")),
        _string(get(span, "name")),
        _integer(get(span, "start_time_unix_nano")),
        _integer(get(span, "end_time_unix_nano")),
        _integer(get(status, "code")) if status else 0,
        _string(get(status, "message")) if status else "",
        _read_attributes(span, form, wanted),
        tuple(flags),
        tuple(evaluations),
    )


def _read_log(log: Node, form: _Form, wanted: frozenset[str]) -> _Raw:
    get = form.get
    at = _integer(get(log, "time_unix_nano")) or _integer(get(log, "observed_time_unix_nano"))
    body = get(log, "body")
    said = _read_value(body, form) if body else None
    return _Raw(
        _id(get(log, "trace_id")),
        _id(get(log, "span_id")),
        "",
        _string(get(log, "event_name")),
        at,
        at,
        _ERROR_STATUS if _integer(get(log, "severity_number")) >= _ERROR_SEVERITY else 0,
        said if isinstance(said, str) else "",
        _read_attributes(log, form, wanted),
        (),
    )


def _id(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else _string(value).lower()


def _string(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _integer(value: object) -> int:
    """Read a number of 64 bits, which in JSON is text or a number."""
    if value is None or value == "":
        return 0
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("no integer")
    if isinstance(value, str) and (len(value) > 20 or not value.isascii()):
        raise ValueError("no integer")
    number = int(value)
    return number if abs(number) <= _MOST_INTEGER * 4 else 0


def _read_attributes(node: Node, form: _Form, wanted: frozenset[str]) -> Attributes:
    """Return the wanted attributes as text: a list of single ones with commas, else as JSON."""
    get, found = form.get, {}
    for pair in get(node, "attributes") or ():
        key = get(pair, "key")
        if key in wanted and (value := get(pair, "value")):
            plain = _read_value(value, form)
            if isinstance(plain, list) and all(isinstance(item, str) for item in plain):
                plain = ",".join(plain)
            if plain is not None:
                found[key] = plain if isinstance(plain, str) else json.dumps(plain)
    return found


def _read_value(value: Node, form: _Form) -> object:
    """Return a value with its single ones as text; None if there is none."""
    kind = form.kind(value)
    if kind is None:
        return None
    held = form.get(value, kind)
    match kind:
        case "array_value":
            items = form.get(held, "values") if held else None
            return [_read_value(item or {}, form) for item in items or ()]
        case "kvlist_value":
            pairs = form.get(held, "values") if held else None
            return {
                form.get(pair, "key"): _read_value(form.get(pair, "value") or {}, form)
                for pair in pairs or ()
            }
        case "string_value":
            return _string(held)
        case "int_value":
            return str(_integer(held))
        case "bool_value":
            return "true" if held is True else "false"
    return repr(float(held))


def form_of_otlp(content_type: str) -> str:
    """Return the media type of a body.

    Raises:
        Problem: If it is not one of the protocol's.
    """
    form = content_type.partition(";")[0].strip().lower()
    if form not in (JSON, PROTOBUF):
        found = f"Set Content-Type to {PROTOBUF} or {JSON}."
        raise Problem(
            "unsupported_media_type", found, headers={"accept-post": f"{PROTOBUF}, {JSON}"}
        )
    return form


def answer_of(signal: Signal, form: str, refused: Counter[str]) -> bytes:
    """Return the message that says how many rows were refused, and why."""
    n = refused.total()
    why = "; ".join(f"{count:,}: {reason}" for reason, count in refused.most_common(5))
    if form == JSON:
        name = "rejectedSpans" if signal == "traces" else "rejectedLogRecords"
        partial = {"partialSuccess": {name: str(n), "errorMessage": why}} if n else {}
        return json.dumps(partial).encode()
    if not n:
        return b""
    return _field(1, b"\x08" + _varint(n) + _field(2, why.encode()))


def status_of(form: str, message: str) -> bytes:
    """Return the message of a failed request, a google.rpc.Status; its code is in HTTP's."""
    if form == PROTOBUF:
        return _field(2, message.encode("utf-8", "replace"))
    return json.dumps({"message": message}).encode()


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(n: int) -> bytes:
    found = bytearray()
    while n > 0x7F:
        found.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*found, n])
