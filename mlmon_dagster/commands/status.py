"""``mlmon status``: how the models are, and how far one of them has come."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlmon_dagster.commands.options import examples, models_of, spec_of
from mlmon_dagster.commands.tables import Rows, output_options, print_table
from mlmon_dagster.spec.names import counted
from mlmon_dagster.spec.text_table import text_table

if TYPE_CHECKING:
    from mlmon_dagster.project import Project
    from mlmon_dagster.spec import ModelSpec

_SENTENCE = 100  # characters


@click.command(epilog=examples("mlmon status", "mlmon status flight_delay"))
@click.argument("model", required=False)
@click.option("--last", default=14, show_default=True, help="Of MODEL: so many windows.")
@output_options()
@click.pass_obj
def status(
    project: Project, model: str | None, last: int, format_: str, output: Path | None
) -> None:
    """Show how all models are, worst first; or of MODEL its families, alerts and ground truth.

    Exit code 1 if a model does not load.
    """
    if model is None:
        _show_models(project, format_, output)
    else:
        _show_model(project, spec_of(project, model), last, format_, output)


def _show_models(project: Project, format_: str, output: Path | None) -> None:
    from mlmon_dagster.pipeline.status import status_of

    found = models_of(project)
    rows = status_of(project, found.specs, found.broken)
    head = ("STATUS", "MODEL", "NEWEST WINDOW", "FIRING", "SINCE", "WHAT")
    lines = [
        (
            str(row["status"]), str(row["model"]), str(row["window"]), str(row["firing"]),
            str(row.get("since", "")), _shorten(str(row.get("sentence", ""))),
        )
        for row in rows
    ]  # fmt: skip
    text = text_table(head, lines, right={"FIRING"})
    if found.broken:
        text += "\nWhy a model does not load: mlmon validate"
    print_table(text, rows, format_, output)
    sys.exit(1 if found.broken else 0)


def _shorten(text: str) -> str:
    first = text.split("\n")[0]
    return first if len(first) <= _SENTENCE else first[: _SENTENCE - 3] + "..."


def _show_model(
    project: Project, spec: ModelSpec, last: int, format_: str, output: Path | None
) -> None:
    from mlmon_dagster.alerts.listing import list_alerts
    from mlmon_dagster.alerts.messages.view import SHORT_ID
    from mlmon_dagster.pipeline.status import status_of
    from mlmon_dagster.report.curves import firing, sentence_of
    from mlmon_dagster.report.standing import standing_of
    from mlmon_dagster.store.state.monitor_results import name_window

    (whole,) = status_of(project, [spec])
    standings = standing_of(project.store, spec, project.now())
    lines = [f"{spec.model}: {whole['status']}, newest window {whole['window']}", ""]
    alerts = [
        (
            alert.fingerprint[:SHORT_ID],
            alert.state,
            name_window(spec, alert.opened_window),
            alert.severity,
            _shorten(sentence_of(spec, alert)),
        )
        for alert in firing(list_alerts(project.store, spec.model))
    ]
    if alerts:
        lines += [text_table(("ALERT", "STATE", "SINCE", "SEVERITY", "WHAT"), alerts), ""]
    families = [(one.family, one.status, one.window, one.text) for one in standings]
    lines.append(text_table(("FAMILY", "STATUS", "WINDOW", "WHAT"), families))
    windows = _list_windows(project, spec, last)
    lines += ["", *_describe_truth(project, spec), _render_windows(windows)]
    lines += _list_leftovers(project, spec)
    print_table("\n".join(lines), windows, format_, output)


def _describe_truth(project: Project, spec: ModelSpec) -> list[str]:
    """Say what the model is compared with, and when its ground truth comes."""
    from mlmon_dagster.profiles.arrivals import describe_arrivals
    from mlmon_dagster.profiles.baseline import no_baseline
    from mlmon_dagster.store import baselines

    lines = []
    if baselines.baselines_in_force(project.store.state, spec).newest is None:
        lines.append(str(no_baseline(spec)))
    if spec.has_actuals:
        lines.append(f"ground truth: {describe_arrivals(project.store.state, spec)}")
    else:
        lines.append("no ground truth is declared: performance is not measured")
    return lines


def _list_windows(project: Project, spec: ModelSpec, last: int) -> list[dict[str, object]]:
    """Return the newest windows, and how far the ground truth of each has come."""
    from mlmon_dagster.spec import complete_windows, maturity_of
    from mlmon_dagster.store.state import window_state

    now = project.now()
    states = window_state.load(project.store.state, spec.model)
    timing = window_state.timing_of(project.store.state, spec.model)
    found: list[dict[str, object]] = []
    for window in complete_windows(spec.time, now)[-last:]:
        state = states.get(window.start)
        if state is None:
            found.append({"window": window.key})
            continue
        known = json.loads(state.lags).get("known_hours") or {}
        found.append(
            {
                "window": window.key,
                "n": state.n,
                "exempt": state.n_exempt,
                "coverage": state.coverage,
                "maturity": maturity_of(
                    spec, window, state.n_expected, state.n_actual, now, timing
                ),
                "after_close": state.n_late_after_close,
                "known_p50_hours": known.get("p50"),
                "known_p99_hours": known.get("p99"),
            }
        )
    return found


def _render_windows(windows: Rows) -> str:
    head = ("WINDOW", "ROWS", "EXEMPT", "COVERAGE", "MATURITY", "AFTER CLOSE", "KNOWN P50/P99 H")
    lines = [
        (
            str(row["window"]),
            _count(row.get("n")),
            _count(row.get("exempt")),
            "-" if row.get("coverage") is None else f"{row['coverage']:.1%}",
            str(row.get("maturity", "-")),
            _count(row.get("after_close")),
            "-"
            if row.get("known_p50_hours") is None
            else f"{row['known_p50_hours']:g} / {row['known_p99_hours']:g}",
        )
        for row in windows
    ]
    return text_table(head, lines, right=(*head[1:4], head[5], head[6]))


def _count(value: object) -> str:
    return "-" if value is None else f"{value:,}"


def _list_leftovers(project: Project, spec: ModelSpec) -> list[str]:
    """Name what was set aside, and ground truth that found no prediction."""
    from mlmon_dagster.ingest.spans import set_aside
    from mlmon_dagster.store.upkeep.maintenance import count_unmatched

    lines = [
        f"spans set aside: {path} ({why}); see mlmon doctor"
        for path, why in set_aside(project.folder, spec.model).items()
    ]
    unmatched = count_unmatched(project.store, spec)
    if unmatched.n_waiting or unmatched.n_expired:
        lines.append(
            f"ground truth without a prediction: {counted(unmatched.n_waiting, 'row')} waiting, "
            f"{counted(unmatched.n_expired, 'row')} expired"
        )
    return lines
