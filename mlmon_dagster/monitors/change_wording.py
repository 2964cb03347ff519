"""What changed in a column, as the first line of a verdict: for people who know no statistics."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.declaration import DerivedFeature, Feature

if TYPE_CHECKING:
    from mlmon_dagster.metrics.drift.column_change import ColumnChange

_TIMES = 3.0  # from here on a number is told as so many times another: a unit may have changed
_EVERY_ROW = 0.97
_LONGEST_VALUE = 40  # characters
HIDDEN_VALUE = "one value (not shown: personal)"
_MOSTLY = 0.5
_WORTH_TELLING = 0.05  # of the rows before, of what all have now
_ROUND = {times for one in (10.0, 12.0, 24.0, 60.0, 100.0, 1e3, 3.6e3) for times in (one, 1 / one)}
_PHYSICAL = {"in", "inches", "cm", "m", "ft", "mi", "miles", "km", "km/h", "mph", "lb", "kg"}
_LENGTHS = ((86_400.0, "days"), (3_600.0, "hours"), (60.0, "minutes"), (1.0, "seconds"))
# What a column's place and width say better, and what wanders has by turns.
_OF_FORM = ("above", "below", "unit", "step", "place", "width", "range", "groups", "shape")
_SIDES = {"text": ("longer", "shorter"), "datetime": ("older", "newer")}
_TEXTS = {
    "above": "{column} lies above everything seen before in {where}",
    "below": "{column} lies below everything seen before in {where}",
    "missing": "{column} is missing in {shares}",
    "other": "{column} has rare values in {shares}",
    "sign": "{column} has the opposite sign in {where}",
    "swapped": "{column} looks like {other} did before, and the other way round",
    "shape": "{column} is distributed differently from before",
}


def in_words(spec: ModelSpec, column: str, change: ColumnChange) -> str:
    """Say what changed, without a full stop; numbers of a column that is pii are not shown.

    Args:
        spec: The model.
        column: A feature, or an output.
        change: Of the column.

    Example:
        ``age is 15 years higher (median 40 to 55)``
    """
    if change.kind in _TEXTS:
        where = rows_share(change.now, _EVERY_ROW if change.kind == "sign" else 1.0)
        return _TEXTS[change.kind].format(
            column=column, where=where, shares=_shares(change), other=change.value
        )
    is_shown = spec.shows_values_of(column)
    shown = replace(change, value=cut_value(change.value))
    return _TELLERS[change.kind](column, spec.features.get(column), shown, is_shown)


def describe_nature(change: ColumnChange | None) -> dict[str, object]:
    """Return by what the windows of an alert are compared beside their value, as far as known.

    Returns:
        ``term``, such as ``missing``; ``place`` in spreads of the baseline's rows and ``width`` in
        widths of them, which say the rest.
    """
    if change is None:
        return {}
    found = dict[str, object]()
    if change.away is not None:
        found["place"] = round(change.away, 4)
    if change.wide is not None:
        found["width"] = round(change.wide, 4)
    if term := _name_term(change):
        found["term"] = term
    return found


def _name_term(change: ColumnChange) -> str:
    if change.kind in _OF_FORM:
        return ""
    if change.kind in ("rounded", "cut"):
        return f"{change.kind} {change.factor:g}"
    if change.kind == "value" and change.now < _MOSTLY:
        return ""  # of many values one that is commoner than it was
    return change.kind


def percent(share: float) -> str:
    """Write a share in hundredths, with a tenth where that says more.

    Example:
        >>> [percent(x) for x in (0.998, 0.3, 1.0, 0.045, 0.0004)]
        ['99.8 %', '30 %', '100 %', '4.5 %', '0.04 %']
    """
    digits = 2 if share < 0.01 else 3 if share < 0.999 else 4
    text = f"{100 * share:.{digits}g}"
    return f"{float(text):g} %" if share >= 0.0001 or share <= 0 else "less than 0.01 %"


def cut_value(text: str) -> str:
    """Write a value of a column, cut where it is long: an id or a free text says no more.

    Example:
        >>> cut_value("AMS"), len(cut_value("x" * 300))
        ('AMS', 40)
    """
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def rows_share(share: float, every: float = 1.0) -> str:
    """Write which part of the rows it is; from `every` on all of them.

    Example:
        >>> [rows_share(x) for x in (0.2, 0.998, 1.0)]
        ['20 % of rows', '99.8 % of rows', 'every row']
    """
    return "every row" if share >= every else f"{percent(share)} of rows"


def plain(value: float) -> str:
    """Write a number of a column in three digits, all of a large one.

    Example:
        >>> [plain(x) for x in (40.0, 54.96, 1234.5, -0.0312, 0.0)]
        ['40', '55', '1,234', '-0.0312', '0']
    """
    if 1000 <= abs(value) < math.inf:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def _two_digits(ratio: float) -> str:
    return plain(float(f"{ratio:.2g}"))


def _shares(change: ColumnChange) -> str:
    return f"{rows_share(change.now)}, before in {percent(change.then)}"


def _value(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    if isinstance(feature, DerivedFeature) and feature.kind.means:
        return _derived_share(feature, change)
    is_shown = feature is None or is_shown
    if change.now == 1.0:
        before = f", before in {percent(change.then)}" if change.then >= _WORTH_TELLING else ""
        return f"{column} is {change.value if is_shown else 'the same'} in every row{before}"
    where = (
        f"in {_shares(change)}" if change.now else f"in no row, before in {percent(change.then)}"
    )
    if is_shown:
        return f"{column} is {change.value} {where}"
    hidden = HIDDEN_VALUE if feature is not None and feature.pii else "one value"
    return f"{column} has {hidden} {where}"


def _derived_share(feature: DerivedFeature, change: ColumnChange) -> str:
    """Say which share of the texts are like that, as in "3 % of question are empty"."""
    now, then = change.now, change.then
    if change.value == "false":
        now, then = 1 - now, 1 - then
    return f"{percent(now)} of {feature.of} {feature.kind.means}, before {percent(then)}"


def _respelled(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    such = f", such as {change.value}" if is_shown else ""
    return f"{column} is spelled differently in {rows_share(change.now)}{such}"


def _exchanged(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    which = change.value if is_shown else "two values"
    before = f"{percent(change.then)} and {percent(change.now)} of rows"
    return f"{which} of {column} have changed places, before {before}"


def _unseen(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    # Windows of a baseline may hold values that came after its list was made.
    if change.then:
        where, one, many = _shares(change), "a new value", "new values"
    else:
        where = rows_share(change.now)
        one, many = (f"{values} never seen before" for values in ("a value", "values"))
    if not (change.value and is_shown):
        return f"{column} has {many} in {where}"
    if change.is_alone:
        return f"{column} has {one}, {change.value}, in {where}"
    return f"{column} has {many}, such as {change.value}, in {where}"


def _bound(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    """Say where values end now: at a value that many rows have, else somewhere in a bin."""
    above, most = ("above", "most") if change.kind == "ceiling" else ("below", "least")
    is_shown = feature is None or is_shown
    value = float(change.value)
    length, unit = _unit_of(feature, abs(value))
    named = f"{plain(value / length)}{unit}" if is_shown else HIDDEN_VALUE
    before = f"before, {percent(change.then)} lay {above} it"
    if change.now:
        return f"{column} stops at {named}: {percent(change.now)} of rows are there; {before}"
    return f"{column} is at {most} {named}; {before}"


def _rounded(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    down = "down " if change.kind == "cut" else ""
    to = "whole numbers" if change.factor == 1.0 else f"multiples of {plain(change.factor)}"
    return f"{column} is rounded {down}to {to} in every row"


def _other_unit(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    where = rows_share(change.now, _EVERY_ROW)
    offset = float(change.value)
    if offset:
        was, now = ("°C", "°F") if offset > 0 else ("°F", "°C")
        return f"{column} looks like {now} instead of {was} in {where}{_means(feature, change)}"
    unit = (feature.unit or "") if feature is not None else ""
    is_known = change.factor in _ROUND or unit.lower() in _PHYSICAL
    guess = ", as if in another unit" if is_known else ""
    return f"{column} is {_times(change.factor)} in {where}{guess}{_means(feature, change)}"


def _means(feature: Feature | None, change: ColumnChange) -> str:
    """Return the means of both sides, where all rows changed and they are nobody's secret."""
    if change.now < _EVERY_ROW or (feature is not None and feature.pii):
        return ""
    length, unit = _unit_of(feature, max(abs(change.low), abs(change.high)))
    return f" (mean {plain(change.low / length)} to {plain(change.high / length)}{unit})"


def _groups(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    if feature is not None and feature.pii:
        where = "with few rows between them"
    else:
        length, unit = _unit_of(feature, max(abs(change.low), abs(change.high)))
        where = f"around {plain(change.low / length)} and {plain(change.high / length)}{unit}"
    between = f"{percent(change.now)} of rows lie between, before {percent(change.then)}"
    return f"{column} is in two groups, {where}: {between}"


def _step(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    side = "higher" if change.factor > 0 else "lower"
    if feature is not None and feature.pii:
        return f"{column} is {side} than before by the same in every row"
    length, unit = _unit_of(feature, abs(change.factor))
    much = f"{plain(abs(change.factor) / length)}{unit}"
    medians = f"median {plain(change.then / length)} to {plain(change.now / length)}"
    return f"{column} is {much} {side} in every row ({medians})"


def _times(ratio: float) -> str:
    if ratio >= 1:
        return f"{plain(ratio)} times as high"
    return f"{plain(1 / ratio)} times lower"


def _place(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    kind = feature.type if feature is not None else "numeric"
    more, less = _SIDES.get(kind, ("higher", "lower"))
    moved = change.now - change.then
    side = more if moved > 0 else less
    if feature is not None and feature.pii:
        deviations = abs(moved) / change.spread if change.spread else 0.0
        much = f"{deviations:.2g} standard deviations " if deviations else ""
        return f"{column} is {much}{side} than before"
    length, unit = _unit_of(feature, max(abs(change.now), abs(change.then)))
    now, then = change.now / length, change.then / length
    medians = f"{'mean' if change.is_mean else 'median'} {plain(then)} to {plain(now)}"
    is_score = feature is None and max(now, then) <= 1
    ratio = now / then if then and not is_score else 0.0
    if ratio >= _TIMES:
        return f"{column} is {_two_digits(ratio)} times as high ({medians}{unit})"
    if 0 < ratio <= 1 / _TIMES:
        return f"{column} is {_two_digits(1 / ratio)} times lower ({medians}{unit})"
    return f"{column} is {plain(abs(now - then))}{unit} {side} ({medians})"


def _unit_of(feature: Feature | None, largest: float) -> tuple[float, str]:
    """Return the length of the unit that a column's numbers are written in, and its name.

    The name begins with a space, and is empty where there is none.
    """
    kind = feature.type if feature is not None else "numeric"
    if kind == "datetime":
        length, name = next((one for one in _LENGTHS if largest >= 2 * one[0]), _LENGTHS[-1])
        return length, f" {name}"
    if kind == "text":
        return 1.0, " characters"
    unit = (feature.unit or "") if feature is not None else ""
    if unit == "%":
        return 1.0, " points"  # a tenth of 50 % would be another thing
    return 1.0, f" {unit}" if len(unit.split()) == 1 else ""  # more is a description


def _range(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    if feature is not None and feature.pii:
        return f"one range of {column} is in {_shares(change)}"
    ends = [abs(end) for end in (change.low, change.high) if math.isfinite(end)]
    length, unit = _unit_of(feature, max(ends, default=0.0))
    low, high = plain(change.low / length), plain(change.high / length)
    if math.isinf(change.low):
        where = f"at most {high}{unit}"
    elif math.isinf(change.high):
        where = f"at least {low}{unit}"
    else:
        where = f"{low}{unit}" if low == high else f"{low} to {high}{unit}"
    return f"{column} is {where} in {_shares(change)}"


def _width(column: str, feature: Feature | None, change: ColumnChange, is_shown: bool) -> str:
    if not change.now:
        return f"{column} hardly varies any more"
    ratio = change.now / change.then
    only = "" if ratio > 1 else "only "
    return f"{column} varies {only}{_two_digits(ratio)} times as much as before"


_TELLERS: dict[str, Callable[[str, Feature | None, ColumnChange, bool], str]] = {
    "unseen": _unseen,
    "respelled": _respelled,
    "value": _value,
    "ceiling": _bound,
    "floor": _bound,
    "rounded": _rounded,
    "cut": _rounded,
    "unit": _other_unit,
    "exchanged": _exchanged,
    "groups": _groups,
    "step": _step,
    "place": _place,
    "width": _width,
    "range": _range,
}
