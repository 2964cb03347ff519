"""What the stages of a request take in a window: calls, time, failures, tokens and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlmon_dagster.report.charts import windows_named
from mlmon_dagster.spec import ModelSpec, Window
from mlmon_dagster.store import Store
from mlmon_dagster.store.tables import spans
from mlmon_dagster.store.tables.columns import window_date

_HEADINGS = {
    "share": "Share of requests", "calls": "Calls in a request", "p50_ms": "Time, median ms",
    "p95_ms": "95 % within ms", "failed": "Failed", "input_tokens": "Input tokens",
    "output_tokens": "Output tokens", "cost": "Cost",
}  # fmt: skip
_SHARES = ("share", "failed")


@dataclass(frozen=True)
class Stages:
    """What the stages of a model's requests take, in a window.

    Attributes:
        window: Its name.
        headings: Of the numbers; tokens and cost only where spans tell them.
        rows: Of each stage its name and its numbers, of a request that has it, as texts.
    """

    window: str
    headings: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str]]]


def measure_stages(store: Store, spec: ModelSpec, window: Window | None) -> Stages | None:
    """Return what stages take in a window; None without stages, without spans, or of a sample.

    Args:
        store: The store.
        spec: The model.
        window: Of the spans' starts.
    """
    declared = spec.spans
    if window is None or declared is None or not declared.stages or declared.sampling == "tail":
        return None
    source = spans.from_sql(spans.folder_of(store.root, spec.model), spec, {window_date(window)})
    found = store.query(spans.stages_sql(spec, source, window)).to_pylist()
    if not found:
        return None
    priced = spans.find_priced(spec)
    unit = "" if priced is None else spec.features[priced[0]].unit
    headings = _HEADINGS | {"cost": f"Cost, {unit}" if unit else "Cost"}
    shown = [name for name in headings if any(row[name] is not None for row in found)]
    rows = [(str(row["stage"]), [_write(name, row[name]) for name in shown]) for row in found]
    [name] = windows_named([window.start], spec.time.zone)
    return Stages(name, [headings[name] for name in shown], rows)


def _write(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in _SHARES:
        return f"{value:.1%}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
