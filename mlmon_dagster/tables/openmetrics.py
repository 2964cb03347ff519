"""Numbers for Prometheus: what monitors judged, what fires, how the machinery is, in OpenMetrics.

A window's numbers carry no time of their own, since Prometheus refuses late ones: the end of the
window is a series. NO_DATA is a series too, and has no status, so that it never looks healthy.
"""

from __future__ import annotations

import datetime as dt
import gzip
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from mlmon_dagster.monitors.wording import limit_of
from mlmon_dagster.spec import Models
from mlmon_dagster.spec.names import TABLE
from mlmon_dagster.store import Store, alert_state
from mlmon_dagster.store.outbox import outbox_health
from mlmon_dagster.store.state import manifest, model_history, window_state
from mlmon_dagster.store.state.monitor_results import MonitorResult
from mlmon_dagster.tables.standing import StandingVerdicts

FRESH_SECONDS = 30.0
_STATUS = {"OK": 0.0, "WARN": 1.0, "ERROR": 2.0}
ABOUT = {
    "mlmon_monitor_status": "Verdict on the newest window: 0 OK, 1 WARN, 2 ERROR; none is NO_DATA.",
    "mlmon_monitor_no_data": "1 where a monitor could not judge its newest window.",
    "mlmon_monitor_value": "The value that the monitor judged, in the unit of its metric.",
    "mlmon_monitor_limit": "The value at which the monitor fails, rounded as in messages.",
    "mlmon_monitor_excess": "Distance to the limit: -1 no change, 0 at the limit, 1 twice as far.",
    "mlmon_monitor_baseline": "The baseline's value.",
    "mlmon_monitor_rows": "Rows that the verdict rests on.",
    "mlmon_monitor_info": "The monitor's limit as text, and its owner.",
    "mlmon_family_window_end_timestamp_seconds": "End of the window of a family's verdicts.",
    "mlmon_window_end_timestamp_seconds": "End of a model's newest window with predictions.",
    "mlmon_window_predictions": "Predictions of a model's newest window.",
    "mlmon_window_actual_coverage": "Share of the newest window's ground truth that has arrived.",
    "mlmon_windows_waiting": "Windows whose newest inputs are not computed yet.",
    "mlmon_model_broken": "1 for a file of models/ that does not load.",
    "mlmon_alert_firing": "1 while an alert fires; the label muted says why no message was sent.",
    "mlmon_alert_recovering": "1 while an alert recovers: windows pass, which may be chance.",
    "mlmon_ingest_files_waiting": "Landing files of a stream that are not read yet.",
    "mlmon_outbox_waiting": "Messages that are not delivered yet.",
    "mlmon_outbox_oldest_timestamp_seconds": "When the oldest message that waits was written.",
    "mlmon_outbox_dead": "Messages that a receiver refused for good.",
    "mlmon_last_tick_timestamp_seconds": "When the planner, dispatcher or another part last ran.",
    "mlmon_left_out_monitors": "Monitors of a model that are left out because there are too many.",
    "mlmon_left_out_alerts": "Open alerts that are left out because there are too many.",
    "mlmon_snapshot_timestamp_seconds": "When these numbers were read from the database.",
}
MONITOR_LABELS = (
    "model", "monitor", "family", "metric", "column_name", "slice_key", "slice_value",
)  # fmt: skip
_MONITOR = itemgetter(*MONITOR_LABELS)
_LABEL = {"column_name": "column"}
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
Sees = Callable[[str], bool]


@dataclass(frozen=True)
class Bounds:
    """How much is exported at most; what is left out is counted in series of its own.

    Attributes:
        of_model: Monitors of a model; those of everything come before those of slices.
        in_all: Monitors of all models.
        alerts: Alerts that fire or recover.
    """

    of_model: int = 500
    in_all: int = 50_000
    alerts: int = 5_000


@dataclass
class Families:
    """Metric families in the making: name -> model, or nothing -> lines.

    Of a thousand models there are 350,000 lines, which a library that makes an object of each takes
    seven seconds to write; gauges are the same text in both formats.
    """

    found: dict[str, dict[str, list[str]]] = field(default_factory=dict)

    def add(self, name: str, value: float | None, labels: Mapping[str, str]) -> None:
        """Add a sample; no value is no sample."""
        if value is not None and value == value:
            line = f"{name}{{{_written(labels, labels.values())}}} {float(value)!r}\n"
            self.add_line(name, labels.get("model", ""), line)

    def add_line(self, name: str, model: str, line: str) -> None:
        """Add a sample as it is written."""
        self.found.setdefault(name, {}).setdefault(model, []).append(line)

    def text(self, sees: Sees) -> str:
        """Return the families with what may be seen of them."""
        seen = {
            model: not model or sees(model) for models in self.found.values() for model in models
        }
        parts = []
        for name, models in self.found.items():
            parts.append(_head(name))
            for model, lines in models.items():
                if seen[model]:
                    parts += lines
        return "".join(parts)


def _head(name: str) -> str:
    return f"# HELP {name} {ABOUT[name]}\n# TYPE {name} gauge\n"


def _written(columns: Iterable[str], texts: Iterable[str]) -> str:
    """Return labels: columns are called by what they are, and no column is no text."""
    return ",".join(
        [
            f'{_LABEL.get(column, column)}="{"" if text == TABLE else text.translate(_ESCAPED)}"'
            for column, text in zip(columns, texts, strict=True)
        ]
    )


def _lines(row: MonitorResult) -> list[tuple[str, str]]:
    """Return family and line of each sample of a verdict; of NO_DATA only that, and why."""
    same = _written(MONITOR_LABELS, _MONITOR(row))
    about = _written(("threshold", "owner"), (row["threshold"], row["owner"]))
    found = [("mlmon_monitor_info", f"{same},{about}", 1.0)]
    if row["status"] not in _STATUS:
        why = _written(("reason",), (row["reason"],))
        found.append(("mlmon_monitor_no_data", f"{same},{why}", 1.0))
    else:
        values = (
            ("status", _STATUS[row["status"]]),
            ("value", row["value"]),
            ("excess", row["excess"]),
            ("baseline", row["baseline_value"]),
            ("limit", limit_of(row)),
            ("rows", row["n"]),
        )
        found += [
            (f"mlmon_monitor_{name}", same, value)
            for name, value in values
            if value is not None and value == value
        ]
    return [(name, f"{name}{{{text}}} {float(value)!r}\n") for name, text, value in found]


@dataclass(frozen=True)
class _Judged:
    """A model's standing verdicts as lines, and the ends of its families' windows."""

    verdicts: Sequence[Sequence[tuple[str, str]]]
    ends: Sequence[tuple[str, dt.datetime]]

    @classmethod
    def of(cls, rows: Sequence[MonitorResult]) -> _Judged:
        ends: dict[str, dt.datetime] = {}
        for row in rows:
            ends[row["family"]] = max(row["window_end"], ends.get(row["family"], row["window_end"]))
        return cls([_lines(row) for row in rows], sorted(ends.items()))


def _add_windows(families: Families, store: Store, names: set[str]) -> None:
    for row in window_state.load_newest_windows(store.state):
        if row["model"] not in names:
            continue
        labels = {"model": row["model"]}
        families.add("mlmon_windows_waiting", row["n_waiting"], labels)
        if row["window_end"] is None:
            continue
        end = row["window_end"].timestamp()
        families.add("mlmon_window_end_timestamp_seconds", end, labels)
        families.add("mlmon_window_predictions", row["n"], labels)
        families.add("mlmon_window_actual_coverage", row["actual_coverage"], labels)


def _add_alerts(families: Families, store: Store, most: int) -> None:
    with store.state.connect() as conn:
        rows = alert_state.load_open_alerts(conn)
    for row in rows[:most]:
        families.add(
            f"mlmon_alert_{row['state'].lower()}",
            1.0,
            dict(zip(MONITOR_LABELS, _MONITOR(row), strict=True))
            | {"severity": row["severity"], "muted": row["muted_reason"].partition(":")[0]},
        )
    families.add("mlmon_left_out_alerts", max(len(rows) - most, 0), {})


def _add_health(families: Families, store: Store, read_at: float) -> None:
    for model, streams in sorted(manifest.load_backlogs(store.state).items()):
        for stream, backlog in sorted(streams.items()):
            of_stream = {"model": model, "stream": stream}
            families.add("mlmon_ingest_files_waiting", backlog.n, of_stream)
    outbox = outbox_health(store.state)
    families.add("mlmon_outbox_waiting", outbox.n_waiting, {})
    families.add("mlmon_outbox_dead", outbox.n_dead, {})
    if outbox.oldest_waiting_at is not None:
        oldest = outbox.oldest_waiting_at.timestamp()
        families.add("mlmon_outbox_oldest_timestamp_seconds", oldest, {})
    for part, at in sorted(model_history.load_beats(store.state).items()):
        families.add("mlmon_last_tick_timestamp_seconds", at.timestamp(), {"part": part})
    families.add("mlmon_snapshot_timestamp_seconds", read_at, {})


class Exporter:
    """Answers scrapes from a snapshot, which is read again when it is old.

    Args:
        store: The store.
        declared: Reads what is declared; of other models in the database nothing is said.
        now: The clock that windows go by: those that start before it.
        fresh_seconds: How long a snapshot is answered from.
        bounds: How much is exported at most.
    """

    def __init__(
        self,
        store: Store,
        declared: Callable[[], Models],
        now: Callable[[], dt.datetime],
        fresh_seconds: float = FRESH_SECONDS,
        bounds: Bounds = Bounds(),
    ) -> None:
        self._store, self._declared, self._now = store, declared, now
        self._fresh_seconds, self._bounds = fresh_seconds, bounds
        self._lock = threading.Lock()
        self._judged = StandingVerdicts(store, lambda _, rows: _Judged.of(rows))
        self._snapshot = Families()
        self._read_at = float("-inf")

    def answer(
        self, accept: str, sees: Sees, others: Iterable[Metric] = (), zipped: bool = False
    ) -> tuple[bytes, dict[str, str]]:
        """Return the body of an answer and its headers.

        Args:
            accept: The header of the request: OpenMetrics, or Prometheus's older text.
            sees: Says of a model whether the caller may see its series.
            others: Families that the server adds.
            zipped: Whether the caller takes gzip.
        """
        encode, media_type = choose_encoder(accept)
        added = encode(_Fixed([_of_models(family, sees) for family in others]))
        body = self._current().text(sees).encode() + added
        headers = {"content-type": media_type, "cache-control": "no-store"}
        if zipped:
            return gzip.compress(body, 1), headers | {"content-encoding": "gzip"}
        return body, headers

    def _current(self) -> Families:
        # One reads, the others wait for it: scrapes that come together cost one look.
        with self._lock:
            if time.monotonic() - self._read_at >= self._fresh_seconds:
                self._snapshot = self._read()
                self._read_at = time.monotonic()
            return self._snapshot

    def _read(self) -> Families:
        store, models, now = self._store, self._declared(), self._now()
        specs = sorted(models.specs, key=lambda spec: spec.model)
        families = Families()
        room = self._bounds.in_all
        for name, judged in self._judged.read(specs, now).items():
            shown = judged.verdicts[: min(self._bounds.of_model, room)]
            room -= len(shown)
            for verdict in shown:
                for family, line in verdict:
                    families.add_line(family, name, line)
            for of, end in judged.ends:
                labels = {"model": name, "family": of}
                families.add("mlmon_family_window_end_timestamp_seconds", end.timestamp(), labels)
            left = len(judged.verdicts) - len(shown)
            families.add("mlmon_left_out_monitors", left, {"model": name})
        for broken in models.broken:
            families.add("mlmon_model_broken", 1.0, {"model": broken.name})
        _add_windows(families, store, {spec.model for spec in specs})
        _add_alerts(families, store, self._bounds.alerts)
        _add_health(families, store, time.time())
        return families


class _Fixed(Collector):
    """What the encoders ask for."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _of_models(family: Metric, sees: Sees) -> Metric:
    kept = Metric(family.name, family.documentation, family.type)
    kept.samples = [s for s in family.samples if "model" not in s.labels or sees(s.labels["model"])]
    return kept
