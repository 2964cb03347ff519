"""The dead-man switch: an outside service that speaks up when this one has gone silent."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request

from mlmon_dagster.spec.alerting import address_problem

TIMEOUT_SECONDS = 5


def ping(url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> str:
    """Ask for an address; return what went wrong, empty if nothing.

    The address itself is a secret and is not repeated.
    """
    if problem := address_problem(url):
        return f"MLMON_HEARTBEAT_URL: {problem}"
    request = urllib.request.Request(url, headers={"User-Agent": "mlmon-dagster"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_seconds) as answer:
            answer.read(64)
    except urllib.error.HTTPError as error:
        error.close()
        return f"the heartbeat's address answered HTTP {error.code}"
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return f"the heartbeat's address cannot be reached: {type(reason).__name__}"
    return ""
