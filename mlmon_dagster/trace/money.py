"""What a change is worth: outcomes and decisions of some windows beside the windows before."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS
from mlmon_dagster.metrics.statistics import ColumnStatistics, of_all
from mlmon_dagster.monitors.wording import number
from mlmon_dagster.profiles.measures import MEASURES
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import outcome_worth
from mlmon_dagster.spec.metric_registry import of_outcome
from mlmon_dagster.spec.names import ALL, BUSINESS, TABLE
from mlmon_dagster.trace.chance import find_doubt
from mlmon_dagster.trace.explain import Explained
from mlmon_dagster.trace.slices import by_window, compare_slices

Profiles = Mapping[str, ColumnStatistics]
BEFORE = 28  # windows that say what is usual
DECISIONS = "expected_value"
_MOST, _MORE = 0.5, 0.15  # of a change, for a part to be named; and beyond its share of the rows
_PARTS = 3  # of a change, said in money
_KNOWN = 0.95  # of the outcomes that are usually known by then


@dataclass(frozen=True)
class Money:
    """An outcome, or what decisions brought, beside what is usual.

    Attributes:
        series: ``mean_outcome/revenue``, ``mean_cost/refund`` or ``expected_value``.
        now: Mean of a row in these windows.
        usual: Mean of a row in the windows before.
        margin: Half of the 95 % interval of ``now - usual``, between windows; NaN if too few.
        n: Rows with one, in these windows.
        worth: Of one more, in the currency; None if nobody says.
        currency: Of ``worth``.
        unit: Of the outcome.
        known: Share of the rows whose outcome is known, over what it usually is.
        who: The part that most of the change is of, such as ``region = west``; empty if none is.
    """

    series: str
    now: float
    usual: float
    margin: float
    n: int
    worth: float | None
    currency: str
    unit: str
    known: float
    who: str = ""

    @property
    def change(self) -> float:
        """Of a row."""
        return self.now - self.usual

    @property
    def is_real(self) -> bool:
        """Whether windows hardly stray so far."""
        return abs(self.change) > self.margin

    @property
    def amount(self) -> float | None:
        """What the change is worth in these windows together; below 0 it is a loss."""
        return None if self.worth is None else self.change * self.n * self.worth

    @property
    def sentence(self) -> str:
        """One sentence without a full stop."""
        name = self.series.partition("/")[2] or "what decisions bring"
        unit = f" {self.unit}" if self.unit else ""
        beside = f"{number(self.now)}{unit} a request, usually {number(self.usual)}"
        if self.known < _KNOWN:
            beside += f"; {100 * self.known:.0f} % of the usual number of outcomes is in so far"
        if not self.is_real:
            chance = "too few windows to tell chance" if math.isnan(self.margin) else "chance"
            text = f"{name} is as usual" if chance == "chance" else f"{name} is {self._moved}"
            return f"{text} ({beside}{'' if chance == 'chance' else f'; {chance}'})"
        text = f"{name} is {self._moved} ({beside})"
        if self.amount is not None and self.worth is not None:
            ends = sorted(
                abs((self.change + side * self.margin) * self.n * self.worth) for side in (-1, 1)
            )
            much = "less" if self.amount < 0 else "more"
            text += (
                f", worth about {rounded(abs(self.amount))} {self.currency} {much} "
                f"({rounded(ends[0])} to {rounded(ends[1])})"
            )
        return f"{text}, mostly {self.who}" if self.who else text

    @property
    def _moved(self) -> str:
        side = "below" if self.change < 0 else "above"
        if not self.usual:
            return f"{number(abs(self.change))} {side} usual"
        return f"{rounded(100 * abs(self.change / self.usual))} % {side} usual"


def rounded(amount: float) -> str:
    """Write an amount of money as people say it.

    Example:
        >>> rounded(3117.4), rounded(0.5), rounded(1e6)
        ('3,100', '0.5', '1,000,000')
    """
    if not amount:
        return "0"
    places = 1 - math.floor(math.log10(abs(amount)))
    return f"{round(amount, places):,.{max(min(places, 2), 0)}f}" if places < 1 else f"{amount:.2g}"


def series_of(spec: ModelSpec) -> list[str]:
    """Return what is told of a model: the mean of each outcome, and what decisions bring."""
    means = [
        of_outcome("mean_outcome" if declared.better == "higher" else "mean_cost", name)
        for name, declared in spec.columns.outcomes.items()
    ]
    has_decisions = spec.costs is not None and spec.columns.prediction is not None
    return [*means, *([DECISIONS] if has_decisions and spec.currency else [])]


def money_of(spec: ModelSpec, now: Profiles, then: Profiles) -> list[Money]:
    """Hold some windows against those before.

    Args:
        spec: The model.
        now: Column -> statistics of the windows, as `slices.profiled_for` names them.
        then: The same of the windows before.

    Returns:
        What `series_of` names, as far as both sides know it; what moved really first.
    """
    one, other = (_by_window(spec, side) for side in (now, then))
    found = []
    for series in series_of(spec):
        metric, _, outcome = series.partition("/")
        mine, before = (_of(frame, metric, outcome) for frame in (one, other))
        if not mine["n"].sum() or not before["n"].sum():
            continue
        money = Money(
            series,
            _mean(mine),
            _mean(before),
            _margin(before, len(mine)),
            int(mine["n"].sum()),
            outcome_worth(spec, outcome) if outcome else 1.0,
            spec.currency or "",
            (spec.columns.outcomes[outcome].unit or "" if outcome else spec.currency or ""),
            _known(one, outcome) / (_known(other, outcome) or 1.0),
        )
        found.append(_with_largest_part(spec, money, now, then) if money.is_real else money)
    return sorted(found, key=lambda money: not money.is_real)


def failed_worth(spec: ModelSpec, then: Profiles) -> float | None:
    """Return what one request is usually worth in the currency, all outcomes together."""
    frame, total = _by_window(spec, then), None
    for series in series_of(spec):
        metric, _, outcome = series.partition("/")
        worth = outcome_worth(spec, outcome) if outcome else None
        before = _of(frame, metric, outcome)
        if worth is not None and before["n"].sum():
            total = (total or 0.0) + worth * _mean(before)
    return total


def describe_worth(spec: ModelSpec, found: Explained) -> list[str]:
    """Say what a traced change is worth, which parts it is of, and what another threshold is.

    Args:
        spec: The model.
        found: The trace of a mean outcome or of the expected value.

    Returns:
        Sentences; none where nothing says what one more is worth.
    """
    metric, _, outcome = found.metric.partition("/")
    if found.metric not in series_of(spec):
        return []
    worth = outcome_worth(spec, outcome) if outcome else 1.0
    if worth is None:
        return []
    scale, currency = found.now.n * worth, spec.currency
    text = (
        f"Over {found.now.n:,} rows the change is worth {_signed(found.change * scale, currency)}"
    )
    if not math.isnan(found.margin):
        ends = sorted((found.change + side * found.margin) * scale for side in (-1, 1))
        text += f" ({_signed(ends[0])} to {_signed(ends[1])})"
    doubt = find_doubt(found)
    parts = found.slices[
        (found.slices["slice_key"] != ALL)
        & (found.slices["method"] == "exact")
        & (found.slices["is_real"] & (not doubt))
    ].assign(amount=lambda frame: frame["effect"] * scale)
    first = [
        f"{row['slice_key']} = {row['slice_value']} {_signed(row['amount'], currency)}"
        for row in parts.reindex(parts["amount"].abs().sort_values(ascending=False).index)
        .head(_PARTS)
        .to_dict("records")
    ]
    lines = [text + (f"; of it {', '.join(first)}" if first else "") + "."]
    decided = found.decisions.get(DECISIONS)
    if doubt or metric != DECISIONS or decided is None:
        return lines
    if (at := decided.threshold) is not None:
        lines.append(
            f"Decided from {number(at.better)} on instead of {number(at.now)}, they would have "
            f"brought about {_signed(at.gain * found.now.n, currency)}, chosen on every other "
            "window and measured on the rest."
        )
    return lines


def _signed(amount: float, currency: str | None = None) -> str:
    text = f"{'-' if amount < 0 else '+'}{rounded(abs(amount))}"
    return f"{text} {currency}" if currency else text


def _by_window(spec: ModelSpec, side: Profiles) -> pd.DataFrame:
    frame = MEASURES[BUSINESS](spec, by_window(of_all(side)), None)
    return frame[frame["n"] > 0]


def _of(frame: pd.DataFrame, metric: str, outcome: str) -> pd.DataFrame:
    found = frame[(frame["metric"] == metric) & (frame["column_name"] == (outcome or TABLE))]
    return found[found["value"].notna()]


def _mean(frame: pd.DataFrame) -> float:
    return float(np.average(frame["value"], weights=frame["n"]))


def _known(frame: pd.DataFrame, outcome: str) -> float:
    shares = _of(frame, "outcome_coverage", outcome) if outcome else frame.iloc[:0]
    return _mean(shares) if len(shares) else 1.0


def _margin(before: pd.DataFrame, n_windows: int) -> float:
    """Return how far the mean of so many windows may be from that of those before, at 95 %.

    Student's interval of one more mean, by how the windows before stray among themselves: of
    what windows share no count of rows tells.
    """
    g = len(before)
    if g < FEWEST_WINDOWS:
        return math.nan
    away = before["value"] - _mean(before)
    spread = float(np.average(away**2, weights=before["n"])) * g / (g - 1)
    t = float(special.stdtrit(g - 1, 0.975))
    return t * math.sqrt(spread * (1 / n_windows + 1 / g))


def _with_largest_part(spec: ModelSpec, money: Money, now: Profiles, then: Profiles) -> Money:
    frame = compare_slices(spec, now, then, [money.series])
    if frame.empty:
        return money
    parts = frame[(frame["slice_key"] != ALL) & (frame["note"] != "small")]
    parts = parts[~parts["slice_key"].str.contains(",") & (parts["method"] == "exact")]
    large = parts[(parts["share"] >= _MOST) & (parts["share"] >= parts["weight"] + _MORE)]
    if large.empty:
        return money
    worst = large.sort_values("share").to_dict("records")[-1]
    who = f"{worst['slice_key']} = {worst['slice_value']}"
    return replace(money, who=who)
