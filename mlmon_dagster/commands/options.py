"""Arguments and options that several commands share, and the days and moments in them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, read_models

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import Models
    from mlmon_dagster.spec.checks import Problem

LEFT_OUT = "mlmon.left_out"  # of the context: whether models were, since they do not load
AUTHOR = "mlmon.author"  # of the context: who types, as the environment says
_DURATION = re.compile(r"[0-9.]+\s*[smhdw]")


def examples(*commands: str) -> str:
    """Return what ends the help of a command: examples, each in a line of its own."""
    head = "Example:" if len(commands) == 1 else "Examples:"
    return "\n".join(["\b", head, *(f"  {command}" for command in commands)])


class Group(click.Group):
    """A group whose listing says what each command does in full."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; a long line is wrapped and not cut."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=400)) for n, c in found if c])


def author_option(command: Callable[..., object]) -> Callable[..., object]:
    """Add --author, by default the user who is logged in."""
    return click.option(
        "--author", callback=_author, metavar="NAME", help="Who says so. [default: $USER]"
    )(command)


def _author(context: click.Context, _option: click.Parameter, name: str | None) -> str:
    author = (name or context.meta.get(AUTHOR, "")).strip()
    if not author:
        raise click.BadParameter("say who you are: --author NAME (USER is not set)")
    return author


def models_of(
    project: Project, more_problems: Callable[[ModelSpec], Sequence[Problem]] = lambda _: ()
) -> Models:
    """Return what a project declares, and the files that do not load.

    Args:
        project: The project.
        more_problems: Finds what only libraries can tell that loading does not import.

    Raises:
        ConfigError: If it declares nothing at all.
    """
    from mlmon_dagster.spec.loader import no_models

    found = read_models(
        project.models_folder, project.now(), more_problems, project.known_specs
    ).under(project.key_prefix)
    if not found.specs and not found.broken:
        raise no_models(project.models_folder)
    return found


def specs_of(project: Project) -> list[ModelSpec]:
    """Return every model of a project that loads.

    Of the others, and of those that were changed as their stored events do not allow, it is said
    that they are left out, and the command's exit code is at least 1.

    Raises:
        ConfigError: If none is left.
    """
    found = models_of(project)
    if not found.specs:
        raise ConfigError("\n".join(broken.problems for broken in found.broken))
    problems = [f"does not load: {broken.summary()}" for broken in found.broken]
    specs = []
    for spec in found.specs:
        try:
            specs.append(_checked(project, spec))
        except ConfigError as error:
            problems.append(str(error))
    if not specs:
        raise ConfigError("\n".join(problems))
    for problem in problems:
        click.echo(f"mlmon: left out, {problem}", err=True)
    if problems and (context := click.get_current_context(silent=True)):
        context.meta[LEFT_OUT] = True
    return specs


def _checked(project: Project, spec: ModelSpec) -> ModelSpec:
    from mlmon_dagster.store.state.model_history import check_declared

    check_declared(project.store.state, spec)
    return spec


def told_of_strays(project: Project, specs: list[ModelSpec]) -> str:
    """Say which files beside the landing files of some models nobody reads; empty if none."""
    from mlmon_dagster.ingest import stray_files, told_of

    every = models_of(project).specs
    return told_of(stray_files(project.store, project.folder, specs, every), specs)


def spec_of(project: Project, model: str) -> ModelSpec:
    """Return one model of a project, whatever is wrong with others.

    Raises:
        ConfigError: If there is none of that name, it does not load, or it was changed in a way
            that its stored events do not allow.
    """
    found = models_of(project)
    for spec in found.specs:
        if spec.model == model:
            return _checked(project, spec)
    for broken in found.broken:
        if model in (broken.name, broken.path.stem):
            raise ConfigError(f"{model} does not load:\n{broken.problems}")
    said = f"No model {model!r} in {project.models_folder}."
    if found.specs:
        said += f" There are: {', '.join(spec.model for spec in found.specs)}."
    if found.broken:
        said += f" Not loaded: {', '.join(broken.path.name for broken in found.broken)}."
    raise ConfigError(said)


def period(command: Callable[..., object]) -> Callable[..., object]:
    """Add --from and --to, both days of the model's zone and both included."""
    last = click.option("--to", "last", callback=_day, metavar="DAY", help="Last day, included.")
    first = click.option("--from", "first", callback=_day, metavar="DAY", help="First day.")
    return first(last(command))


def as_of(command: Callable[..., object]) -> Callable[..., object]:
    """Add --as-of, a past moment; without an offset it is UTC."""
    text = "As it was known at this moment, such as 2013-12-29T12:00:00Z. [default: now]"
    return click.option("--as-of", "as_of", callback=_moment, metavar="TIME", help=text)(command)


def _moment(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> dt.datetime | None:
    from mlmon_dagster.project import parse_now

    return None if text is None else parse_now(text)


def _day(_context: click.Context, _option: click.Parameter, text: str | None) -> dt.date | None:
    if text is None:
        return None
    try:
        return dt.date.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is not a day such as 2013-12-29") from error


def past(context: click.Context, _option: click.Parameter, text: str | None) -> dt.datetime | None:
    """Read a moment; a duration such as 7d is that long before now."""
    return _relative(context, text, sign=-1)


def future(
    context: click.Context, _option: click.Parameter, text: str | None
) -> dt.datetime | None:
    """Read a moment; a duration such as 2h is that long from now."""
    return _relative(context, text, sign=1)


def _relative(context: click.Context, text: str | None, sign: int) -> dt.datetime | None:
    from mlmon_dagster.project import parse_now
    from mlmon_dagster.spec.scalars import parse_duration

    if text is None:
        return None
    try:
        if _DURATION.fullmatch(text.strip()):
            now: dt.datetime = context.obj.now()
            return now + sign * parse_duration(text)
        return parse_now(text)
    except (ConfigError, ValueError) as error:
        raise click.BadParameter(
            f"{text!r} is neither a day such as 2013-12-29, a time such as 2013-12-29T12:00:00Z, "
            "nor a duration such as 2h or 7d"
        ) from error
