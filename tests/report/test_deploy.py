"""What deploy/ ships for Grafana and Prometheus works on the views and series that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
import yaml

from mlmon_dagster.store import Store
from mlmon_dagster.store.state import metric_log
from mlmon_dagster.store.state.schema import window_state
from mlmon_dagster.tables import openmetrics
from mlmon_dagster.tables.standing import standing_of
from tests.alerts.worlds import day, observe, result, settle, spec_of
from tests.store.test_views import computed

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARDS = sorted((DEPLOY / "grafana/dashboards").glob("*.json"))
RULES = DEPLOY / "prometheus/mlmon.rules.yml"
PROMTOOL = shutil.which("promtool")
CHOSEN = {
    "model": "credit", "metric": "roc_auc", "slice_key": "all", "slice_value": "all"
}  # fmt: skip


def queries(dashboard: Path) -> Iterator[tuple[str, str]]:
    """Yield every query of a dashboard under a name: of panels, variables and annotations."""
    found = json.loads(dashboard.read_text())
    for panel in found["panels"]:
        for target in panel["targets"]:
            yield f"{dashboard.stem}: {panel['title']}", target["rawSql"]
    for variable in found["templating"]["list"]:
        if variable["type"] == "query":
            yield f"{dashboard.stem}: ${variable['name']}", variable["query"]
    for annotation in found["annotations"]["list"]:
        yield f"{dashboard.stem}: {annotation['name']}", annotation["target"]["rawSql"]


ALL = [query for dashboard in DASHBOARDS for query in queries(dashboard)]


def expanded(sql: str) -> str:
    """Return a query as Grafana sends it, its macros and variables filled in."""
    between = f"BETWEEN '{day(1).isoformat()}' AND '{day(60).isoformat()}'"
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", rf"\1 {between}", sql)
    return re.sub(r"\$\{(\w+):sqlstring\}", lambda m: f"'{CHOSEN[m[1]]}'", sql)


@pytest.fixture
def filled(postgres_store: Store) -> Store:
    """A store in which every panel has something to show."""
    store = postgres_store
    rng = np.random.default_rng(2)
    metrics = computed(rng, day(40)).assign(
        model="credit", dataset="production", metric="roc_auc", column_name=":table", value=0.7
    )
    metric_log.append(store.state, metrics)
    families = {"drift": "age", "quality": "plan", "performance": ":table"}
    for number in (1, 2, 3):
        rows = [
            result(number, status, family=family, metric=metric, column_name=column, reason=reason,
                   monitor=f"{family}/{metric}/{column}")
            for (family, column), metric, status, reason in zip(
                families.items(), ("psi", "null_rate", "roc_auc"), ("ERROR", "OK", "NO_DATA"),
                ("", "", "few_rows"), strict=True)
        ]  # fmt: skip
        settle(store, [spec_of()], day(number + 1), *rows)
    with store.state.begin() as conn:
        rows = [
            {"model": "credit", "window_start": day(k), "window_end": day(k + 1), "n": 9,
             "n_actual": 3, "input_revision": 2, "computed_revision": k}
            for k in (1, 2)
        ]  # fmt: skip
        conn.execute(window_state.insert(), rows)
    return store


def test_every_query_of_every_dashboard_returns_rows_from_postgresql(filled: Store) -> None:
    empty, slow = [], []
    for name, sql in ALL:
        begun = time.monotonic()
        with filled.state.connect() as conn:
            rows = conn.exec_driver_sql(expanded(sql).replace("%", "%%")).all()
        if not rows:
            empty.append(name)
        if time.monotonic() - begun > 5.0:
            slow.append(name)

    assert len(ALL) == 6 + 8 + 4 + 1
    assert (empty, slow) == ([], [])


def test_the_first_dashboard_says_what_stands_as_every_page_does(filled: Store) -> None:
    observe(filled, result(3, "WARN", family="quality", metric="null_rate", slice_key="plan"))
    sql = dict(ALL)["overview: Models, worst first"]
    with filled.state.connect() as conn:
        found = {row.family: row for row in conn.exec_driver_sql(sql)}
    expected = {s.family: s for s in standing_of(filled, spec_of(), day(60)) if s.status != "-"}
    assert {f: row.status for f, row in found.items()} == {f: s.status for f, s in expected.items()}
    assert found["quality"].status == "WARN"
    assert found["drift"].window_end == day(4)


def test_dashboards_read_the_views_alone_and_name_no_database_of_their_own() -> None:
    for name, sql in ALL:
        named = set(re.findall(r"(?:FROM|JOIN)\s+(?!LATERAL|unnest)(\w+)", sql))
        named -= set(re.findall(r"(\w+) AS \(", sql))
        assert all(table.startswith("mlmon_") for table in named), name
        assert not re.search(r"\$(?!__timeFilter|\{\w+:sqlstring\})", sql), name
    for dashboard in DASHBOARDS:
        found = json.loads(dashboard.read_text())
        ids = [panel["id"] for panel in found["panels"]]
        assert len(ids) == len(set(ids))
        uids = set(re.findall(r'"uid": "([^"]+)"', dashboard.read_text())) - {found["uid"]}
        assert uids == {"${DS}"}


def test_provisioning_reads_as_the_role_for_reading_with_its_password_from_the_environment() -> (
    None
):
    for path in (DEPLOY / "grafana/provisioning").rglob("*.yaml"):
        assert yaml.safe_load(path.read_text())["apiVersion"] == 1
    sources = DEPLOY / "grafana/provisioning/datasources/mlmon.yaml"
    (source,) = yaml.safe_load(sources.read_text())["datasources"]
    assert source["user"] in (DEPLOY / "grafana/readonly.sql").read_text()
    assert source["secureJsonData"]["password"].startswith("${")


def rules() -> list[dict[str, Any]]:
    return [r for group in yaml.safe_load(RULES.read_text())["groups"] for r in group["rules"]]


def test_rules_name_only_series_that_are_exported() -> None:
    told = set(re.findall(r"\bmlmon_\w+", " ".join(rule["expr"] for rule in rules())))

    assert len(told) > 8
    assert told <= set(openmetrics.ABOUT)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "command",
    [("check", "rules", "mlmon.rules.yml"), ("test", "rules", "mlmon.test.yml"),
     ("check", "config", "prometheus.yml")],
    ids=" ".join,
)  # fmt: skip
def test_promtool_accepts_the_rules_and_they_fire_as_their_tests_say(
    command: tuple[str, ...],
) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *command], cwd=RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_views_are_what_dashboards_may_read(filled: Store) -> None:
    with filled.state.connect() as conn:
        views = sa.inspect(conn).get_view_names()
    assert {view for view in views if view.startswith("mlmon_")} == {
        "mlmon_metric", "mlmon_monitor", "mlmon_standing", "mlmon_alert", "mlmon_window"
    }  # fmt: skip
