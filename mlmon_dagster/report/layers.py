"""A model in context: serving system, data, model and business, one below the other in time.

Between model and business a hint: whether the two have moved together, and by how many windows one
goes before the other.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

from mlmon_dagster.report.charts import Chart, chart_of
from mlmon_dagster.report.plots import Curve
from mlmon_dagster.spec.monitors import FAMILIES, Layer
from mlmon_dagster.spec.names import BUSINESS, PERFORMANCE, SERVICE, counted
from mlmon_dagster.trace.lagged_correlation import correlate_changes

# Layer -> the families of monitors that look at it.
LAYERS: Mapping[str, tuple[str, ...]] = {
    layer: tuple(family.name for family in FAMILIES.values() if family.layer == layer)
    for layer in get_args(Layer)
}
_FIRST = {"System": (SERVICE,), "Model": (PERFORMANCE, "estimates"), "Business": (BUSINESS,)}


@dataclass(frozen=True)
class Layers:
    """What the page shows of a model's layers.

    Attributes:
        charts: One a layer, over the same windows.
        hint: What model and business have to do with each other; empty without one of them.
    """

    charts: Sequence[Chart]
    hint: str


def layers_of(drawn: Mapping[str, Sequence[Curve]], failed: Mapping[dt.datetime, float]) -> Layers:
    """Return the layers that a model declares; none of a model that has one alone.

    Args:
        drawn: Section -> its curves, the most telling first.
        failed: Window -> the share of the data's monitors that failed, of those that judged.
    """
    curves = {layer: _first(drawn, sections) for layer, sections in _FIRST.items()}
    known = {layer: curve for layer, curve in curves.items() if curve is not None}
    if not known:
        return Layers((), "")
    curves["Data"] = _failed(failed, next(iter(known.values())))
    found = {layer: curve for layer in LAYERS if (curve := curves[layer]) is not None}
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


def _failed(failed: Mapping[dt.datetime, float], beside: Curve) -> Curve | None:
    """Return the data's layer over the span of another curve; None if nothing was judged there."""
    first, last = min(beside.starts), max(beside.starts)
    inside = {start: share for start, share in failed.items() if first <= start <= last}
    if not inside:
        return None
    return Curve(
        title="share of its monitors that failed",
        starts=list(inside),
        values=list(inside.values()),
        end=beside.end,
        zone=beside.zone,
        is_share=True,
        events=beside.events,
    )


def _over(curve: Curve, starts: Sequence[dt.datetime]) -> Curve:
    """Return a curve over more windows than it has values for."""

    def spread(values: Sequence[float]) -> list[float]:
        known = dict(zip(curve.starts, values, strict=True)) if values else {}
        return [known.get(start, math.nan) for start in starts] if values else []

    return replace(
        curve, starts=starts, values=spread(curve.values), lower=spread(curve.lower),
        upper=spread(curve.upper),
        beside=curve.beside and replace(curve.beside, values=spread(curve.beside.values)),
    )  # fmt: skip


def _hint(model: Curve | None, business: Curve | None) -> str:
    if model is None or business is None:
        return ""
    starts = sorted(set(model.starts) & set(business.starts))
    of_model, of_business = (
        [dict(zip(curve.starts, curve.values, strict=True))[start] for start in starts]
        for curve in (model, business)
    )
    found = correlate_changes(of_model, of_business)
    if found is None:
        return ""
    names = f"{model.title} and {business.title}"
    if found.p_value > 0.05:
        return (
            f"Over {found.n} windows {names} have not moved together by more than chance "
            f"(lags 0 to {found.most}, p = {found.p_value:.2f})."
        )
    way = "together" if found.correlation > 0 else "against each other"
    lag = f", the business {counted(found.lag, 'window')} later" if found.lag else ""
    return (
        f"This is a hint, not a proof: over {found.n} windows {names} moved {way}{lag} "
        f"(correlation of their changes {found.correlation:.2f}, p = {found.p_value:.3f} over "
        f"lags 0 to {found.most})."
    )
