"""What stands of drawn models is the same on every surface, as far as each says it.

A model a state: verdicts judged again, windows that wait, gaps, slices, other datasets, failed runs
that healed or did not, in several zones.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pytest
import sqlalchemy as sa

from mlmon_dagster.alerts.messages.digest import compose_digest
from mlmon_dagster.collect.admission import Access
from mlmon_dagster.defs.assets import asset_key
from mlmon_dagster.defs.checks import StandingChecks
from mlmon_dagster.demo.story import render_episodes
from mlmon_dagster.notebook import Monitoring
from mlmon_dagster.pipeline.gate import gate_of
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.serve.overview import Overview
from mlmon_dagster.spec import Models, ModelSpec
from mlmon_dagster.spec.steps import assets_of
from mlmon_dagster.store.state import schema
from mlmon_dagster.store.state.monitor_results import PIPELINE
from mlmon_dagster.store.state.schema import alert, window_state
from mlmon_dagster.tables.alerts import list_alerts
from mlmon_dagster.tables.openmetrics import Exporter
from mlmon_dagster.tables.standing import list_models
from tests.alerts.worlds import day, observe, result, settle
from tests.defs.graphql import ui_of
from tests.defs.small_model import make_project, write_declaration
from tests.serve.conftest import asked
from tests.store.test_standing import Row, draw_history, expected_standing
from tests.tables.test_openmetrics import samples

NOW = day(400)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
FAMILIES = ("schema", "freshness", "quality", "drift", "performance")
RANKED = ("ERROR", "WARN", "OK")
ROW = re.compile(
    r'<tr><th scope="row" class="tight">([a-z_]+)</th><td class="tight">(.*?)</td>'
    r'<td class="strips">.*?</td><td>(.*?)</td></tr>',
    re.DOTALL,
)
WINDOW = re.compile(r'<span class="soft small">\(([^)]*)\)</span>')
LINE = re.compile(
    r'<th scope="row"><span class="pill [A-Z_]+">(?P<status>.*?)</span> <a[^>]*>(?P<model>.*?)</a>'
)
UI = """query Checks { assetNodes { assetKey { path } assetChecksOrError { ... on AssetChecks {
  checks { name executionForLatestMaterialization { evaluation { severity success description
  metadataEntries { label ... on TextMetadataEntry { text } } } } } } } } }"""
Said = dict[str, tuple[str, str]]  # family -> status and window


def local_midnight(when: dt.datetime, zone: str) -> dt.datetime:
    """Return the start of the same day in a zone."""
    return dt.datetime.combine(when.date(), dt.time(), ZoneInfo(zone)).astimezone(dt.UTC)


def draw_states(folder: Path, n: int, seed: int) -> tuple[Project, dict[str, list[Row]]]:
    """Declare models in several zones, and write a drawn history of each into their store."""
    rng = np.random.default_rng(seed)
    project = make_project(folder, lambda: NOW)
    written = {}
    for number in range(n):
        model, zone = f"m{number:03}", str(rng.choice(ZONES))
        write_declaration(folder, model, start=dt.date(2024, 1, 1), zone=zone)
        rows = []
        for row in draw_history(rng, model):
            if row["family"] != PIPELINE:
                start = local_midnight(row["window_start"], zone)
                end = local_midnight(row["window_start"] + dt.timedelta(days=1), zone)
                row |= {"window_start": start, "window_end": end}
            waits = row["status"] == "NO_DATA"
            rows.append(row | {"maturity": "provisional", "reason": "no_actuals" if waits else ""})
        once = {tuple(str(row[c]) for c in KEYS): row for row in reversed(rows)}
        written[model] = list(once.values())[::-1]
    for rows in written.values():
        for place in range(0, len(rows), 400):
            observe(project.store, *rows[place : place + 400])
    with project.store.state.begin() as conn:
        states = [
            {"model": model, "window_start": rows[0]["window_start"],
             "window_end": rows[0]["window_end"], "n": 100, "n_actual": 1, "n_exempt": 0,
             "input_revision": 1, "computed_revision": 1}
            for model, rows in written.items() if rng.random() < 0.9
        ]  # fmt: skip
        conn.execute(window_state.insert(), states)
    return project, written


KEYS = ("model", "monitor", "dataset", "slice_key", "window_start", "data_version")


def expected(spec: ModelSpec, rows: Sequence[Row]) -> Said:
    """Return what all verdicts gone through one by one say."""
    found: dict[str, list[tuple[str, dt.datetime]]] = {}
    for family, _, key, start, status, _ in expected_standing(rows, spec.model, NOW):
        if key == "all" or status != "OK":  # that slices are well does not say so of the whole
            found.setdefault(family, []).append((status, start))
    said = {}
    for family, verdicts in found.items():
        statuses = {status for status, _ in verdicts}
        status = next((one for one in RANKED if one in statuses), "NO_DATA")
        start = max(when for one, when in verdicts if one == status)
        window = f"{start.astimezone(ZoneInfo(spec.time.zone)):%Y-%m-%d}"
        said[family] = (status, "" if family == PIPELINE else window)
    return said


def worst(said: Said) -> str:
    statuses = {status for status, _ in said.values()}
    return next((one for one in ("ERROR", "WARN", "NO_DATA", "OK") if one in statuses), "NO_DATA")


def by_metrics(body: bytes) -> dict[str, dict[str, str]]:
    """Return the status of each family by its series."""
    names = {0.0: "OK", 1.0: "WARN", 2.0: "ERROR"}
    found: dict[str, dict[str, set[str]]] = {}
    for sample in samples(body):
        if "slice_key" not in sample.labels:
            continue
        is_whole = sample.labels["slice_key"] == "all"
        of_model = found.setdefault(sample.labels["model"], {})
        statuses = of_model.setdefault(sample.labels["family"], set())
        if sample.name == "mlmon_monitor_status" and (is_whole or sample.value):
            statuses.add(names[sample.value])
        elif sample.name == "mlmon_monitor_no_data":
            statuses.add("NO_DATA")
    return {
        model: {
            family: next((one for one in RANKED if one in statuses), "NO_DATA")
            for family, statuses in families.items()
        }
        for model, families in found.items()
    }


def by_view(project: Project, specs: Sequence[ModelSpec]) -> dict[str, Said]:
    """Return what dashboards read of the database."""
    c = schema.mlmon_standing.c
    newest = sa.func.max(sa.case((c.status == c.family_status, c.window_start)))
    query = sa.select(c.model, c.family, c.family_status, newest).group_by(
        c.model, c.family, c.family_status
    )
    zones = {spec.model: ZoneInfo(spec.time.zone) for spec in specs}
    found: dict[str, Said] = {}
    with project.store.state.connect() as conn:
        for model, family, status, start in conn.execute(query):
            window = "" if family == PIPELINE else f"{start.astimezone(zones[model]):%Y-%m-%d}"
            found.setdefault(model, {})[family] = (status, window)
    return found


def plain(html: str) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


def by_page(html: str) -> Said:
    return {
        family: (plain(status).split()[-1], "".join(WINDOW.findall(text)[:1]))
        for family, status, text in ROW.findall(html)
        if plain(status) != "-"
    }


def by_ui(project: Project, specs: Sequence[ModelSpec], folder: Path) -> dict[str, Said]:
    """Return what Dagster says of the checks once the dispatcher has looked at them.

    Before, each is covered by an older verdict, as by a run that ended late.
    """
    with dg.instance_for_test() as instance:
        for spec in specs:
            for info in assets_of(spec):
                if not info.family:
                    continue
                key = asset_key(spec, info.name)
                partition = "2024-01-02" if info.is_windowed else None
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(key, partition=partition)
                )
                instance.report_runless_asset_event(
                    dg.AssetCheckEvaluation(
                        asset_key=key, check_name=info.family, passed=False, partition=partition,
                        severity=dg.AssetCheckSeverity.ERROR, description="An older verdict.",
                    )
                )  # fmt: skip
        checks = StandingChecks(project)
        assert checks.report(instance, specs) > len(specs)
        assert checks.report(instance, specs) == 0
        assert StandingChecks(project).report(instance, specs) == 0
        with ui_of(folder, instance=instance) as (ask, _):
            nodes = ask(UI)["assetNodes"]
    found: dict[str, Said] = {spec.model: {} for spec in specs}
    for node in nodes:
        for check in node["assetChecksOrError"].get("checks", ()):
            counted = check["executionForLatestMaterialization"]
            if counted is None:  # of a family without a verdict
                continue
            said = counted["evaluation"]
            entries = {e["label"]: e.get("text", "") for e in said["metadataEntries"]}
            if entries.get("window"):
                status = "OK" if said["success"] else said["severity"]
                if said["description"].startswith("No verdict"):
                    assert status == "WARN"
                    status = "NO_DATA"
                found[node["assetKey"]["path"][0]][check["name"]] = (status, entries["window"])
    return found


@pytest.mark.parametrize(
    ("n", "seed"), [(20, 1), pytest.param(100, 2, marks=pytest.mark.proof)], ids=["20", "100"]
)
def test_every_surface_says_the_same_of_drawn_states(tmp_path: Path, n: int, seed: int) -> None:
    project, written = draw_states(tmp_path, n, seed)
    specs = [write_read(tmp_path, model) for model in written]
    wanted = {spec.model: expected(spec, written[spec.model]) for spec in specs}
    assert {status for said in wanted.values() for status, _ in said.values()} == {
        "OK", "WARN", "ERROR", "NO_DATA"
    }  # fmt: skip
    store, models = project.store, Models(tuple(specs), ())
    overview = Overview(store, lambda: models, lambda: NOW)
    exporter = Exporter(store, lambda: models, lambda: NOW)
    access = Access(store.state, "127.0.0.1", project.now)
    pages = Pages(store, overview, access, exporter, project.now)

    assert by_metrics(asked(pages, "GET", "/metrics", {"accept": OPEN}).content) == {
        model: {family: status for family, (status, _) in said.items()}
        for model, said in wanted.items() if said
    }  # fmt: skip
    assert by_view(project, specs) == {model: said for model, said in wanted.items() if said}
    listed = {row.model: row.fields() for row in list_models(project, specs)}
    shown = {}
    for number in range(1, -(-n // 50) + 1):
        page = asked(pages, "GET", f"/?page={number}").text
        shown |= {line["model"]: line["status"] for line in LINE.finditer(page)}
    for spec in specs:
        said = wanted[spec.model]
        row: Mapping[str, Any] = listed[spec.model]
        of_list = {f: row[f] for f in (*FAMILIES, PIPELINE) if row.get(f, "-") != "-"}
        assert of_list == {family: status for family, (status, _) in said.items()}
        has_windows = row["window"] != "none yet"
        status = worst(said if has_windows else said | {"": ("NO_DATA", "")})
        assert (row["status"], shown[spec.model]) == (status, status)
        gate = gate_of(project, spec)
        judged = {family: one for family, one in said.items() if family != PIPELINE}
        assert {s.family: (s.status, s.window) for s in gate.families} == judged
        assert {s.family for s in gate.closed_by} == {
            family for family, (one, _) in judged.items() if one in ("ERROR", "NO_DATA")
        }
    for spec in specs[:PAGES_READ]:
        assert by_page(asked(pages, "GET", f"/m/{spec.model}").text) == wanted[spec.model]
    assert by_ui(project, specs, tmp_path) == {
        model: {family: one for family, one in said.items() if family != PIPELINE}
        for model, said in wanted.items()
    }
    project.store.close()


PAGES_READ = 10  # a model's page takes longer than all else
OPEN = "application/openmetrics-text; version=1.0.0"


def write_read(folder: Path, model: str) -> ModelSpec:
    """Return what a model declares."""
    from mlmon_dagster.spec import load_model

    return load_model(folder / "models" / f"{model}.yaml")


MUTED = ("", "silence:1", "backfill", "suppressed:schema")
COLUMNS = ("age", "balance", "region")
HEADING = re.compile(r'<h2 id="alerts" class="first">(?:(\d+) firing)?(?:, )?(?:(\d+) recovering)?')
CELL = re.compile(r"(\d+) alerts? firing(?:, (\d+) recovering)?|(\d+) alerts? recovering")
Counts = tuple[int, int]  # of alerts that fire, and that recover


def draw_alerts(folder: Path, n: int, seed: int) -> tuple[Project, list[ModelSpec], list[Any]]:
    """Declare models whose alerts fire, recover, wait and are over; return what was drawn."""
    rng = np.random.default_rng(seed)
    project = make_project(folder, lambda: NOW)
    specs, drawn = [], []
    for number in range(n):
        model = f"m{number:03}"
        specs.append(write_declaration(folder, model, start=dt.date(2024, 1, 1), zone="UTC"))
        rows = []
        for column in COLUMNS:
            state = str(rng.choice(["FIRING", "RECOVERING", "PENDING", "RESOLVED"]))
            drawn.append((model, column, state, str(rng.choice(MUTED))))
            waits = {"k": 2, "of_n": 3} if state == "PENDING" else {}
            rows.append(result(1, model=model, column_name=column, **waits))
            if state == "RESOLVED":
                rows.append(result(2, "OK", model=model, column_name=column))
        settle(project.store, [specs[-1]], day(9), *rows)
    with project.store.state.begin() as conn:
        for model, column, state, muted in drawn:
            mine = alert.update().where(alert.c.model == model, alert.c.column_name == column)
            if state in ("FIRING", "RECOVERING"):
                conn.execute(mine.values(state=state, muted_reason=muted))
    return project, specs, drawn


def count_by_metrics(body: bytes) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for sample in samples(body):
        if sample.name.startswith("mlmon_alert_") and sample.labels["muted"] != "suppressed":
            found.setdefault(sample.labels["model"], []).append(sample.name)
    return found


@pytest.mark.parametrize(
    ("n", "seed"), [(12, 1), pytest.param(100, 2, marks=pytest.mark.proof)], ids=["12", "100"]
)
def test_an_alert_that_recovers_is_called_so_on_every_surface(
    tmp_path: Path, n: int, seed: int
) -> None:
    project, specs, drawn = draw_alerts(tmp_path, n, seed)
    wanted: dict[str, Counts] = {
        spec.model: tuple(  # type: ignore[misc]
            sum(
                (model, state) == (spec.model, which) and not muted.startswith("suppressed")
                for model, _, state, muted in drawn
            )
            for which in ("FIRING", "RECOVERING")
        )
        for spec in specs
    }
    assert {pair[0] > 0 for pair in wanted.values()} == {True, False}
    assert any(recovering and not firing for firing, recovering in wanted.values())
    store, models = project.store, Models(tuple(specs), ())
    overview = Overview(store, lambda: models, lambda: NOW)
    exporter = Exporter(store, lambda: models, lambda: NOW)
    access = Access(store.state, "127.0.0.1", project.now)
    pages = Pages(store, overview, access, exporter, project.now)

    assert {row.model: row.alerts for row in list_models(project, specs)} == wanted
    assert {line.model: line.alerts for line in overview.lines()} == wanted
    series = count_by_metrics(asked(pages, "GET", "/metrics", {"accept": OPEN}).content)
    of_series = {
        spec.model: tuple(
            series.get(spec.model, []).count(f"mlmon_alert_{which}")
            for which in ("firing", "recovering")
        )
        for spec in specs
    }
    assert of_series == wanted
    table = Monitoring(project, models).status()
    in_notebook = zip(table["firing"], table["recovering"], strict=True)
    assert dict(zip(table["model"], in_notebook, strict=True)) == wanted
    sheets = (asked(pages, "GET", f"/?page={page + 1}").text for page in range(-(-n // 50)))
    found = (pair for sheet in sheets for pair in CELL.findall(sheet))
    cells = [(int(one or 0), int(other or alone or 0)) for one, other, alone in found]
    assert sorted(filter(any, cells)) == sorted(filter(any, wanted.values()))
    for spec in specs[:PAGES_READ]:
        firing, recovering = wanted[spec.model]
        report = health_report(store, spec, NOW)
        plural = "" if firing == 1 else "s"
        said = f"{firing} alert{plural} firing" + (f", {recovering} recovering" * bool(recovering))
        if recovering and not firing:
            said = f"{recovering} alert{'' if recovering == 1 else 's'} recovering"
        ((one, other),) = HEADING.findall(report.html)
        assert report.alerts.text == said
        assert (int(one or 0), int(other or 0)) == wanted[spec.model]
        listed = [e.state for e in list_alerts(store, spec.model) if not e.is_explained]
        assert (listed.count("FIRING"), listed.count("RECOVERING")) == wanted[spec.model]
        rows = [line.split() for line in render_episodes(project, spec).splitlines()]
        told = [row[1] for row in rows if row[2:4] and row[-3:-1] != ["explained", "by"]]
        assert (told.count("FIRING"), told.count("RECOVERING")) == wanted[spec.model]
        mine = [(state, muted) for model, _, state, muted in drawn if model == spec.model]
        title = compose_digest(store, [spec], "daily", NOW).title
        assert f"{mine.count(('FIRING', ''))} firing" in title
        assert ("recovering" in title) == (("RECOVERING", "") in mine)
    project.store.close()
