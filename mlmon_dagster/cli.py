"""The command line: everything a person does without opening the Dagster UI."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlmon_dagster.errors import ConfigError, MlmonError

if TYPE_CHECKING:
    from mlmon_dagster.defs.resources import Project
    from mlmon_dagster.spec import ModelSpec

EXIT_CODES = """
\b
Exit codes:
  0  done, and nothing is wrong
  1  done, but something needs attention (files quarantined, a run failed, an alert not delivered)
  2  the command, the spec or the environment is wrong; nothing was changed
"""


def _group(**options: Any) -> Callable[[Callable[..., Any]], click.Group]:
    return click.group(context_settings={"help_option_names": ["-h", "--help"]}, **options)


@_group(epilog=EXIT_CODES)
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
    from mlmon_dagster.defs.resources import parse_now, project_from_environment

    moment = parse_now(now) if now else None
    clock = (lambda: moment) if moment else None
    context.obj = project_from_environment(project, clock)


def main() -> None:
    """Run the command line; an error a person can mend is a message, not a traceback."""
    try:
        cli(prog_name="mlmon")
    except ConfigError as error:
        click.echo(f"mlmon: {error}", err=True)
        sys.exit(2)
    except MlmonError as error:
        click.echo(f"mlmon: {error}", err=True)
        sys.exit(1)


def _specs(project: Project) -> list[ModelSpec]:
    from mlmon_dagster.spec import load_models

    return load_models(project.models_folder)


def _spec(project: Project, model: str) -> ModelSpec:
    specs = {spec.model: spec for spec in _specs(project)}
    if model not in specs:
        raise ConfigError(
            f"No model {model!r} in {project.models_folder}. There are: {', '.join(sorted(specs))}."
        )
    return specs[model]


def _day(_context: click.Context, _option: click.Parameter, text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a day such as 2013-12-29") from error


def _period(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --from and --to, both days of the model's zone and both included."""
    last = click.option("--to", "last", callback=_day, metavar="DAY", help="Last day, included.")
    first = click.option("--from", "first", callback=_day, metavar="DAY", help="First day.")
    return first(last(command))


@cli.command(epilog="Example: mlmon validate")
@click.pass_obj
def validate(project: Project) -> None:
    """Check models/*.yaml; every mistake with its file and line."""
    for spec in _specs(project):
        click.echo(
            f"{spec.model}: ok ({spec.task}, {len(spec.features)} features, "
            f"{spec.time.granularity} windows from {spec.time.start})"
        )


@cli.command(epilog="Example: mlmon ingest flight_delay")
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--replay", metavar="HASH", help="Read a quarantined file of MODEL again.")
@click.pass_obj
def ingest(project: Project, models: tuple[str, ...], replay: str | None) -> None:
    """Take in the landing files that are new (of all models, or of some)."""
    from mlmon_dagster.ingest import ingest_new, render_report, replay_file

    if replay is not None:
        if len(models) != 1:
            raise ConfigError("--replay needs the one MODEL whose file it is.")
        replay_file(project.store, _spec(project, models[0]), replay, now=project.now())
    is_clean = True
    for spec in [_spec(project, name) for name in models] or _specs(project):
        report = ingest_new(project.store, spec, project.folder, now=project.now())
        click.echo(f"{spec.model}: {render_report(report)}")
        is_clean &= not any(file.status == "quarantined" for file in report.files)
    sys.exit(0 if is_clean else 1)


@cli.command(epilog="Example: mlmon run flight_delay --from 2013-12-01 --to 2013-12-28")
@click.argument("model")
@_period
@click.pass_obj
def run(project: Project, model: str, first: dt.date | None, last: dt.date | None) -> None:
    """Take in what is new and compute MODEL through Dagster, without a daemon.

    Without a period: every window whose inputs changed. With one: those windows, again. Many
    windows at once count as history, whose alerts are listed and not sent one by one.
    """
    from mlmon_dagster.commands.run import run_model

    sys.exit(0 if run_model(project, _spec(project, model), first, last) else 1)


@cli.command(
    epilog="Example: mlmon metrics flight_delay --metric roc_auc --granularity month --format csv"
)
@click.argument("model")
@click.option("--metric", multiple=True, help="Only this metric; may be repeated.")
@click.option("--column", multiple=True, help="Only this column; may be repeated.")
@click.option("--slice", "slice_", metavar="KEY=VALUE", help="One slice. [default: everything]")
@click.option(
    "--granularity",
    type=click.Choice(["hour", "day", "week", "month"]),
    help="Longer windows are merged from the stored profiles. [default: the model's]",
)
@_period
@click.option("--format", "format_", type=click.Choice(["table", "csv", "json"]), default="table")
@click.pass_obj
def metrics(project: Project, /, model: str, format_: str, **wanted: Any) -> None:
    """Show the newest metrics of MODEL."""
    from mlmon_dagster.commands.metrics import query_metrics, render

    frame = query_metrics(project, _spec(project, model), **wanted)
    click.echo(render(frame, format_))
    if frame.empty:
        click.echo("mlmon: no such metrics; see which there are without filters.", err=True)


@cli.command(epilog="Example: mlmon report flight_delay --out health.html")
@click.argument("model")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to. [default: .mlmon/reports/MODEL/health.html of the project]",
)
@click.pass_obj
def report(project: Project, model: str, out: Path | None) -> None:
    """Write the health report of MODEL: one HTML file, for people and archives."""
    from mlmon_dagster.commands.report import make_report

    click.echo(make_report(project, _spec(project, model), out))


@cli.group()
def alerts() -> None:
    """Look at alerts and deliver them."""


@alerts.command("list", epilog="Example: mlmon alerts list --model flight_delay --firing")
@click.option("--model", help="Only of this model.")
@click.option("--firing", is_flag=True, help="Only what is firing now.")
@click.pass_obj
def alerts_list(project: Project, model: str | None, firing: bool) -> None:
    """List alerts and their episodes, newest first."""
    from mlmon_dagster.commands.alerts import render_alerts

    click.echo(render_alerts(project, model, firing))


@alerts.command("deliver", epilog="Example: mlmon alerts deliver")
@click.pass_obj
def alerts_deliver(project: Project) -> None:
    """Turn new verdicts into alerts and send what is due, as the dispatcher sensor does."""
    from mlmon_dagster.commands.alerts import deliver_now

    sys.exit(0 if deliver_now(project, _specs(project)) else 1)


@alerts.command("test", epilog="Example: mlmon alerts test --channel '#ml-alerts'")
@click.option("--channel", help="Where to. [default: every channel that the models name]")
@click.pass_obj
def alerts_test(project: Project, channel: str | None) -> None:
    """Send one test message, and say plainly what is wrong if that fails."""
    from mlmon_dagster.commands.alerts import send_tests

    sys.exit(0 if send_tests(project, _specs(project), channel) else 1)


@cli.command(epilog="Example: mlmon demo")
@click.option("--again", is_flag=True, help="Remove what an earlier demo left and start over.")
@click.pass_obj
def demo(project: Project, again: bool) -> None:
    """Monitor a real model on a year of real flights, from training to alerts."""
    from mlmon_dagster.demo.story import tell

    sys.exit(0 if tell(project, again=again) else 1)


@cli.command(epilog="Example: mlmon dev --port 3000")
@click.option("--port", default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.pass_obj
def dev(project: Project, port: int, host: str) -> None:
    """Start the Dagster UI and daemon on this project."""
    from mlmon_dagster.commands.dev import start_dagster

    start_dagster(project, host, port)


@cli.command(epilog="Example: mlmon doctor")
@click.pass_obj
def doctor(project: Project) -> None:
    """Say what is wrong with the installation, and how to mend it."""
    from mlmon_dagster.commands.doctor import examine, render_findings

    findings = examine(project)
    click.echo(render_findings(findings))
    sys.exit(0 if all(finding.is_fine for finding in findings) else 1)


if __name__ == "__main__":
    main()
