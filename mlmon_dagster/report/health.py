"""The page of a model: one renderer for the file that `mlmon report` writes and for the web."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlmon_dagster.errors import BaselineMissingError
from mlmon_dagster.monitors.wording import named
from mlmon_dagster.profiles import Baseline, baseline_in_force, load_baseline
from mlmon_dagster.profiles.loss_columns import JUDGED
from mlmon_dagster.project import Project
from mlmon_dagster.report import decisions, distributions, page
from mlmon_dagster.report.charts import (
    Chart,
    Curve,
    Event,
    Line,
    Strip,
    chart_of,
    place_events,
    windows_named,
)
from mlmon_dagster.report.curves import (
    EVERYTHING,
    WINDOWS_DRAWN,
    Asked,
    Curves,
)
from mlmon_dagster.report.distributions import Period
from mlmon_dagster.report.events import find_counted_column, find_events
from mlmon_dagster.report.incident import (
    MOST_CARDS,
    find_incidents,
    find_period,
    pick_labelled,
    show_days,
)
from mlmon_dagster.report.layers import LAYERS, layers_of
from mlmon_dagster.report.trace import SPAN, newest_mature, trace_of
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.spec.metric_registry import is_higher_better
from mlmon_dagster.spec.names import ALL, BUSINESS, CUSTOM, DRIFT, PERFORMANCE, SERVICE, VERSIONS
from mlmon_dagster.spec.tasks import RESIDUAL
from mlmon_dagster.store import Store, alert_state, mlflow_registry
from mlmon_dagster.store.alert_state import AlertEpisode
from mlmon_dagster.store.mlflow_registry import run_link, version_link
from mlmon_dagster.store.places.location import whole_file
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import MonitorResult, load_standing, name_window
from mlmon_dagster.store.state.window_state import WindowInputs
from mlmon_dagster.tables.alerts import (
    StandingCounts,
    list_alerts,
    name_causes,
    pick_standing,
)
from mlmon_dagster.tables.periods import (
    NONE,
    History,
    decimal,
    find_first_period,
    list_period_columns,
    period_names,
    periods_of,
)
from mlmon_dagster.tables.standing import Standing, describe_standing, name_last_window, overall
from mlmon_dagster.trace.explain import AREA, Explained

if TYPE_CHECKING:
    import pandas as pd

States = Mapping[dt.datetime, WindowInputs]  # of all windows of a model
MAX_ALERTS = 25
MAX_SLICES = 12
MAX_OFFERED = 200  # slices in the form of a served page
_NOTES = {
    "": "",
    "small": "too small to compare",
    "new": "not in the baseline",
    "gone": "no longer there",
    "few_rows": "too few rows to test",
    "few_windows": "too few windows to test",
}


@dataclass(frozen=True)
class HealthReport:
    """A rendered page and what is worth telling of it elsewhere.

    Attributes:
        html: The whole file.
        status: Worst status of any family.
        alerts: How many alerts stand.
    """

    html: str
    status: str
    alerts: StandingCounts


@dataclass(frozen=True)
class Places:
    """Where a served page leads.

    Attributes:
        home: Address of the overview; empty in a file, which leads nowhere.
    """

    home: str = ""

    def alert(self, model: str, fingerprint: str) -> str:
        """Return the address of an alert's page; empty in a file."""
        return f"{self.model(model)}/alerts/{fingerprint}" if self.home else ""

    def model(self, name: str) -> str:
        """Return the address of a model's page; empty in a file."""
        return f"{self.home.rstrip('/')}/m/{name}" if self.home else ""


NOWHERE = Places()


def health_report(
    store: Store,
    spec: ModelSpec,
    now: dt.datetime,
    asked: Asked = EVERYTHING,
    places: Places = NOWHERE,
) -> HealthReport:
    """Render the page of a model from stored metrics, verdicts and alerts; no rows are read.

    Args:
        store: The store.
        spec: The model.
        now: The moment of the report; verdicts and curves end there.
        asked: Which windows, slice and version; by default the newest of everything.
        places: Where it leads.
    """
    try:
        baseline = load_baseline(store, spec)
    except BaselineMissingError:
        baseline = None
    states = window_state.load(store.state, spec.model)
    verdicts = load_standing(store.state, [spec], now)[spec.model]
    standings = describe_standing(spec, verdicts)
    newest = max((start for start, s in states.items() if s.n and start < now), default=None)
    episodes = list_alerts(store, spec.model)
    current = pick_standing(episodes)
    n_firing = sum(episode.standing == "firing" for episode in current)
    counts = StandingCounts(n_firing, len(current) - n_firing)
    history = _read_history(store, spec, states, asked)
    events = find_events(store, spec, *_span_of(spec, states, now, asked), history)
    curves = Curves(store, spec, baseline, episodes, now, asked, events)
    known = find_period(spec, current, newest)
    incident = None if asked.start else known
    labelled = pick_labelled(incident, newest_mature(store, spec, states))
    drawn = {
        PERFORMANCE: curves.performance(),
        "estimates": curves.estimates(),
        DRIFT: curves.drift(),
        "nulls": curves.null_rates(),
        SERVICE: curves.service(),
        BUSINESS: curves.business(),
        VERSIONS: curves.versions(),
        CUSTOM: curves.custom(),
    }
    drifts = curves.drifts()
    charts = {name: [chart_of(c) for c in found if c.values] for name, found in drawn.items()}
    status = overall(standings)
    html = page.render(
        "model.html.j2",
        title=f"{spec.model}: health",
        home=places.home,
        spec=spec,
        now=moment_text(now),
        status=status,
        standings=standings,
        newest=_newest(standings),
        registered=_registered(store, spec),
        incidents=find_incidents(
            store,
            spec,
            current[:MAX_ALERTS],
            newest,
            [places.alert(spec.model, episode.fingerprint) for episode in current[:MAX_ALERTS]],
        ),
        most_cards=MOST_CARDS,
        days=show_days(store, spec, states, [one.family for one in standings], now),
        counts=counts,
        covered_by=name_causes(e.muted_reason for e in episodes if e.state in alert_state.ACTIVE),
        are_waiting=spec.model in alert_state.models_with_new_results(store.state),
        events=[(_name_event(spec, event), event) for event in reversed(events)],
        explained=_named(spec, incident) if incident else "",
        labelled=_name_earlier(spec, incident, labelled),
        offered=_offer_periods(spec, states, now, known),
        periods=periods_of(store, spec, baseline, states, history),
        period_names=period_names(spec),
        charts=charts,
        volume=_volume(spec, states, now, asked, events),
        layers=layers_of(
            drawn, monitor_results.shares_failed(store.state, spec.model, LAYERS["Data"], now)
        ),
        heat=_drift_strips(store, spec, drifts, current),
        trace=_trace(store, spec, baseline, asked, labelled) if asked.is_whole else None,
        slices=distributions.slice_tables(spec, baseline, history, _period_of(asked, now))
        if asked.is_whole
        else [],
        baseline=baseline,
        asked=_shown(store, spec, states, now, asked, is_served=bool(places.home)),
        **_looked(store, spec, baseline, states, now, asked, verdicts, incident, labelled),
    )
    return HealthReport(html, status, counts)


def write_health_report(
    project: Project, spec: ModelSpec, path: Path | None = None
) -> tuple[HealthReport, Path]:
    """Render a model's health report as of now and put it into place in one step.

    Args:
        project: The project.
        spec: The model.
        path: Where to; default ``.mlmon/reports/<model>/health.html`` of the project.

    Returns:
        The report, and where it is.
    """
    target = path or project.state_folder / "reports" / spec.model / "health.html"
    report = health_report(project.store, spec, project.now())
    write_report(report.html, target)
    return report, target


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


def newest_windows(
    spec: ModelSpec, states: States, now: dt.datetime
) -> tuple[dt.datetime, dt.datetime] | None:
    """Return start and end of the newest windows that are looked at together; None without any.

    As many as `newest_mature` takes, with ground truth or not.
    """
    starts = sorted(start for start, state in states.items() if state.n and start < now)[
        -SPAN[spec.time.granularity] :
    ]
    return (starts[0], window_containing(spec.time, starts[-1]).end) if starts else None


def _newest(standings: Sequence[Standing]) -> str:
    return max((s.window for s in standings), default="")


def _registered(store: Store, spec: ModelSpec) -> list[dict[str, str]]:
    """Return what each alias of the registry names: version, since when, run, training data."""
    last = mlflow_registry.load_last_look(store.state, spec.model) if spec.registry else None
    if last is None or spec.registry is None or last.known.name != spec.registry.mlflow:
        return []
    known, found = last.known, []
    for alias in spec.registry.aliases:
        number, since = known.now(alias), known.since(alias)
        if not number or since is None:
            continue
        version = known.versions.get(number)
        found.append(
            {
                "alias": alias,
                "version": number,
                "href": version_link(known.address, known.name, number),
                "since": moment_text(since),
                "run": (version.run_name or version.run_id) if version else "",
                "run_href": run_link(known.address, version) if version else "",
                "trained": ", ".join(f"{n} ({d})" for n, d in version.datasets) if version else "",
            }
        )
    return found


def _span_of(spec: ModelSpec, states: States, now: dt.datetime, asked: Asked) -> Period:
    """Return start and end of all windows that are drawn."""
    end = now if asked.end is None else min(now, asked.end)
    if asked.start is not None:
        return asked.start, end
    drawn = sorted(start for start in states if start < end)
    return next(iter(drawn[-WINDOWS_DRAWN[spec.time.granularity] :]), end), end


def _name_earlier(spec: ModelSpec, incident: Period | None, labelled: Period | None) -> str:
    """Name the windows that have ground truth where none of the incident's has; else empty."""
    if incident is None or labelled is None or labelled[1] > incident[0]:
        return ""
    return _named(spec, labelled)


def _read_history(store: Store, spec: ModelSpec, states: States, asked: Asked) -> History:
    """Read once what months, slices and events are told from."""
    counted = find_counted_column(spec)
    columns = [*list_period_columns(spec), *distributions.list_sliced_columns(spec)]
    if counted:
        columns.append(counted)
    keys = [(), *distributions.list_sliced_keys(spec)] if asked.is_whole else [()]
    starts = [
        first for first in (find_first_period(spec, states), asked.start) if first is not None
    ]
    return History(store, spec, columns, keys, min(starts, default=None))


def _name_event(spec: ModelSpec, event: Event) -> str:
    """Write when something happened: the window that it is about, or the day."""
    named = windows_named([event.at], spec.time.zone)[0]
    return named if spec.time.granularity == "hour" else named[:10]


def _offer_periods(
    spec: ModelSpec, states: States, now: dt.datetime, incident: Period | None
) -> list[dict[str, str]]:
    """Return the periods that a page offers: the incident's, then the newest windows."""
    found = []
    for name, period in (("Incident", incident), ("Newest", newest_windows(spec, states, now))):
        if period is not None:
            first, last = name_window(spec, period[0]), name_last_window(spec, period[1])
            text = _named(spec, period)
            found.append({"name": name, "text": text, "first": first[:10], "last": last[:10]})
    return found


def _period_of(asked: Asked, now: dt.datetime) -> Period | None:
    """Return the windows that are asked for; None if no first one is."""
    return None if asked.start is None else (asked.start, min(asked.end or now, now))


def _volume(
    spec: ModelSpec, known: States, now: dt.datetime, asked: Asked, events: Sequence[Event]
) -> list[Chart]:
    """Return how many predictions each window has, and how much of its ground truth has come."""
    end = now if asked.end is None else min(now, asked.end)
    states = sorted(
        (start, state)
        for start, state in known.items()
        if start < end and (asked.start is None or start >= asked.start)
    )
    if asked.start is None:
        states = states[-WINDOWS_DRAWN[spec.time.granularity] :]
    states = [(start, state) for start, state in states if state.n]
    if not states:
        return []
    starts = [start for start, _ in states]
    labels, marks = windows_named(starts, spec.time.zone), place_events(events, starts)
    sizes = Line("Predictions", "value", [float(state.n) for _, state in states])
    found = [Chart("Predictions", labels, [sizes], floor=True, events=marks)]
    shares = [
        float("nan") if state.coverage is None else min(state.coverage, 1.0) for _, state in states
    ]
    if spec.has_actuals:
        line = Line("Share", "value", shares)
        title = "Ground truth that has arrived"
        limit = spec.actuals.min_coverage
        found.append(
            Chart(title, labels, [line], None, limit, is_share=True, floor=True, events=marks)
        )
    return found


def _drift_strips(
    store: Store, spec: ModelSpec, curves: dict[str, Curve], current: Sequence[AlertEpisode]
) -> dict[str, object] | None:
    """Return the drift of every column by its verdicts, the column that failed most first."""
    if not curves:
        return None
    starts = sorted({start for curve in curves.values() for start in curve.starts})
    some = next(iter(curves.values()))
    fires = {e.column for e in current if e.slice_key == ALL and e.monitor.startswith("drift/")}
    end = starts[-1] + dt.timedelta(microseconds=1)
    verdicts = monitor_results.worst_by_window(
        store.state, spec.model, starts[0], end, columns_of=DRIFT
    )
    strips = []
    for column, curve in curves.items():
        known = dict(zip(curve.starts, curve.values, strict=True))
        values = [known.get(start, float("nan")) for start in starts]
        statuses = [verdicts.get((column, start), "") for start in starts]
        strips.append(
            Strip(column, values, statuses, curve.limit, column in fires, f"column-{column}")
        )
    strips.sort(key=lambda s: (not s.firing, -int(s.failed), -_mean(s.values), s.title))
    labels = windows_named(starts, some.zone)
    lines = [Line(strip.title, "line", strip.values) for strip in strips]
    name = some.title.rpartition(" of ")[0]
    return {"strips": strips, "chart": Chart(name, labels, lines, limit=some.limit), "name": name}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if v == v]
    return sum(known) / len(known) if known else 0.0


def _looked(
    store: Store,
    spec: ModelSpec,
    baseline: Baseline | None,
    states: States,
    now: dt.datetime,
    asked: Asked,
    verdicts: Sequence[MonitorResult],
    incident: Period | None,
    labelled: Period | None,
) -> dict[str, object]:
    """Return what profiles show: histograms of a period, and how right decisions were."""
    nothing: dict[str, object] = {
        "histograms": [], "topics": [], "histogram_period": "", "calibration": None, "matrices": [],
        "operating": None, "by_class": None, "residuals": None, "labelled_period": "",
        "no_truth": "",
    }  # fmt: skip
    period = _period_of(asked, now)
    newest = period or incident or newest_windows(spec, states, now)
    if newest is None:
        return nothing
    columns = [*spec.features, *spec.columns.outputs]
    profiles = distributions.profiles_of(store, spec, columns, newest, asked)
    found = dict(nothing)
    if baseline is not None:
        bars = distributions.histograms(spec, profiles, baseline, asked)
        found["histograms"] = distributions.column_cards(spec, bars, verdicts)
        found["topics"] = distributions.topics_of(spec, profiles, baseline, asked)
        found["histogram_period"] = _named(spec, newest)
    labelled = period or labelled
    if labelled is not None:
        judges = [f"{JUDGED}{name}" for name, one in spec.evaluations.items() if one.of]
        known = distributions.profiles_of(
            store, spec, ["score", "prediction", RESIDUAL, *judges], labelled, asked
        )
        score, decided = known.get("score"), known.get("prediction")
        found["calibration"] = decisions.calibration_of(score, asked)
        found["operating"] = decisions.operating_curves_of(score, decided, baseline, asked)
        matrix = decisions.matrix_of(decided, baseline, asked)
        judged = decisions.judges_of(spec, known, baseline, asked)
        found["matrices"] = judged if matrix is None else [matrix, *judged]
        found["by_class"] = decisions.by_class_of(decided, baseline, asked)
        found["residuals"] = distributions.residuals_of(known.get(RESIDUAL), baseline, asked)
        found["labelled_period"] = _named(spec, labelled)
    if not any(found[name] for name in ("calibration", "matrices", "residuals")):
        found["no_truth"] = _no_truth(spec, labelled or newest)
    return found


def _no_truth(spec: ModelSpec, period: tuple[dt.datetime, dt.datetime]) -> str:
    """Say why it is not shown how right a model was; nothing of one whose task has no such view."""
    if not spec.has_actuals:
        return "The model declares no ground truth, so this cannot be measured."
    shown = spec.columns.score or spec.columns.prediction
    if shown is None or spec.task == "ranking":
        return ""
    return f"No ground truth has arrived yet for windows {_named(spec, period)}."


def _named(spec: ModelSpec, period: tuple[dt.datetime, dt.datetime]) -> str:
    first, last = name_window(spec, period[0]), name_last_window(spec, period[1])
    return first if first == last else f"{first} to {last}"


def _shown(
    store: Store,
    spec: ModelSpec,
    states: States,
    now: dt.datetime,
    asked: Asked,
    *,
    is_served: bool,
) -> dict[str, object]:
    """Return what the form at the top of a page offers and has chosen."""
    zone = spec.time.zone
    slices, versions = _offered(store, spec, states, now) if is_served else ([], [])
    return {
        "from": "" if asked.start is None else windows_named([asked.start], zone)[0][:10],
        "to": "" if asked.end is None else name_last_window(spec, asked.end)[:10],
        "slice": "" if asked.slice_key == ALL else f"{asked.slice_key}={asked.slice_value}",
        "version": "" if asked.model_version == ALL else asked.model_version,
        "is_whole": asked.is_whole,
        "slices": slices,
        "versions": versions,
    }


def _offered(
    store: Store, spec: ModelSpec, states: States, now: dt.datetime
) -> tuple[list[str], list[str]]:
    """Return slices, as ``key=value``, and versions of the newest windows."""
    period = newest_windows(spec, states, now)
    some = next(iter([*spec.columns.outputs, *spec.features]), None)
    if period is None or some is None:
        return [], []
    stats = (
        baseline_in_force(store, spec)
        .profiles(start=period[0], end=period[1], dataset=PRODUCTION, columns=[some])
        .get(some)
    )
    if stats is None or not len(stats):
        return [], []
    cells = stats.cells.assign(n=stats.n)
    whole = cells["slice_key"] == ALL
    versions = cells[whole].groupby("model_version")["n"].sum().sort_values(ascending=False)
    personal = {name for name, feature in spec.features.items() if feature.pii}
    sizes = cells[~whole].groupby(["slice_key", "slice_value"])["n"].sum()
    slices = [
        f"{key}={value}"
        for key, value in sizes.sort_values(ascending=False).index
        if not personal & set(str(key).split(","))
    ]
    return sorted(slices[:MAX_OFFERED]), [str(version) for version in versions.index]


def _trace(
    store: Store,
    spec: ModelSpec,
    baseline: Baseline | None,
    asked: Asked,
    labelled: Period | None,
) -> dict[str, object] | None:
    """Return the trace of mature windows for the template; None if there is none."""
    if labelled is None or baseline is None:
        return None
    period = labelled if asked.start is None else (asked.start, asked.end or labelled[1])
    try:
        trace = trace_of(store, spec, period, baseline)
    except BaselineMissingError:  # the period begins while the model was learning
        return None
    metrics = [
        _traced(metric, frame, trace.apart.get(AREA) if metric == AREA else None)
        for metric, frame in trace.slices.groupby("metric", sort=False)
    ]
    first, last = name_window(spec, period[0]), name_last_window(spec, period[1])
    if not metrics:
        return None
    return {"first": first, "last": last, "said": trace.said, "metrics": metrics}


def _traced(metric: object, frame: pd.DataFrame, split: Explained | None) -> dict[str, object]:
    """Return a metric's trace; effects on an area are over pairs of slices."""
    if split is not None:
        effects = {
            (key, value): effect
            for key in split.values
            for value, effect in split.effects(key).items()
        }
        keys = zip(frame["slice_key"], frame["slice_value"], strict=True)
        of_pairs = [effects.get(key, float("nan")) for key in keys]
        frame = frame.assign(
            effect=of_pairs, share=[e / split.change if split.change else e for e in of_pairs]
        )
    rows = frame.to_dict("records")
    parts = [row for row in rows if row["slice_key"] != ALL]
    whole = rows[0]
    return {
        "name": named(str(metric)),
        "is_exact": whole["method"] == "exact",
        "is_of_pairs": split is not None and bool(split.values),
        "is_judged": is_higher_better(str(metric)) is not None,
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
