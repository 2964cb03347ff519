"""Lives a world of `label_laws` as a user's project: by cron, by the daemon, or as one backfill.

By cron every look is `mlmon run` and `mlmon alerts deliver`, by the daemon it is its planner and
its dispatcher on a real Dagster instance, each with everything that a spec declares and with a
Slack over HTTP that keeps what was posted. A backfill finds all files at once, at the last look.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pandas as pd
from click.testing import CliRunner

from benchmarks.label_living import (
    MODEL,
    Clock,
    Episode,
    Lifelike,
    land_before,
    read_episodes,
    write_history,
)
from mlmon_dagster.cli import cli
from mlmon_dagster.defs.instance import open_instance
from mlmon_dagster.defs.launch import Launcher
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec, load_model, read_models
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import MonitorResult
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.fake_slack import Message as Posted

CHANNEL = "#ml-alerts"
RUNS = 20  # of one look at most, so that a planner which never rests ends
NEAR = 1.1  # times another share that is usual
RUN_LINK = re.compile(r"/runs/[0-9a-f-]{36}")
IDENTITY = ["monitor", "slice_key", "slice_value", "window_start"]
SAID = ["status", "reason", "value", "message"]
Message = tuple[int, str, str, str]  # index of its thread, colour, text, blocks
Key = tuple[str, str, str, str]  # monitor, slice, start of the window
Verdicts = dict[Key, tuple[str, str, str, str]]
Maturities = dict[Key, tuple[str, int]]


@dataclass(frozen=True)
class Way:
    """What one way of living left.

    Attributes:
        verdicts: The newest one of each monitor, slice and window: status, reason, value, sentence.
        maturities: Of those that rest on ground truth, how mature it was, and of how many windows
            they are.
        shares: Of predictions that have ground truth, by window.
        least_share: That a window must have of it to be complete, as learnt in the end.
        messages: What the channel shows, in order.
        episodes: Every opening of every alert.
        outputs: What commands printed that failed.
    """

    verdicts: Verdicts
    maturities: Maturities
    shares: Mapping[str, float]
    least_share: float
    messages: list[Message]
    episodes: list[Episode]
    outputs: list[str]


def live_by_cron(world: Lifelike, folder: Path) -> Way:
    """Live a world by `mlmon run` and `mlmon alerts deliver` after every window."""
    with _begun(world, folder) as (first, slack):
        outputs = []
        for look in range(first, world.knobs.windows):
            if look > first:
                land_before(world, folder, look)
            outputs += _run_commands(world, folder, look, ("run", MODEL), ("alerts", "deliver"))
        return _read(world, folder, slack, outputs)


def live_backfill(world: Lifelike, folder: Path) -> Way:
    """Land all of a world and compute it in one run at the last look."""
    with _begun(world, folder) as (first, slack):
        last = world.knobs.windows - 1
        for look in range(first + 1, last + 1):
            land_before(world, folder, look)
        # What came with the first run is counted when the second judges its freshness.
        outputs = _run_commands(
            world, folder, last, ("run", MODEL), ("run", MODEL), ("alerts", "deliver")
        )
        return _read(world, folder, slack, outputs)


def live_by_daemon(world: Lifelike, folder: Path) -> Way:
    """Live a world by the daemon's own sensors after every window."""
    with _begun(world, folder) as (first, slack):
        clock = Clock(world.look_after(first))
        project = Project(folder, str(folder / ".mlmon" / "store"), now=clock)
        models = read_models(project.models_folder, clock.moment)
        outputs = []
        with open_instance(project) as instance:
            launcher = Launcher(project, models, instance)
            for look in range(first, world.knobs.windows):
                clock.moment = world.look_after(look)
                if look > first:
                    land_before(world, folder, look)
                for _ in range(RUNS):
                    reports = list(launcher.tick("mlmon_planner"))
                    outputs += [error for report in reports for error in report.errors]
                    if not reports:
                        break
                list(launcher.tick("mlmon_alert_dispatcher"))
        project.store.close()
        return _read(world, folder, slack, outputs)


@contextmanager
def _begun(world: Lifelike, folder: Path) -> Iterator[tuple[int, FakeSlack]]:
    """Land a world's history, declare it with a channel, and listen as Slack."""
    first, path = write_history(world, folder)
    alerts = f'alerts: {{slack: {{channel: "{CHANNEL}"}}}}\n'
    path.write_text(path.read_text() + alerts)
    slack = FakeSlack()
    slack.start()
    known = {
        "MLMON_SLACK_TOKEN": slack.token, "MLMON_SLACK_API_URL": slack.url,
        "DAGSTER_HOME": str(folder / "home"),
    }  # fmt: skip
    before = {name: os.environ.get(name) for name in known}
    os.environ.update(known)
    try:
        yield first, slack
    finally:
        slack.stop()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _run_commands(
    world: Lifelike, folder: Path, look: int, *commands: tuple[str, ...]
) -> list[str]:
    """Run commands as of a look, as cron would; return what those that failed printed."""
    failed = []
    now = world.look_after(look).isoformat()
    for command in commands:
        asked = ["--project", str(folder), "--now", now, *command]
        ended = CliRunner().invoke(cli, asked)
        if ended.exit_code or ended.exception:
            failed.append(f"look {look}: {' '.join(command)}: {ended.output} {ended.exception!r}")
    return failed


def _read(world: Lifelike, folder: Path, slack: FakeSlack, outputs: list[str]) -> Way:
    clock = Clock(world.look_after(world.knobs.windows - 1))
    project = Project(folder, str(folder / ".mlmon" / "store"), now=clock)
    spec = load_model(folder / "models" / f"{MODEL}.yaml")
    start, end = world.start_of(-10_000), world.start_of(10_000)
    rows = monitor_results.newest(
        project.store.state, MODEL, start.to_pydatetime(), end.to_pydatetime(), None
    )
    found = Way(
        _verdicts_of(rows),
        _maturities_of(spec, rows),
        _shares_of(project, spec),
        window_state.timing_of(project.store.state, spec.model).least_share,
        _shown(slack.messages),
        read_episodes(world, project, spec),
        outputs,
    )
    project.store.close()
    return found


def _verdicts_of(rows: pd.DataFrame) -> Verdicts:
    found: Verdicts = {}
    for row in rows.to_dict("records"):
        number = "" if pd.isna(row["value"]) else f"{row['value']:.9g}"
        said = str(row["status"]), str(row["reason"]), number, str(row["message"])
        found[_key_of(row)] = said
    return found


def _maturities_of(spec: ModelSpec, rows: pd.DataFrame) -> Maturities:
    found: Maturities = {}
    for row in rows.to_dict("records"):
        family = JUDGED_BY.get(str(row["family"]))
        if family is not None and family.traced(str(row["metric"])):
            n = family.count_judged(spec, cast("MonitorResult", row))
            found[_key_of(row)] = str(row["maturity"]), n
    return found


def _shares_of(project: Project, spec: ModelSpec) -> dict[str, float]:
    states = window_state.load(project.store.state, spec.model)
    return {str(start): state.coverage or 0.0 for start, state in states.items()}


def _key_of(row: Mapping[Any, Any]) -> Key:
    monitor, name, value, start = (str(row[name]) for name in IDENTITY)
    return monitor, name, value, start


def _shown(messages: list[Posted]) -> list[Message]:
    """Return what people see; a thread is named by its place in the channel.

    The links to Dagster's runs are without the runs' ids, since every way makes runs of its own.
    """
    places = {message.ts: n for n, message in enumerate(messages)}
    found = []
    for n, message in enumerate(messages):
        blocks = [*message.shown.get("blocks", ()), *message.shown["attachments"][0]["blocks"]]
        head = places.get(message.thread_ts, n)
        said = RUN_LINK.sub("/runs/RUN", json.dumps(blocks))
        found.append((head, message.colour, str(message.shown["text"]), said))
    return found


WAYS: Mapping[str, Callable[[Lifelike, Path], Way]] = {
    "cron": live_by_cron,
    "daemon": live_by_daemon,
    "backfill": live_backfill,
}


def compare_verdicts(one: Verdicts, other: Verdicts) -> dict[str, list[str]]:
    """Return what differs between the verdicts of two ways, by family of monitors."""
    differing: dict[str, list[str]] = {}
    for key in sorted({*one, *other}):
        said = one.get(key), other.get(key)
        if said[0] != said[1]:
            text = f"{' '.join(key)}: {said[0]} / {said[1]}"
            differing.setdefault(key[0].partition("/")[0], []).append(text)
    return differing


def compare_with_backfill(way: Way, backfill: Way) -> dict[str, list[str]]:
    """Return what differs between the verdicts of a way and those of one backfill.

    A backfill finds all files on one day, so nothing is compared that tells when they came:

    - schema, which is also of files, on the day on which they landed;
    - how late ground truth is (``freshness/actuals_missing``);
    - sentences, which say how much ground truth is usual at the age at which a window was judged;
    - what rests on ground truth that is complete enough in one way only, see `find_incomparable`.
    """
    own = ("schema/", "freshness/actuals_missing")
    left_out = find_incomparable(way, backfill)
    found = [
        {
            key: (*said[:3], "")
            for key, said in verdicts.items()
            if not key[0].startswith(own) and key not in left_out
        }
        for verdicts in (way.verdicts, backfill.verdicts)
    ]
    return compare_verdicts(*found)


def find_incomparable(way: Way, backfill: Way) -> set[Key]:
    """Return the verdicts that rest on ground truth which is complete enough in one way only.

    When a window is judged is learnt from when ground truth came. A backfill has no more of that
    than the times that ground truth itself gives. So

    - it judges no window early: nothing was watched as it came;
    - of a chosen part it may hold another share to be usual, by a few percent. A window whose own
      share lies between the two is judged in one way, and waits in the other.

    Left out are verdicts on such windows, and those that are of several windows with one of them
    among these. Of all others status, reason and value must be equal.
    """
    courses: dict[tuple[str, str, str], list[Key]] = {}
    for key in sorted({*way.maturities, *backfill.maturities}):
        courses.setdefault(key[:3], []).append(key)
    return {key for course in courses.values() for key in _find_apart(way, backfill, course)}


def _find_apart(way: Way, backfill: Way, course: Sequence[Key]) -> set[Key]:
    """Return the incomparable verdicts of one monitor and slice, given in the order of windows."""
    apart: set[Key] = set()
    n_since = math.inf  # windows with a value since the last one that is judged in one way only
    for key in course:
        known = [of.maturities.get(key, ("", 1)) for of in (way, backfill)]
        if _is_apart(way, backfill, key[3], {maturity for maturity, _ in known}):
            n_since = 0
            apart.add(key)
            continue
        n_since += all(key in of.verdicts and of.verdicts[key][2] for of in (way, backfill))
        if n_since < max(n for _, n in known):
            apart.add(key)
    return apart


def _is_apart(way: Way, backfill: Way, start: str, maturities: set[str]) -> bool:
    if maturities == {"early", "provisional"}:
        return True
    if maturities != {"mature", "provisional"}:
        return False
    low, high = sorted((way.least_share, backfill.least_share))
    return low <= way.shares[start] < high <= NEAR * low


def compare_messages(one: Way, other: Way) -> list[str]:
    """Return the messages that only one of two ways sent, or sent in another thread or order."""
    differing = []
    for n in range(max(len(one.messages), len(other.messages))):
        mine, theirs = (way.messages[n] if n < len(way.messages) else None for way in (one, other))
        if mine != theirs:
            differing.append(f"{n}: {_difference(mine, theirs)}")
    return differing


def _difference(one: Message | None, other: Message | None) -> str:
    """Say what differs between two messages, from a little before the first letter of it."""
    mine, theirs = ("nothing" if m is None else f"{m[:3]} {m[3]}" for m in (one, other))
    first = next(
        (n for n, pair in enumerate(zip(mine, theirs, strict=False)) if pair[0] != pair[1]), 0
    )
    return " / ".join(text[max(first - 40, 0) : first + 120] for text in (mine, theirs))
