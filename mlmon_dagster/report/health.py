"""The page of a model: one renderer for the file that `mlmon report` writes and for the web."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from mlmon_dagster.report.page import NOWHERE, Places, moment_text
from mlmon_dagster.report.stages import measure_stages
from mlmon_dagster.report.topics import list_topics
from mlmon_dagster.report.trace import newest_mature, newest_period, trace_of
from mlmon_dagster.spec import ModelSpec, Window, window_containing
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
from mlmon_dagster.tables.standing import describe_standing, name_last_window, overall
from mlmon_dagster.trace.explain import AREA, Explained

if TYPE_CHECKING:
    import pandas as pd

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
    episodes = list_alerts(store, spec.model)
    current = pick_standing(episodes)
    before = find_last_usual(spec, [one.opened_window for one in current])
    try:
        baseline = load_baseline(store, spec, before)
    except BaselineMissingError:
        baseline = None
    states = window_state.load(store.state, spec.model)
    view = _View(store, spec, now, asked, states, baseline)
    verdicts = load_standing(store.state, [spec], now)[spec.model]
    standings = describe_standing(spec, verdicts)
    newest = max((start for start, s in states.items() if s.n and start < now), default=None)
    n_firing = sum(episode.standing == "firing" for episode in current)
    counts = StandingCounts(n_firing, len(current) - n_firing)
    history = view.read_history()
    events = find_events(store, spec, *view.span, history)
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
    status = overall(standings)
    trace = view.trace(labelled) if asked.is_whole else None
    html = page.render(
        "model.html.j2",
        title=f"{spec.model}: health",
        home=places.home,
        spec=spec,
        now=moment_text(now),
        status=status,
        standings=standings,
        newest=max((one.window for one in standings), default=""),
        registered=_registered(store, spec),
        incidents=find_incidents(store, spec, current[:MAX_ALERTS], newest, places),
        most_cards=MOST_CARDS,
        days=show_days(store, spec, states, [one.family for one in standings], now),
        counts=counts,
        covered_by=name_causes(e.muted_reason for e in episodes if e.state in alert_state.ACTIVE),
        are_waiting=spec.model in alert_state.models_with_new_results(store.state),
        events=[(_name_event(spec, event), event) for event in reversed(events)],
        explained=_named(spec, incident) if incident else "",
        labelled=_name_earlier(spec, incident, labelled),
        offered=view.offer_periods(known),
        periods=periods_of(store, spec, baseline, states, history),
        period_names=period_names(spec),
        charts={name: [chart_of(c) for c in found if c.values] for name, found in drawn.items()},
        stages=measure_stages(store, spec, view.find_last_window(incident)),
        volume=view.draw_volume(events),
        layers=layers_of(
            drawn, monitor_results.shares_failed(store.state, spec.model, LAYERS["Data"], now)
        ),
        heat=_drift_strips(store, spec, curves.drifts(), current),
        trace=trace,
        carriers=trace["carriers"] if trace else [],
        slices=distributions.slice_tables(spec, baseline, history, view.period)
        if asked.is_whole
        else [],
        baseline=baseline,
        asked=view.describe_asked(is_served=bool(places.home)),
        **view.show_columns(verdicts, view.period or incident),
        **view.show_decisions(incident, labelled),
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


@dataclass(frozen=True)
class _View:
    """What a page is made from.

    Attributes:
        store, spec, now, asked: As `health_report` takes them.
        states: Of all windows of the model.
        baseline: Of windows to come; None while there is none.
    """

    store: Store
    spec: ModelSpec
    now: dt.datetime
    asked: Asked
    states: Mapping[dt.datetime, WindowInputs]
    baseline: Baseline | None

    @property
    def end(self) -> dt.datetime:
        """Windows that start before this moment are shown."""
        return self.now if self.asked.end is None else min(self.now, self.asked.end)

    @property
    def period(self) -> Period | None:
        """The windows that are asked for; None if no first one is."""
        return None if self.asked.start is None else (self.asked.start, self.end)

    @cached_property
    def drawn(self) -> list[dt.datetime]:
        """Starts of the windows that curves show, oldest first."""
        first = self.asked.start
        if first is not None:
            return sorted(start for start in self.states if first <= start < self.end)
        starts = sorted(start for start in self.states if start < self.end)
        return starts[-WINDOWS_DRAWN[self.spec.time.granularity] :]

    @property
    def span(self) -> Period:
        """Start and end of all windows that are drawn."""
        return self.period or (next(iter(self.drawn), self.end), self.end)

    @cached_property
    def newest(self) -> Period | None:
        """The newest windows, which are looked at together: as many as `newest_mature` takes."""
        known = (start for start, state in self.states.items() if state.n and start < self.now)
        return newest_period(self.spec, known)

    def read_history(self) -> History:
        """Read once what months, slices and events are told from."""
        spec, counted = self.spec, find_counted_column(self.spec)
        columns = [*list_period_columns(spec), *distributions.list_sliced_columns(spec)]
        if counted:
            columns.append(counted)
        keys = [(), *distributions.list_sliced_keys(spec)] if self.asked.is_whole else [()]
        starts = [find_first_period(spec, self.states), self.asked.start]
        first = min((start for start in starts if start is not None), default=None)
        return History(self.store, spec, columns, keys, first)

    def offer_periods(self, incident: Period | None) -> list[dict[str, str]]:
        """Return the periods that a page offers: the incident's, then the newest windows."""
        found = []
        for name, period in (("Incident", incident), ("Newest", self.newest)):
            if period is not None:
                first, last = _ends(self.spec, period)
                text = _named(self.spec, period)
                found.append({"name": name, "text": text, "first": first[:10], "last": last[:10]})
        return found

    def draw_volume(self, events: Sequence[Event]) -> list[Chart]:
        """Return the predictions of each window, and how much of their ground truth has come."""
        spec, starts = self.spec, [start for start in self.drawn if self.states[start].n]
        if not starts:
            return []
        labels, marks = windows_named(starts, spec.time.zone), place_events(events, starts)
        sizes = Line("Predictions", "value", [float(self.states[start].n) for start in starts])
        found = [Chart("Predictions", labels, [sizes], floor=True, events=marks)]
        if spec.has_actuals:
            known = (self.states[start].coverage for start in starts)
            shares = [math.nan if share is None else min(share, 1.0) for share in known]
            title, limit = "Ground truth that has arrived", spec.actuals.min_coverage
            line = Line("Share", "value", shares)
            found.append(
                Chart(title, labels, [line], None, limit, is_share=True, floor=True, events=marks)
            )
        return found

    def find_last_window(self, incident: Period | None) -> Window | None:
        """Return the last window that is shown; None without any."""
        shown = self.period or incident or self.newest
        starts = [start for start in self.states if shown and shown[0] <= start < shown[1]]
        return window_containing(self.spec.time, max(starts)) if starts else None

    def show_columns(
        self, verdicts: Sequence[MonitorResult], period: Period | None
    ) -> dict[str, object]:
        """Return the histograms of a period, by default of the newest windows, and topics."""
        found: dict[str, object] = {"histograms": [], "topics": [], "histogram_period": ""}
        spec, shown = self.spec, period or self.newest
        if shown is None or self.baseline is None:
            return found
        columns = [*spec.features, *spec.columns.outputs]
        profiles = distributions.profiles_of(self.store, spec, columns, shown, self.asked)
        bars = distributions.histograms(spec, profiles, self.baseline, self.asked)
        return {
            "histograms": distributions.column_cards(spec, bars, verdicts),
            "topics": list_topics(self.store, spec, profiles, self.baseline, self.asked, shown),
            "histogram_period": _named(spec, shown),
        }

    def show_decisions(self, incident: Period | None, labelled: Period | None) -> dict[str, object]:
        """Return how right decisions were, of windows whose ground truth has come."""
        found: dict[str, object] = {
            "calibration": None, "matrices": [], "operating": None, "by_class": None,
            "residuals": None, "labelled_period": "", "no_truth": "",
        }  # fmt: skip
        spec, asked, baseline = self.spec, self.asked, self.baseline
        newest = self.period or incident or self.newest
        if newest is None:
            return found
        labelled = self.period or labelled
        if labelled is not None:
            judges = [f"{JUDGED}{name}" for name, one in spec.evaluations.items() if one.of]
            known = distributions.profiles_of(
                self.store, spec, ["score", "prediction", RESIDUAL, *judges], labelled, asked
            )
            score, decided = known.get("score"), known.get("prediction")
            matrix = decisions.matrix_of(decided, baseline, asked)
            judged = decisions.judges_of(spec, known, baseline, asked)
            found |= {
                "calibration": decisions.calibration_of(score, asked),
                "operating": decisions.operating_curves_of(score, decided, baseline, asked),
                "matrices": judged if matrix is None else [matrix, *judged],
                "by_class": decisions.by_class_of(decided, baseline, asked),
                "residuals": distributions.residuals_of(known.get(RESIDUAL), baseline, asked),
                "labelled_period": _named(spec, labelled),
            }
        if not any(found[name] for name in ("calibration", "matrices", "residuals")):
            found["no_truth"] = _no_truth(spec, labelled or newest)
        return found

    def describe_asked(self, *, is_served: bool) -> dict[str, object]:
        """Return what the form at the top of a page offers and has chosen."""
        asked, zone = self.asked, self.spec.time.zone
        slices, versions = self._list_offered() if is_served else ([], [])
        return {
            "from": "" if asked.start is None else windows_named([asked.start], zone)[0][:10],
            "to": "" if asked.end is None else name_last_window(self.spec, asked.end)[:10],
            "slice": "" if asked.slice_key == ALL else f"{asked.slice_key}={asked.slice_value}",
            "version": "" if asked.model_version == ALL else asked.model_version,
            "is_whole": asked.is_whole,
            "slices": slices,
            "versions": versions,
        }

    def _list_offered(self) -> tuple[list[str], list[str]]:
        """Return slices, as ``key=value``, and versions of the newest windows."""
        spec, period = self.spec, self.newest
        some = next(iter([*spec.columns.outputs, *spec.features]), None)
        if period is None or some is None:
            return [], []
        stats = (
            baseline_in_force(self.store, spec)
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

    def trace(self, labelled: Period | None) -> dict[str, object] | None:
        """Return the trace of mature windows for the template; None if there is none."""
        if labelled is None or self.baseline is None:
            return None
        first = self.asked.start
        period = labelled if first is None else (first, self.asked.end or labelled[1])
        try:
            trace = trace_of(self.store, self.spec, period, self.baseline)
        except BaselineMissingError:  # the period begins while the model was learning
            return None
        metrics = [
            _traced(metric, frame, trace.apart.get(AREA) if metric == AREA else None)
            for metric, frame in trace.slices.groupby("metric", sort=False)
        ]
        names = dict(zip(("first", "last"), _ends(self.spec, period), strict=True))
        if not metrics:
            return None
        carriers = find_carriers(trace.slices)
        return {**names, "said": trace.said, "metrics": metrics, "carriers": carriers}


def find_last_usual(spec: ModelSpec, opened: Iterable[dt.datetime | None]) -> dt.datetime | None:
    """Return the window whose baseline a page shows; None for that of windows to come.

    A baseline that moves takes in the windows of an incident, which would look usual beside
    themselves. So it is that of the first window of the alerts that have not ended.

    Args:
        spec: The model.
        opened: The first windows of those alerts; None where one is not known.
    """
    known = [start for start in opened if start is not None]
    return min(known, default=None) if spec.baseline.is_rolling else None


def find_carriers(slices: pd.DataFrame) -> list[tuple[str, str]]:
    """Return the slices that carried a fall: key and value, the first metric's alone.

    That is where the metric as a whole got worse by more than chance, and the slice itself did so,
    too. A change that may be chance has no carriers.

    Args:
        slices: What was traced, the whole first.
    """
    if slices.empty:
        return []
    metric = str(slices["metric"].iloc[0])
    mine = slices[slices["metric"] == metric]
    is_better_high = is_higher_better(metric)
    is_whole = mine["slice_key"] == ALL
    if is_better_high is None or not is_whole.any():
        return []
    is_worse = mine["change_upper"] < 0 if is_better_high else mine["change_lower"] > 0
    if not is_worse[is_whole].all():
        return []
    falls = mine["change"] < 0 if is_better_high else mine["change"] > 0
    found = mine[~is_whole & mine["is_real"].astype(bool) & falls]
    return list(zip(found["slice_key"].astype(str), found["slice_value"].astype(str), strict=True))


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


def _name_earlier(spec: ModelSpec, incident: Period | None, labelled: Period | None) -> str:
    """Name the windows that have ground truth where none of the incident's has; else empty."""
    if incident is None or labelled is None or labelled[1] > incident[0]:
        return ""
    return _named(spec, labelled)


def _name_event(spec: ModelSpec, event: Event) -> str:
    """Write when something happened: the window that it is about, or the day."""
    named = windows_named([event.at], spec.time.zone)[0]
    return named if spec.time.granularity == "hour" else named[:10]


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
    lines = [Line(strip.title, "value", strip.values) for strip in strips]
    name = some.title.rpartition(" of ")[0]
    return {"strips": strips, "chart": Chart(name, labels, lines, limit=some.limit), "name": name}


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if v == v]
    return sum(known) / len(known) if known else 0.0


def _no_truth(spec: ModelSpec, period: Period) -> str:
    """Say why it is not shown how right a model was; nothing of one whose task has no such view."""
    if not spec.has_actuals:
        return "The model declares no ground truth, so this cannot be measured."
    shown = spec.columns.score or spec.columns.prediction
    if shown is None or spec.task == "ranking":
        return ""
    return f"No ground truth has arrived yet for windows {_named(spec, period)}."


def _ends(spec: ModelSpec, period: Period) -> tuple[str, str]:
    """Name the first and the last window of a period."""
    return name_window(spec, period[0]), name_last_window(spec, period[1])


def _named(spec: ModelSpec, period: Period) -> str:
    first, last = _ends(spec, period)
    return first if first == last else f"{first} to {last}"


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
