"""What a terminal shows and a pipe or a file does not: colours, and what is being done."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from mlmon_dagster.spec import ModelSpec

OnStep = Callable[[ModelSpec, str], None]  # called with a model, and the step of it that begins
_COLOURS = {
    "red": r"\b(?:ERROR|BROKEN)\b|^FIX\b|\b[1-9][\d,]* errors?\b",
    "yellow": r"\bWARN\b|\b[1-9][\d,]* warnings?\b",
    "cyan": r"\bNO_DATA\b",
    "green": r"\bOK\b|^ok\b",
}
_VERDICT = re.compile("|".join(f"(?P<{one}>{said})" for one, said in _COLOURS.items()), re.M)


def color_verdicts(text: str) -> str:
    """Return a text with its verdicts in colour; `click.echo` takes it off again in a pipe."""
    return _VERDICT.sub(lambda found: click.style(found[0], fg=found.lastgroup), text)


def print_step(_spec: ModelSpec, step: str) -> None:
    """Print which step begins, in a line of its own."""
    click.echo(f"  {step}")


@contextmanager
def show_steps() -> Iterator[OnStep]:
    """Yield what says which step of a model begins: in a line each, or as `show_work` does."""
    if not sys.stdout.isatty():
        yield print_step
        return
    with show_work() as show:
        yield lambda spec, step: show(f"{spec.model}: {step}")


@contextmanager
def show_work() -> Iterator[Callable[[str], None]]:
    """Yield what says what is being done, in a line that changes; to nobody but a terminal."""
    if not sys.stdout.isatty():
        yield lambda _text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console().status("") as line:
        yield lambda text: line.update(Text(text))
