"""A process that ingests and is killed at a named step; imported by its own process too."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from mlmon_dagster.store import checkpoints, open_store
from tests.ingest.landing import credit_spec, ingest


def ingest_until(root: str, step: str, hit: int, options: dict[str, Any]) -> None:
    """Ingest below ``root`` and die, without any clean-up, when a step is reached again."""
    seen = 0

    def die(reached: str) -> None:
        nonlocal seen
        seen += reached == step
        if reached == step and seen == hit:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.on_reached = die
    store = open_store(Path(root) / "store")
    ingest(store, credit_spec(), Path(root) / "project", **options)
    store.close()
