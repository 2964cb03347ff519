"""``mlmon dev``: the Dagster UI and daemon on the project, with its own instance.

A process beside it tells Dagster when ``models/`` has changed, for Dagster reads declarations when
it loads its code location. That process looks at the folder every second, and asks the web server
for a reload once a change has settled. It imports nothing of Dagster and ends with the process that
started it.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

EVERY_SECONDS = 1.0
TIMEOUT_SECONDS = 300  # a reload answers when all models are loaded
RELOAD = """mutation { reloadWorkspace {
  __typename
  ... on Workspace { locationEntries { name locationOrLoadError {
    __typename ... on PythonError { message } } } }
  ... on PythonError { message }
  ... on UnauthorizedError { message }
} }"""
BY_HAND = "Reload it in the UI: Deployment, Reload all."
# Of the freshness of an hour's or a day's window, Dagster's daemon asks every half minute, about
# every asset: of a thousand models a third of its work.
OF_DAGSTER = {"FRESHNESS_DAEMON_INTERVAL_SECONDS": "300"}
# `dg dev`, which Dagster names instead, needs a project of its own making.
SUPERSEDED = "ignore:Function `dev_command` is superseded"
Look = dict[str, tuple[int, ...]]


def start_dagster(project: Project, host: str, port: int) -> None:
    """Replace this process by ``dagster dev`` on the project; Ctrl-C ends it.

    The project folder is Dagster's home, so the UI shows what ``mlmon run`` and ``mlmon demo`` did.
    """
    from mlmon_dagster.defs.instance import dagster_home, open_instance, skip_older_events
    from mlmon_dagster.project import process_environment

    home = dagster_home(project)
    workspace = home / "workspace.yaml"
    code = ["-w", str(workspace)] if workspace.exists() else ["-m", "mlmon_dagster.definitions"]
    environment = {
        **OF_DAGSTER,
        **process_environment(),
        "DAGSTER_HOME": str(home),
        "MLMON_PROJECT": str(project.folder),
    }
    click.echo(f"Dagster UI on http://{host}:{port} for {home}; Ctrl-C ends it.")
    click.echo(f"Changes in {project.models_folder} are loaded automatically.")
    if not project.is_production:
        click.echo(
            f"MLMON_ENVIRONMENT is {project.environment}: sensors and schedules wait until you "
            "start them in the UI, under Automation."
        )
    reachable = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    start_watching(project.models_folder, f"http://{reachable}:{port}", environment)
    with open_instance(project) as instance:
        skip_older_events(instance)
    dagster = [sys.executable, "-W", SUPERSEDED, "-m", "dagster"]
    arguments = [*dagster, "dev", *code, "-h", host, "-p", str(port)]
    os.chdir(home)
    os.execve(sys.executable, arguments, environment)


def start_watching(folder: Path, url: str, environment: dict[str, str]) -> None:
    """Start the process for a folder of declarations and the web server at an address."""
    arguments = [sys.executable, "-m", __name__, str(folder), url, str(os.getpid())]
    subprocess.Popen(arguments, env=environment)


def look_at(folder: Path) -> Look:
    """Return what tells one state of the declarations from another, by file name."""
    found: Look = {}
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".yaml", ".yml"):
                s = path.stat()
                found[path.name] = (s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino)
    except OSError:  # gone, or changing under our eyes: the next look tells
        return found
    return found


def changes(folder: Path, parent: int) -> Iterator[list[str]]:
    """Yield the names of files that changed, each time they have stayed so for a look."""
    told = before = look_at(folder)
    while os.getppid() == parent:
        time.sleep(EVERY_SECONDS)
        now = look_at(folder)
        if now == before and now != told:
            yield sorted(name for name in told.keys() | now if told.get(name) != now.get(name))
            told = now
        before = now


def reload_dagster(url: str) -> str:
    """Ask a Dagster web server to load its code again; return what went wrong, or nothing.

    Raises:
        OSError: If it cannot be reached.
    """
    request = urllib.request.Request(
        f"{url}/graphql",
        json.dumps({"query": RELOAD}).encode(),
        {"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=TIMEOUT_SECONDS) as answer:
        said = json.load(answer)
    found = (said.get("data") or {}).get("reloadWorkspace") or {"message": str(said)[:500]}
    if "locationEntries" not in found:
        return str(found.get("message") or found)
    loaded = {
        entry["name"]: entry["locationOrLoadError"] or {} for entry in found["locationEntries"]
    }
    return "; ".join(f"{name}: {e['message']}" for name, e in loaded.items() if "message" in e)


def watch(folder: Path, url: str, parent: int) -> None:
    """Reload Dagster after every change of a folder, until the parent process has gone."""
    for names in changes(folder, parent):
        while os.getppid() == parent:
            try:
                problem = reload_dagster(url)
            except (OSError, ValueError) as error:
                if not isinstance(error, urllib.error.HTTPError):  # it is still starting
                    time.sleep(EVERY_SECONDS)
                    continue
                problem = str(error)
            said = f"Dagster did not take it in: {problem} {BY_HAND}" if problem else "reloaded."
            click.echo(f"mlmon: {', '.join(names)} changed; {said}", err=True)
            _tell_broken(folder)
            break


def _tell_broken(folder: Path) -> None:
    from mlmon_dagster.spec import read_models

    try:
        broken = read_models(folder, dt.datetime.now(dt.UTC)).broken
    except ConfigError as error:
        click.echo(f"mlmon: {error}", err=True)
        return
    for one in broken:
        click.echo(f"mlmon: not monitored, does not load: {one.summary()}", err=True)


if __name__ == "__main__":
    try:
        watch(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
    except KeyboardInterrupt:
        sys.exit(0)
