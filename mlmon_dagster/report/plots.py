"""Pictures by matplotlib: a metric over windows, and what windows and slices add to a change.

It takes long to load, so this module is imported where a picture is drawn.
"""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from PIL import Image

from mlmon_dagster.monitors.wording import named
from mlmon_dagster.report.charts import Curve, windows_named
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.trace.explain import Explained
from mlmon_dagster.trace.sentences import signed, value

INK, SOFT, GRID = "#1f2933", "#66737f", "#e4e8ec"
LINE, BASELINE, LIMIT, ALERT = "#2563a8", "#5b6670", "#c2410c", "#dc2626"
WIDTH, HEIGHT, DPI = 9.0, 2.6, 110
_COLOURS = 64
_DOTS = 60  # with more windows than this, single ones are no longer marked
_MOST_KEYS, _MOST_VALUES = 2, 10


class Picture(Figure):
    """A figure that a notebook shows, though it is not of pyplot, whose figures are global.

    Reports are made in threads too, and pyplot is for one thread. Where nobody imported pyplot, a
    notebook writes of a figure only how large it is.
    """

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw(*curves: Curve) -> bytes:
    """Return a PNG of curves one below the other, about 1,000 pixels wide and 20 to 40 kB each.

    Intervals are a band, the baseline a dashed grey line, the threshold a dotted orange one, alert
    episodes red shades, and windows that failed red dots. What an estimate is of is a dark line
    over it. Without any finite value the picture says so.
    """
    canvas = FigureCanvasAgg(draw_figure(*curves))
    canvas.draw()  # type: ignore[no-untyped-call]  # as are its canvases
    return _compressed(canvas)


def draw_figure(*curves: Curve) -> Figure:
    """Return the figure that `draw` makes a picture of."""
    size = (WIDTH, HEIGHT * len(curves))
    figure = Picture(figsize=size, dpi=DPI, layout="constrained", facecolor="white")
    for row, curve in enumerate(map(_reachable, curves), start=1):
        axes = figure.add_subplot(len(curves), 1, row)
        _frame(axes, curve)
        _shade(axes, curve)
        _line(axes, curve)
        _references(axes, curve)
        _dates(axes, curve)
        _limits(axes, curve)
    return figure


def _reachable(curve: Curve) -> Curve:
    """Leave out a limit that no share reaches, such as 0.05 below a baseline of 0.

    It lies outside the picture, and its name would take all the room there is.
    """
    is_outside = curve.is_share and curve.limit is not None and not 0 <= curve.limit <= 1
    return replace(curve, limit=None) if is_outside else curve


def _compressed(canvas: FigureCanvasAgg) -> bytes:
    """Encode with few colours: a third of the size, since reports hold many pictures."""
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    picture = Image.fromarray(pixels).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _frame(axes: Axes, curve: Curve) -> None:
    # A dollar sign in a name is not the start of a formula.
    axes.set_title(
        curve.title, loc="left", fontsize=10, color=INK, fontweight="bold", parse_math=False
    )
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=8, length=0)


def _shade(axes: Axes, curve: Curve) -> None:
    for episode in curve.episodes:
        start, end = max(episode.start, _first(curve)), min(episode.end or curve.end, curve.end)
        if start < end:
            axes.axvspan(
                _number(start), _number(end), color=ALERT, alpha=0.13, linewidth=0, zorder=0.5
            )


def _line(axes: Axes, curve: Curve) -> None:
    middles = [_number(moment) for moment in _middles(curve)]
    if curve.lower and curve.upper:
        axes.fill_between(
            middles, list(curve.lower), list(curve.upper), color=LINE,
            alpha=0.1 if curve.beside else 0.18, linewidth=0,
        )  # fmt: skip
    many = len(curve.values) > _DOTS
    style: dict[str, Any] = {
        "linewidth": 1.1 if many else 1.5,
        "marker": "o",
        "markersize": 1.8 if many else 3.5,
    }
    own_name = curve.beside.own_name if curve.beside else None
    axes.plot(middles, list(curve.values), color=LINE, label=own_name, **style)
    if curve.beside:
        axes.plot(middles, list(curve.beside.values), color=INK, label=curve.beside.name, **style)
        axes.legend(
            loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8,
            labelcolor=SOFT, borderaxespad=0.2,
        )  # fmt: skip
    failed = [
        (middle, value)
        for middle, value, fails in zip(middles, curve.values, curve.failing, strict=False)
        if fails
    ]
    if failed:
        axes.plot(*zip(*failed, strict=True), "o", color=ALERT, markersize=3 if many else 5.5)
    if not _finite(curve.values):
        axes.text(
            0.5, 0.5, "no values yet", transform=axes.transAxes, ha="center", va="center",
            color=SOFT, fontsize=9,
        )  # fmt: skip
        axes.set_yticks([])


def _references(axes: Axes, curve: Curve) -> None:
    """Draw baseline and threshold, named at the right edge, never over one another."""
    lines = [
        (curve.baseline, "baseline", BASELINE, "--"),
        (curve.limit, "limit", LIMIT, (0, (1, 1.5))),
    ]
    for level, name, color, style in lines:
        if level is None or level != level:
            continue
        axes.axhline(level, color=color, linewidth=1.1, linestyle=style)
        other = curve.limit if name == "baseline" else curve.baseline
        is_above = other is None or other != other or level >= other
        axes.annotate(
            f"{name} {level:.3g}",
            (1, level),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 3 if is_above else -3),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=8,
            annotation_clip=False,
        )


def _dates(axes: Axes, curve: Curve) -> None:
    zone = ZoneInfo(curve.zone)
    # matplotlib's dates have no types
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(locator, tz=zone)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(formatter)
    axes.set_xlim(_number(_first(curve)), _number(curve.end))


def _limits(axes: Axes, curve: Curve) -> None:
    """Show every value and reference; a wide interval may leave the picture."""
    shown = _finite(
        [*curve.values, *(curve.beside.values if curve.beside else ()), curve.baseline, curve.limit]
    )
    if not shown:
        return
    low, high = min(shown), max(shown)
    room = 0.12 * (high - low) or max(0.1 * abs(high), 0.05)
    low, high = low - room, high + room
    if curve.is_share:
        low, high = max(low, -0.02), min(high, 1.02)
    axes.set_ylim(low, high)


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and v == v and abs(v) != float("inf")]


def _first(curve: Curve) -> dt.datetime:
    return curve.starts[0] if curve.starts else curve.end - dt.timedelta(days=1)


def _middles(curve: Curve) -> list[dt.datetime]:
    ends = [*curve.starts, curve.end][1:]
    lengths = [end - start for start, end in zip(curve.starts, ends, strict=True)]
    length = min(lengths, default=dt.timedelta())  # a missing window makes its neighbour no longer
    return [start + length / 2 for start in curve.starts]


def _number(moment: dt.datetime) -> float:
    return float(date2num(moment))  # type: ignore[no-untyped-call]


def draw_contributions(found: Explained, zone: str) -> Figure:
    """Draw what windows and the values of the first slice keys add to a change of a metric.

    What makes the metric worse is red. The bars of a slice key add up to the change, as far as ten
    fit; those of windows are the metric of all windows, less that without each.

    Args:
        found: What was traced.
        zone: Time zone of the windows' names.
    """
    panels = [panel for panel in _panels(found, zone) if panel[1]]
    figure = Picture(figsize=(WIDTH, 2.8 * max(len(panels), 1)), layout="constrained")
    name = named(found.metric)
    figure.suptitle(
        f"{name} {value(found.then.value)} to {value(found.now.value)}: {signed(found.change)}",
        x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold",
    )  # fmt: skip
    for place, (title, effects) in enumerate(panels, start=1):
        _draw_bars(figure.add_subplot(len(panels), 1, place), title, effects, found)
    return figure


def _panels(found: Explained, zone: str) -> list[tuple[str, Mapping[str, float]]]:
    names = windows_named(list(found.windows["window_start"]), zone)
    windows = dict(sorted(zip(names, found.windows["effect"].astype(float), strict=True)))
    keys = [key for key in found.slices["slice_key"].unique() if key != ALL][:_MOST_KEYS]
    return [
        ("what each window adds", windows if len(windows) > 1 else {}),
        *((f"what each {key} adds", _largest(found.effects(key))) for key in keys),
    ]


def _largest(effects: Mapping[str, float]) -> dict[str, float]:
    known = {name: effect for name, effect in effects.items() if effect == effect}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1]))[:_MOST_VALUES])


def _draw_bars(axes: Axes, title: str, effects: Mapping[str, float], found: Explained) -> None:
    worse = 1 if found.is_worse else -1
    sign = worse if found.change > 0 else -worse
    colours = [ALERT if effect * sign > 0 else LINE for effect in effects.values()]
    axes.bar(range(len(effects)), list(effects.values()), color=colours, width=0.7)
    axes.set_title(title, loc="left", fontsize=9, color=SOFT, parse_math=False)
    axes.set_xticks(
        range(len(effects)), list(effects), fontsize=7, rotation=60 if len(effects) > 8 else 0,
        parse_math=False,
    )  # fmt: skip
    axes.axhline(0, color=SOFT, linewidth=0.8)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, labelsize=7, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
