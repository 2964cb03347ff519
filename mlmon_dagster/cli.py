"""The command line: everything a person does without opening the Dagster UI."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import sys
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import click

# Products of matrices are small here, and the library's threads wait busily for the next one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from mlmon_dagster.commands.options import (
    AUTHOR,
    LEFT_OUT,
    Group,
    chosen_specs,
    examples,
    file_option,
    models_of,
    of_model,
    of_models,
    period,
    prints_table,
    refuse_past,
    told_of_strays,
)
from mlmon_dagster.commands.terminal import show_work
from mlmon_dagster.errors import ConfigError, MlmonError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec
    from mlmon_dagster.spec.checks import Problem
    from mlmon_dagster.store import Store
    from mlmon_dagster.tables.asked import Days
    from mlmon_dagster.tables.table import AnyAnswer

EXIT_CODES = """
\b
Exit codes:
  0  done, and nothing is wrong
  1  done, but something needs attention (files or rows refused, a run
     failed, an alert not delivered)
  2  the command, the spec or the environment is wrong (a full disk, a
     database that does not answer); repair it and run the command again
"""
MOST_SAMPLES = 20_000  # numbers of a window
_SLOTS = 33_000  # of a frame, eight bytes each


class Listed(NamedTuple):
    """A command as `mlmon --help` lists it.

    Attributes:
        line: What it does, in at most 64 characters.
        where: Module and name of a command that is imported once it is asked for; empty for one of
            this file.
    """

    line: str
    where: str = ""


_IN = "mlmon_dagster.commands"
# Every command, by what somebody is up to. The listing imports none of them.
SECTIONS: dict[str, dict[str, Listed]] = {
    "Start": {
        "demo": Listed("Monitor a real model on a year of real flights."),
        "init": Listed("Write the spec of a model from files of its events.", f"{_IN}.init:init"),
        "validate": Listed("Check models/*.yaml; every mistake with its line."),
        "schema": Listed("Print every key of a spec, for editors or people.", f"{_IN}.init:schema"),
        "ingest": Listed("Read new files and table rows."),
        "run": Listed("Read new events and compute; all models or some."),
        "dev": Listed("Start the Dagster UI and daemon on this project."),
    },
    "Every day": {
        "status": Listed("Show how all models are, or one of them.", f"{_IN}.tables:status"),
        "metrics": Listed("Show the metrics of a model.", f"{_IN}.tables:metrics"),
        "trace": Listed("Say why a metric changed.", f"{_IN}.trace:trace"),
        "rows": Listed("Show the rows behind an alert, or of a model.", f"{_IN}.rows:rows"),
        "labels": Listed(
            "Draw rows for people to label, and take the answers.", f"{_IN}.labels:labels"
        ),
        "report": Listed("Write the health report of a model as one HTML file."),
        "serve": Listed("Show models and alerts as web pages.", f"{_IN}.servers:serve"),
        "compare": Listed("Say whether another version is better.", f"{_IN}.tables:compare"),
        "effect": Listed("Say what latency, or another cause, costs.", f"{_IN}.tables:effect"),
        "budget": Listed("Say what is left of the error budgets.", f"{_IN}.tables:budget"),
        "skew": Listed("Compare served features with the training ones.", f"{_IN}.tables:skew"),
        "expectations": Listed(
            "Show what your Great Expectations found.", f"{_IN}.expectations:expectations"
        ),
        "backtest": Listed(
            "Show which alerts a spec would have opened.", f"{_IN}.backtest:backtest"
        ),
        "drill": Listed("Show how small a fault would be noticed.", f"{_IN}.drill:drill"),
    },
    "On call": {
        "alerts": Listed("Look at alerts, handle and deliver them.", f"{_IN}.alerts:alerts"),
        "event": Listed("Say what is known to happen, such as a promotion.", f"{_IN}.event:event"),
        "doctor": Listed("Say what is wrong with the installation and the store."),
        "watchdog": Listed("Exit with 1 if nobody dispatches alerts.", f"{_IN}.alerts:watchdog"),
    },
    "Administer": {
        "baseline": Listed(
            "See and change what windows are compared with.", f"{_IN}.model:baseline"
        ),
        "model": Listed("Reopen windows, see the history, remove a model.", f"{_IN}.model:model"),
        "store": Listed("Look into the tables, and keep them fit.", f"{_IN}.store:store"),
        "collect": Listed("Receive events over HTTP.", f"{_IN}.servers:collect"),
        "erase": Listed("Remove predictions for good.", f"{_IN}.erase:erase"),
        "backup": Listed("Copy state, tables and specs.", f"{_IN}.store:backup"),
        "restore": Listed("Fill an empty store from a backup.", f"{_IN}.store:restore"),
    },
}
COMMANDS = {name: listed for section in SECTIONS.values() for name, listed in section.items()}


class Commands(Group):
    """The commands of this file and of others, listed by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return every command's name, in the order of the sections."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, importing the file it lives in."""
        listed = COMMANDS.get(cmd_name)
        if listed is None or not listed.where:
            return super().get_command(ctx, cmd_name)
        module, _, name = listed.where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands of each section, without importing them."""
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, listed.line) for name, listed in section.items()], col_max=14
                )

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; one that left models out, since they do not load, does not end with 0."""
        try:
            result = super().invoke(ctx)
        except SystemExit as end:
            if end.code or not ctx.meta.get(LEFT_OUT):
                raise
        else:
            if not ctx.meta.get(LEFT_OUT):
                return result
        sys.exit(1)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES,
)
@click.option(
    "--project",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Folder with models/ and the state. [default: MLMON_PROJECT, else the current folder]",
)
@click.option(
    "--now",
    metavar="TIME",
    help="Do everything as of this moment, such as 2013-12-29T12:00:00Z. [default: now]",
)
@click.version_option(package_name="mlmon-dagster", prog_name="mlmon")
@click.pass_context
def cli(context: click.Context, project: Path | None, now: str | None) -> None:
    """Monitor machine-learning models in production.

    Declare each model in models/NAME.yaml, then validate, run and look.
    """
    from mlmon_dagster.project import parse_now, project_from_environment

    moment = parse_now(now) if now else None
    clock = (lambda: moment) if moment else None
    if "NO_COLOR" in os.environ:  # https://no-color.org
        context.color = False
    context.obj = project_from_environment(project, clock)
    _tell_of_killed_backups(context.obj)
    context.meta[AUTHOR] = os.environ.get("USER") or os.environ.get("USERNAME") or ""


def _tell_of_killed_backups(project: Project) -> None:
    """Say what is left of backups that were killed; only that a file is there asks for a look."""
    if not any(project.local_folder.glob(".backing-up-*")):
        return
    from mlmon_dagster.store.upkeep.backup import find_killed

    for killed in find_killed(project.local_folder):
        click.echo(
            f"mlmon: the backup {killed.text}, was killed: there is no backup of that name. What "
            f"it left is in {killed.work}; the next mlmon backup deletes it. Make it again.",
            err=True,
        )


def main() -> None:
    """Run the command line; an error a person can mend is a message, not a traceback."""
    # Python keeps frames of calls in pieces of 16 KB. What is called in a loop where one ends takes
    # a new piece of the system and gives it back at every call, twenty thousand times in a run. A
    # frame of so many slots lies in a piece of half a megabyte, and all calls after it beside it.
    roomy = _main.__code__.replace(co_stacksize=_SLOTS)
    FunctionType(roomy, globals())()


def _main() -> None:
    # Imports make hundreds of thousands of objects that stay: every 700 of them is too often to
    # look for garbage, which took a twelfth of a run, and ten looks are too few before one at all
    # that stayed.
    gc.set_threshold(20_000, 50)
    # Nor need it be searched for garbage when the process ends and drops it all: that took a sixth.
    atexit.register(gc.freeze)
    try:
        cli(prog_name="mlmon")
    except ConfigError as error:
        _end(str(error))
    except MlmonError as error:
        if not isinstance(error, StoreError):
            _end(str(error), code=1)
        from mlmon_dagster.commands.outside import sentence

        _end(sentence(error) or str(error))
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of native code is no Exception
        from mlmon_dagster.commands.outside import sentence

        text = sentence(error)
        if text is None:
            raise
        _end(text)


def _end(text: str, code: int = 2) -> NoReturn:
    """Say what is wrong, if there is somebody to say it to, and exit."""
    from mlmon_dagster.spec.scalars import printable

    with contextlib.suppress(OSError):
        click.echo("mlmon: " + "\n".join(map(printable, text.split("\n"))), err=True)
    sys.exit(code)


@cli.command(epilog=examples("mlmon validate"))
@click.pass_obj
def validate(project: Project) -> None:
    """Check models/*.yaml; every mistake with its file and line.

    Where there is a store, a change that its events do not allow is one of them. It also says what
    makes very many numbers of a window.
    """
    store = _store_that_is_there(project)
    found = models_of(
        project,
        lambda spec: _expectation_problems(spec) + _metric_problems(spec) + _changed(store, spec),
    )
    for spec in found.specs:
        click.echo(
            f"{spec.model}: ok ({spec.task}, {len(spec.logged_features)} features, "
            f"{spec.time.granularity} windows from {spec.time.start})"
        )
        if store is not None:
            _warn_of_samples(store, spec)
    _warn_of_notes(project.models_folder)
    _warn_of_outside(project, found.specs)
    if found.broken:
        raise ConfigError("\n".join(broken.problems for broken in found.broken))


def _warn_of_samples(store: Store, spec: ModelSpec) -> None:
    """Say what makes so many numbers of the newest window, if they are past the budget."""
    from mlmon_dagster.spec.names import listed
    from mlmon_dagster.store.state import metric_log

    n, of_slices = metric_log.count_newest(store.state, spec.model)
    if n <= MOST_SAMPLES:
        return
    judged = (
        f"monitors.drift.slices stores a distance of {len(spec.features):,} features in every "
        "slice; without it they are measured when somebody asks. "
        if spec.monitors.drift.slices
        else ""
    )
    keys = listed([",".join(key) for key in spec.slices])
    click.echo(
        f"mlmon: {spec.model} stores {n:,} numbers of a window, {of_slices:,} of them of slices; "
        f"more than {MOST_SAMPLES:,} make pages, queries and the state database slow. {judged}"
        f"Leave out slices with very many values (there are {keys}), or features that nobody "
        "looks at.",
        err=True,
    )


def _warn_of_notes(folder: Path) -> None:
    """Say what ``mlmon init`` left to a person in the specs, and is there still."""
    from mlmon_dagster.scaffold import notes_of

    for path in sorted(folder.glob("*.y*ml")):
        for note in notes_of(path.read_text(encoding="utf-8", errors="replace")):
            click.echo(f"{path.name}: to be decided: {note}. Then delete this line.", err=True)


def _warn_of_outside(project: Project, specs: Sequence[ModelSpec]) -> None:
    """Say which folders a cluster may not see."""
    from mlmon_dagster.commands.doctor import tell_of_outside

    if told := tell_of_outside(project, specs):
        click.echo(f"mlmon: {told}.", err=True)


def _store_that_is_there(project: Project) -> Store | None:
    """Open the store, if there is one; declarations can be right where it is out of reach."""
    homes = (Path(project.store_root), project.state_folder / "work")
    if project.db_url is None and not any((home / "state.db").exists() for home in homes):
        return None
    try:
        return project.store
    except MlmonError as error:
        click.echo(f"mlmon: not compared with the events that are stored: {error}", err=True)
        return None


def _changed(store: Store | None, spec: ModelSpec) -> list[Problem]:
    """Return what was changed as the stored events do not allow."""
    if store is None:
        return []
    from mlmon_dagster.spec.checks import Problem
    from mlmon_dagster.store.state.model_history import find_changed_keys

    return [
        Problem(tuple(key.split(".")), said) for key, said in find_changed_keys(store.state, spec)
    ]


def _expectation_problems(spec: ModelSpec) -> list[Problem]:
    if not spec.expectations:
        return []
    from mlmon_dagster.ingest.rows.expectations import expectation_problems

    return expectation_problems(spec)


def _metric_problems(spec: ModelSpec) -> list[Problem]:
    if not spec.metrics:
        return []
    from mlmon_dagster.families.custom import load_metrics
    from mlmon_dagster.spec.checks import Problem

    found = load_metrics(spec)
    return [Problem(("metrics", n), one.problem) for n, one in enumerate(found) if one.problem]


@cli.command(epilog=examples("mlmon ingest flight_delay"))
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--replay", metavar="HASH", help="Read one refused file, or its refused rows, again.")
@click.option("--retry", is_flag=True, help="Read everything again that was refused.")
@click.pass_obj
def ingest(project: Project, models: tuple[str, ...], replay: str | None, retry: bool) -> None:
    """Read the files and table rows that are new (of all models, or of some).

    Refused files and rows are kept. They are read again by themselves once the spec changes how
    they are read.
    """
    from mlmon_dagster.ingest import ingest_new, readers, render_report, replay_file

    if replay is not None and len(models) != 1:
        raise ConfigError("--replay needs the one MODEL whose file it is.")
    specs, is_clean = chosen_specs(project, models), True
    if replay is not None:
        replay_file(project.store, specs[0], replay, now=project.now())
    with show_work() as show:
        for spec in specs:
            if in_place := spec.source.predictions.in_place:
                from mlmon_dagster.warehouse.look import look_at_tables

                report = look_at_tables(project.find_owner(spec))
            else:
                report = ingest_new(
                    project.store, spec, project.folder, readers(project.variables),
                    now=project.now(), retry=retry, on_progress=show,
                )  # fmt: skip
            click.echo(f"{spec.model}: {render_report(report, in_place=in_place)}")
            is_clean &= not report.has_refusals
    if strays := told_of_strays(project, specs):
        click.echo(strays)
    sys.exit(0 if is_clean else 1)


@cli.command(epilog=examples("mlmon run", "mlmon run churn --from 2013-12-01 --to 2013-12-28"))
@of_models
@period
def run(project: Project, specs: list[ModelSpec], days: Days) -> None:
    """Read new events and compute, through Dagster, without a daemon.

    All models, or some. Without a period: every window whose inputs changed. With one: those
    windows, again. Many windows at once count as history, whose alerts are listed and not sent one
    by one. A model that cannot be computed stops no other one.
    """
    from mlmon_dagster.commands.run import run_models

    sys.exit(0 if run_models(project, specs, days) else 1)


@cli.command(epilog=examples("mlmon report flight_delay --output health.html"))
@of_model
@file_option("--output", "Where to. [default: .mlmon/reports/MODEL/health.html of the project]")
def report(project: Project, spec: ModelSpec, output: Path | None) -> None:
    """Write the health report of MODEL: one HTML file, for people and archives."""
    from mlmon_dagster.report.health import write_health_report

    refuse_past(project, spec)
    try:
        made, path = write_health_report(project, spec, output)
    except OSError as error:
        raise ConfigError(f"The report cannot be written: {error}") from error
    click.echo(f"{spec.model}: {made.status}, {made.alerts.text}. {path}")


@cli.command(epilog=examples("mlmon demo", "mlmon demo --story support"))
@click.option("--again", is_flag=True, help="Remove what an earlier demo left and start over.")
@click.option(
    "--story",
    type=click.Choice(["flights", "support"]),
    default="flights",
    show_default=True,
    help="A classifier's year, or a quarter of an assistant.",
)
@click.pass_obj
def demo(project: Project, again: bool, story: str) -> None:
    """Monitor a real model on a year of real flights, from training to alerts.

    The other story is of an assistant that real customers of a bank ask: what people, a judge and
    customers say about its answers, and a launch that it knows nothing about.
    """
    if story == "support":
        from mlmon_dagster.demo.assistant_story import tell as tell_support

        sys.exit(0 if tell_support(project, again=again) else 1)
    from mlmon_dagster.demo.story import tell

    sys.exit(0 if tell(project, again=again) else 1)


@cli.command(epilog=examples("mlmon dev --port 3000"))
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.pass_obj
def dev(project: Project, port: int, host: str) -> None:
    """Start the Dagster UI and daemon on this project."""
    from mlmon_dagster.commands.dev import start_dagster

    start_dagster(project, host, port)


@cli.command(epilog=examples("mlmon doctor --deep", "mlmon doctor --engine spark"))
@click.option("--deep", is_flag=True, help="Also read every table's log and open every live file.")
@click.option(
    "--engine",
    is_flag=False,
    flag_value="",
    metavar="[ENGINE]",
    help="Instead, have every worker of an engine do a small part, and list the workers: local, "
    "ray, spark or an address; without one, those that models and MLMON_ENGINE name.",
)
@prints_table
@click.pass_obj
def doctor(project: Project, deep: bool, engine: str | None) -> AnyAnswer:
    """Say what is wrong with the installation and the store, and how to repair it."""
    from mlmon_dagster.commands.doctor import examine, render_findings
    from mlmon_dagster.tables.table import Answer, Table

    if engine is not None:
        from mlmon_dagster.commands.workers import answer_of_workers

        return answer_of_workers(project, models_of(project).specs, engine)
    findings = examine(project, is_deep=deep)
    is_fine = all(finding.is_fine for finding in findings)
    text = render_findings(findings)
    return Answer(Table("findings", ()), findings, text=text, exit_code=0 if is_fine else 1)


if __name__ == "__main__":
    main()
