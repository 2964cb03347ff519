"""What a terminal shows and a pipe or a file does not: colours, and how far a run is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.steps import REPORTED, assets_of

OnStep = Callable[[ModelSpec, str], None]  # called with a model, and the step of it that begins
_COLOURS = {
    "red": r"\b(?:ERROR|BROKEN)\b|^FIX\b|\b[1-9][\d,]* errors?\b",
    "yellow": r"\bWARN\b|\b[1-9][\d,]* warnings?\b",
    "cyan": r"\bNO_DATA\b",
    "green": r"\bOK\b|^ok\b",
}
# How long a step takes beside the others, as measured where 60 days came at once; reports come on
# top of that. Nothing but the time left depends on it.
_WEIGHTS = {"event_log": 12, "inference_store": 3}
_BEFORE_REPORTS = 0.9
_VERDICT = re.compile("|".join(f"(?P<{one}>{said})" for one, said in _COLOURS.items()), re.M)


def color_verdicts(text: str) -> str:
    """Return a text with its verdicts in colour; `click.echo` takes it off again in a pipe."""
    return _VERDICT.sub(lambda found: click.style(found[0], fg=found.lastgroup), text)


def print_step(_spec: ModelSpec, step: str) -> None:
    """Print which step begins, in a line of its own."""
    click.echo(f"  {step}")


@contextmanager
def show_steps(specs: Sequence[ModelSpec]) -> Iterator[OnStep]:
    """Yield what says which step of a model begins.

    A line a step; on a terminal one line that changes, with the time left. What is printed
    meanwhile stands above it.

    Args:
        specs: The models in the order in which they are run.
    """
    if not sys.stdout.isatty():
        yield print_step
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    # From the pace since the start: a step may take longer than the half minute that rich looks at.
    with Progress(*columns, transient=True, refresh_per_second=2, speed_estimate_period=1e9) as bar:
        task = bar.add_task("", total=len(specs))

        def show(spec: ModelSpec, step: str) -> None:
            share = _share_before(spec, step)
            done = None if share is None else specs.index(spec) + share
            # Shown at once: a step may be over before the line would change by itself.
            bar.update(task, description=f"{spec.model}: {step}", completed=done, refresh=True)

        yield show


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


def _share_before(spec: ModelSpec, step: str) -> float | None:
    """Return which share of a model's work comes before a step; None for checks, which are quick.

    A report may not be due: what comes before all reports counts as nearly all.
    """
    if step in REPORTED:
        return _BEFORE_REPORTS
    names = [info.name for info in assets_of(spec) if info.name not in REPORTED]
    if step not in names:
        return None
    weights = [_WEIGHTS.get(name, 1) for name in names]
    return _BEFORE_REPORTS * sum(weights[: names.index(step)]) / sum(weights)
