"""``mlmon drill``: which faults of a model would be noticed, from which size on, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import (
    examples,
    of_model,
    open_output,
    output_options,
    print_answer,
)
from mlmon_dagster.drill.drill import Drill, Finding, Subject
from mlmon_dagster.drill.faults import FAULTS, NAMES, Fault
from mlmon_dagster.drill.trial import HORIZON
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.tables.table import Answer, Table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project

NOT_NOTICED = "not noticed"
_BY_NAME: dict[str, Fault] = {fault.name: fault for fault in FAULTS}


def _listed(_context: click.Context, _option: click.Parameter, text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


@click.command(epilog=examples("mlmon drill flight_delay --columns temp,dest --faults nulls,shift"))
@of_model
@click.option("--columns", callback=_listed, metavar="NAMES", help="Only these, by comma.")
@click.option("--faults", callback=_listed, metavar="NAMES", help="Only these, by comma.")
@click.option(
    "--windows",
    "n_windows",
    type=click.IntRange(3, 60),
    default=14,
    show_default=True,
    help="Healthy windows that each fault is tried in, at most.",
)
@click.option("--seed", default=0, show_default=True, help="Which rows a fault hits.")
@output_options()
def drill(
    project: Project,
    spec: ModelSpec,
    columns: list[str],
    faults: list[str],
    n_windows: int,
    seed: int,
    format_: str,
    output: Path | None,
) -> None:
    """Show how small a fault MODEL's monitors would notice, and how fast.

    Standard faults (nulls, values out of range, codes never seen, a shift, another unit, exchanged
    codes, a stuck value, wrong ground truth, slow or failing requests, missing rows, a late feed)
    are put in growing size into copies of the model's newest healthy windows, and judged by its
    own monitors and baseline as they are declared now. Nothing is stored or sent, so edit a
    threshold, look, and edit again.
    """
    subjects = _subjects(project, spec, columns, faults, n_windows, seed)
    if format_ != "text":
        rows = [row for subject in subjects for row in _rows(subject)]
        print_answer(Answer(Table("findings", ()), rows), format_, output)
        return
    with open_output(output) as say:
        say(headline(spec, n_windows))
        for subject in subjects:
            say(render(spec, subject))


def _subjects(
    project: Project,
    spec: ModelSpec,
    columns: list[str],
    faults: list[str],
    n_windows: int,
    seed: int,
) -> Iterator[Subject]:
    from mlmon_dagster.work import Work

    _refuse_unknown(columns, list(spec.logged_features), f"feature of {spec.model}")
    _refuse_unknown(faults, list(NAMES), "fault")
    work = Work(project, spec, (), project.now(), "drill", is_backfill=True)
    drill = Drill(work, n_windows, seed, faults)
    wanted = columns or list(spec.logged_features)
    for i, name in enumerate(wanted):
        click.echo(f"  {name} ({i + 1} of {len(wanted)})", err=True)
        yield from drill.columns([name])
    if not columns:
        click.echo("  ground truth, service and feed", err=True)
        yield from drill.whole()


def _refuse_unknown(names: list[str], known: list[str], what: str) -> None:
    from mlmon_dagster.spec.names import did_you_mean

    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or "."
            raise ConfigError(f"No {what} {name!r}{hint} There are: {', '.join(known)}.")


def headline(spec: ModelSpec, n_windows: int) -> str:
    """Say what was done and what noticed means."""
    unit = spec.time.granularity
    return (
        f"{spec.model}: faults of growing size in copies of its newest healthy {unit}s, "
        f"{n_windows} at most,\njudged by its own monitors and baseline. Healthy: the family "
        f"judged the column, did not fail it, and no\nalert about it was firing. Noticed: an "
        f"alert opens within {HORIZON} {unit}s, whichever {unit} the fault begins\nwith. "
        "Nothing was stored or sent."
    )


def render(spec: ModelSpec, subject: Subject) -> str:
    """Write what was found of one subject as a table, and in words below it."""
    lines = ["", f"{subject.name}: {_tried_in(spec, subject)}"]
    families = list(dict.fromkeys(f.family for f in subject.findings))
    by_fault: dict[str, dict[str, Finding]] = {}
    for finding in subject.findings:
        by_fault.setdefault(finding.fault, {})[finding.family] = finding
    width = max(len(fault) for fault in (*by_fault, "fault")) + 2
    columns = [max(22, len(family) + 2) for family in families]
    head = "".join(f"{f.replace('_', ' '):<{w}}" for f, w in zip(families, columns, strict=True))
    lines.append(f"  {'fault':<{width}}{head}".rstrip())
    for fault, found in by_fault.items():
        cells = [_cell(spec, found.get(family)) for family in families]
        row = "".join(f"{cell:<{w}}" for cell, w in zip(cells, columns, strict=True))
        lines.append(f"  {fault:<{width}}{row}".rstrip())
    return "\n".join([*lines, *(f"  {said}" for said in sentences(spec, subject))])


def sentences(spec: ModelSpec, subject: Subject) -> list[str]:
    """Say from which size on each fault would be noticed, by whichever family sees it first."""
    noticed, missed, untried = [], [], []
    for fault in dict.fromkeys(finding.fault for finding in subject.findings):
        mine = [finding for finding in subject.findings if finding.fault == fault]
        seen = [finding for finding in mine if finding.size is not None]
        if seen:
            best = min(seen, key=lambda f: (f.size or 0.0, f.after))
            noticed.append(f"{_wrong(spec, subject, best)} {_after(spec, best)}")
        elif all(finding.reason for finding in mine):
            untried.append(f"{fault}, since {mine[0].reason}")
        else:
            missed.append(_wrong(spec, subject, next(f for f in mine if not f.reason)))
    found = [f"You would notice {'; '.join(noticed)}."] if noticed else []
    found += [f"Not at any size tried: {'; '.join(missed)}."] if missed else []
    return found + ([f"Not tried: {'; '.join(untried)}."] if untried else [])


def _rows(subject: Subject) -> Iterator[dict[str, object]]:
    """Yield what was found of one subject, a row a fault and family."""
    for finding in subject.findings:
        yield {
            **vars(finding),
            "subject": subject.name,
            "unit": _BY_NAME[finding.fault].unit,
            "n_windows": len(subject.windows.get(finding.family, ())),
            "rows": subject.rows,
        }


def _tried_in(spec: ModelSpec, subject: Subject) -> str:
    if not subject.windows:
        return "no healthy windows"
    unit = spec.time.granularity
    by_windows: dict[tuple[Window, ...], list[str]] = {}
    for family, windows in subject.windows.items():
        by_windows.setdefault(windows, []).append(family.replace("_", " "))
    parts = [
        f"{len(windows)} {unit}s from {windows[0].key} to {windows[-1].key}"
        + (f" ({' and '.join(families)})" if len(by_windows) > 1 else "")
        for windows, families in by_windows.items()
    ]
    rows = f"about {subject.rows:,} rows each"
    if subject.share_read < 1:
        rows += f" ({subject.share_read:.1%} were read; all of them notice more)"
    return f"{', '.join(parts)}, {rows}"


def _cell(spec: ModelSpec, finding: Finding | None) -> str:
    if finding is None:
        return ""
    if finding.reason:
        return "not tried"
    if finding.size is None:
        return NOT_NOTICED
    return f"{_amount(finding, finding.size)}, {_windows(spec, finding.after)}"


def _windows(spec: ModelSpec, n: int) -> str:
    return f"{n} {spec.time.granularity}{'' if n == 1 else 's'}"


def _after(spec: ModelSpec, finding: Finding) -> str:
    if _BY_NAME[finding.fault].unit == "hours":
        return "before they come"
    return f"after {_windows(spec, finding.after)}"


def _amount(finding: Finding, size: float) -> str:
    unit = _BY_NAME[finding.fault].unit
    if unit == "share":
        return f"{100 * size:g} %"
    return {"sd": f"{size:g} sd", "times": f"x {size:g}", "hours": f"{size:g} h"}[unit]


def _wrong(spec: ModelSpec, subject: Subject, finding: Finding) -> str:
    """Say what goes wrong, and how much: at the size that is noticed, else at the largest."""
    size = finding.largest if finding.size is None else finding.size
    share = "every row" if size == 1 else f"{100 * size:g} % of the rows"
    column = finding.subject
    return {
        "nulls": f"{column} null in {share}",
        "out_of_range": f"{column} outside its range in {share}",
        "unseen": f"{column} with a code never seen in {share}",
        "shift": f"{column} off by {_deviations(spec, subject, size)}",
        "unit": f"{column} {subject.unit_mistaken} in {share}",
        "swap": f"two codes of {column} exchanged in {share}",
        "stuck": f"{column} stuck at one value in {share}",
        "label_flip": f"ground truth wrong in {share}",
        "one_slice": f"ground truth wrong in {share} of {column}",
        "latency": f"requests {size:g} times slower",
        "errors": f"{100 * size:g} % of the requests failing",
        "volume": f"{100 * size:g} % of the rows missing",
        "late_feed": f"predictions {size:g} hours late",
        "missing_truth": f"{100 * size:g} % of the ground truth missing",
    }[finding.fault]


def _deviations(spec: ModelSpec, subject: Subject, size: float) -> str:
    text = f"{size:g} standard deviation{'' if size == 1 else 's'}"
    if not spec.shows_values_of(subject.name):
        return text
    unit = spec.features[subject.name].unit
    return f"{text} ({size * subject.sd:.2g}{f' {unit}' if unit else ''})"
