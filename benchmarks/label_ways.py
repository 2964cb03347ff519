"""Lives a world of `label_laws` as a user's project: by cron, by the daemon, or as one backfill.

By cron every look is `mlmon run` and `mlmon alerts deliver`, by the daemon it is its planner and
its dispatcher on a real Dagster instance, each with everything that a spec declares and with a
Slack over HTTP that keeps what was posted. A backfill finds all files at once, at the last look.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
from mlmon_dagster.project import Project
from mlmon_dagster.spec import load_model, read_models
from mlmon_dagster.store.state import monitor_results
from tests.alerts.fake_slack import FakeSlack
from tests.alerts.fake_slack import Message as Posted

CHANNEL = "#ml-alerts"
RUNS = 20  # of one look at most, so that a planner which never rests ends
RUN_LINK = re.compile(r"/runs/[0-9a-f-]{36}")
IDENTITY = ["monitor", "slice_key", "slice_value", "window_start"]
SAID = ["status", "reason", "value", "message"]
Message = tuple[int, str, str, str]  # index of its thread, colour, text, blocks
Verdicts = dict[tuple[str, str, str, str], tuple[str, str, str, str]]


@dataclass(frozen=True)
class Way:
    """What one way of living left.

    Attributes:
        verdicts: The newest one of each monitor, slice and window: status, reason, value, sentence.
        messages: What the channel shows, in order.
        episodes: Every opening of every alert.
        outputs: What commands printed that failed.
    """

    verdicts: Verdicts
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
    episodes = read_episodes(world, project, spec)
    project.store.close()
    return Way(_verdicts_of(rows), _shown(slack.messages), episodes, outputs)


def _verdicts_of(rows: pd.DataFrame) -> Verdicts:
    found: Verdicts = {}
    for row in rows.to_dict("records"):
        monitor, key, value, start = (str(row[name]) for name in IDENTITY)
        number = "" if pd.isna(row["value"]) else f"{row['value']:.9g}"
        said = str(row["status"]), str(row["reason"]), number, str(row["message"])
        found[monitor, key, value, start] = said
    return found


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

    Schema is also of files, on the day on which they landed, and how late ground truth is depends
    on when its files came: a backfill finds all of them on one day. Sentences are left out, since
    they say how much ground truth is usual at the age at which a window was judged.
    """
    own = ("schema/", "freshness/actuals_missing")
    found = [
        {key: (*said[:3], "") for key, said in verdicts.items() if not key[0].startswith(own)}
        for verdicts in (way.verdicts, backfill.verdicts)
    ]
    return compare_verdicts(*found)


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
