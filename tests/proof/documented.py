"""Requests made from the OpenAPI document of `mlmon collect`: every answer must be in it.

Schemathesis makes them, good ones and bad ones: wrong types, lost and foreign fields, methods,
headers and tokens. Each world is a real server of its own.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import schemathesis
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events

from mlmon_dagster.collect import admission
from mlmon_dagster.collect.collector import Limits
from mlmon_dagster.store import open_store
from tests.push.collecting import Running, running
from tests.push.worlds import NOW, push_spec

# What the server takes more kindly than its document says (a number as a text, a field that no
# column reads) and less kindly (rows that break a rule of the spec, an id that is empty).
_NOT_PROMISED: Final = ("negative_data_rejection", "positive_data_acceptance")
WORLDS: Final = ("open", "token", "narrow", "full", "ending")


@dataclass
class Found:
    """What a world answered.

    Attributes:
        statuses: How often each status was answered.
        problems: A check that failed -> an example of its request.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)


def ask(folder: Path, world: str, n: int, seed: int, *, corners: bool = True) -> Found:
    """Send the server of a world about n generated requests of each operation.

    Args:
        folder: An empty one.
        world: One of `WORLDS`.
        n: Of each operation and kind.
        seed: Of the requests.
        corners: Also every corner of every schema, one by one.
    """
    store = open_store(folder / "store")
    options: dict[str, Any] = {}
    headers = {}
    if world == "token":
        token = admission.create_token(store.state, "loan", now=NOW)
        headers["Authorization"] = f"Bearer {token}"
    elif world == "narrow":
        options["limits"] = Limits(max_body=120, max_plain=120, max_rows=2)
    elif world == "full":
        options["min_free"] = 1 << 62
    try:
        spec = push_spec(spans={"sampling": "unbiased", "join": "mlmon.prediction_id"})
        with running(store, folder, spec=spec, **options) as server:
            server.app.is_draining = world == "ending"
            # 503 is what a server without room is to answer; everywhere else it is a fault.
            expected = ["2xx", "4xx", *(["503"] if world in ("full", "ending") else [])]
            checks = {name: {"enabled": False} for name in _NOT_PROMISED}
            checks["not_a_server_error"] = {"expected-statuses": expected}
            config = SchemathesisConfig.from_dict(
                {
                    "seed": seed,
                    "suppress-health-check": ["all"],
                    "headers": headers,
                    "continue-on-failure": True,
                    "generation": {"max-examples": n, "deterministic": True, "no-shrink": True},
                    "checks": checks,
                    "phases": {"stateful": {"enabled": False}, "coverage": {"enabled": corners}},
                }
            )
            return answers(server, config, headers)
    finally:
        store.close()


def answers(server: Running, config: SchemathesisConfig, headers: dict[str, str]) -> Found:
    """Return what a server answers to the requests made from its document."""
    url = f"http://127.0.0.1:{server.port}/openapi.json"
    schema = schemathesis.openapi.from_url(url, config=config, headers=headers)
    found = Found()
    for event in engine.from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            found.problems["not asked"] = str(event)
        if isinstance(event, events.ScenarioFinished):
            _count(event.recorder, found)
    return found


def _count(recorder: Any, found: Found) -> None:
    for interaction in recorder.interactions.values():
        if interaction.response is not None:
            found.statuses[interaction.response.status_code] += 1
    for nodes in recorder.checks.values():
        for node in nodes:
            if node.failure_info is not None:
                failure = node.failure_info.failure
                example = f"{failure.title}: {failure.message}\n{node.failure_info.code_sample}"
                found.problems.setdefault(f"{recorder.label}: {node.name}", example)
