"""What may be declared about the spans of a model's requests, from OpenTelemetry."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Final, Literal
from urllib.parse import quote

from pydantic import Field

from mlmon_dagster.spec.names import Found
from mlmon_dagster.spec.scalars import Declared

TRACE_ID: Final = "trace_id"
_STAGE: Final = re.compile(r"[A-Za-z_]\w{0,62}", re.ASCII)
VERSION: Final = "mlmon.model_version"  # attribute of a span or of its resource
STAGE: Final = "stage."  # begins the names of their columns
# Columns of the records -> columns of the spans.
TOKENS: Final = {"tokens.input": "input_tokens", "tokens.output": "output_tokens"}
# Columns of the spans -> attributes that tell them, older names of the GenAI conventions last.
TOKEN_ATTRIBUTES: Final = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
}
FAILED: Final = ("error", "timeout")  # ends of a stage
PLACEHOLDER: Final = "{trace_id}"


class Spans(Declared):
    """How spans and log records find their prediction events, and which of them are stages."""

    join: str = Field(default=TRACE_ID, min_length=1)
    service: str | None = None
    stages: dict[str, str] = Field(default={})
    sampling: Literal["unbiased", "tail"]
    link: str | None = None
    version: str | None = Field(default=None, min_length=1)
    columns: dict[str, Annotated[str, Field(min_length=1)]] = Field(default={})
    tokens: bool = False

    @property
    def attribute(self) -> str | None:
        """The attribute that holds a prediction_id; None where events log their trace."""
        return None if self.join == TRACE_ID else self.join

    @property
    def kept(self) -> frozenset[str]:
        """Names of the attributes, or of feature flags, whose values are kept."""
        of_version = () if self.version in (None, VERSION) else (self.version,)
        return frozenset({*self.columns.values(), *of_version})

    def link_to(self, trace_id: str) -> str | None:
        """Return the address of a trace, where one is declared."""
        return (
            None if self.link is None else self.link.replace(PLACEHOLDER, quote(trace_id, safe=""))
        )


def stage_column(name: str) -> str:
    """Return the column of the records that holds a stage's duration."""
    return f"{STAGE}{name}_ms"


def stage_calls(name: str) -> str:
    """Return the column of the records that says how many spans of a stage a request has."""
    return f"{STAGE}{name}_calls"


def stage_status(name: str) -> str:
    """Return the column of the records that says how a stage ended: ok, error or timeout."""
    return f"{STAGE}{name}_status"


def stage_of(column: str) -> str | None:
    """Return the stage whose duration a column holds; None for any other column."""
    is_stage = column.startswith(STAGE) and column.endswith("_ms")
    return column.removeprefix(STAGE).removesuffix("_ms") if is_stage else None


def landing_folder(model: str) -> PurePosixPath:
    """Return where a model's spans land, below the project."""
    return PurePosixPath("spans", model)


def span_problems(spans: Spans, *, logs_trace: bool) -> Found:
    """Find what does not fit: a join by a trace that is not logged, names of stages, a link."""
    if spans.attribute is None and not logs_trace:
        yield (
            ("spans", "join"),
            "needs columns.trace_id; or name the span attribute that holds the prediction_id, "
            "such as join: mlmon.prediction_id",
        )
    for name, pattern in spans.stages.items():
        if not _STAGE.fullmatch(name):
            yield (
                ("spans", "stages", name),
                "a stage's name is of letters, digits and _, at most 63",
            )
        if not pattern:
            yield ("spans", "stages", name), "is the name of a span, or a pattern such as fetch*"
    for key, of_each in (("version", "version's"), ("columns", "value's")):
        if getattr(spans, key) and spans.sampling == "tail":
            yield (
                ("spans", key),
                "needs sampling: unbiased; a tail sampler keeps the slow and failed requests, and "
                f"each {of_each} numbers would be of those",
            )
    if spans.link is not None and (
        PLACEHOLDER not in spans.link or not spans.link.startswith(("https://", "http://"))
    ):
        yield (
            ("spans", "link"),
            f"is an address with {PLACEHOLDER}, such as https://host/{{trace_id}}",
        )
