"""The demos as people run them, whole: what they print and store is what the pages say of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import mlmon_dagster as mm
from tests.defs.small_model import VARIABLES

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("demos")]  # each demo is run once

ROOT = Path(__file__).parents[2]
README, PAGE, TRACING, DRILL = (
    (ROOT / name).read_text()
    for name in ("README.md", "docs/demo.md", "docs/tracing.md", "docs/drill.md")
)
README_SAYS, PAGE_SAYS = (" ".join(text.split()) for text in (README, PAGE))
LAST_PRESENT = "2014-01-03T12:00:00Z"


@dataclass(frozen=True)
class Told:
    """A demo that has been run.

    Attributes:
        model: Its model.
        folder: Where its project is.
        printed: What it printed.
    """

    model: str
    folder: Path
    printed: str

    @property
    def project(self) -> mm.Monitoring:
        return mm.open(self.folder)

    def run(self, *words: str) -> str:
        """Return what a command prints in the demo's project."""
        return run_python("-m", "mlmon_dagster.cli", "--project", str(self.folder), *words)

    def read_verdicts(self, monitor: str) -> pd.DataFrame:
        """Return what a monitor found, by day."""
        verdicts = self.project.verdicts(self.model)
        mine = verdicts[verdicts["monitor"] == monitor]
        return mine.set_index(mine["window_start"].dt.strftime("%Y-%m-%d"))

    def read_failures(self, monitor: str) -> pd.DataFrame:
        """Return what a monitor found on the days on which it failed."""
        verdicts = self.read_verdicts(monitor)
        return verdicts[verdicts["status"].isin(["WARN", "ERROR"])]

    def read_metric(self, metric: str, column: str = ":table") -> pd.DataFrame:
        """Return a metric of all rows, by day."""
        return self.project.metrics(self.model, metric, column=column).set_index("window")


def run_python(*words: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    ended = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, env=env, cwd=ROOT, check=False
    )
    output = ended.stdout + ended.stderr
    assert ended.returncode == 0, output[-3_000:]
    assert re.findall(r"^.*\w+Warning\b.*$", output, re.MULTILINE) == []
    return ended.stdout


def run_demo(model: str, folder: Path, options: Sequence[str]) -> Told:
    words = ("-m", "mlmon_dagster.cli", "--project", str(folder), "demo", *options)
    return Told(model, folder, run_python(*words))


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Told:
    return run_demo("flight_delay", tmp_path_factory.mktemp("flights"), ())


@pytest.fixture(scope="module")
def assistant(tmp_path_factory: pytest.TempPathFactory) -> Told:
    folder = tmp_path_factory.mktemp("assistant")
    return run_demo("assistant", folder, ("--story", "support"))


def find(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.DOTALL)
    assert found is not None, pattern
    return found[1]


def test_the_year_ends_with_the_table_and_the_alerts_that_the_pages_show(flights: Told) -> None:
    n_alerts = find(r"and (\d+) alerts of the whole year", README)

    assert find(r"```\n(flight_delay by month\n.*?)```", README) in flights.printed
    assert find(r"```\n(Alerts of the year.*?\n)\.\.\.\n```", PAGE) in flights.printed
    assert f"Alerts of the year ({n_alerts} episodes" in flights.printed


def test_the_messages_of_the_year_are_as_many_as_the_page_says(flights: Told) -> None:
    heads = re.findall(r"^(?:WARN|ERROR|OK) +flight_delay: ", flights.printed, re.MULTILINE)
    assert len(heads) == 2
    assert "sends two messages" in PAGE_SAYS

    ended = run_python("-m", "benchmarks", "alerts", str(flights.folder))
    n_messages = find(r"episodes, (\d+) messages", ended)
    assert f"Day by day they would be {n_messages} " in PAGE_SAYS


def test_what_the_pages_say_of_april(flights: Told) -> None:
    week = ["2013-04-22", "2013-04-23", "2013-04-24", "2013-04-25", "2013-04-26", "2013-04-27"]
    gap = flights.read_failures("performance/calibration_gap")
    assert [day for day in gap.index if day < "2013-12"] == week

    rate = flights.read_metric("actual_rate")
    whole = rate.loc[week[:5]]
    n_late = (whole["value"] * whole["n"]).sum()
    share = 100 * n_late / whole["n"].sum()
    promised = share + 100 * gap.loc["2013-04-26", "value"]
    said = f"the scores promised {promised:.1f} % on average, and {share:.1f} % were late"
    assert f"From 22 to 26 April {said}" in PAGE_SAYS
    assert f"half of the flights are late, where the scores promise {promised:.1f} %" in README_SAYS

    days = rate.loc[["2013-04-22", "2013-04-25", "2013-04-26"], "value"]
    first, second, third = (f"{100 * share:.0f}" for share in days)
    assert f"On 22, 25 and 26 April it was {first}, {second} and {third} %." in PAGE_SAYS

    ranked = flights.read_failures("performance/roc_auc")
    assert [day for day in ranked.index if day.startswith("2013-04")] == ["2013-04-17"]
    assert "ROC AUC raised no alert: it failed on one day, 17 April" in PAGE_SAYS


def test_what_the_pages_say_of_autumn(flights: Told) -> None:
    alerts = flights.project.alerts("flight_delay")
    ranked = alerts[alerts["monitor"] == "performance/roc_auc"]
    opened = ranked["opened_window"].dt.tz_convert("America/New_York")
    assert sorted(opened.dt.strftime("%d %B")) == ["26 October", "29 July"]
    assert "The second alert of `performance/roc_auc` opens on 26 October." in PAGE_SAYS

    why = str(flights.project.trace("flight_delay", first="2013-09-01", last="2013-11-30"))
    change = re.search(r"-(\.\d+) \(-(\.\d+) to -(\.\d+) between windows", why)
    assert change is not None
    lower, most, least = change.groups()
    said = f"ROC AUC is {lower} lower (95 %: {least} to {most})"
    assert f"From September to November {said}" in PAGE_SAYS

    residual = flights.read_metric("roc_auc_residual")["value"]
    both = pd.concat([
        residual["2013-09-20":"2013-10-11"],  # type: ignore[misc]
        residual["2013-10-19":"2013-12-07"],  # type: ignore[misc]
    ])  # fmt: skip
    assert f"on {(both > 0).sum()} of {len(both)} days" in PAGE_SAYS
    failures = flights.read_failures("estimated_performance/roc_auc_residual")
    assert set(failures.index) - set(both.index) == {"2013-08-04"}
    assert flights.read_failures("estimated_performance/roc_auc").empty
    assert "The estimate without ground truth raises no alert." in PAGE_SAYS.replace("*", "")


def test_what_the_pages_say_of_warm_months_and_of_the_last_days(flights: Told) -> None:
    alerts = flights.project.alerts("flight_delay")
    warm = flights.read_failures("drift/psi/temp")["2013-04-08":"2013-12-02"]  # type: ignore[misc]
    assert f"one alert for {len(warm)} days" in PAGE_SAYS
    assert f"Temperatures differ from the winter's on {len(warm)} days" in README_SAYS
    assert (alerts["monitor"] == "drift/psi/temp").sum() == 2, "and one that is pending"

    weather = flights.read_failures("quality/null_rate/temp")
    assert list(weather.index) == ["2013-12-31"]
    [empty] = alerts.loc[alerts["monitor"] == "quality/null_rate", "message"]
    assert empty.startswith("7 columns")
    assert "one alert of seven columns" in PAGE_SAYS
    assert not flights.read_failures("drift/sustained_shift/distance")["2013-12-25":].empty  # type: ignore[misc]


def test_traces_and_drills_of_the_year_print_what_the_pages_show(flights: Told) -> None:
    traces = re.findall(r"\$ mlmon (trace [^\n]*)\n(.*?)(?=\n\n|\n…|\n```)", TRACING, re.DOTALL)
    assert len(traces) == 2
    for command, trace in traces:
        assert trace in flights.run(*command.split())

    rows = find(r"```\n(temp: 14 days.*?)```", DRILL)
    drill = flights.run("--now", LAST_PRESENT, "drill", "flight_delay", "--columns", "temp")
    assert set(rows.splitlines()) <= set(drill.splitlines())


def test_the_quarter_ends_with_the_table_and_the_alerts_that_the_page_shows(
    assistant: Told,
) -> None:
    assert find(r"```\n(assistant by month\n.*?)\n\n", PAGE) in assistant.printed
    assert find(r"(Alerts of the quarter \(.*?)```", PAGE) in assistant.printed


def test_what_the_page_says_of_virtual_cards(assistant: Told) -> None:
    good = assistant.read_metric("good_rate", "correct")["value"]
    before = good["2026-02-01":"2026-02-28"].mean()  # type: ignore[misc]
    after = good["2026-03-09":].mean()  # type: ignore[misc]
    said = f"falls from {before:.2f} in February to {after:.2f}".replace(" 0.", " .")
    assert f"the good share {said}" in PAGE_SAYS

    thumbs = assistant.read_metric("good_rate", "helpful")["n"]
    working_days = thumbs["2026-03-09":"2026-03-13"]  # type: ignore[misc]
    assert working_days.mean() == pytest.approx(80, abs=5)
    n_calls = assistant.read_metric("n")["value"]
    assert f"a Sunday of {n_calls['2026-03-29']:.0f} calls" in PAGE_SAYS
    assert assistant.read_verdicts("drift/psi/meaning.novelty")["status"]["2026-03-29"] == "OK"

    points = find(r"alike by meaning.*? and (\d+) points worse than the others", assistant.printed)
    assert f"{points} points worse than the others" in PAGE_SAYS
    named = find(r"typical are ([^\n;]+)", assistant.printed)
    calls = assistant.project.records("assistant", window="2026-03-26")
    mine = calls[calls["prediction_id"].isin(re.findall(r"[\d-]{11}", named))]
    assert len(mine) == 3
    assert mine["question"].str.contains("virtual").all()


def test_what_the_page_says_of_the_judges(assistant: Told) -> None:
    by_people, by_judge = (
        assistant.read_verdicts(f"performance/good_rate/{name}")["baseline_value"].median()
        for name in ("correct", "faithful")
    )
    assert f"off by {by_people - by_judge:.2f}".replace(" 0.", " .") in PAGE_SAYS.replace("*", "")

    verdicts = assistant.read_verdicts("performance/good_rate/faithful")
    lenient = verdicts.index[verdicts["reason"] == "other_judge"]
    assert list(lenient) == [f"2026-02-{day:02}" for day in range(9, 16)]
    assert "9 to 15 February: a lenient judge." in PAGE_SAYS
