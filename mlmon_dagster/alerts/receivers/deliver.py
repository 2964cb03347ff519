"""Outbox to receivers: every message once, in order, whatever breaks in between."""

from __future__ import annotations

import http.client
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import partial

from mlmon_dagster.alerts.receivers.base import Receiver
from mlmon_dagster.alerts.receivers.console import ConsoleReceiver
from mlmon_dagster.alerts.receivers.worker import Clock, DeliveryPolicy, DeliveryReport, Worker
from mlmon_dagster.spec.alerting import address_problem
from mlmon_dagster.store import Store
from mlmon_dagster.store.alerting import outbox
from mlmon_dagster.store.alerting.outbox_health import outbox_health

CONSOLE = "console"


def deliver(
    store: Store,
    receivers: Mapping[str, Receiver],
    *,
    budget_seconds: float = 40.0,
    max_messages: int = 20,
    policy: DeliveryPolicy | None = None,
    clock: Clock | None = None,
    jitter: Callable[[], float] = random.random,
) -> DeliveryReport:
    """Send what is due.

    Safe to run in many processes at once and to be killed at any moment.

    Args:
        store: Where the state database is.
        receivers: By name (``slack``, ``console``). Messages for Slack are printed on the console
            receiver if there is no Slack.
        budget_seconds: Real time after which no further message is begun.
        max_messages: Attempts after which the call ends.
        policy: Waiting times.
        clock: Real time; by default that of the database, whatever this machine's clock says.
        jitter: Numbers in [0, 1) that spread retries.
    """
    by_database = partial(outbox.real_time, store.state)
    worker = Worker(store, _complete(receivers), policy or DeliveryPolicy(), clock or by_database)
    worker.jitter = jitter
    deadline = time.monotonic() + budget_seconds
    attempts = 0
    while attempts < max_messages and time.monotonic() < deadline:
        if worker.attempt_next():
            attempts += 1
        elif not worker.wait_for_next(deadline):
            break
    worker.report.n_waiting = outbox_health(store.state).n_waiting
    return worker.report


def _complete(receivers: Mapping[str, Receiver]) -> dict[str, Receiver]:
    console = receivers.get(CONSOLE) or ConsoleReceiver()
    return {"slack": console, CONSOLE: console, **receivers}


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
