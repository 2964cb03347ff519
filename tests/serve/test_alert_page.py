"""The page of an alert: its evidence, why, its rows when asked, its history."""

from __future__ import annotations

import re

import pytest

from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.tables.alerts import list_alerts
from tests.report.worlds import SECRET, World
from tests.serve.conftest import Get

pytestmark = pytest.mark.xdist_group("serve")  # they share a world


@pytest.fixture
def address(world: World) -> str:
    """Where the alert on accuracy is."""
    found = next(
        a for a in list_alerts(world.store, "credit") if a.monitor == "performance/accuracy"
    )
    return f"/m/credit/alerts/{found.fingerprint}"


def test_it_says_what_is_wrong_with_its_evidence_and_history(get: Get, address: str) -> None:
    html = get(address).text

    assert "<h1>Accuracy" in html
    assert "worse than the usual" in html
    assert len(re.findall(r"<th scope=row>2024-01-", html)) == 8  # windows of its chart
    assert "opened" in html[html.index('id="history"') :]
    assert "mlmon trace credit --metric accuracy" in html


def test_what_failed_is_listed_by_its_last_verdicts(world: World) -> None:
    start = world.windows[-1].start
    with world.store.state.connect() as conn:
        rows = monitor_results.failed(
            conn, {"model": "credit", "family": "performance"}, start, start
        )
    known = monitor_results.newest(world.store.state, "credit", start, family="performance")
    failing = known[known["status"].isin(["WARN", "ERROR"])]

    assert [row["id"] for row in rows] == failing.sort_values("monitor")["id"].tolist()
    assert rows


def test_a_models_page_leads_to_it(get: Get, address: str) -> None:
    assert f'href="{address}"' in get("/m/credit").text


def test_rows_are_read_when_asked_and_personal_values_never_shown(get: Get, address: str) -> None:
    quiet, asked = get(address).text, get(f"{address}?rows=1").text

    assert "prediction_id" not in quiet
    table = asked[asked.index("Rows behind the alert") :]
    assert len(re.findall(r"<tr><td>p01\d\d-\d+</td>", table)) == 50
    assert "***" in table
    assert SECRET not in asked


def test_an_alert_of_another_model_or_none_is_not_found(get: Get, address: str) -> None:
    assert get("/m/credit/alerts/").status_code == 404
    assert get("/m/credit/alerts/zzz").status_code == 404
    assert get(address.replace("credit", "other")).status_code == 404
