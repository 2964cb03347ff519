"""A real Prometheus scrapes what we export, and its Alertmanager tells of what fires."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest
import yaml

from mlmon_dagster.spec.files.loader import Models
from mlmon_dagster.store import Store
from mlmon_dagster.store.prometheus_source import PrometheusServer
from tests.alerts.worlds import day, result, settle, spec_of
from tests.http_server import served
from tests.prometheus import ALERTMANAGER, alertmanager_in, needs_prometheus, prometheus_in
from tests.push.collecting import running
from tests.report.test_deploy import RULES
from tests.tables.test_openmetrics import HOSTILE

pytestmark = [
    needs_prometheus,
    pytest.mark.skipif(ALERTMANAGER is None, reason="alertmanager is not installed"),
]


@contextmanager
def hook() -> Iterator[tuple[str, Queue[dict[str, Any]]]]:
    """Run what Alertmanager tells."""
    told: Queue[dict[str, Any]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as url:
        yield url, told


def test_prometheus_scrapes_hostile_names_and_alertmanager_tells_what_fires(
    store: Store, tmp_path: Path
) -> None:
    hostile = f"drift/psi/{HOSTILE}"
    settle(store, [spec_of()], day(3), result(2),
           result(2, column_name=HOSTILE, monitor=hostile))  # fmt: skip
    models = Models((spec_of(),))
    with running(store, tmp_path, declared=lambda: models) as collector, hook() as (url, told):
        route = {"receiver": "us", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
        receiver = {"name": "us", "webhook_configs": [{"url": url}]}
        (tmp_path / "alertmanager.yml").write_text(
            yaml.safe_dump({"route": route, "receivers": [receiver]})
        )
        with alertmanager_in(tmp_path) as alertmanager:
            at = alertmanager.removeprefix("http://")
            (tmp_path / "prometheus.yml").write_text(yaml.safe_dump({
                "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(RULES)],
                "alerting": {"alertmanagers": [{"static_configs": [{"targets": [at]}]}]},
                "scrape_configs": [{
                    "job_name": "mlmon",
                    "static_configs": [{"targets": [f"127.0.0.1:{collector.port}"]}],
                }],
            }))  # fmt: skip
            with prometheus_in(tmp_path) as prometheus:
                fired = wait_for(told, "MlmonAlertFiring", 2)
                server = PrometheusServer(prometheus)
                moment = dt.datetime.now(dt.UTC)
                status = f"count(mlmon_monitor_status{{column={json.dumps(HOSTILE)}}} == 2)"
                assert server.ask(status, moment).value == 1.0
                assert server.ask('up{job="mlmon"}', moment).value == 1.0

    assert set(fired) == {"drift/psi/age", hostile}
    labels = fired["drift/psi/age"]["labels"]
    assert (labels["model"], labels["severity"]) == ("credit", "critical")
    assert fired["drift/psi/age"]["annotations"]["summary"] == "credit: drift/psi/age fires"


def wait_for(told: Queue[dict[str, Any]], name: str, n: int) -> dict[str, dict[str, Any]]:
    """Return alerts of a name by their monitor, once there are so many."""
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + 90
    while len(found) < n:
        try:
            message = told.get(timeout=max(deadline - time.monotonic(), 0.01))
        except Empty:
            pytest.fail(f"only {sorted(found)} fired")
        for alert in message["alerts"]:
            if alert["status"] == "firing" and alert["labels"]["alertname"] == name:
                found[alert["labels"]["monitor"]] = alert
    return found
