"""The picture of a trace: what each window, and each slice, adds to a change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from mlmon_dagster.monitors.wording import named
from mlmon_dagster.report.plots import ALERT, GRID, INK, LINE, SOFT, WIDTH
from mlmon_dagster.spec.names import ALL
from mlmon_dagster.trace.sentences import signed, value

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlmon_dagster.trace.explain import Explained

_MOST_KEYS, _MOST_VALUES = 2, 10


def contributions(found: Explained, zone: str) -> Figure:
    """Draw what windows and the values of the first slice keys add to a change of a metric.

    What makes the metric worse is red. The bars of a slice key add up to the change, as far as ten
    fit; those of windows are the metric of all windows, less that without each.

    Args:
        found: What was traced.
        zone: Time zone of the windows' names.
    """
    from mlmon_dagster.report.picture import Picture

    panels = [panel for panel in _panels(found, zone) if panel[1]]
    figure = Picture(figsize=(WIDTH, 2.8 * max(len(panels), 1)), layout="constrained")
    name = named(found.metric)
    figure.suptitle(
        f"{name} {value(found.then.value)} to {value(found.now.value)}: {signed(found.change)}",
        x=0.01, ha="left", fontsize=11, color=INK, fontweight="bold",
    )  # fmt: skip
    for place, (title, effects) in enumerate(panels, start=1):
        _bars(figure.add_subplot(len(panels), 1, place), title, effects, found)
    return figure


def _panels(found: Explained, zone: str) -> list[tuple[str, Mapping[str, float]]]:
    starts = [start.tz_convert(ZoneInfo(zone)) for start in found.windows["window_start"]]
    midnights = all(start == start.normalize() for start in starts)
    names = [start.strftime("%Y-%m-%d" if midnights else "%Y-%m-%d %H:%M") for start in starts]
    windows = dict(sorted(zip(names, found.windows["effect"].astype(float), strict=True)))
    keys = [key for key in found.slices["slice_key"].unique() if key != ALL][:_MOST_KEYS]
    return [
        ("what each window adds", windows if len(windows) > 1 else {}),
        *((f"what each {key} adds", _largest(found.effects(key))) for key in keys),
    ]


def _largest(effects: Mapping[str, float]) -> dict[str, float]:
    known = {name: effect for name, effect in effects.items() if effect == effect}
    return dict(sorted(known.items(), key=lambda item: -abs(item[1]))[:_MOST_VALUES])


def _bars(axes: Axes, title: str, effects: Mapping[str, float], found: Explained) -> None:
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
