"""Numbers of the serving system from Prometheus: one query, one moment, one number or a reason.

The HTTP API's instant query, see https://prometheus.io/docs/prometheus/latest/querying/api/. What
is not exactly one number is none: not the first of several series, not part of an answer.
"""

from __future__ import annotations

import datetime as dt
import http.client
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlmon_dagster.store.bounded_http import NoRedirect, open_within

TIMEOUT_SECONDS = 10.0
PATIENCE_SECONDS = 1.0  # a server that fails later than this is not waited for again
NO_SERIES, MANY_SERIES, NOT_A_NUMBER = "no_series", "many_series", "not_a_number"
BAD_QUERY, REFUSED, UNREACHABLE, INCOMPLETE = "bad_query", "refused", "unreachable", "incomplete"
_BAD = ("bad_data", "execution")  # what Prometheus calls queries that cannot be answered
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Answer:
    """What Prometheus said.

    Attributes:
        value: The number; NaN where there is none. reason: Why there is none. said: Its own words.
    """

    value: float = math.nan
    reason: str = ""
    said: str = ""


@dataclass
class PrometheusServer:
    """A Prometheus, or what speaks like it.

    Attributes:
        url: Its address, without ``/api/v1``. token: Sent as a bearer token, if given.
        timeout_seconds: How long to wait for an answer.
        is_given_up: It was waited for in vain once, and is asked nothing more. One that refuses
            at once, or breaks off, is asked on: the next answer may be whole.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS
    is_given_up: bool = field(default=False, init=False)

    def ask(self, query: str, at: dt.datetime) -> Answer:
        """Evaluate PromQL at a moment."""
        if self.is_given_up:
            return Answer(reason=UNREACHABLE, said="it was waited for before")
        began = time.monotonic()
        timeout = f"{self.timeout_seconds:g}s"
        asked = {"query": query, "time": f"{at.timestamp():.3f}", "timeout": timeout}
        body, headers = urllib.parse.urlencode(asked).encode(), {"User-Agent": "mlmon-dagster"}
        headers |= {"Authorization": f"Bearer {self.token}"} if self.token else {}
        request = urllib.request.Request(f"{self.url.rstrip('/')}/api/v1/query", body, headers)
        try:
            with open_within(request, self.timeout_seconds + 1, NoRedirect()) as answer:
                return _read(answer.read(_MOST_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _refused(error.code, error.read(_MOST_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.is_given_up = time.monotonic() - began > PATIENCE_SECONDS
            return Answer(reason=UNREACHABLE, said=type(error).__name__)


def _refused(status: int, body: bytes) -> Answer:
    try:
        told = json.loads(body)
        kind, said = str(told["errorType"]), str(told["error"])
    except (ValueError, TypeError, KeyError):
        reason = REFUSED if status in (401, 403) else UNREACHABLE
        return Answer(reason=reason, said=f"HTTP {status}")
    return Answer(reason=BAD_QUERY if kind in _BAD else UNREACHABLE, said=said)


def _read(body: bytes) -> Answer:
    try:
        told: Mapping[str, Any] = json.loads(body)
        data = told["data"]
        kind, result = data["resultType"], data["result"]
        # Hints on the query, such as on a counter's name, come among the warnings.
        warned = [w for w in told.get("warnings", ()) if not str(w).startswith("PromQL info")]
        if warned:
            return Answer(reason=INCOMPLETE, said=str(warned[0]))
        if kind not in ("vector", "scalar"):
            return Answer(reason=BAD_QUERY, said=f"it gives a {kind}, not a number")
        if kind == "vector" and len(result) != 1:
            reason = MANY_SERIES if result else NO_SERIES
            return Answer(reason=reason, said=f"{len(result)} series")
        value = float((result[0]["value"] if kind == "vector" else result)[1])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        return Answer(reason=UNREACHABLE, said=f"{type(error).__name__} in its answer")
    if not math.isfinite(value):
        return Answer(reason=NOT_A_NUMBER, said=str(value))
    return Answer(value)
