"""Charts of a page: a picture that needs no script, and the table of numbers that it shows.

The table is the only place where the numbers are: a script that draws the chart anew, to zoom and
to read values off, takes them from there.
"""

from __future__ import annotations

import datetime as dt
import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal
from zoneinfo import ZoneInfo

from markupsafe import Markup, escape

from mlmon_dagster.monitors.wording import number as written
from mlmon_dagster.spec.names import counted

Role = Literal["value", "lower", "upper", "truth", "mean", "mean_lower", "mean_upper"]
NONE = "\N{EN DASH}"
MOST_NAMED = 8  # values of a column whose bars have a name beside them
_DENSITY = 400  # width of the picture of a density
_WIDTH, _HEIGHT = 1000, 180  # of a picture, which is stretched to where it stands
_ROOM = 18  # percent of a picture's width that the word at an event takes
MEAN_OF = 7  # windows that a mean beside a noisy line is of
_LEAST_FOR_MEAN, _LEAST_KNOWN = 14, 4  # windows of a line with a mean; of those of one mean
_NORMAL = 1.96  # half a 95 % interval, in standard errors
_STUDENT = {3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}  # the same by degrees of freedom
_MINUS = "\N{MINUS SIGN}"
Points = list[tuple[float, float]]


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
        provisional: Which windows still wait for ground truth; empty if none can.
        hollow: Which are drawn so: those, and windows with too little ground truth; likewise.
        sizes: Rows of each window, of a metric that has a mean drawn beside it; empty if none.
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
    provisional: Sequence[bool] = ()
    hollow: Sequence[bool] = ()
    sizes: Sequence[float] = ()


@dataclass(frozen=True)
class Line:
    """Numbers of a chart, one for each of its windows; NaN where there is none.

    Attributes:
        name: The head of its column in the table.
        role: What it is drawn as; ``lower`` and ``upper`` are ends of the band of ``value``,
            ``mean_lower`` and ``mean_upper`` of that of ``mean``.
        values: The numbers.
    """

    name: str
    role: Role
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Numbers over windows.

    Attributes:
        title: What is shown.
        labels: Names of the windows, in the model's zone, oldest first.
        lines: What is drawn.
        baseline: The baseline's value; None if it has none.
        limit: Where the monitor fails; None if nowhere.
        marks: Windows in which an alert fired, as places in ``labels``, both ends included.
        is_share: Whether values are shares, so that the scale ends at 0 and 1.
        floor: Whether the scale begins at 0.
        events: What happened, as places in ``labels`` and a word for it.
        provisional: Which windows still wait for ground truth; empty if none can.
        hollow: Which windows are dashed, as their number may still change; empty for none.
    """

    title: str
    labels: Sequence[str]
    lines: Sequence[Line]
    baseline: float | None = None
    limit: float | None = None
    marks: Sequence[tuple[int, int]] = ()
    is_share: bool = False
    floor: bool = False
    events: Sequence[tuple[int, str]] = ()
    provisional: Sequence[bool] = ()
    hollow: Sequence[bool] = ()

    @cached_property
    def places(self) -> int:
        """Decimals that its numbers are written with."""
        known = _finite(v for line in self.lines for v in line.values)
        return places_of(known)

    @cached_property
    def _places_known(self) -> tuple[list[int], list[int]]:
        """The windows with a number, and those of them whose ground truth was complete."""
        known = [i for i, v in enumerate(self.lines[0].values) if math.isfinite(v)]
        return known, [i for i in known if not (self.provisional and self.provisional[i])]

    @property
    def newest(self) -> str:
        """The newest number that stands; while none does, the newest."""
        known, standing = self._places_known
        return number(self.lines[0].values[(standing or known)[-1]], self.places) if known else NONE

    @property
    def waits(self) -> str:
        """What the newest number is of, if windows still wait for ground truth; else empty."""
        known, standing = self._places_known
        if known[-1:] == standing[-1:]:
            return ""
        if not standing:
            return "provisional: ground truth still comes"
        newer = counted(sum(place > standing[-1] for place in known), "newer window")
        return f"of {self.labels[standing[-1]]}; ground truth of {newer} still comes"

    @property
    def said(self) -> str:
        """What the picture shows, for those who do not see it."""
        parts = [f"{self.title}, {counted(len(self.labels), 'window')}"]
        if self.labels:
            parts[0] += f" from {self.labels[0]} to {self.labels[-1]}"
        for line in self.lines:
            known = _finite(line.values)
            if line.role == "value" and known:
                low, high = number(min(known), self.places), number(max(known), self.places)
                told = self.newest + (f" ({self.waits})" if self.waits else "")
                parts.append(f"newest {told}, lowest {low}, highest {high}")
        if self.baseline is not None:
            parts.append(f"baseline {number(self.baseline, self.places)}")
        if self.limit is not None:
            parts.append(f"limit {number(self.limit, self.places)}")
        if self.marks:
            parts.append(f"{counted(len(self.marks), 'alert')} marked")
        parts += [f"{mark} at {self.labels[place]}" for place, mark in self.events]
        return "; ".join(parts) + ". The numbers are in the table below."

    @property
    def has_mean(self) -> bool:
        """Whether a mean of several windows is drawn over a paler line."""
        return any(line.role == "mean" for line in self.lines)

    @property
    def hollow_places(self) -> list[int]:
        """The windows whose number may still change, as places in ``labels``."""
        values = self.lines[0].values
        return [i for i, is_open in enumerate(self.hollow) if is_open and math.isfinite(values[i])]

    @property
    def marked(self) -> str:
        """The marks as the script reads them."""
        return " ".join(f"{first}-{last}" for first, last in self.marks)

    @property
    def rows(self) -> Markup:
        """The body of the table, newest window first; short, since there are many."""
        places = self.places
        texts = [[number(v, places) for v in line.values] for line in self.lines]
        rows = [
            f"<tr><th scope=row>{escape(label)}" + "".join(f"<td>{text}" for text in cells)
            for label, *cells in zip(self.labels, *texts, strict=True)
        ]
        return Markup("\n".join(reversed(rows)))

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Lowest and highest number of the vertical scale."""
        shown, ends = list[float](), list[float]()
        for line in self.lines:
            if self.has_mean and line.role in ("lower", "upper"):
                continue  # their band is not drawn
            is_end = line.role.endswith(("lower", "upper"))
            (ends if is_end else shown).extend(line.values)
        shown += [v for v in (self.baseline, self.limit) if v is not None]
        known = _finite(shown)
        low, high = min(known, default=0.0), max(known, default=1.0)
        # A wide interval may leave the picture: else the values would not be seen to move.
        away = max(high - low, abs(low), abs(high))
        wide = _finite(ends)
        low = max(min([low, *wide]), low - away)
        high = min(max([high, *wide]), high + away)
        room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
        if self.is_share:
            low, high = max(low, 0.0), min(high, 1.0)
        if self.floor:
            low = 0.0
        return low, high if high > low else low + 1.0

    @property
    def ends(self) -> tuple[str, str]:
        """The ends of the vertical scale, as text."""
        low, high = self.scale
        places = places_of([low, high])
        return number(low, places), number(high, places)

    @property
    def picture(self) -> Markup:
        """The picture: shades of alerts, the band, lines, baseline and limit."""
        parts = [self._shades(), self._band("mean_" if self.has_mean else "")]
        for name, value in (("base", self.baseline), ("limit", self.limit)):
            if value is not None and math.isfinite(value):
                y = _round(self._y(value))
                parts.append(f'<path class="{name}" d="M0 {y}H{_WIDTH}"/>')
        for line in self.lines:
            if line.role == "value":
                parts.append(self._draw_values(line.values))
            elif line.role in ("truth", "mean"):
                parts.append(f'<path class="line {line.role}" d="{self._path(line.values)}"/>')
        return _stretch("static", _WIDTH, _HEIGHT, "".join(parts))

    @property
    def notes(self) -> Markup:
        """A line for each event with its word, over the picture but not stretched with it."""
        parts, above = [], [-100.0, -100.0]
        for place, mark in self.events:
            x = 100 * (place + 0.5) / len(self.labels)
            row = 0 if x - above[0] > _ROOM else 1 if x - above[1] > _ROOM else 0
            above[row] = x
            side = ' class="left"' if x > 100 - _ROOM else ""
            parts.append(
                f'<line x1="{x:.1f}%" x2="{x:.1f}%" y2="100%"/>'
                f'<text x="{x:.1f}%" y="{10 + 12 * row}"{side}>{escape(mark)}</text>'
            )
        if not parts:
            return Markup("")
        return Markup(
            f'<svg class="notes" aria-hidden="true" focusable="false">{"".join(parts)}</svg>'
        )

    @property
    def dates(self) -> list[str]:
        """What stands under the picture: both ends, and of many windows three between them."""
        n, places = len(self.labels), (0, 1, 2, 3, 4) if len(self.labels) > 24 else (0, 4)
        return [self.labels[round(i * (n - 1) / 4)] for i in places] if n > 1 else [*self.labels]

    def _x(self, place: float) -> float:
        return (place + 0.5) * _WIDTH / max(len(self.labels), 1)

    def _y(self, value: float) -> float:
        low, high = self.scale
        return (high - value) * _HEIGHT / (high - low)

    def _points(self, values: Sequence[float]) -> list[Points]:
        """Return the points of each stretch without a gap."""
        runs: list[Points] = [[]]
        for place, value in enumerate(values):
            if math.isfinite(value):
                runs[-1].append((self._x(place), self._y(value)))
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]

    def _path(self, values: Sequence[float]) -> str:
        # A stretch of one window is drawn as a dot: a line of no length with round ends.
        return "".join(
            f"M{_joined(run)}" if len(run) > 1 else f"M{_joined(run)}h.01"
            for run in self._points(values)
        )

    def _draw_values(self, values: Sequence[float]) -> str:
        """Draw the line of the windows; dashed where a number may still change."""
        pale = " pale" if self.has_mean else ""
        places = set(self.hollow_places)
        if not places:
            return f'<path class="line c0{pale}" d="{self._path(values)}"/>'
        closed, still_open = list(values), [math.nan] * len(values)
        for place in places:
            closed[place] = math.nan
            # The dashes begin at the window before, so that the line has no gap.
            for end in range(max(place - 1, 0), place + 2):
                if end < len(values):
                    still_open[end] = values[end]
        return (
            f'<path class="line c0{pale}" d="{self._path(closed)}"/>'
            f'<path class="line c0 open" d="{self._path(still_open)}"/>'
        )

    def _band(self, prefix: str = "") -> str:
        ends = {line.role.removeprefix(prefix): line.values for line in self.lines
                if line.role.startswith(prefix)}  # fmt: skip
        if "lower" not in ends or "upper" not in ends:
            return ""
        both = [
            (low, high) if math.isfinite(low) and math.isfinite(high) else (math.nan, math.nan)
            for low, high in zip(ends["lower"], ends["upper"], strict=True)
        ]
        lows, highs = (self._points([pair[i] for pair in both]) for i in (0, 1))
        path = "".join(
            f"M{_joined(high + low[::-1])}Z" for low, high in zip(lows, highs, strict=True)
        )
        return f'<path class="band" d="{path}"/>' if path else ""

    def _shades(self) -> str:
        path = "".join(
            f"M{_round(self._x(first - 0.5))} 0H{_round(self._x(last + 0.5))}V{_HEIGHT}"
            f"H{_round(self._x(first - 0.5))}Z"
            for first, last in self.marks
        )
        return f'<path class="mark" d="{path}"/>' if path else ""


def chart_of(curve: Curve, name: str = "Value") -> Chart:
    """Return the chart of a curve."""
    labels = windows_named(curve.starts, curve.zone)
    lines = [Line(name, "value", curve.values)]
    if curve.lower:
        lines += [
            Line("95 % from", "lower", curve.lower),
            Line("to", "upper", curve.upper),
        ]
    if curve.beside:
        lines.append(Line(curve.beside.name, "truth", curve.beside.values))
    elif curve.sizes:
        lines += mean_lines(curve)
    marks = []
    for episode in curve.episodes:
        inside = [
            i
            for i, start in enumerate(curve.starts)
            if start >= episode.start and (episode.end is None or start < episode.end)
        ]
        if inside:
            marks.append((inside[0], inside[-1]))
    events = place_events(curve.events, curve.starts)
    return Chart(
        curve.title, labels, lines, curve.baseline, curve.limit, marks, curve.is_share,
        events=events, provisional=curve.provisional, hollow=curve.hollow,
    )  # fmt: skip


def mean_lines(curve: Curve) -> list[Line]:
    """Return the mean of the newest seven windows up to each, and its 95 % interval.

    Windows count by their rows; those whose ground truth still comes are left out. The interval is
    not that of the pooled rows: it combines the windows' own intervals with the spread between
    windows that these do not explain, by Student's t for as few windows.

    Args:
        curve: A metric with intervals and sizes.

    Returns:
        None of a line that has fewer than 14 windows, or windows without an interval.
    """
    is_open = list(curve.hollow) or [False] * len(curve.values)
    errors = [
        (high - low) / (2 * _NORMAL) for low, high in zip(curve.lower, curve.upper, strict=True)
    ]
    known = [
        math.isfinite(value + error) and size > 0 and not waits
        for value, error, size, waits in zip(
            curve.values, errors, curve.sizes, is_open, strict=False
        )
    ]
    if sum(known) < _LEAST_FOR_MEAN:
        return []
    newest = max(place for place, is_known in enumerate(known) if is_known)
    means, lows, highs = [], [], []
    for last in range(len(curve.values)):
        first = max(last - MEAN_OF + 1, 0)
        places = [place for place in range(first, last + 1) if known[place]]
        mean, half = math.nan, math.nan
        if last <= newest and len(places) >= _LEAST_KNOWN:
            mean, half = _pool(
                [curve.values[place] for place in places],
                [errors[place] for place in places],
                [curve.sizes[place] for place in places],
            )
        means.append(mean)
        lows.append(max(mean - half, 0.0) if curve.is_share else mean - half)
        highs.append(min(mean + half, 1.0) if curve.is_share else mean + half)
    return [
        Line(f"Mean of {MEAN_OF}", "mean", means),
        Line("95 % from", "mean_lower", lows),
        Line("to", "mean_upper", highs),
    ]


def _pool(
    values: Sequence[float], errors: Sequence[float], sizes: Sequence[float]
) -> tuple[float, float]:
    """Return the mean of some windows by their rows, and half of its 95 % interval."""
    total = sum(sizes)
    weights = [size / total for size in sizes]
    mean = sum(weight * value for weight, value in zip(weights, values, strict=True))
    n = len(values)
    plain_mean = sum(values) / n
    spread = sum((value - plain_mean) ** 2 for value in values) / (n - 1)
    own = sum(error**2 for error in errors) / n
    between = max(spread - own, 0.0)
    variance = sum(
        weight**2 * (error**2 + between) for weight, error in zip(weights, errors, strict=True)
    )
    return mean, _STUDENT[n - 1] * math.sqrt(variance)


def place_events(events: Sequence[Event], starts: Sequence[dt.datetime]) -> list[tuple[int, str]]:
    """Return the window in which each event happened, as a place, and the words for them."""
    found: dict[int, list[str]] = {}
    for event in events:
        if starts and event.at >= starts[0]:
            found.setdefault(bisect_right(starts, event.at) - 1, []).append(event.mark)
    return [(place, ", ".join(dict.fromkeys(marks))[:24]) for place, marks in found.items()]


def windows_named(starts: Sequence[dt.datetime], zone: str) -> list[str]:
    """Name windows by their starts in a zone: as days, unless one starts within a day."""
    local = [start.astimezone(ZoneInfo(zone)) for start in starts]
    is_daily = all(moment.time() == dt.time() for moment in local)
    return [moment.strftime("%Y-%m-%d" if is_daily else "%Y-%m-%d %H:%M") for moment in local]


def places_of(values: Sequence[float]) -> int:
    """Return how many decimals give the largest of some numbers three significant digits.

    Counts have none. Numbers of at most 1 are no counts: a share may be 1 in every window.
    """
    top = max(map(abs, values), default=0.0)
    if not top or (top > 1 and all(float(v).is_integer() for v in values)):
        return 0
    return next(
        (n for bound, n in ((0.015, 5), (0.15, 4), (1.5, 3), (15, 2), (150, 1)) if top < bound), 0
    )


def number(value: float | None, places: int) -> str:
    """Write a number with so many decimals; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:,.{places}f}" if abs(value) < 1e15 else f"{value:.3e}"
    return text.replace("-", _MINUS) if text.strip("-0.,") else text.removeprefix("-")


def _stretch(kind: str, width: int, height: int, drawn: str) -> Markup:
    """Return a picture that is stretched to where it stands."""
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false">{drawn}</svg>'
    )


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


def _joined(points: Points) -> str:
    return "L".join(f"{_round(x)} {_round(y)}" for x, y in points)


def _round(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


# Bars and strips


@dataclass(frozen=True)
class Bars:
    """Shares of two sides over the same bins: what is now, over what the baseline had.

    Attributes:
        title: The column.
        bins: Names of the bins.
        now, then: Shares of each, which add up to 1.
        said: The sizes of the sides and the like, in words.
        id: An anchor.
        edges: Where the first bins lie on a scale of numbers, one more than these bins; they are
            drawn as densities. Empty where bins have names alone.
        is_named: Whether each bin is a value with a name, so that bars lie beside their names.
    """

    title: str
    bins: Sequence[str]
    now: Sequence[float]
    then: Sequence[float]
    said: str = ""
    id: str = ""
    edges: Sequence[float] = ()
    is_named: bool = False

    @property
    def picture(self) -> Markup:
        """The baseline as pale bars, or a pale shape, and what is now in front of it."""
        if self.edges:
            then, now = (self.density(shares) for shares in (self.then, self.now))
            top = max([*then, *now, 1e-300])
            drawn = (
                f'<path class="then" d="{self._steps(then, top)}"/>'
                f'<path class="over" d="{self._steps(now, top)}"/>'
            )
            return _stretch("bars", _DENSITY, 60, drawn)
        top = max([*self.now, *self.then, 1e-9])
        wide = _bars(self.then, top, 1, 8)
        slim = _bars(self.now, top, 3, 4)
        drawn = f'<path class="then" d="{wide}"/><path class="now" d="{slim}"/>'
        return _stretch("bars", 10 * len(self.bins), 60, drawn)

    def density(self, shares: Sequence[float]) -> list[float]:
        """Return the share of each bin that lies on the scale over the bin's width."""
        widths = (high - low for low, high in pairwise(self.edges))
        return [share / width for share, width in zip(shares, widths, strict=False)]

    def _steps(self, heights: Sequence[float], top: float) -> str:
        """Draw a shape of steps that ends on the ground at both sides."""
        low, high = self.edges[0], self.edges[-1]
        places = [_round(_DENSITY * (edge - low) / (high - low)) for edge in self.edges]
        path = "".join(
            f"V{_round(60 - 58 * height / top)}H{end}"
            for height, end in zip(heights, places[1:], strict=True)
        )
        return f"M0 60{path}V60z"

    @property
    def ticks(self) -> list[str]:
        """What stands under the picture: both ends and the middle of what it shows."""
        if self.edges:
            low, high = self.edges[0], self.edges[-1]
            return write_scale([low, (low + high) / 2, high])
        held = [n for n, *shares in zip(self.bins, self.now, self.then, strict=True) if any(shares)]
        return [held[0], held[-1]] if len(held) > 1 else held

    @property
    def named(self) -> list[tuple[str, str, Markup]]:
        """The commonest values: name, share now, and both shares as one bar over the other."""
        order = sorted(range(len(self.bins)), key=lambda i: -max(self.now[i], self.then[i]))
        top = max([*self.now, *self.then, 1e-9])
        found = []
        for i in sorted(order[:MOST_NAMED]):
            then, now = (_round(100 * side[i] / top) for side in (self.then, self.now))
            drawn = (
                f'<path class="then" d="M0 0h{then}v10H0z"/><path class="now" d="M0 3h{now}v4H0z"/>'
            )
            share = f"{100 * self.now[i]:.0f} %"
            found.append((self.bins[i], share, _stretch("bar", 100, 10, drawn)))
        return found

    @property
    def about(self) -> str:
        """What the picture shows, for those who do not see it."""
        moved = sorted(
            zip(self.bins, self.now, self.then, strict=True), key=lambda bar: -abs(bar[1] - bar[2])
        )[:1]
        largest = "".join(f"; most moved {b}: {n:.1%}, baseline {t:.1%}" for b, n, t in moved)
        return f"{self.title}, shares of {len(self.bins)} bins{largest}"

    @property
    def cells(self) -> list[tuple[str, str, str]]:
        """The rows of the table."""
        return [
            (name, f"{now:.1%}", f"{then:.1%}")
            for name, now, then in zip(self.bins, self.now, self.then, strict=True)
        ]


def write_scale(values: Sequence[float]) -> list[str]:
    """Write numbers of one scale; whole ones have no decimals."""
    is_whole = all(float(value).is_integer() for value in values)
    return [f"{value:,.0f}" if is_whole else written(value) for value in values]


def _bars(shares: Sequence[float], top: float, left: int, width: int) -> str:
    return "".join(
        f"M{10 * i + left} 60v-{_round(58 * share / top)}h{width}V60z"
        for i, share in enumerate(shares)
        if share > 0
    )


@dataclass(frozen=True)
class Strip:
    """A column over windows: coloured by its verdicts, with its numbers beside.

    Attributes:
        title: The column.
        values: One per window, NaN where there is none.
        statuses: The verdict on each, empty where there is none.
        limit: Where its monitor looks closer; None if it has none.
        firing: Whether an alert of it fires.
        href: Anchor of what more there is of it.
    """

    title: str
    values: Sequence[float]
    statuses: Sequence[str]
    limit: float | None
    firing: bool = False
    href: str = ""

    @property
    def picture(self) -> Markup:
        """A rectangle per stretch of windows of one verdict."""
        return draw_strip([f"s{status}" if status else "" for status in self.statuses])

    @property
    def newest(self) -> str:
        """The newest number."""
        return f"{self._known[-1]:.3g}" if self._known else NONE

    @property
    def highest(self) -> str:
        """The highest number."""
        return f"{max(self._known):.3g}" if self._known else NONE

    @property
    def _known(self) -> list[float]:
        return _finite(self.values)

    @property
    def failed(self) -> str:
        """In how many windows its verdict was a failure."""
        return str(sum(status in ("WARN", "ERROR") for status in self.statuses))


def draw_strip(kinds: Sequence[str]) -> Markup:
    """Draw windows side by side, a rectangle per stretch of one kind.

    Args:
        kinds: The class of each window, oldest first; empty where nothing is drawn.
    """
    paths: dict[str, list[str]] = {}
    start = 0
    for place in range(1, len(kinds) + 1):
        if place == len(kinds) or kinds[place] != kinds[start]:
            if kinds[start]:
                wide = place - start
                paths.setdefault(kinds[start], []).append(f"M{start} 0h{wide}v1h-{wide}z")
            start = place
    drawn = "".join(f'<path class="{kind}" d="{"".join(d)}"/>' for kind, d in sorted(paths.items()))
    return _stretch("strip", max(len(kinds), 1), 1, drawn)


def sparkline(values: Sequence[float]) -> Markup:
    """Draw a small line without axes; nothing for fewer than two numbers."""
    if len(_finite(values)) < 2:
        return Markup("")
    chart = Chart("", [""] * len(values), [Line("", "value", values)])
    path = f'<path class="line c0" d="{chart._path(values)}"/>'
    return _stretch("spark", _WIDTH, _HEIGHT, path)
