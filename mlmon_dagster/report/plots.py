"""One picture: a metric over windows, with its uncertainty, what it is held against, and alerts."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

INK, SOFT, GRID = "#1f2933", "#66737f", "#e4e8ec"
LINE, BASELINE, LIMIT, ALERT = "#2563a8", "#5b6670", "#c2410c", "#dc2626"
WIDTH, HEIGHT, DPI = 9.0, 2.6, 110
_COLOURS = 64
_DOTS = 60  # with more windows than this, single ones are no longer marked


@dataclass(frozen=True)
class Episode:
    """One firing of an alert, to be shaded: ``end`` is exclusive, None while it lasts."""

    start: dt.datetime
    end: dt.datetime | None


@dataclass(frozen=True)
class Event:
    """Something that happened to a model.

    Attributes:
        at: The start of the first window that it is about, or when it happened.
        mark: A word for it, which stands at its line in charts.
        text: What happened.
        author: Who did it; of files, where it was seen.
    """

    at: dt.datetime
    mark: str
    text: str
    author: str = ""


@dataclass(frozen=True)
class Beside:
    """Another line of the same number: the truth over an estimate, a judge over people and it.

    Attributes:
        name: What it is.
        own_name: What the line beneath is.
        values: One per window, NaN where there is none.
    """

    name: str
    own_name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Curve:
    """A metric over windows.

    Attributes:
        title: Above the picture.
        starts: Starts of the windows, UTC, ascending.
        values: One per window; NaN leaves a gap.
        lower: Lower ends of the 95 % intervals; empty if there are none.
        upper: Upper ends.
        end: End of the last window.
        zone: Time zone of the axis.
        baseline: The baseline's value, None if it has none.
        limit: Threshold of the monitor, None if there is none.
        episodes: Alerts to shade.
        is_share: Whether values are shares, so that the axis ends at 0 and 1 at most.
        failing: Which windows failed, one per window; empty marks none.
        events: What happened meanwhile, to be marked.
        beside: A second line over this one; None draws none.
    """

    title: str
    starts: Sequence[dt.datetime]
    values: Sequence[float]
    end: dt.datetime
    lower: Sequence[float] = ()
    upper: Sequence[float] = ()
    zone: str = "UTC"
    baseline: float | None = None
    limit: float | None = None
    episodes: Sequence[Episode] = ()
    is_share: bool = False
    failing: Sequence[bool] = ()
    beside: Beside | None = None
    events: Sequence[Event] = ()


def draw(*curves: Curve) -> bytes:
    """Return a PNG of curves one below the other, about 1,000 pixels wide and 20 to 40 kB each.

    Intervals are a band, the baseline a dashed grey line, the threshold a dotted orange one, alert
    episodes red shades, and windows that failed red dots. What an estimate is of is a dark line
    over it. Without any finite value the picture says so.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(draw_figure(*curves))
    canvas.draw()  # type: ignore[no-untyped-call]  # as are its canvases
    return _compressed(canvas)


def draw_figure(*curves: Curve) -> Figure:
    """Return the figure that `draw` makes a picture of."""
    from mlmon_dagster.report.picture import Picture

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
    from PIL import Image

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
    for value, name, color, style in lines:
        if value is None or value != value:
            continue
        axes.axhline(value, color=color, linewidth=1.1, linestyle=style)
        other = curve.limit if name == "baseline" else curve.baseline
        is_above = other is None or other != other or value >= other
        axes.annotate(
            f"{name} {value:.3g}",
            (1, value),
            xycoords=axes.get_yaxis_transform(),
            xytext=(5, 3 if is_above else -3),
            textcoords="offset points",
            va="center",
            color=color,
            fontsize=8,
            annotation_clip=False,
        )


def _dates(axes: Axes, curve: Curve) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

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
    from matplotlib.dates import date2num

    return float(date2num(moment))  # type: ignore[no-untyped-call]
