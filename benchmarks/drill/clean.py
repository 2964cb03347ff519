"""Healthy days with wildly varying traffic: nothing may be said about them."""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.drill.lane import HEALTHY, World
from benchmarks.drill.traffic import DAY

FEWEST, MOST = 20, 2000  # rows of a day: 100 times
AT_ONCE = 5  # days that are taken in with one look


@dataclass(frozen=True)
class CleanRun:
    """How one seed went.

    Attributes:
        seed: The seed.
        days: Healthy days lived through.
        fewest: Rows of the emptiest day.
        most: Rows of the fullest day.
        messages: Messages sent.
        alerts: Alerts that opened, also those that were never told: ``monitor of window``.
    """

    seed: int
    days: int
    fewest: int
    most: int
    messages: int
    alerts: tuple[str, ...]


def live_cleanly(seed: int, days: int) -> CleanRun:
    """Let a project live through healthy days whose traffic varies 100 times from day to day.

    Several days are taken in with one look, as after a weekend. An alert that opens and ends
    between two looks is never sent, so the alerts are counted too.
    """
    with tempfile.TemporaryDirectory(prefix="mlmon-drill-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        world = World(Path(folder), seed)
        world.warm_up(0)
        sizes = np.random.default_rng([seed, 2]).uniform(np.log(FEWEST), np.log(MOST), days)
        rows = np.exp(sizes).round().astype(int)
        first = world.today
        for i, n in enumerate(rows):
            world.send(first + i * DAY, HEALTHY, 0, n=int(n))
            if i % AT_ONCE == AT_ONCE - 1 or i == days - 1:
                world.pass_night(first + (i + 1) * DAY)
        opened = [e for e in world.events() if e.kind == "opened"]
        return CleanRun(
            seed=seed,
            days=days,
            fewest=int(rows.min()),
            most=int(rows.max()),
            messages=world.inbox.n_messages,
            alerts=tuple(f"{event.monitor} of {event.window}" for event in opened),
        )


def render_clean(runs: list[CleanRun]) -> str:
    """Write clean runs as a table for people."""
    lines = [f"{'seed':>4} {'days':>4} {'rows a day':>12} {'messages':>8}  alerts"]
    lines += [
        f"{run.seed:>4} {run.days:>4} {f'{run.fewest} to {run.most}':>12} {run.messages:>8}  "
        f"{', '.join(run.alerts) or 'none'}"
        for run in runs
    ]
    loud = sum(bool(run.alerts or run.messages) for run in runs)
    verdict = "nothing was said" if not loud else f"{loud} of {len(runs)} seeds said something"
    return "\n".join([*lines, "", f"{sum(run.days for run in runs)} healthy days: {verdict}."])


def live_seed(task: tuple[int, int]) -> CleanRun:
    """Do `live_cleanly` in a process of its own: (seed, days)."""
    return live_cleanly(*task)
