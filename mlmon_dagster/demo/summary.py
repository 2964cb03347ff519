"""What the demo prints at its end: the months, and the alerts of the year."""

from __future__ import annotations

import io
from collections import defaultdict
from typing import TYPE_CHECKING

from mlmon_dagster.alerts import AlertEpisode, list_alerts
from mlmon_dagster.project import Project
from mlmon_dagster.report.rollup import rolled_up_metrics
from mlmon_dagster.spec import ModelSpec

if TYPE_CHECKING:
    import pandas as pd

MOST_SHOWN = 4


def render_months(project: Project, spec: ModelSpec) -> str:
    """Return a table by month, merged from the daily profiles."""
    from rich.console import Console
    from rich.table import Table

    frame = rolled_up_metrics(project.store, spec, "month")
    table = Table(title=f"{spec.model} by month", box=None, title_justify="left")
    table.add_column("month")
    for name in (
        "n",
        "coverage",
        "late rate",
        "ROC AUC (95 %)",
        "estimated",
        "F1",
        "accuracy",
        "PSI of score",
    ):
        table.add_column(name, justify="right")
    whole = frame[frame["slice_key"] == "all"]
    local = whole["window_start"].dt.tz_convert(spec.time.zone).dt.strftime("%Y-%m")
    for name, month in whole.groupby(local):
        table.add_row(str(name), *_cells(month))
    buffer = io.StringIO()
    Console(file=buffer, width=110).print(table)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _cells(month: pd.DataFrame) -> list[str]:
    def row(metric: str, column: str = ":table") -> pd.Series[float]:
        return month[(month["metric"] == metric) & (month["column_name"] == column)].iloc[0]

    auc, n = row("roc_auc"), int(row("n")["value"])
    return [
        f"{n:,}",
        f"{auc['n'] / n:.3f}",
        f"{row('actual_rate')['value']:.3f}",
        f"{auc['value']:.3f} ({auc['lower']:.3f}-{auc['upper']:.3f})",
        f"{row('estimated_roc_auc')['value']:.3f}",
        f"{row('f1')['value']:.3f}",
        f"{row('accuracy')['value']:.3f}",
        f"{row('psi', 'score')['value']:.3f}",
    ]


def render_episodes(project: Project, spec: ModelSpec) -> str:
    """Return the year's alerts: a line per monitor, what still fires first."""
    groups: dict[str, list[AlertEpisode]] = defaultdict(list)
    for episode in list_alerts(project.store, spec.model):
        if episode.state != "PENDING" and not episode.is_explained:
            groups[episode.monitor].append(episode)
    lines = [f"Alerts of the year ({sum(map(len, groups.values()))} episodes):"]
    order = sorted(groups.items(), key=lambda item: (_rank(item[1]), item[0]))
    width = max((len(monitor) for monitor in groups), default=0)
    for monitor, episodes in order:
        firing = _rank(episodes) == 0
        days = [_days(e, spec) for e in sorted(episodes, key=lambda e: e.opened_window)]
        more = f" and {len(days) - MOST_SHOWN} more" if len(days) > MOST_SHOWN else ""
        state = "FIRING  " if firing else "resolved"
        lines.append(f"  {state} {monitor:<{width}}  {', '.join(days[:MOST_SHOWN])}{more}")
    return "\n".join(lines)


def _rank(episodes: list[AlertEpisode]) -> int:
    return 0 if any(e.state in ("FIRING", "RECOVERING") for e in episodes) else 1


def _days(episode: AlertEpisode, spec: ModelSpec) -> str:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(spec.time.zone)
    start = episode.opened_window.astimezone(zone)
    if episode.resolved_window is None:
        return f"since {start:%d %b}"
    return f"{start:%d %b} to {episode.resolved_window.astimezone(zone):%d %b}"
