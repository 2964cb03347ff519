"""Prometheus is asked for one number, and every way in which it gives none has its reason."""

from __future__ import annotations

import datetime as dt
import json
import math
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from statsmodels.stats.proportion import proportion_confint

from mlmon_dagster.spec import load_model
from mlmon_dagster.store.prometheus_source import PrometheusServer
from tests.defs.small_model import DAYS, MODEL, ZONE, customers, drop, landing, write_declaration
from tests.defs.worlds import opened
from tests.http_server import served
from tests.prometheus import free_port, needs_prometheus, prometheus_in

SERVED = ("inference_store", "profiles", "service_health")
DAY, NEXT = DAYS[0], DAYS[1]
END = dt.datetime.combine(NEXT, dt.time(), ZONE)  # of the window DAY
HOURS = 48
FAILED_SHARE = "sum(failed{$match}) / sum(asked{$match})"


def recorded() -> str:
    """Return two days of series as OpenMetrics, one sample a minute."""
    moments = [END.timestamp() - 3600 * HOURS / 2 - 43_200 + 60 * i for i in range(HOURS * 60)]
    series = {
        'failed{model="churn"}': 1,
        'asked{model="churn"}': 10,
        'waiting{model="churn"}': 3,
        'several{model="churn",replica="a"}': 1,
        'several{model="churn",replica="b"}': 1,
    }
    lines = [f"{name} {value} {at}" for name, value in series.items() for at in moments]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that holds what was recorded."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "recorded.om").write_text(recorded())
    (folder / "prometheus.yml").write_text("{}")
    long = "--max-block-duration=1440h"
    made = ["promtool", "tsdb", "create-blocks-from", long, "openmetrics", "recorded.om", "data"]
    subprocess.run(made, cwd=folder, capture_output=True, check=True)
    with prometheus_in(folder) as url:
        yield url


def declare(folder: Path, service: dict[str, Any]) -> None:
    write_declaration(folder)
    path = folder / "models" / f"{MODEL}.yaml"
    declared = yaml.safe_load(path.read_text())
    declared["columns"] |= {"status": "status", "latency_ms": "latency_ms"}
    declared["monitors"]["service"] = service
    path.write_text(yaml.safe_dump(declared, sort_keys=False))
    load_model(path)


@needs_prometheus
def test_classes_and_queries_are_metrics_of_their_window_and_failures_have_reasons(
    prometheus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {
        "unknown": {"query": "sum(nobody{$match}) or absent_over_time(up[1s]) < 0", "above": 1},
        "several": {"query": "several{$match}", "above": 5},
        "broken": {"query": "sum(", "above": 1},
        "nothing_by_nothing": {"query": "vector(0) / vector(0)", "below": 1},
        "a_matrix": {"query": "several[5m]", "above": 1},
        "length": {"query": 'count_over_time(several{replica="a"}[$window])', "unit": "minutes"},
        "failed_share": {"query": FAILED_SHARE, "above": 0.05},
        "most_waiting": {"query": "max(waiting{$match})", "above": 5, "unit": "requests"},
    }
    asked = {"url_env": "OUR_PROMETHEUS", "match": 'model="churn"', "metrics": own}
    classes = {
        "timeouts": {"when": "status = 'timeout'", "above": 0.01},
        "fallbacks": {"when": "status = 'fallback'", "above": 0.5},
        "cold_starts": {"when": "latency_ms > 1000"},
    }
    declare(tmp_path, {"prometheus": asked, "classes": classes})
    served = customers(DAY)[0]
    statuses = np.resize(["ok", "timeout", "ok", "fallback", None], len(served))
    slow = np.where(np.arange(len(served)) % 4 == 0, 2000.0, 50.0)
    served = served.assign(status=statuses, latency_ms=slow)
    drop(served, landing(tmp_path, "predictions") / f"{DAY}.parquet")
    with opened(tmp_path, END + dt.timedelta(days=3)) as world:
        assert world.launcher.materialize(world.spec, ("event_log",)).is_success
        assert world.compute([DAY], SERVED).is_success
        silent = world.verdicts("service", DAY).set_index("monitor")
        monkeypatch.setenv("OUR_PROMETHEUS", prometheus)
        assert world.compute([DAY], SERVED).is_success  # of the same records
        stored = world.metrics(DAY)
        verdicts = world.verdicts("service", DAY).set_index("monitor")

    rates = stored[stored["metric"] == "class_rate"].set_index("column_name")
    known = served["status"].notna().sum()
    expected = {
        "timeouts": ((served["status"] == "timeout").sum(), known),
        "fallbacks": ((served["status"] == "fallback").sum(), known),
        "cold_starts": ((served["latency_ms"] > 1000).sum(), len(served)),
    }
    for name, (hits, n) in expected.items():
        row = rates.loc[name]
        low, high = proportion_confint(hits, n, method="wilson")
        assert (row["value"], row["n"]) == (pytest.approx(hits / n), n)
        assert (row["lower"], row["upper"]) == pytest.approx((low, high), rel=1e-6)
    judged = {
        name: verdicts.loc[f"service/class_rate/{name}"] for name in ("timeouts", "fallbacks")
    }
    assert [v["status"] for v in judged.values()] == ["ERROR", "OK"]
    assert judged["timeouts"]["message"].startswith("Share of timeouts is 25 % (n ")
    assert "service/class_rate/cold_starts" not in verdicts.index

    stored = stored[stored["metric"] == "prometheus"].set_index("column_name")
    assert stored.loc["failed_share", "value"] == 0.1
    assert stored.loc["length", "value"] == pytest.approx(24 * 60, abs=1)
    unjudged = silent.loc[silent["metric"] == "prometheus", ["status", "reason"]]
    assert set(unjudged.itertuples(index=False, name=None)) == {("NO_DATA", "unreachable")}
    reasons = {
        "unknown": "no_series", "several": "many_series", "broken": "bad_query",
        "nothing_by_nothing": "not_a_number", "a_matrix": "bad_query",
    }  # fmt: skip
    assert stored.loc[list(reasons), "reason"].to_dict() == reasons
    assert stored.loc[list(reasons), "value"].isna().all()
    told = {name: verdicts.loc[f"service/prometheus/{name}"] for name in own if name != "length"}
    assert {n: (v["status"], v["reason"]) for n, v in told.items() if n in reasons} == {
        name: ("NO_DATA", reason) for name, reason in reasons.items()
    }
    assert told["failed_share"]["status"] == "ERROR"
    assert told["most_waiting"]["status"] == "OK"
    assert told["most_waiting"]["message"] == (
        "Prometheus's value of most_waiting is 3 requests, not above 5 requests."
    )
    assert "service/prometheus/length" not in verdicts.index  # stored, and judged by nobody


@contextmanager
def answering(status: int, body: bytes) -> Iterator[tuple[str, list[Any]]]:
    """Run a server that gives one answer, and notes the headers that it was sent."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            seen.append(self.headers)
            self.send_response(status)
            self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with served(Handler) as url:
        yield url, seen


def one(value: str, **others: object) -> bytes:
    data = {"resultType": "vector", "result": [{"metric": {}, "value": [1, value]}]}
    return json.dumps({"status": "success", "data": data, **others}).encode()


def failed(kind: str) -> bytes:
    return json.dumps({"status": "error", "errorType": kind, "error": "no"}).encode()


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, one("0.5"), ""),
        (200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}', ""),
        (200, one("NaN"), "not_a_number"),
        (200, one("+Inf"), "not_a_number"),
        (200, one("0.5", warnings=["a store is away"]), "incomplete"),
        (200, one("0.5", warnings=["PromQL info: metric might not be a counter"]), ""),
        (200, b"<html>sign in</html>", "unreachable"),
        (200, b'{"data": []}', "unreachable"),
        (200, one("one"), "unreachable"),
        (400, failed("bad_data"), "bad_query"),
        (422, failed("execution"), "bad_query"),
        (503, failed("timeout"), "unreachable"),
        (401, b"who are you", "refused"),
        (403, b"", "refused"),
        (302, b"", "unreachable"),
        (502, b"bad gateway", "unreachable"),
    ],
)
def test_an_answer_is_one_number_or_a_reason(status: int, body: bytes, reason: str) -> None:
    with answering(status, body) as (url, seen):
        found = PrometheusServer(url, "secret").ask("up", END)

    assert (found.reason, math.isnan(found.value)) == (reason, bool(reason))
    assert [headers["authorization"] for headers in seen] == ["Bearer secret"]


def test_nobody_at_the_address_is_unreachable_and_a_token_is_in_no_text() -> None:
    server = PrometheusServer(f"http://127.0.0.1:{free_port()}", "secret")
    assert server.ask("up", END).reason == "unreachable"
    assert "secret" not in repr(server)


def test_a_server_that_does_not_answer_is_waited_for_once_and_one_that_refuses_is_asked_on() -> (
    None
):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        server = PrometheusServer(url, timeout_seconds=0.1)
        said = [server.ask("up", END) for _ in range(1_000)]
    assert {answer.reason for answer in said} == {"unreachable"}
    assert [answer.said for answer in said[:2]] == ["TimeoutError", "it was waited for before"]
    refusing = PrometheusServer(f"http://127.0.0.1:{free_port()}")
    assert refusing.ask("up", END).said == refusing.ask("up", END).said == "URLError"
