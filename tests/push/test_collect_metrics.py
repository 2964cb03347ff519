"""``/metrics`` of the collector: the numbers of the models that a caller's token is for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics import parser
from prometheus_client.samples import Sample

from mlmon_dagster.collect import admission
from mlmon_dagster.spec.files.loader import Models
from mlmon_dagster.store import Store
from tests.alerts.worlds import observe, result
from tests.push.collecting import Answer, Running, row, running, wait_until
from tests.push.worlds import NOW, push_spec

OPEN = "application/openmetrics-text"
SPECS = (push_spec(), push_spec(model="churn"))


@pytest.fixture
def collector(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(admission, "FRESH_SECONDS", 0.0)
    observe(store, *(result(1, "ERROR", model=spec.model) for spec in SPECS))
    with running(store, tmp_path, declared=lambda: Models(SPECS)) as found:
        yield found


def read(answer: Answer) -> list[Sample]:
    assert answer.status == 200, answer.body
    text = answer.body.decode()
    return [s for f in parser.text_string_to_metric_families(text) for s in f.samples]


def models_seen(answer: Answer) -> set[str]:
    return {s.labels["model"] for s in read(answer) if s.name == "mlmon_monitor_status"}


def test_what_was_pushed_is_counted_by_status_and_stream(collector: Running) -> None:
    collector.post([row(0), row(1)])
    collector.post(b"{", "/v1/models/loan/predictions")
    found = read(collector.request("GET", "/metrics", accept=OPEN))

    requests = {s.labels["status"]: s.value for s in found if s.name.endswith("requests_total")}
    rows = {s.labels["stream"]: s.value for s in found if s.name == "mlmon_collect_rows_total"}
    assert requests == {"202": 1.0, "400": 1.0}
    assert rows == {"predictions": 2.0, "actuals": 0.0}


def test_a_token_sees_its_own_model_and_none_sees_nothing(collector: Running) -> None:
    assert models_seen(collector.request("GET", "/metrics", accept=OPEN)) == {"loan", "churn"}
    engine = collector.store.state
    ours = admission.create_token(engine, "churn", now=NOW)
    any_model = admission.create_token(engine, "*", now=NOW)

    def asked(token: str) -> Answer:
        return collector.request("GET", "/metrics", accept=OPEN, authorization=f"Bearer {token}")

    assert collector.request("GET", "/metrics").status == 401
    assert asked("mlmon_x_y").status == 401
    assert models_seen(asked(ours)) == {"churn"}
    assert models_seen(asked(any_model)) == {"loan", "churn"}
    assert not any(s.labels.get("model") == "loan" for s in read(asked(ours)))


def test_a_page_in_a_browser_cannot_read_the_numbers(collector: Running) -> None:
    assert collector.request("GET", "/metrics", host="evil.example").status == 403


def test_an_answer_is_zipped_for_those_who_take_that(collector: Running) -> None:
    def plain() -> bytes:
        return collector.request("GET", "/metrics", accept=OPEN).body

    # What waits in the folders is counted beside the answers, first a moment after the start.
    wait_until(lambda: b"mlmon_collect_files_waiting{" in plain())
    zipped = collector.request("GET", "/metrics", accept=OPEN, accept_encoding="gzip")

    assert zipped.headers["content-encoding"] == "gzip"
    assert gzip.decompress(zipped.body) == plain()


def test_while_the_database_is_away_there_are_no_numbers_and_not_old_ones(
    collector: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector.store.state.begin() as conn:
        conn.exec_driver_sql("DROP TABLE heartbeat")
    answer = collector.request("GET", "/metrics", accept=OPEN)

    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
