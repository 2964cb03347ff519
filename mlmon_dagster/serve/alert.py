"""The page of an alert: what is wrong, its evidence, why, its rows and its history."""

from __future__ import annotations

import datetime as dt
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlmon_dagster.alerts.messages.view import (
    AlertView,
    commands_of,
    has_failed_since,
    local_moment,
    view_of,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.monitors.wording import (
    BEYOND_CHANCE,
    REASONS,
    as_judged,
    beyond_headline,
    headline,
    limit_of,
)
from mlmon_dagster.monitors.wording import number as written
from mlmon_dagster.report import page
from mlmon_dagster.report.charts import Curve, Episode, chart_of
from mlmon_dagster.report.page import Places, moment_text
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, BUSINESS, FRESHNESS, PERFORMANCE, SERVICE, TABLE
from mlmon_dagster.spec.spans import STAGE, TRACE_ID
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.alert_state import (
    SHORT_ID,
    AlertEpisode,
    AlertEvent,
    AlertRow,
    find_window,
)
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.store.tables.columns import span_fields
from mlmon_dagster.tables.alerts import (
    TELLING_FACTS,
    explain_episode,
    is_personal,
    list_alerts,
    list_facts,
    name_earlier,
    name_monitor,
    name_muted,
    name_silence,
    pick_newest,
)

_DRAWN = 120  # windows
_LISTED = 30
_ROWS = 50
_TRACES = 10  # of the slowest, and of the failed
_OF_REQUESTS = (SERVICE, BUSINESS, PERFORMANCE)  # families whose alerts lead to traces
_WEB = ("https://", "http://")


@dataclass(frozen=True)
class RowTable:
    """Rows behind an alert, as texts.

    Attributes:
        names: Columns.
        rows: The worst first.
        said: How many there are, and which.
        links: Trace id -> its address elsewhere, where the spec declares one.
    """

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    said: str
    links: Mapping[str, str]


def alert_page(
    store: Store,
    spec: ModelSpec,
    alert: AlertRow,
    now: dt.datetime,
    places: Places,
    *,
    with_rows: bool = False,
) -> str:
    """Render the page of an alert.

    Args:
        store: The store.
        spec: Its model.
        alert: Row of the table ``alert``.
        now: The moment of the page.
        places: Where it leads.
        with_rows: Whether the rows behind it are shown; they are read for that.

    Of a model that declares spans it also shows the slowest and the failed traces behind it.
    """
    zone = spec.time.zone
    view = view_of(alert, zone)
    mine = [e for e in list_alerts(store, spec.model) if e.fingerprint == alert["fingerprint"]]
    identity = {
        name: str(alert[name])
        for name in ("model", "monitor", "dataset", "slice_key", "slice_value")
    }
    with store.state.connect() as conn:
        verdicts: Sequence[MonitorResult] = monitor_results.series(conn, identity, now, _DRAWN)
        events = alert_state.all_events(conn, spec.model).get(str(alert["fingerprint"]), [])
    if not verdicts:
        verdicts = _of_columns(store, alert)
    hidden = is_personal(spec, str(alert["column_name"]), str(alert["slice_key"]))
    traces = _traces(store, spec, alert) if verdicts else []
    current = pick_newest(alert, mine)
    said = "" if hidden else view.sentence
    if current is not None:
        said = explain_episode(spec, current)
    is_newer = current is not None and has_failed_since(alert, current.resolved_window)
    name = headline(said) or name_monitor(alert["monitor"])
    return page.render(
        "alert.html.j2",
        title=f"{name}: {spec.model}",
        home=places.home,
        model_href=places.model(spec.model),
        column_href=_column(spec, places, alert),
        spec=spec,
        alert=alert,
        name=name,
        state=alert["state"] if current is None else current.state,
        severity=alert["severity"] if current is None else current.severity,
        said=beyond_headline(said),
        numbers="" if is_newer else view.numbers,
        facts=_facts(view, mine, hidden=hidden),
        runbook=alert["runbook"] if str(alert["runbook"]).startswith(_WEB) else "",
        chart=_chart(spec, view, verdicts, mine),
        evidence=[_evidence(row, zone, spec) for row in reversed(verdicts[-_LISTED:])],
        has_columns=len({row["column_name"] for row in verdicts}) > 1,
        why=[] if hidden or is_newer else view.why,
        commands=[
            *commands_of([view]),
            *_slowest(alert, traces),
            _acknowledge(alert),
            name_silence(alert),
        ],
        history=[_event(event, zone, hidden=hidden) for event in reversed(events)],
        traces=traces,
        has_rows=alert["family"] in FAMILIES and alert["family"] != FRESHNESS,
        rows=_rows(store, spec, alert) if with_rows else None,
        now=moment_text(now),
    )


def _column(spec: ModelSpec, places: Places, alert: AlertRow) -> str:
    """Return where the histogram of its column is; empty if it is about none."""
    column = str(alert["column_name"])
    return f"{places.model(spec.model)}#column-{column}" if column in spec.features else ""


def _facts(
    view: AlertView, episodes: Sequence[AlertEpisode], *, hidden: bool
) -> list[tuple[str, str]]:
    facts = list_facts(view, episodes) | {"Alert": view.row["fingerprint"][: SHORT_ID + 4]}
    facts["Earlier episodes"] = "; ".join(name_earlier(view, episodes))
    if view.row["slice_key"] == ALL:
        facts["Slice"] = ""
    if hidden:
        facts |= dict.fromkeys(TELLING_FACTS, "")
    return [(name, text) for name, text in facts.items() if text]


def _slowest(alert: AlertRow, traces: Sequence[RowTable]) -> list[str]:
    command = ["mlmon", "rows", str(alert["fingerprint"])[:SHORT_ID], "--slowest"]
    return [shlex.join(command)] if traces else []


def _acknowledge(alert: AlertRow) -> str:
    return shlex.join(["mlmon", "alerts", "ack", str(alert["fingerprint"])[:8]])


def _chart(
    spec: ModelSpec,
    view: AlertView,
    verdicts: Sequence[MonitorResult],
    episodes: Sequence[AlertEpisode],
) -> object | None:
    has_values = any(row["value"] is not None for row in verdicts)
    if not has_values or len({row["monitor"] for row in verdicts}) > 1:
        return None

    is_beyond = any(row["threshold"].endswith(BEYOND_CHANCE) for row in verdicts)
    verdicts = [as_judged(row) for row in verdicts]
    judged = [row for row in verdicts if row["value"] is not None]
    baseline = judged[-1]["baseline_value"]
    has_interval = any(row["lower"] is not None for row in verdicts)
    return chart_of(
        Curve(
            title=name_monitor(view.row["monitor"]) + (BEYOND_CHANCE if is_beyond else ""),
            starts=[row["window_start"] for row in verdicts],
            values=[_plain(row["value"]) for row in verdicts],
            lower=[_plain(row["lower"]) for row in verdicts] if has_interval else (),
            upper=[_plain(row["upper"]) for row in verdicts] if has_interval else (),
            end=verdicts[-1]["window_end"],
            zone=spec.time.zone,
            baseline=None if baseline is None else float(baseline),
            limit=limit_of(judged[-1]),
            episodes=[
                Episode(e.opened_window, e.resolved_window)
                for e in episodes
                if e.state not in ("PENDING", "WITHDRAWN")
            ],
        )
    )


def _plain(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _of_columns(store: Store, alert: AlertRow) -> Sequence[MonitorResult]:
    """Return the failed verdicts that an alert stands for which has none of its own."""
    start = alert_state.find_opening(alert)
    about = {name: str(alert[name]) for name in ("model", "family", "metric", "slice_key")}
    with store.state.connect() as conn:
        return monitor_results.failed(conn, about, start, alert["last_window_start"])


def _evidence(row: MonitorResult, zone: str, spec: ModelSpec) -> dict[str, str]:
    interval = (
        f"{written(row['lower'])} to {written(row['upper'])}"
        if row["lower"] is not None and row["upper"] is not None
        else ""
    )
    p = row["p_adjusted"]
    reason = REASONS.get(str(row["reason"]), str(row["reason"]))
    hidden = is_personal(spec, row["column_name"], row["slice_key"])
    return {
        "window": local_moment(row["window_start"], zone),
        "column": "" if row["column_name"] == TABLE else row["column_name"],
        "status": str(row["status"]),
        "value": _shown(row["value"]),
        "interval": interval,
        "baseline": _shown(row["baseline_value"]),
        "limit": str(row["threshold"]),
        "n": f"{row['n']:,}",
        "p": "" if p is None else ("< 0.001" if p < 0.001 else f"{p:.3f}"),
        "said": reason if row["status"] == "NO_DATA" else ("" if hidden else str(row["message"])),
    }


def _shown(value: float | None) -> str:
    return "" if value is None else written(float(value))


def _event(event: AlertEvent, zone: str, *, hidden: bool) -> dict[str, str]:
    return {
        "when": f"{event['created_at']:%Y-%m-%d %H:%M}",
        "kind": str(event["kind"]),
        "episode": str(event["episode"]),
        "severity": str(event["severity"]),
        "window": local_moment(find_window(event), zone),
        "value": _shown(event["value"]),
        "muted": name_muted(event["muted_reason"]),
        "said": "" if hidden else str(event["message"]),
    }


def _rows(store: Store, spec: ModelSpec, alert: AlertRow) -> RowTable:
    from mlmon_dagster.families.reported_files import REFUSED, refusals_in
    from mlmon_dagster.tables.rows import behind, column_texts, rows_of

    verdict = behind(store, spec, alert)
    if alert["monitor"] == REFUSED:
        refused = refusals_in(store, spec, verdict.window)
        said = f"{len(refused):,} refused files and rows in {verdict.window.key}."
        return _table(spec, {"refused": refused[:_ROWS]}, said)
    found = rows_of(
        store, spec, (verdict.window,), verdict.picked, limit=_ROWS, version=verdict.version,
        slowest=verdict.time,
    )  # fmt: skip
    kept = "" if verdict.version is not None else ", as they are now: those judged are not kept"
    picked = f" where {found.predicate}" if found.predicate else ""
    order = "worst" if verdict.time is None else "slowest"
    shown = f", the {order} {found.table.num_rows:,}" if found.table.num_rows < found.n else ""
    said = f"{found.n:,} rows of {verdict.window.key}{picked}{shown}{kept}."
    return _table(spec, column_texts(spec, found.table, digits=4), said)


def _traces(store: Store, spec: ModelSpec, alert: AlertRow) -> list[RowTable]:
    """Return the slowest and the failed traces behind an alert, those that there are."""
    if spec.spans is None or alert["family"] not in _OF_REQUESTS:
        return []
    from mlmon_dagster.tables.rows import behind, column_texts, traces_behind

    try:
        verdict = behind(store, spec, alert)
    except ConfigError:  # its slice is not declared any more
        return []
    slowest, failed = traces_behind(store, spec, verdict, limit=_TRACES)
    shown = [TRACE_ID, "prediction_id", "event_time", "latency_ms", "status"]
    shown += [field.name for field in span_fields(spec) if field.name.startswith(STAGE)]
    shown += spec.spans.columns
    told = []
    for name, found in (("slowest", slowest), ("failed", failed)):
        columns = column_texts(spec, found.table, digits=4)
        said = f"The {name} of {found.n:,} traced requests of {verdict.window.key}."
        if name == "failed":
            said = f"{found.n:,} failed, or a stage of them did; the slowest first."
        if found.n and (name == "failed" or spec.columns.latency_ms is not None):
            mine = {n: columns[n] for n in shown if n in columns}
            told.append(_table(spec, mine, said))
    return told


def _table(spec: ModelSpec, columns: Mapping[str, list[str]], said: str) -> RowTable:
    filled = {name: texts for name, texts in columns.items() if any(texts)}
    rows = [list(row) for row in zip(*filled.values(), strict=True)]
    links = {}
    if spec.spans is not None:
        addresses = {one: spec.spans.link_to(one) for one in filled.get(TRACE_ID, ()) if one}
        links = {one: address for one, address in addresses.items() if address is not None}
    return RowTable(list(filled), rows, said, links)
