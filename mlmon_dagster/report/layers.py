"""A model in context: serving system, data, model and business, one below the other in time.

Between model and business a hint: whether the two have moved together, and by how many windows one
goes before the other.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mlmon_dagster.report.charts import Chart, chart_of
from mlmon_dagster.report.plots import Curve
from mlmon_dagster.trace.together import together

# Layer -> the families of monitors that look at it.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "System": ("service",),
    "Data": ("schema", "freshness", "quality", "drift"),
    "Model": ("performance", "estimated_performance", "versions"),
    "Business": ("business",),
}
_FIRST = {"System": ("service",), "Model": ("performance", "estimates"), "Business": ("business",)}


@dataclass(frozen=True)
class Layers:
    """What the page shows of a model's layers.

    Attributes:
        charts: One a layer, over the same windows.
        hint: What model and business have to do with each other; empty without one of them.
    """

    charts: Sequence[Chart]
    hint: str


def layers_of(drawn: Mapping[str, Sequence[Curve]], drifts: Mapping[str, Curve]) -> Layers:
    """Return the layers that a model declares; none of a model that has one alone.

    Args:
        drawn: Section -> its curves, the most telling first.
        drifts: Column -> its drift.
    """
    found: dict[str, Curve] = {}
    for layer in LAYERS:
        curve = _drifted(drifts) if layer == "Data" else _first(drawn, _FIRST[layer])
        if curve is not None:
            found[layer] = curve
    if len(found) < 2:
        return Layers((), "")
    starts = sorted({start for curve in found.values() for start in curve.starts})
    charts = [
        chart_of(replace(_over(curve, starts), title=f"{layer}: {curve.title}"))
        for layer, curve in found.items()
    ]
    return Layers(charts, _hint(found.get("Model"), found.get("Business")))


def _first(drawn: Mapping[str, Sequence[Curve]], sections: Sequence[str]) -> Curve | None:
    curves = (curve for name in sections for curve in drawn[name])
    return next((curve for curve in curves if any(map(math.isfinite, curve.values))), None)


def _drifted(drifts: Mapping[str, Curve]) -> Curve | None:
    """Return the share of the columns that are past their limit, of windows that have any."""
    limited = [curve for curve in drifts.values() if curve.limit is not None]
    past: dict[dt.datetime, list[bool]] = {}
    for curve in limited:
        for start, value in zip(curve.starts, curve.values, strict=True):
            if math.isfinite(value):
                past.setdefault(start, []).append(value > (curve.limit or 0.0))
    if not past:
        return None
    starts = sorted(past)
    return Curve(
        title="share of the columns that drifted past the limit",
        starts=starts,
        values=[sum(past[start]) / len(past[start]) for start in starts],
        end=limited[0].end,
        zone=limited[0].zone,
        is_share=True,
    )


def _over(curve: Curve, starts: Sequence[dt.datetime]) -> Curve:
    """Return a curve over more windows than it has values for."""

    def spread(values: Sequence[float]) -> list[float]:
        known = dict(zip(curve.starts, values, strict=True)) if values else {}
        return [known.get(start, math.nan) for start in starts] if values else []

    return replace(
        curve, starts=starts, values=spread(curve.values), lower=spread(curve.lower),
        upper=spread(curve.upper), realized=spread(curve.realized),
    )  # fmt: skip


def _hint(model: Curve | None, business: Curve | None) -> str:
    if model is None or business is None:
        return ""
    starts = sorted(set(model.starts) & set(business.starts))
    of_model, of_business = (
        [dict(zip(curve.starts, curve.values, strict=True))[start] for start in starts]
        for curve in (model, business)
    )
    found = together(of_model, of_business)
    if found is None:
        return ""
    names = f"{model.title} and {business.title}"
    if found.p_value > 0.05:
        return (
            f"Over {found.n} windows {names} have not moved together by more than chance "
            f"(lags 0 to {found.most}, p = {found.p_value:.2f})."
        )
    way = "together" if found.correlation > 0 else "against each other"
    lag = f", the business {found.lag} windows later" if found.lag else ""
    return (
        f"A hint, no proof: over {found.n} windows {names} moved {way}{lag} (correlation of their "
        f"changes {found.correlation:.2f}, p = {found.p_value:.3f} over lags 0 to {found.most})."
    )
