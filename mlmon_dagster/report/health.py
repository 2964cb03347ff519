"""The health report of a model: one HTML file that needs nothing else, for people and archives.

No scripts and no remote assets; every text that may come from data is escaped, and the file itself
forbids the browser anything but its own styles and pictures.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.monitors.wording import NAMES
from mlmon_dagster.profiles import Baseline, load_baseline
from mlmon_dagster.report.curves import AlertEpisode, Curves, firing, sentence_of
from mlmon_dagster.report.plots import Curve, draw
from mlmon_dagster.report.summary import (
    NONE,
    Standing,
    decimal,
    last_day,
    moment,
    overall,
    period_names,
    periods_of,
    standing_of,
)
from mlmon_dagster.report.trace import newest_mature, performance_trace, told
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.store import Store
from mlmon_dagster.store.places.location import whole_file
from mlmon_dagster.store.state.model_history import SeenChange, changes
from mlmon_dagster.trace.slices import HIGHER_IS_BETTER

if TYPE_CHECKING:
    import pandas as pd

MAX_ALERTS = 25
MAX_SLICES = 12
MAX_CHANGES = 10
_NOTES = {
    "": "",
    "small": "too small to tell apart",
    "new": "not in the baseline",
    "gone": "no longer there",
    "few_rows": "too few rows to test",
    "few_windows": "too few windows to test",
}


@dataclass(frozen=True)
class HealthReport:
    """A rendered report and what is worth telling of it elsewhere.

    Attributes:
        html: The whole file.
        plot: PNG of the first performance curve (of the first other one without performance);
            None if nothing was measured yet.
        status: Worst status of any family.
        n_firing: Firing alerts.
    """

    html: str
    plot: bytes | None
    status: str
    n_firing: int


def health_report(
    store: Store, spec: ModelSpec, now: dt.datetime, episodes: Sequence[AlertEpisode] = ()
) -> HealthReport:
    """Render the report of a model from stored metrics, verdicts and alerts; no rows are read.

    Args:
        store: The store.
        spec: The model.
        now: The moment of the report; verdicts and curves end there.
        episodes: The model's alerts, as `mlmon_dagster.alerts.list_alerts` returns them.
    """
    try:
        baseline = load_baseline(store, spec)
    except BaselineMissingError:
        baseline = None
    standings = standing_of(store, spec, now)
    current = firing(episodes)
    curves = Curves(store, spec, baseline, episodes, now)
    sections = [
        _pictures("Performance", curves.performance()),
        _pictures("Business", curves.business()),
        _pictures("Estimated without ground truth, and estimated - realized", curves.estimates()),
        _pictures("Drift: the worst columns", curves.drift()),
        _pictures("Null shares: the worst columns", curves.null_rates()),
        _pictures("Versions", curves.versions()),
    ]
    status = overall(standings)
    html = _template().render(
        spec=spec,
        now=moment_text(now),
        status=status,
        standings=standings,
        newest=_newest(standings),
        alerts=[_alert(spec, episode) for episode in current[:MAX_ALERTS]],
        n_alerts=len(current),
        changes=[_change(seen) for seen in changes(store.state, spec.model)[:MAX_CHANGES]],
        periods=periods_of(store, spec, baseline),
        period_names=period_names(spec),
        sections=[s for s in sections if s["pictures"]],
        trace=_trace(store, spec, baseline),
        baseline=baseline,
    )
    first = next((p["png"] for s in sections for p in s["pictures"]), None)
    return HealthReport(html, first, status, len(current))


def write_report(html: str, path: Path) -> None:
    """Put a report into place in one step, so that nobody reads half of one.

    Folders are made. A report that is there is replaced.
    """
    with whole_file(path) as draft:
        draft.write_text(html, encoding="utf-8")
        draft.chmod(0o644)  # whatever the umask: the readers are other people


def moment_text(now: dt.datetime) -> str:
    """Write a moment in UTC, to the minute."""
    return now.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("mlmon_dagster.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("health.html.j2")


def _newest(standings: Sequence[Standing]) -> str:
    return max((s.window for s in standings), default="")


def _pictures(title: str, curves: Sequence[Curve]) -> dict[str, Any]:
    pictures = []
    for curve in curves:
        if not curve.values:
            continue
        png = draw(curve)
        source = "data:image/png;base64," + base64.b64encode(png).decode()
        pictures.append({"title": curve.title, "source": source, "png": png})
    return {"title": title, "pictures": pictures}


def _alert(spec: ModelSpec, episode: AlertEpisode) -> dict[str, str]:
    return {
        "severity": episode.severity or "WARN",
        "sentence": sentence_of(spec, episode),
        "since": moment(spec, episode.opened_window),
        "monitor": episode.monitor,
    }


def _change(seen: SeenChange) -> dict[str, str]:
    return {"seen": moment_text(seen.seen_at), "text": seen.change.text(), "path": seen.path}


def _trace(store: Store, spec: ModelSpec, baseline: Baseline | None) -> dict[str, object] | None:
    """Return the trace of the newest mature windows for the template; None if there is none."""
    period = newest_mature(store, spec)
    if period is None or baseline is None:
        return None
    try:
        frame = performance_trace(store, spec, *period)
    except BaselineMissingError:  # the period begins while the model was learning
        return None
    metrics = [
        _traced(metric, part) for metric, part in frame.groupby("metric", sort=False) if len(part)
    ]
    first, last = moment(spec, period[0]), last_day(spec, period[1])
    said = told(store, spec, period)
    return {"first": first, "last": last, "said": said, "metrics": metrics} if metrics else None


def _traced(metric: object, frame: pd.DataFrame) -> dict[str, object]:
    rows = frame.to_dict("records")
    parts = [row for row in rows if row["slice_key"] != ALL]
    whole = rows[0]
    return {
        "name": NAMES.get(str(metric), str(metric).replace("_", " ").capitalize()),
        "is_exact": whole["method"] == "exact",
        "is_judged": metric in HIGHER_IS_BETTER,
        "whole": _slice_cells(whole),
        "slices": [_slice_cells(row) for row in parts[:MAX_SLICES]],
        "n_more": max(len(parts) - MAX_SLICES, 0),
    }


def _slice_cells(row: dict[Any, Any]) -> dict[str, str | bool]:
    """Return one row of a trace as texts."""
    share = NONE if row["share"] != row["share"] else f"{row['share']:.0%}"
    p = row["p_adjusted"]
    return {
        "name": "all" if row["slice_key"] == ALL else f"{row['slice_key']} = {row['slice_value']}",
        "note": _NOTES[row["note"]],
        "n": f"{row['n']:,}",
        "value": decimal(row["value"]),
        "interval": _interval(row["lower"], row["upper"]),
        "baseline": decimal(row["baseline_value"]),
        "change": _signed(row["change"]),
        "change_interval": _interval(row["change_lower"], row["change_upper"], _signed),
        "mix": _signed(row["mix"]),
        "within": _signed(row["within"]),
        "effect": _signed(row["effect"]),
        "share": share,
        "p": NONE if p != p else ("< 0.001" if p < 0.001 else f"{p:.3f}"),
        "is_real": bool(row["is_real"]),
    }


def _signed(value: float) -> str:
    if value != value:
        return NONE
    text = f"{value:+.3f}"
    return "0.000" if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _interval(low: float, high: float, write: Callable[[float], str] = decimal) -> str:
    return "" if low != low or high != high else f"{write(low)} to {write(high)}"
