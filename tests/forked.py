"""Processes forked from one that has imported everything, and their death at a named step.

Python keeps one such server per process and loads into it what its first user asks for, so all
tests ask here: who comes second would otherwise import Dagster in every
process that it starts.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from typing import Any

from mlmon_dagster.store.state import writing

PRELOADED = (
    "alembic.command",
    "duckdb",
    "psycopg2",
    "scipy.stats",
    "tests.alerts.test_deliver",
    "tests.chaos.dispatching",
    "tests.defs.killed",
    "tests.defs.test_batched_events",
    "tests.ingest.test_exactly_once",
    "tests.proof.killing",
    "tests.proof.together",
    "tests.store.test_baseline_files",
    "tests.store.test_erase",
    "tests.store.test_remove",
)


def processes() -> ForkServerContext:
    """Return what forks processes with the heavy libraries loaded."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def ended(target: Callable[..., Any], *arguments: Any) -> int:
    """Call a function in a process of its own; return how that ended, -9 if it was killed."""
    process = processes().Process(target=target, args=arguments)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def die_at(step: str, hit: int = 1) -> None:
    """Have this process end without any clean-up when it reaches a step for the nth time."""
    seen = 0

    def reached(name: str) -> None:
        nonlocal seen
        seen += name == step
        if name == step and seen == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    writing.on_reached = reached
