"""Answers that say what went wrong: problem details after RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from starlette.responses import Response

MAX_ERRORS = 100
MEDIA_TYPE = "application/problem+json"
NOT_KEPT: Final = {"cache-control": "no-store"}

# Code -> status and title; the documentation page explains each under its code.
PROBLEMS: Final = {
    "malformed": (400, "The body cannot be read"),
    "unauthenticated": (401, "A valid token is needed"),
    "forbidden": (403, "The token is not for this model"),
    "wrong_host": (403, "This server does not answer to that host name"),
    "not_found": (404, "There is no such resource"),
    "method_not_allowed": (405, "The resource does not know this method"),
    "too_slow": (408, "The body did not arrive in time"),
    "in_progress": (409, "The request with this key is still being worked on"),
    "too_large": (413, "The body is too large"),
    "unsupported_media_type": (415, "The body is in a form that is not read here"),
    "rows_refused": (422, "Rows do not fit the declaration of the model"),
    "key_reused": (422, "The Idempotency-Key was used for another body"),
    "overloaded": (429, "Too much is waiting"),
    "failed": (500, "The server failed"),
    "not_read": (503, "The numbers cannot be read"),
    "not_stored": (503, "The events could not be stored"),
    "shutting_down": (503, "The server is about to stop"),
}


@dataclass(eq=False)
class Problem(Exception):
    """A request that is not accepted; nothing of it is stored.

    Attributes:
        code: A key of `PROBLEMS`.
        detail: What was found, what was expected and the next step; never a data value.
        errors: One entry per reason, the first `MAX_ERRORS` are told.
        headers: Of the answer.
        extra: Further members of the answer.
    """

    code: str
    detail: str
    errors: Sequence[Mapping[str, object]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return PROBLEMS[self.code][0]

    def response(self) -> Response:
        """Return the answer."""
        status, title = PROBLEMS[self.code]
        content: dict[str, object] = {
            "type": f"/docs#{self.code}", "title": title, "status": status, "detail": self.detail
        }  # fmt: skip
        content |= self.extra
        if self.errors:
            content |= limited(self.errors)
        return json_response(content, status, dict(self.headers), MEDIA_TYPE)


def limited(errors: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return the errors that are told, and how many there are in all."""
    return {"n_errors": len(errors), "errors": list(errors[:MAX_ERRORS])}


def json_response(
    content: Mapping[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media_type: str = "application/json",
) -> Response:
    """Return an answer in JSON."""
    kept = {**NOT_KEPT, **(headers or {})}
    return Response(json_body(content), status_code=status, headers=kept, media_type=media_type)


def json_body(content: Mapping[str, object]) -> bytes:
    """Write JSON as the body of an answer."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "replace")
