"""What the site of the documentation takes from the program: its commands, and its tables.

A line ``::: table NAME ARGUMENTS`` of a page becomes the table of that name, so that what the
program says of itself (reasons, metrics, columns, series) is written once, beside the code.
``::: keys PART`` becomes the keys of a part of the spec with their defaults and meanings,
``::: defaults`` with the list below it what monitors check without being asked to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from mlmon_dagster.cli import COMMANDS, cli
from mlmon_dagster.spec.files.meanings import (
    explain_keys,
    find_fields,
    find_part,
    write_default,
    write_value,
)
from mlmon_dagster.spec.monitors import Monitors

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^::: table (.+)$", re.MULTILINE)
KEYS = re.compile(r"^::: keys (.+)$", re.MULTILINE)
DEFAULTS = re.compile(r"^::: defaults\n((?:- .+\n)+)", re.MULTILINE)
PLACE = re.compile(r"^- `(monitors\.\w+\.\w+)`: (.+)$", re.MULTILINE)


def on_startup(*, command: Literal["build", "gh-deploy", "serve"], dirty: bool) -> None:
    """Load the commands that are imported when they are asked for, so that all are listed."""
    import click

    for name in COMMANDS:
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        cli.add_command(found, name)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Return a page with its tables."""
    return fill_tables(markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Return a page without what Click calls an option that has no default."""
    return html.replace("<code>Sentinel.UNSET</code>", "")


def fill_tables(markdown: str) -> str:
    """Replace what names a table, or lists keys, by the table.

    Raises:
        KeyError: If there is no such table, part of the spec or key.
    """

    def fill_table(found: re.Match[str]) -> str:
        name, *arguments = found[1].split()
        return "\n".join(TABLES[name](*arguments))

    def fill_keys(found: re.Match[str]) -> str:
        return "\n".join(list_keys(found[1]))

    def fill_defaults(found: re.Match[str]) -> str:
        return "\n".join(list_defaults(found[1])) + "\n"

    markdown = DEFAULTS.sub(fill_defaults, markdown)
    return KEYS.sub(fill_keys, LINE.sub(fill_table, markdown))


def list_keys(part: str) -> Iterator[str]:
    """Yield the keys of a part of the spec with their defaults and what the page says of them."""
    rows = ((f"`{key}`", default, text) for key, default, text in explain_keys(part))
    return list_rows("key, default, meaning", rows)


def list_defaults(listed: str) -> Iterator[str]:
    """Yield what monitors check without being asked to, with its limit and where to change it."""
    rows = []
    for path, what in PLACE.findall(listed):
        _, family, key = path.split(".")
        found = getattr(Monitors(), "schema_" if family == "schema" else family)
        field = find_fields(find_part(f"monitors.{family}"))[key]
        if isinstance(found, tuple):  # a model's task chooses among some of these
            limit = write_value(getattr(found[0], key)) if found else write_default(field)
        else:
            limit = write_value(getattr(found, key))
        rows.append((what, limit, f"`{path}`"))
    return list_rows("what, default, change it under", rows)


def list_rows(head: str, rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    titles = head.split(", ")
    yield f"| {' | '.join(titles)} |"
    yield "|" + "---|" * len(titles)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


def list_metrics(task: str) -> Iterator[str]:
    """Yield the metrics of a task, or of the family business."""
    from mlmon_dagster.spec.metric_registry import METRICS

    ends = {float("inf"): "inf", float("-inf"): "-inf"}
    found = [
        info
        for info in METRICS.values()
        if (task == info.family if task == "business" else task in info.tasks)
        and (task == "business") == (info.family == "business")
    ]
    return list_rows(
        "metric, formula, better, unit, range",
        (
            (f"`{i.name}`", i.formula, i.better, i.unit,
             " to ".join(ends.get(end, f"{end:g}") for end in (i.low, i.high)))
            for i in found
        ),
    )  # fmt: skip


def list_reasons(kind: str) -> Iterator[str]:
    """Yield the reason codes of refused rows or files, and what to do."""
    from mlmon_dagster.ingest.report import FILE_REASONS, ROW_REASONS

    reasons = {"rows": ROW_REASONS, "files": FILE_REASONS}[kind]
    return list_rows("code, what to do", ((f"`{c}`", f"{todo}.") for c, todo in reasons.items()))


def list_key_changes() -> Iterator[str]:
    """Yield what follows when a key of a spec changes; keys with one answer share a row."""
    from mlmon_dagster.spec.changes import RULES

    rows: dict[tuple[str, str], list[str]] = {}
    rest: dict[tuple[str, str], list[str]] = {}
    for rule in RULES:
        answer = (rule.effect, rule.how)
        cells = rows.setdefault(answer, [])
        if len(rule.keys) > 3 and rule.where.startswith(("monitors.", "source.")):
            # Every key of the place has a row, so these are those without a row of their own.
            rest.setdefault(answer, []).append(f"`{rule.where}`")
            continue
        place = f"`{rule.where}`: " if rule.where else ""
        cells.append(place + ", ".join(f"`{key}`" for key in rule.keys))
    for answer, others in rest.items():
        rows[answer].append(f"all other keys of {', '.join(others)}")
    return list_rows(
        "key, a change is, that means",
        (("; ".join(cells), effect, f"{how}.") for (effect, how), cells in rows.items()),
    )


def list_columns(view: str, *left_out: str) -> Iterator[str]:
    """Yield the columns of a view of the state database, but those of the views that are named."""
    from mlmon_dagster.store.state import schema

    known = {column.name for other in left_out for column in getattr(schema, other).c}
    names = [c.name for c in getattr(schema, view).c if c.name not in known]
    yield ", ".join(f"`{name}`" for name in names)


def list_series() -> Iterator[str]:
    """Yield the series that are exported for Prometheus."""
    from mlmon_dagster.tables.openmetrics import ABOUT

    return list_rows("series, what it is", ((f"`{name}`", about) for name, about in ABOUT.items()))


def list_variables() -> Iterator[str]:
    """Yield the environment variables of `.env.example`; those below one comment share it."""
    about: list[str] = []
    rows: list[tuple[str, str, str]] = []
    is_below = False
    for line in (ROOT / ".env.example").read_text().splitlines():
        if found := re.match(r"#(MLMON_\w+)=(.*)", line):
            rows.append((f"`{found[1]}`", " ".join(about), f"`{found[2]}`"))
            is_below = True
        elif line.startswith("# "):
            about = [line[2:]] if is_below else [*about, line[2:]]
            is_below = False
        elif not line:
            about = []
    return list_rows("variable, meaning, example", rows)


TABLES: dict[str, Callable[..., Iterator[str]]] = {
    "metrics": list_metrics,
    "reasons": list_reasons,
    "key-changes": list_key_changes,
    "columns": list_columns,
    "series": list_series,
    "variables": list_variables,
}
