"""How every model is, for the first page: read when somebody asks, as far as it is new."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from mlmon_dagster.monitors.wording import NAMES, headline, subject
from mlmon_dagster.monitors.wording import number as short
from mlmon_dagster.report.charts import number, places_of, sparkline
from mlmon_dagster.report.incident import count_windows
from mlmon_dagster.report.layers import LAYERS
from mlmon_dagster.spec import Models, ModelSpec
from mlmon_dagster.spec.baseline import GRAINS, PRODUCTION
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, BUSINESS, ESTIMATED_PERFORMANCE, PERFORMANCE, SERVICE
from mlmon_dagster.store import Store
from mlmon_dagster.store.alert_state import find_opening
from mlmon_dagster.store.state import metric_log, monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import NOT_JUDGED, MonitorResult, name_window
from mlmon_dagster.store.state.sql import Row
from mlmon_dagster.tables.alerts import (
    NO_ALERTS,
    NO_OPEN_ALERTS,
    OpenAlerts,
    StandingCounts,
    count_standing,
    explain_alert,
    load_open_alerts,
)
from mlmon_dagster.tables.standing import (
    ORDER,
    Standing,
    StandingVerdicts,
    describe_standing,
    explain_status,
    name_last_window,
    overall,
)

RELOAD_SECONDS = 60  # after which an open page asks again
PER_PAGE = 50
_LOOKED_BACK = {name: 30 * span for name, span in GRAINS.items()}  # for an outcome
DRAWN = 40  # windows of a sparkline


@dataclass(frozen=True)
class Layer:
    """How one layer of a model is: serving system, data, model or business.

    Attributes:
        name: Which.
        status: Worst status of its families.
        said: Its families that are not well, else the newest number that it is judged by.
    """

    name: str
    status: str
    said: str


@dataclass(frozen=True)
class Line:
    """One model on the first page; texts to be shown.

    Attributes:
        model: Its name.
        status: Worst status of its families; BROKEN if its declaration does not load.
        what: What is wrong: of the worst alert that stands, else of the worst family; of a
            declaration that does not load why not. Empty if nothing is.
        since: The first window of that alert, or the newest of that family.
        window: End of the newest window with predictions.
        n: Predictions of that window.
        coverage: Share of its ground truth that has come.
        alerts: How many of its alerts stand.
        layers: From the serving system to the business, as far as they are judged.
        owners: Who it belongs to.
        metric: What the sparkline is of.
        newest: The metric's newest value.
        spark: The metric over the newest windows.
    """

    model: str
    status: str
    what: str = ""
    since: str = ""
    window: str = ""
    n: str = ""
    coverage: str = ""
    alerts: StandingCounts = NO_ALERTS
    layers: Sequence[Layer] = ()
    owners: str = ""
    metric: str = ""
    newest: str = ""
    spark: Markup = field(default_factory=Markup)

    @property
    def searched(self) -> str:
        """The text in which words are looked for."""
        return f"{self.model} {self.owners} {self.what}".casefold()


@dataclass(frozen=True)
class _Judged:
    """What is known of a model's verdicts, until there are newer ones."""

    standings: Sequence[Standing]
    layers: Sequence[Layer]
    metric: str
    values: Sequence[float]


class Overview:
    """Holds the lines of the first page, worst first.

    Reading again costs what is new: a model whose monitors have said nothing since the last time
    is not looked at. Who asks while it is read gets what the next reading finds, together with all
    others who wait.

    Args:
        store: The store.
        declared: Reads what is declared.
        now: The clock that windows go by.
        fresh_seconds: How old the lines may be when somebody asks; by default what stands then.
    """

    def __init__(
        self,
        store: Store,
        declared: Callable[[], Models],
        now: Callable[[], dt.datetime],
        fresh_seconds: float = 0.0,
    ) -> None:
        self._store, self._declared, self._now = store, declared, now
        self._fresh_seconds = fresh_seconds
        self._reading = threading.Lock()
        self._known = StandingVerdicts(store, self._judged)
        self._lines: Sequence[Line] = ()
        self.read_at = now()
        self._since = float("-inf")

    def lines(self) -> Sequence[Line]:
        """Return the lines as they are now: they are read again, once for all who ask meanwhile."""
        asked_at = time.monotonic()
        with self._reading:
            if self._since < asked_at - self._fresh_seconds:
                self.read()
            return self._lines

    def find_spec(self, model: str) -> ModelSpec | None:
        """Return what a model declares now; None if there is none that loads."""
        return next((spec for spec in self._declared().specs if spec.model == model), None)

    def read(self) -> None:
        """Read what is new."""
        self._since = time.monotonic()
        models, now = self._declared(), self._now()
        known = self._known.read(models.specs, now)
        windows = {
            str(row["model"]): row for row in window_state.load_newest_windows(self._store.state)
        }
        alerts = load_open_alerts(self._store)
        lines = [
            _line(
                spec,
                known[spec.model],
                windows.get(spec.model),
                alerts.get(spec.model, NO_OPEN_ALERTS),
            )
            for spec in models.specs
        ]
        lines += [Line(b.name, "BROKEN", b.summary()) for b in models.broken]
        self.read_at = now
        self._lines = sorted(
            lines, key=lambda line: (ORDER.index(line.status), -line.alerts.firing, line.model)
        )

    def _judged(self, spec: ModelSpec, rows: Sequence[MonitorResult]) -> _Judged:
        whole = [row for row in rows if row["slice_key"] == ALL]
        standings = [s for s in describe_standing(spec, rows) if s.status != NOT_JUDGED]
        families = {standing.family: standing.status for standing in standings}
        layers, monitor = _layers(spec, families, whole), _drawn(spec, whole)
        if spec.columns.outcomes and BUSINESS not in families and whole:
            newest = max(row["window_end"] for row in whole)
            layers += _unjudged(self._store, spec, newest)
        if monitor is None:
            return _Judged(standings, layers, "", ())
        span = monitor["window_end"] - monitor["window_start"]
        values = monitor_results.values_since(
            self._store.state, monitor, monitor["window_start"] - DRAWN * span
        )
        metric = str(monitor["metric"])
        return _Judged(standings, layers, NAMES.get(metric, metric), values)


def _drawn(spec: ModelSpec, rows: Sequence[MonitorResult]) -> MonitorResult | None:
    """Return the verdict whose metric stands for the model: performance first."""
    wanted = [str(m.metric) for m in spec.monitors.performance]
    order = {name: i for i, name in enumerate(wanted)}
    families = (PERFORMANCE, BUSINESS, ESTIMATED_PERFORMANCE, SERVICE)
    fit = [row for row in rows if row["family"] in families and row["value"] is not None]
    return min(
        fit,
        key=lambda row: (families.index(row["family"]), order.get(row["metric"], len(order))),
        default=None,
    )


def _unjudged(store: Store, spec: ModelSpec, end: dt.datetime) -> list[Layer]:
    """Return the newest mean of the first outcome, of a model whose outcomes no monitor judges."""
    name, outcome = next(iter(spec.columns.outcomes.items()))
    metric = "mean_outcome" if outcome.better == "higher" else "mean_cost"
    frame = metric_log.newest(
        store.state, spec.model, metric=[metric], slice_key=ALL, dataset=PRODUCTION,
        granularity=spec.time.granularity, start=end - _LOOKED_BACK[spec.time.granularity],
    )  # fmt: skip
    known = frame[(frame["column_name"] == name) & frame["value"].notna()]
    if known.empty:
        return []
    value = float(known.sort_values("window_start")["value"].iloc[-1])
    return [Layer("Business", "-", f"{subject(metric, name)} {short(value)}, not judged")]


def _layers(
    spec: ModelSpec, families: Mapping[str, str], rows: Sequence[MonitorResult]
) -> list[Layer]:
    found = []
    for name, members in LAYERS.items():
        mine = {family: families[family] for family in members if family in families}
        if not mine:
            continue
        status = min(mine.values(), key=ORDER.index)
        ill = ", ".join(f"{FAMILIES[f].label} {said}" for f, said in mine.items() if said != "OK")
        found.append(Layer(name, status, _number(spec, mine, rows, status) or ill))
    return found


def _number(
    spec: ModelSpec, families: Collection[str], rows: Sequence[MonitorResult], status: str
) -> str:
    """Return the newest number that a layer has its status by, in words; of data there is none."""
    order = [str(m.metric) for m in (*spec.monitors.performance, *spec.monitors.business)]
    order = ["p95_latency_ms", "p99_latency_ms", "error_rate", *order]
    fit = [
        row
        for row in rows
        if row["family"] in families and row["status"] == status and row["metric"] in order
    ]
    first = min(fit, key=lambda row: order.index(row["metric"]), default=None)
    if first is None or first["value"] is None:
        return ""
    return f"{subject(first['metric'], first['column_name'])} {short(first['value'])}"


def _say_what(
    spec: ModelSpec,
    status: str,
    judged: _Judged,
    newest: dt.datetime | None,
    alerts: OpenAlerts,
) -> tuple[str, str]:
    """Return what is wrong with a model, and since when."""
    if alerts.standing:
        worst = alerts.standing[0]
        opened = find_opening(worst)
        lasts = count_windows(spec, opened, newest)
        since = f"Since {name_window(spec, opened)}" + (f", {lasts}" if lasts else "")
        since += f"; acknowledged by {worst['acked_by']}" if worst["acked_by"] else ""
        return f"{headline(explain_alert(spec, worst))}.", since
    what, window = explain_status(judged.standings, status, alerts.explained_by)
    return what, f"In {window}" if window else ""


def _line(spec: ModelSpec, judged: _Judged, window: Row | None, alerts: OpenAlerts) -> Line:
    known = [v for v in judged.values if v == v]
    has_window = window is not None and window["window_end"] is not None
    shown, newest = {}, None
    if window is not None and has_window:
        coverage = window["actual_coverage"]
        newest = window["window_end"] - dt.timedelta(microseconds=1)
        shown = {
            "window": name_last_window(spec, window["window_end"]),
            "n": f"{window['n']:,}",
            "coverage": "" if coverage is None else f"{coverage:.0%}".replace("%", " %"),
        }
    status = overall(judged.standings, has_windows=has_window)
    what, since = _say_what(spec, status, judged, newest, alerts)
    return Line(
        spec.model,
        status,
        what,
        since,
        **shown,
        alerts=count_standing(alerts.standing),
        layers=judged.layers,
        owners=", ".join(spec.owners),
        metric=judged.metric,
        newest=number(known[-1], min(places_of(known), 3)) if known else "",
        spark=sparkline(judged.values),
    )


def tally(lines: Collection[Line]) -> list[tuple[str, int]]:
    """Count the models, all under an empty text, then those of each status, the worst first."""
    counted = Counter(line.status for line in lines)
    return [("", len(lines)), *((status, counted[status]) for status in ORDER if counted[status])]
