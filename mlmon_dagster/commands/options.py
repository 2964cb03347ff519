"""What commands share: arguments and options, the moments in them, and how tables are printed."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.terminal import color_verdicts
from mlmon_dagster.errors import ConfigError, MlmonError
from mlmon_dagster.spec import ModelSpec, read_models
from mlmon_dagster.spec.names import did_you_mean
from mlmon_dagster.tables.asked import Days

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import Models
    from mlmon_dagster.spec.checks import Problem
    from mlmon_dagster.tables.table import AnyAnswer

LEFT_OUT = "mlmon.left_out"  # of the context: whether models were, since they do not load
AUTHOR = "mlmon.author"  # of the context: who types, as the environment says
FORMATS = ("text", "json", "csv")
WRITE_TO = "Write to this file instead of the terminal."
_DURATION = re.compile(r"[0-9.]+\s*[smhdw]")


def examples(*commands: str) -> str:
    """Return what ends the help of a command: examples, each in a line of its own."""
    head = "Example:" if len(commands) == 1 else "Examples:"
    return "\n".join(["\b", head, *(f"  {command}" for command in commands)])


class Group(click.Group):
    """A group that lists what each command does in full, and knows what a misspelt one meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that was asked for; one that does not exist fails with the nearest."""
        name = args[0]
        is_option = name.startswith("-")
        if not (is_option or ctx.resilient_parsing or self.get_command(ctx, name)):
            ctx.fail(f"No such command '{name}'{self._suggest(ctx, name)}")
        return super().resolve_command(ctx, args)

    def _suggest(self, ctx: click.Context, name: str) -> str:
        """Say which command a name may mean: one of a group that is called so, or the nearest."""
        names = self.list_commands(ctx)
        groups = [(one, self.get_command(ctx, one)) for one in names]
        inside = [
            f"'{one} {name}'"
            for one, group in groups
            if isinstance(group, click.Group) and name in group.list_commands(ctx)
        ]
        if inside:
            return f"; did you mean {' or '.join(inside)}?"
        return did_you_mean(name, names) or "."

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
    from mlmon_dagster.spec.files.loader import no_models

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
    return _checked(project, models_of(project).find(model))


def refuse_past(project: Project, spec: ModelSpec) -> None:
    """Refuse a moment that somebody named and that files were read after.

    Pages and rows show what is known, and would mix it with what was known at that moment.

    Raises:
        ConfigError: If that is so.
    """
    from mlmon_dagster.project import wall_clock
    from mlmon_dagster.store.state.manifest import load_last_finished

    now = project.now()
    last = load_last_finished(project.store.state, spec.model)
    if project.now is not wall_clock and last is not None and now < last:
        asked, read = (moment.isoformat(timespec="seconds") for moment in (now, last))
        raise ConfigError(
            f"--now {asked} lies before {read}, when files of {spec.model} were read last, and "
            f"this command shows what is known of them. Leave --now out. Numbers as they were "
            f"known then: mlmon metrics {spec.model} --as-of {asked}"
        )


def of_model(command: Callable[..., object]) -> Callable[..., object]:
    """Add MODEL, and hand over the project and what the model declares."""

    @click.argument("model")
    @click.pass_obj
    @wraps(command)
    def run(project: Project, /, model: str, **named: object) -> object:
        return command(project, spec_of(project, model), **named)

    return run


def of_models(command: Callable[..., object]) -> Callable[..., object]:
    """Add [MODEL]..., and hand over the project and what these declare; all models by default."""

    @click.argument("models", nargs=-1, metavar="[MODEL]...")
    @click.pass_obj
    @wraps(command)
    def run(project: Project, /, models: Sequence[str], **named: object) -> object:
        return command(project, chosen_specs(project, models), **named)

    return run


def chosen_specs(project: Project, names: Sequence[str]) -> list[ModelSpec]:
    """Return some models of a project, or all of them if none is named."""
    return [spec_of(project, name) for name in names] or specs_of(project)


def period(command: Callable[..., object]) -> Callable[..., object]:
    """Add --from and --to, handed over as ``days``."""

    @click.option("--from", "first", callback=_day, metavar="DAY", help="First day.")
    @click.option("--to", "last", callback=_day, metavar="DAY", help="Last day, included.")
    @wraps(command)
    def run(*given: object, first: dt.date | None, last: dt.date | None, **named: object) -> object:
        return command(*given, days=Days(first, last), **named)

    return run


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


def declared_specs(project: Project) -> Sequence[ModelSpec]:
    """Return the models that are declared and load; none is no mistake here."""
    try:
        return models_of(project).specs
    except MlmonError:  # alerts outlive their models
        return ()


def file_option(
    name: str, text: str, *, required: bool = False
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add an option that names a file to be written; ``--output`` is ``-o``, too."""
    kind = click.Path(dir_okay=False, path_type=Path)
    names = ("-o", name) if name == "--output" else (name,)
    return click.option(*names, type=kind, metavar="FILE", help=text, required=required)


def output_options(
    *more_formats: str,
) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """Add --format and --output to a command that prints a table.

    Args:
        *more_formats: Formats that only this command has.
    """

    def add(command: Callable[..., object]) -> Callable[..., object]:
        where = file_option("--output", WRITE_TO)
        how = click.option(
            "--format",
            "format_",
            type=click.Choice([*FORMATS, *more_formats]),
            default="text",
            show_default=True,
            help="json: one object a line. csv: safe to open in a spreadsheet.",
        )
        return how(where(command))

    return add


def prints_table(command: Callable[..., AnyAnswer | None]) -> Callable[..., object]:
    """Let a command answer with a table: add --format and --output, and print what it returns.

    What it returns None for it has printed itself.
    """

    @wraps(command)
    def run(*given: object, format_: str, output: Path | None, **named: object) -> None:
        answer = command(*given, **named)
        if answer is not None:
            print_answer(answer, format_, output)

    return output_options()(run)


def print_answer(answer: AnyAnswer, format_: str, output: Path | None) -> None:
    """Print an answer in the format that was asked for, and end as it says."""
    from mlmon_dagster.tables.rendering import render

    text = render(answer, format_)
    is_for_people = format_ == "text" and output is None
    print_text(color_verdicts(text) if is_for_people else text, output)
    if answer.note:
        click.echo(answer.note, err=True)
    if answer.exit_code:
        raise click.exceptions.Exit(answer.exit_code)


def print_text(text: str, output: Path | None) -> None:
    """Print a text, or write it to a file; an empty one prints nothing."""
    with open_output(output) as say:
        if text:
            say(text)


@contextmanager
def open_output(output: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield what prints text line by line: to the terminal, or to a file that appears when whole.

    Raises:
        ConfigError: If the file cannot be written.
    """
    if output is None:
        yield click.echo
        return
    from mlmon_dagster.store.places.location import whole_file

    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(output) as draft, draft.open("w", encoding="utf-8") as file:
            yield partial(print, file=file)
    except OSError as error:
        raise ConfigError(f"{output} cannot be written: {error}") from error
    click.echo(f"Written: {output}", err=True)
