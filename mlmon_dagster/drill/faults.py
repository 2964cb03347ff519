"""The standard faults: what each does to one column of the rows it hits, in sizes that grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from mlmon_dagster.metrics import Floats
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.tasks import task_of

Unit = Literal["share", "sd", "times", "hours"]
LABEL_FLIP, ONE_SLICE = "label_flip", "one_slice"
VOLUME, LATE_FEED, MISSING_TRUTH = "volume", "late_feed", "missing_truth"
SHARES = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0,
)  # fmt: skip
DEVIATIONS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
FACTORS = (1.1, 1.2, 1.35, 1.5, 2.0, 3.0, 5.0, 10.0)
HOURS = (1.0, 2.0, 4.0, 8.0, 12.0, 18.0, 24.0, 26.0, 30.0, 36.0, 48.0, 72.0, 96.0, 168.0, 336.0)
NEVER_SEEN = "(never seen)"

# How a unit is mistaken for another: what for, and value * scale + offset.
_MISTAKEN = {
    "f": ("C", 1 / 1.8, -32 / 1.8),
    "c": ("F", 1.8, 32.0),
    "mph": ("km/h", 1.609344, 0.0),
    "miles": ("km", 1.609344, 0.0),
    "mi": ("km", 1.609344, 0.0),
    "km": ("miles", 0.621371, 0.0),
    "inches": ("cm", 2.54, 0.0),
    "in": ("cm", 2.54, 0.0),
    "cm": ("inches", 0.393701, 0.0),
    "ft": ("m", 0.3048, 0.0),
    "lb": ("kg", 0.453592, 0.0),
    "kg": ("lb", 2.204623, 0.0),
    "%": ("shares", 0.01, 0.0),
    "years": ("months", 12.0, 0.0),
    "mbar": ("inHg", 0.02953, 0.0),
    "hpa": ("inHg", 0.02953, 0.0),
    "ms": ("s", 0.001, 0.0),
    "s": ("ms", 1000.0, 0.0),
}
_HUNDREDFOLD = ("100 times too large", 100.0, 0.0)


@dataclass(frozen=True)
class Facts:
    """What a fault must know of the healthy values of its column.

    Attributes:
        middle: Median of a number, else the commonest value; None without any value.
        sd: Standard deviation of a number, over all healthy rows together; 0.0 of others.
        outside: A number outside the declared range, else outside everything in these rows.
        unit: How they are in another unit, in words and as value * scale + offset.
        codes: The commonest code and a middling one, which are exchanged; () if there is one.
        classes: Classes of the ground truth, each mistaken for the next; () if it has none.
    """

    middle: object = None
    sd: float = 0.0
    outside: float = 0.0
    unit: tuple[str, float, float] = _HUNDREDFOLD
    codes: tuple[object, ...] = ()
    classes: tuple[object, ...] = ()


Change = Callable[[pd.Series, Facts, float], pd.Series]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, in sizes that grow.

    Attributes:
        name: Its name on the command line.
        types: Types of the features that it can hit; () if it does not hit a feature.
        families: Monitor families that can notice it.
        unit: What the sizes are: a share of the rows that are hit, standard deviations by which
            all rows are off, a factor of all rows, hours.
        sizes: Sizes tried, ascending.
        change: Returns new values of the rows hit; None where no column is changed.
        is_signed: Whether it is tried in both directions, of which the worse counts.
    """

    name: str
    types: tuple[str, ...]
    families: tuple[str, ...]
    unit: Unit
    sizes: tuple[float, ...]
    change: Change | None = None
    is_signed: bool = False


def _null(values: pd.Series, _facts: Facts, _size: float) -> pd.Series:
    kind = "float64" if values.dtype.kind == "f" else "object"
    return pd.Series(None, index=values.index, dtype=kind)


def _outside(values: pd.Series, facts: Facts, _size: float) -> pd.Series:
    return pd.Series(facts.outside, index=values.index)


def _unseen(values: pd.Series, _facts: Facts, _size: float) -> pd.Series:
    return pd.Series(NEVER_SEEN, index=values.index)


def _shifted(values: pd.Series, facts: Facts, size: float) -> pd.Series:
    return values + size * facts.sd


def _mistaken(values: pd.Series, facts: Facts, _size: float) -> pd.Series:
    _, scale, offset = facts.unit
    return values * scale + offset


def _stuck(values: pd.Series, facts: Facts, _size: float) -> pd.Series:
    return pd.Series([facts.middle] * len(values), index=values.index).where(values.notna(), None)


def _swapped(values: pd.Series, facts: Facts, _size: float) -> pd.Series:
    one, other = facts.codes
    return values.map({one: other, other: one}).where(values.isin(facts.codes), values)


def _another_truth(values: pd.Series, facts: Facts, _size: float) -> pd.Series:
    if facts.classes:
        after = (*facts.classes[1:], facts.classes[0])
        return values.map(dict(zip(facts.classes, after, strict=True)))
    known = values.dropna()
    moved = np.roll(known.to_numpy(), len(known) // 3)
    return pd.Series(moved, index=known.index).reindex(values.index)


def _longer(values: pd.Series, _facts: Facts, size: float) -> pd.Series:
    return values * size


def _failed(values: pd.Series, _facts: Facts, _size: float) -> pd.Series:
    return pd.Series("error", index=values.index)


_COLUMN = ("quality", "drift")
_ANY = ("numeric", "categorical", "boolean", "datetime", "text")
_CODES = ("categorical", "boolean")
FAULTS = (
    Fault("nulls", _ANY, _COLUMN, "share", SHARES, _null),
    Fault(
        "out_of_range", ("numeric",), _COLUMN, "share", SHARES, _outside
    ),
    Fault("unseen", ("categorical",), _COLUMN, "share", SHARES, _unseen),
    Fault(
        "shift", ("numeric",), _COLUMN, "sd", DEVIATIONS, _shifted, is_signed=True
    ),
    Fault("unit", ("numeric",), _COLUMN, "share", SHARES, _mistaken),
    Fault("swap", _CODES, ("drift",), "share", SHARES, _swapped),
    Fault(
        "stuck", ("numeric", *_CODES), ("drift",), "share", SHARES, _stuck
    ),
    Fault(
        LABEL_FLIP, (), ("performance", "estimated_performance"), "share", SHARES,
        _another_truth,
    ),
    Fault(
        ONE_SLICE, (), ("performance",), "share", SHARES,
        _another_truth,
    ),
    Fault("latency", (), ("service",), "times", FACTORS, _longer),
    Fault("errors", (), ("service",), "share", SHARES, _failed),
    Fault(VOLUME, (), ("service",), "share", (*SHARES[:-1], 0.95)),
    Fault(LATE_FEED, (), ("freshness",), "hours", HOURS),
    Fault(MISSING_TRUTH, (), ("freshness",), "share", SHARES),
)  # fmt: skip
NAMES = tuple(fault.name for fault in FAULTS)


def facts_of(spec: ModelSpec, column: str, values: pd.Series) -> Facts:
    """Return what the faults of a column must know of its healthy values.

    Args:
        spec: The model.
        column: A feature, or the role ``actual``, ``latency_ms`` or ``status``.
        values: Its values in the healthy windows; all null or none at all are fine.
    """
    known = values.dropna()
    if column == "actual":
        is_number = task_of(spec).answer == "number"
        return Facts(classes=() if is_number else tuple(sorted(known.unique())))
    feature = spec.features.get(column)
    if feature is None or known.empty:
        return Facts()
    if feature.type == "numeric":
        sd = float(known.std(ddof=0))
        outside = _out_of(feature.min, feature.max, known, sd)
        return Facts(float(known.median()), sd, outside, _mistaken_for(feature.unit or ""))
    codes = (
        known.value_counts().sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    )
    exchanged = (codes.index[0], codes.index[len(codes) // 2]) if len(codes) > 1 else ()
    return Facts(middle=codes.index[0], codes=exchanged)


def _mistaken_for(unit: str) -> tuple[str, float, float]:
    name = unit.strip()
    if name.lower() not in _MISTAKEN:
        return _HUNDREDFOLD
    other, scale, offset = _MISTAKEN[name.lower()]
    return f"in {other} instead of {name}", scale, offset


def _out_of(low: float | None, high: float | None, known: pd.Series, sd: float) -> float:
    beyond = max(sd, 1.0)
    if high is not None:
        return high + beyond
    return low - beyond if low is not None else float(known.max()) + 10 * beyond


def fits(fault: Fault, facts: Facts, kind: str) -> bool:
    """Tell whether a fault can hit a column: a constant has no deviation, one code no other."""
    if kind not in fault.types:
        return False
    if fault.unit == "sd":
        return facts.sd > 0
    if fault.change is _swapped:
        return bool(facts.codes)
    return facts.middle is not None or kind in ("datetime", "text")


def inject(values: pd.Series, fault: Fault, facts: Facts, size: float, luck: Floats) -> pd.Series:
    """Return a column's values with a fault.

    Args:
        values: The healthy values, (n,).
        fault: What goes wrong; one that changes a column.
        facts: Of this column.
        size: How much, in the fault's unit; negative is the other direction.
        luck: A number in [0, 1) per row, (n,): a share hits the rows below it, so that those of a
            smaller size are among those of a larger one. 1 or more is never hit.

    Returns:
        New values, (n,); the rows that are not hit as they were.

    Example:
        >>> wrong = inject(pd.Series([1.0, 2.0]), FAULTS[0], Facts(), 0.5, np.array([0.2, 0.7]))
        >>> wrong.isna().tolist()
        [True, False]
    """
    if fault.change is None:
        raise ValueError(f"the fault {fault.name!r} changes no column")
    hit = luck < (size if fault.unit == "share" else 1.0)
    changed = fault.change(values[hit], facts, size)
    found = values.copy() if values.dtype == changed.dtype else values.astype(object)
    found[hit] = changed
    return found
