"""``mlmon dev``: the Dagster UI and daemon on the project, with its own instance."""

from __future__ import annotations

import os
import sys

import click

from mlmon_dagster.commands.reload import start_watching
from mlmon_dagster.defs.instance import dagster_home
from mlmon_dagster.project import Project, process_environment


def start_dagster(project: Project, host: str, port: int) -> None:
    """Replace this process by ``dagster dev`` on the project; Ctrl-C ends it.

    The project folder is Dagster's home, so the UI shows what ``mlmon run`` and ``mlmon demo`` did.
    """
    home = dagster_home(project)
    workspace = home / "workspace.yaml"
    code = ["-w", str(workspace)] if workspace.exists() else ["-m", "mlmon_dagster.definitions"]
    environment = process_environment() | {
        "DAGSTER_HOME": str(home),
        "MLMON_PROJECT": str(project.folder),
    }
    click.echo(f"Dagster UI on http://{host}:{port} for {home}; Ctrl-C ends it.")
    click.echo(f"What changes in {project.models_folder} is taken in by itself.")
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    start_watching(project.models_folder, f"http://{reachable}:{port}", environment)
    arguments = [sys.executable, "-m", "dagster", "dev", *code, "-h", host, "-p", str(port)]
    os.chdir(home)
    os.execve(sys.executable, arguments, environment)
