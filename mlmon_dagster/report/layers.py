"""A model in context: serving system, data, model and business, one below the other in time."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import get_args

from mlmon_dagster.report.charts import Chart, Curve, chart_of
from mlmon_dagster.spec.monitors import FAMILIES, Layer
from mlmon_dagster.spec.names import BUSINESS, PERFORMANCE, SERVICE

# Layer -> the families of monitors that look at it.
LAYERS: Mapping[str, tuple[str, ...]] = {
    layer: tuple(family.name for family in FAMILIES.values() if family.layer == layer)
    for layer in get_args(Layer)
}
_FIRST = {"System": (SERVICE,), "Model": (PERFORMANCE, "estimates"), "Business": (BUSINESS,)}


def layers_of(
    drawn: Mapping[str, Sequence[Curve]], failed: Mapping[dt.datetime, float]
) -> list[Chart]:
    """Return a chart a layer that a model declares, all over the same windows; none of one alone.

    Args:
        drawn: Section -> its curves, the most telling first.
        failed: Window -> the share of the data's monitors that failed, of those that judged.
    """
    curves = {layer: _first(drawn, sections) for layer, sections in _FIRST.items()}
    known = {layer: curve for layer, curve in curves.items() if curve is not None}
    if not known:
        return []
    curves["Data"] = _failed(failed, next(iter(known.values())))
    found = {layer: curve for layer in LAYERS if (curve := curves[layer]) is not None}
    if len(found) < 2:
        return []
    starts = sorted({start for curve in found.values() for start in curve.starts})
    return [
        chart_of(replace(_over(curve, starts), title=f"{layer}: {curve.title}"))
        for layer, curve in found.items()
    ]


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
        provisional=[waits == 1 for waits in spread(curve.provisional)],
        hollow=[waits == 1 for waits in spread(curve.hollow)], sizes=spread(curve.sizes),
        beside=curve.beside and replace(curve.beside, values=spread(curve.beside.values)),
    )  # fmt: skip
