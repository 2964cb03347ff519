"""What runs a project's model in a process that is killed at a named step."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

from mlmon_dagster.commands.run import run_model
from mlmon_dagster.spec import load_models
from mlmon_dagster.store import checkpoints
from tests.defs.small_model import make_project


def run_until(folder: str, step: str) -> None:
    """Do what ``mlmon run`` does, and die without any clean-up when the step is reached."""

    def die(reached: str) -> None:
        if reached == step:
            os.kill(os.getpid(), signal.SIGKILL)

    logging.getLogger("dagster").setLevel(logging.WARNING)
    checkpoints.on_reached = die
    project = make_project(Path(folder))
    [spec] = load_models(project.models_folder)
    if not run_model(project, spec, None, None):
        raise SystemExit(1)
