"""Every surface tells the same story of drawn alerts: ``python -m tests.same_story --draws 100``.

A history is a month of verdicts of three monitors. Some come late, some are corrected, some are
taken in many at once, and people acknowledge what fires. After each look what its messages say is
compared with the list. At the end the list is compared with the verdicts, and with it `mlmon alerts
show`, the page of each alert, the report of the model and what Dagster shows.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import dagster as dg
import numpy as np

from mlmon_dagster.alerts.handling import acknowledge
from mlmon_dagster.defs.assets import show_alerts
from mlmon_dagster.project import Project
from mlmon_dagster.report.health import health_report
from mlmon_dagster.serve.app import Pages
from mlmon_dagster.spec import Models, ModelSpec
from mlmon_dagster.store import alert_state
from mlmon_dagster.store.alert_state import AlertEpisode
from mlmon_dagster.store.state.schema import monitor_result, outbox
from mlmon_dagster.tables.alerts import ask_alert, list_alerts, pick_newest, tabulate_alerts
from mlmon_dagster.tables.rendering import render_text
from tests.alerts.worlds import day, result, rows_of, settle
from tests.defs.small_model import make_project, write_declaration
from tests.serve.conftest import asked, pages_over

MODEL = "credit"
N_DAYS = 30
NOW = day(60)
FAILING = ("WARN", "ERROR")
RULES = ((1, 1), (2, 3))  # failures of windows that open an alert
MONITORS: tuple[dict[str, Any], ...] = (
    {"family": "drift", "metric": "psi", "column_name": "age"},
    {"family": "drift", "metric": "psi", "column_name": "balance"},
    {"family": "performance", "metric": "roc_auc", "column_name": ":table"},
)
NAMES = {"age": "psi of age", "balance": "psi of balance", ":table": "ROC AUC"}
_LASTED = re.compile(r"from (\d{4}-\d\d-\d\d) to (\d{4}-\d\d-\d\d)")
_LATE = re.compile(r"(Learnt|Amended|Withdrawn) on [\d-]+: ([\d-]{10})(?: to ([\d-]{10}))?")
_SINCE = re.compile(r"^ *Since: *(.*)$", re.MULTILINE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_COUNTS = re.compile(r"(\d+) (still firing|recovering)")
_FACT = re.compile(r"<dt>(.*?)</dt><dd>(.*?)</dd>")
_CARD = re.compile(r'<article class="card incident.*?</article>', re.DOTALL)
_CARD_SINCE = re.compile(r"Since (\d{4}-\d\d-\d\d)")
_CARD_LINK = re.compile(r"mlmon alerts show ([0-9a-f]+)")
_PILL = re.compile(r'<span class="pill [A-Z_]+">([A-Z_]+)</span>')


@dataclass
class Found:
    """What was compared, and where surfaces disagree.

    Attributes:
        n: How often each surface was compared with the list.
        wrong: What disagrees, by surface.
    """

    n: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, list[str]] = field(default_factory=dict)

    def compare(self, surface: str, shown: object, wanted: object, about: str) -> None:
        """Note whether a surface shows what is wanted."""
        self.n[surface] += 1
        if shown != wanted:
            self.wrong.setdefault(surface, []).append(f"{about}: {shown!r}, not {wanted!r}")


def draw_days(rng: np.random.Generator, about: dict[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Draw a monitor's verdicts, each with the day on which it comes: bad times, good times."""
    k, n = RULES[int(rng.integers(len(RULES)))]
    is_bad, arriving = False, list[tuple[int, dict[str, Any]]]()
    for number in range(1, N_DAYS + 1):
        is_bad = bool(rng.random() < (0.8 if is_bad else 0.1))
        chances = (0.15, 0.4, 0.4, 0.05) if is_bad else (0.85, 0.05, 0.05, 0.05)
        status = str(rng.choice(["OK", *FAILING, "NO_DATA"], p=chances))
        come = number + 1 + int(rng.random() < 0.15) * int(rng.integers(1, 8))
        arriving.append((come, judge(rng, number, status, about, "v1", k, n)))
        if rng.random() < 0.08:
            other = str(rng.choice(["OK", *FAILING]))
            later = come + int(rng.integers(1, 8))
            arriving.append((later, judge(rng, number, other, about, "v2", k, n)))
    return arriving


def judge(
    rng: np.random.Generator,
    number: int,
    status: str,
    about: dict[str, Any],
    version: str,
    k: int,
    n: int,
) -> dict[str, Any]:
    """Return a verdict with a value of its own."""
    is_low = about["column_name"] == ":table"
    far = float(rng.integers(20, 90)) / 100 if status in FAILING else 0.01
    value = round(0.9 - far, 2) if is_low else far
    name = NAMES[about["column_name"]]
    return result(
        number,
        status,
        model=MODEL,
        value=None if status == "NO_DATA" else value,
        baseline_value=0.9 if is_low else 0.0,
        message=f"{name} is {value}" if status in FAILING else "",
        data_version=f"{version}:b1",
        k=k,
        of_n=n,
        **about,
    )


class Story:
    """One drawn history, told to a store look by look.

    Args:
        folder: Where its project is.
        seed: Which history.
        found: Where disagreements are noted.
    """

    def __init__(self, folder: Path, seed: int, found: Found) -> None:
        self.rng = np.random.default_rng(seed)
        self.found, self.seed = found, seed
        self.project: Project = make_project(folder, lambda: NOW)
        start = dt.date(2024, 1, 1)
        self.spec: ModelSpec = write_declaration(folder, MODEL, start=start, zone="UTC")
        self.store = self.project.store

    def play(self) -> None:
        """Let the verdicts come, look now and then, and compare what is told."""
        arriving = [one for about in MONITORS for one in draw_days(self.rng, about)]
        last = max(come for come, _ in arriving)
        waiting, n_told = list[dict[str, Any]](), 0
        for today in range(1, last + 1):
            waiting += [verdict for come, verdict in arriving if come == today]
            if today < last and self.rng.random() < 0.4:
                continue
            settle(self.store, [self.spec], day(today), *waiting)
            waiting = []
            written = [r for r in rows_of(self.store, outbox) if r["kind"] != "plot"]
            for row in written[n_told:]:
                self.compare_message(json.loads(row["payload"])["plain"], row["kind"])
            n_told = len(written)
            self.acknowledge_some(day(today))
        self.compare_verdicts()
        self.compare_shown()
        self.compare_pages()
        self.compare_tables()
        self.store.close()

    def episodes(self) -> list[AlertEpisode]:
        """Return the list, without alerts on what cannot be judged."""
        listed = list_alerts(self.store, MODEL)
        return [e for e in listed if e.episode and e.metric != "no_verdict"]

    def acknowledge_some(self, now: dt.datetime) -> None:
        """Let people take on some of what fires."""
        for episode in self.episodes():
            if episode.state == "FIRING" and self.rng.random() < 0.2:
                acknowledge(self.store, episode.fingerprint, "ana", now)

    def compare_message(self, text: str, kind: str) -> None:
        """Compare the times and counts that a message tells with the list as it is now."""
        about = f"history {self.seed}, {kind}, {text.splitlines()[0]}"
        listed = self.episodes()
        lasted = {(write_day(e.opened_window), write_day(e.resolved_window)) for e in listed}
        failing = {(write_day(e.opened_window), write_day(e.failed_window)) for e in listed}
        began = {write_day(e.opened_window) for e in listed}
        for times in _LASTED.findall(text):
            self.found.compare("message", times in lasted, True, f"{about}: {times}")
        for _, first, end in _LATE.findall(text):
            times = (first, end or first)
            self.found.compare("message", times in failing, True, f"{about}: {times}")
        for said in _SINCE.findall(text):
            unknown = set(_DATE.findall(said)) - began
            self.found.compare("message", unknown, set(), about)
        title = text.splitlines()[0]
        counts = {name: int(n) for n, name in _COUNTS.findall(title)}
        if counts or "nothing else fires" in title:
            standing = Counter(e.state for e in listed if not e.muted_reason)
            wanted = {"still firing": standing["FIRING"], "recovering": standing["RECOVERING"]}
            known = {name: n for name, n in wanted.items() if n}
            self.found.compare("message", counts, known, about)

    def compare_verdicts(self) -> None:
        """Compare the list with the newest verdicts themselves."""
        rows = [row for row in rows_of(self.store, monitor_result) if row["status"] != "NO_DATA"]
        for episode in self.episodes():
            if episode.state == "WITHDRAWN":
                continue
            newest = {r["window_start"]: r for r in rows if r["monitor"] == episode.monitor}
            end = episode.resolved_window or NOW
            inside = [r for w, r in newest.items() if episode.opened_window <= w < end]
            bad = [row for row in inside if row["status"] in FAILING]
            distances = [abs(row["value"] - row["baseline_value"]) for row in bad]
            about = f"history {self.seed}, {episode.monitor} {episode.episode}"
            times = (episode.opened_window, episode.failed_window)
            starts = [
                row["window_start"]
                for row in bad
                if not self.is_in_another(episode, row["window_start"])
            ]
            if not starts:  # a correction gave all of them to a later episode
                continue
            self.found.compare("list", times, (min(starts), max(starts)), about)
            worst = [
                row["value"] for row in bad if distances and row_distance(row) == max(distances)
            ]
            self.found.compare("list", episode.worst_value in worst, True, about)
            ended = episode.resolved_window
            if ended is not None and not self.is_in_another(episode, ended):
                self.found.compare("list", newest[ended]["status"], "OK", about)

    def is_in_another(self, episode: AlertEpisode, window: dt.datetime) -> bool:
        """Tell whether a later episode holds a window: a correction may join two that were told."""
        return any(
            other.fingerprint == episode.fingerprint
            and other.episode > episode.episode
            and other.opened_window <= window < (other.resolved_window or NOW)
            for other in self.episodes()
        )

    def compare_shown(self) -> None:
        """Compare `mlmon alerts show` with the list."""
        for row, mine in self.by_alert():
            shown = ask_alert(self.store, row["fingerprint"], ()).text or ""
            head = shown.split("\n\n")[0].splitlines()
            facts = {name: text.strip() for name, _, text in (line.partition(":") for line in head)}
            self.compare_facts("show", facts, facts["State"].split()[0], row, mine)

    def compare_pages(self) -> None:
        """Compare the page of each alert, and the cards of the model's report, with the list."""
        pages: Pages = pages_over(self.store, Models((self.spec,), ()), NOW)
        for row, mine in self.by_alert():
            html = asked(pages, "GET", f"/m/{MODEL}/alerts/{row['fingerprint']}").text
            head = html[html.index("<h1>") : html.index("<dl")]
            facts = dict(_FACT.findall(html))
            self.compare_facts("page", facts, _PILL.findall(head)[-1], row, mine)
        html = health_report(self.store, self.spec, NOW).html
        cards = {}
        for card in _CARD.findall(html):
            state = "RECOVERING" if "It passes again" in card else "FIRING"
            cards[_CARD_LINK.findall(card)[0]] = (_CARD_SINCE.findall(card)[0], state)
        wanted = {
            e.fingerprint[:8]: (write_day(e.opened_window), e.state)
            for e in self.episodes()
            if e.standing
        }
        self.found.compare("report", cards, wanted, f"history {self.seed}")

    def compare_facts(
        self,
        surface: str,
        facts: dict[str, str],
        state: str,
        row: alert_state.AlertRow,
        mine: Sequence[AlertEpisode],
    ) -> None:
        """Compare what is said of one alert with its newest episode in the list."""
        newest = pick_newest(row, mine)
        assert newest is not None
        names = ("Since", "Worst", "Last failed", "Recovered")
        shown = (*(facts.get(name, "") for name in names), state)
        about = f"history {self.seed}, {row['monitor']}"
        self.found.compare(surface, shown, write_episode(newest), about)

    def compare_tables(self) -> None:
        """Compare the table that people read, and the one in Dagster's UI, with the list."""
        listed = self.episodes()
        wanted = sorted(write_row(e) for e in listed)
        text = render_text(tabulate_alerts([self.spec], listed))
        self.found.compare("table", sorted(read_table(text)), wanted, f"history {self.seed}")
        records = cast("dg.TableMetadataValue", show_alerts(self.project, self.spec)).records
        names = ("ID", "STATE", "SINCE", "RECOVERED", "WORST")
        rows = [tuple(str(one.data[name]) for name in names) for one in records]
        known = {e.fingerprint[:8] for e in listed}
        shown = sorted(row for row in rows if row[0] in known)
        self.found.compare("ui", shown, wanted, f"history {self.seed}")

    def by_alert(self) -> Iterator[tuple[alert_state.AlertRow, list[AlertEpisode]]]:
        """Yield each alert that ever opened, with its episodes."""
        listed = self.episodes()
        with self.store.state.connect() as conn:
            alerts = alert_state.all_alerts(conn, MODEL)
        for fingerprint, row in alerts.items():
            if mine := [e for e in listed if e.fingerprint == fingerprint]:
                yield row, mine


def row_distance(row: dict[str, Any]) -> float:
    """Return how far a verdict's value is from the baseline's."""
    return abs(float(row["value"]) - float(row["baseline_value"]))


def write_day(moment: dt.datetime | None) -> str:
    """Write a window as surfaces do."""
    return "" if moment is None else f"{moment:%Y-%m-%d}"


def write_worst(episode: AlertEpisode) -> str:
    """Write the worst value as surfaces do."""
    return "" if episode.worst_value is None else f"{episode.worst_value:.2f}"


def write_episode(episode: AlertEpisode) -> tuple[str, ...]:
    """Return what the surfaces of one alert say of it."""
    windows = (episode.failed_window, episode.resolved_window)
    times = (write_day(window) for window in windows)
    return (write_day(episode.opened_window), write_worst(episode), *times, episode.state)


def write_row(episode: AlertEpisode) -> tuple[str, ...]:
    """Return what the tables say of an episode."""
    times = (write_day(episode.opened_window), write_day(episode.resolved_window))
    return (episode.fingerprint[:8], episode.state, *times, write_worst(episode) or "-")


def read_table(text: str) -> Iterator[tuple[str, ...]]:
    """Read the cells of the list that people see."""
    head, *lines = text.splitlines()
    names = ("ID", "STATE", "SINCE", "RECOVERED")
    starts = [head.index(name) for name in names]
    for line in lines:
        cells = [line[start:].split("  ")[0].strip() for start in starts]
        yield (*cells, line[head.index("WORST") - 8 : head.index("WHAT")].split()[-1])


def compare_stories(draws: int, folder: Path, first: int = 0) -> Found:
    """Draw histories, and return where surfaces disagree."""
    found = Found()
    for seed in range(first, first + draws):
        Story(folder / str(seed), seed, found).play()
    return found


def main() -> int:
    """Print how often each surface was compared, and how often it disagreed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="The first history.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = compare_stories(options.draws, Path(folder), options.first)
    print(f"{options.draws} histories of {N_DAYS} days and {len(MONITORS)} monitors")
    for surface, n in found.n.items():
        wrong = found.wrong.get(surface, [])
        print(f"  {surface:<8} {n:>7,} compared, {len(wrong)} disagree")
        for text in wrong[:3]:
            print(f"           {text}")
    return 1 if found.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
