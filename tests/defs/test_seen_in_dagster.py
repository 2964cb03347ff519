"""What a browser shows of a model, on Dagster's own webserver and on `mlmon serve`.

Both databases are looked at, each with one webserver for all situations.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from mlmon_dagster.defs.assets import OVERVIEW_KEY, asset_key
from mlmon_dagster.defs.batched_events import BatchedPostgresEventLogStorage
from mlmon_dagster.defs.instance import MODEL_TAG, dagster_home
from mlmon_dagster.tables.standing import NOT_JUDGED, standing_of
from tests.browser import Browser, started
from tests.defs.small_model import DAYS, NOW, land_fortnight, write_declaration
from tests.defs.test_live_on_postgres import is_up, running, wait_for
from tests.defs.test_standing_checks import BAD, invert_actuals
from tests.defs.worlds import World, opened
from tests.test_what_stands import OPEN, by_metrics

pytestmark = pytest.mark.proof
RED, GREEN = "rgb(199, 42, 28)", "rgb(46, 204, 129)"
# Of our own pages: a status and its colour.
PAINTED = {"ERROR": "rgb(185, 28, 28)", "WARN": "rgb(168, 72, 10)", "OK": "rgb(21, 112, 58)",
           "NO_DATA": "rgb(90, 102, 115)"}  # fmt: skip
SIZE = (1600, 1000)
# Of what says how many checks of an asset passed: the asset, what it says, and the mark's colour.
MARKS = """JSON.stringify([...document.querySelectorAll('*')]
  .filter(e => !e.children.length && / Passed$/.test(e.textContent))
  .map(e => [e.textContent, [...e.parentElement.parentElement.querySelectorAll('*')]
    .map(x => getComputedStyle(x).backgroundColor)]))"""

# What our own pages say beside each name: of families on a model's page, of models and their layers
# on the first.
PILLS = """JSON.stringify([...document.querySelectorAll('.pill, .layers .dot')].map(e => {
  const row = e.closest('tr, figcaption'), beside = e.nextElementSibling || e.nextSibling;
  const isDot = e.matches('.dot'), named = isDot ? e.nextSibling : beside;
  const name = named ? named.textContent : row ? row.firstElementChild.innerText : '';
  return [name.trim(), isDot ? e.classList[1] : e.textContent,
    getComputedStyle(e).backgroundColor];
}))"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def webserver(
    folder: Path, home: Path, log: Path, module: str = "mlmon_dagster.definitions", **more: str
) -> Iterator[str]:
    """Serve Dagster's UI of a project; yield its address."""
    port = free_port()
    environment = {
        **os.environ,
        "MLMON_PROJECT": str(folder),
        "DAGSTER_HOME": str(home),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        **more,
    }
    program = str(Path(sys.executable).parent / "dagster-webserver")
    command = [program, "-m", module, "-h", "127.0.0.1", "-p", str(port)]
    with running(command, folder, environment, log):
        wait_for("the UI", lambda: is_up(port), log.read_text)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def pages(world: World, log: Path) -> Iterator[str]:
    """Run `mlmon serve` on a world; yield its address."""
    port = free_port()
    # Its clock stands still, after all that the world will live.
    environment = {**os.environ, "MLMON_NOW": (NOW + dt.timedelta(hours=2)).isoformat()}
    program = [sys.executable, "-m", "mlmon_dagster.cli", "--project", str(world.folder)]
    with running([*program, "serve", "--port", str(port)], world.folder, environment, log):
        address = f"http://127.0.0.1:{port}"
        wait_for("the pages", lambda: read(f"{address}/healthz"), log.read_text)
        yield address


def read(url: str) -> str:
    """Return what an address answers; nothing while nobody listens."""
    asked = urllib.request.Request(url, headers={"Accept": OPEN})
    try:
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.URLError:
        return ""


def painted(browser: Browser, url: str) -> dict[str, str]:
    """Open one of our pages; return the status beside each name, each in its colour."""
    found = json.loads(str(browser.open(url, SIZE).run(PILLS)))
    assert all(PAINTED[status] == colour for _, status, colour in found if status in PAINTED)
    return {name.partition("\n")[0]: status for name, status, _ in found}


def see(
    browser: Browser, url: str, is_there: Callable[[str], bool], size: tuple[int, int] = SIZE
) -> str:
    """Open a page and return what is read on it, once something is."""
    browser.open(url, size)
    text = ""
    for _ in range(120):
        text = str(browser.run("document.body.innerText"))
        if is_there(text):
            return text
        time.sleep(0.5)
    raise AssertionError(text[:3000])


def colour_of(browser: Browser, url: str, said: str) -> str:
    """Return the colour of the mark beside what the graph says of an asset's checks."""
    see(browser, url, lambda text: said in text)
    for text, behind in json.loads(str(browser.run(MARKS))):
        if text == said:
            return next((colour for colour in behind if colour in (RED, GREEN)), "")
    return ""


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_dagster_shows_what_stands_in_words_and_colours(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    db_url = request.getfixturevalue("pg_url") if database == "postgresql" else None
    if db_url:
        monkeypatch.setenv("MLMON_DB_URL", db_url)
    folder = tmp_path / "project"
    write_declaration(folder)
    land_fortnight(folder)
    with opened(folder, db_url=db_url) as world, started(tmp_path / "profile") as browser:
        assert world.project.store.state.dialect.name == database
        storage = world.instance.event_log_storage
        assert isinstance(storage, BatchedPostgresEventLogStorage) == (database == "postgresql")
        world.work()
        with pages(world, tmp_path / "serve.log") as ours:
            # The first page is as of the moment at which it is asked for.
            assert painted(browser, f"{ours}/")["Model"] == "OK"
            invert_actuals(world, BAD)
            world.work()
            assert painted(browser, f"{ours}/")["Model"] == "ERROR"
            world.requests("mlmon_alert_dispatcher")
            world.work()
            home, log = dagster_home(world.project), tmp_path / "webserver.log"
            now = world.clock.moment.isoformat()
            with webserver(world.folder, home, log, MLMON_NOW=now) as address:
                look_at(world, browser, f"{address}/assets/")
                look_at_a_failed_run(world, browser, f"{address}/assets/", ours)


def look_at(world: World, browser: Browser, assets: str) -> None:
    performance = f"{assets}churn/performance?view=checks&checkDetail=performance"

    # A window of three days ago fails while the newer ones wait for their ground truth.
    def is_failed(text: str) -> bool:
        return "Evaluation result\nFailed" in text

    told = see(browser, performance, is_failed)
    assert "ROC AUC is 0.13, worse than the usual" in told
    assert str(BAD) in told
    assert "No verdict" not in told
    assert colour_of(browser, f"{assets}churn/performance?view=lineage", "0 / 1 Passed") == RED

    # Checks that are run without a partition leave it so.
    key = dg.AssetCheckKey(asset_key(world.spec, "performance"), "performance")
    job = world.launcher.definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection=set(), asset_check_selection={key}
    )
    assert job.execute_in_process(instance=world.instance).success
    assert "ROC AUC is 0.13" in see(browser, performance, is_failed)

    # An older verdict that was said last is covered again by what stands.
    schema = dg.AssetCheckKey(asset_key(world.spec, "inference_store"), "schema")
    world.instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=schema.asset_key, check_name="schema", passed=False,
            partition=str(DAYS[4]), severity=dg.AssetCheckSeverity.ERROR,
            description="75 of 150 rows were refused.",
        )
    )  # fmt: skip
    world.requests("mlmon_alert_dispatcher")
    page = f"{assets}churn/inference_store?view=checks&checkDetail=schema"
    told = see(browser, page, lambda text: "Evaluation result" in text)
    assert "Evaluation result\nPassed" in told
    graph = f"{assets}churn/inference_store?view=lineage"
    assert colour_of(browser, graph, "1 / 1 Passed") == GREEN

    # A window told again has its own numbers alone.
    assert world.compute(DAYS[:1]).is_success
    newest = str(DAYS[-1])
    told = see(
        browser,
        f"{assets}churn/performance",
        lambda text: newest in text and "predicted_rate" in text,
    )
    assert not any(name in told for name in ("error_rate", "latency", "estimated_"))

    # Overview and reports are there, and the overview says what stands.
    for name in ("churn/health_report", "churn/performance_trace"):
        told = see(browser, f"{assets}{name}", lambda text: "Latest materialization" in text)
        assert "Never materialized" not in told
    told = see(browser, f"{assets}{'/'.join(OVERVIEW_KEY.path)}", lambda text: "models" in text)
    assert "ERROR" in told


def look_at_a_failed_run(world: World, browser: Browser, assets: str, ours: str) -> None:
    """A run that fails hides no verdict, and neither does its end."""
    instance, ids = world.instance, [f"{n}" * 8 + "-1111-4111-8111-111111111111" for n in (1, 2)]
    runs = [
        dg.DagsterRun("job", run_id=run_id, status=dg.DagsterRunStatus.STARTED,
                      tags={MODEL_TAG: world.spec.model, "dagster/max_retries": "0"})
        for run_id in ids
    ]  # fmt: skip
    instance.add_run(runs[0])
    instance.report_run_failed(runs[0], "No space left on device")
    compare_surfaces(world, browser, assets, ours, has_failed=True)
    instance.add_run(runs[1])
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.RUN_SUCCESS.value, "job"), runs[1].run_id
    )
    compare_surfaces(world, browser, assets, ours, has_failed=False)


def compare_surfaces(
    world: World, browser: Browser, assets: str, ours: str, *, has_failed: bool
) -> None:
    """Compare what stands with our pages, `/metrics` and Dagster."""
    world.requests("mlmon_alert_dispatcher")
    model = world.spec.model
    standings = standing_of(world.project.store, world.spec, NOW + dt.timedelta(hours=2))
    expected = {s.family: s.status for s in standings}
    assert expected.get("pipeline") == ("ERROR" if has_failed else None)
    assert (expected["performance"], expected["schema"]) == ("ERROR", "OK")

    assert painted(browser, f"{ours}/")[model] == "ERROR"
    page = painted(browser, f"{ours}/m/{model}")
    assert {family: page.get(family.replace("_", " ")) for family in expected} == expected
    assert ("pipeline" in page) == has_failed
    judged = {family: one for family, one in expected.items() if one != NOT_JUDGED}

    graph = f"{assets}{model}/{{}}?view=lineage"
    assert colour_of(browser, graph.format("performance"), "0 / 1 Passed") == RED
    assert colour_of(browser, graph.format("inference_store"), "1 / 1 Passed") == GREEN
    checks = f"{assets}{model}/performance?view=checks&checkDetail=performance"
    told = see(browser, checks, lambda text: "Evaluation result\nFailed" in text)
    assert "ROC AUC is 0.13" in told

    def is_exported() -> bool:  # at most half a minute old
        return by_metrics(read(f"{ours}/metrics").encode())[model] == judged

    wait_for("the series of what stands", is_exported, lambda: str(judged))
