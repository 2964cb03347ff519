"""May a change be chance, and may a part of it? The one rule of what a trace may call a cause.

A change is explained only where it is more than chance: by its test between windows, or because a
monitor found the very windows to be worse. A part of it is called a cause only where the interval
of that part leaves zero out. Otherwise one sentence says what was looked at, and what it would
take.
"""

from __future__ import annotations

import math
from typing import Literal

from scipy import special

from mlmon_dagster.metrics import FEWEST_WINDOWS
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import counted, joined
from mlmon_dagster.trace.explain import Explained
from mlmon_dagster.trace.slices import Q

Doubt = Literal["", "chance", "few_windows"]
_HOPELESS = 100  # times as many windows


def find_doubt(found: Explained) -> Doubt:
    """Say why a change may not be explained; empty where it is more than chance.

    Args:
        found: What `explain.explain` returned.

    Returns:
        ``few_windows`` where the windows are too few to tell, ``chance`` where the interval holds
        zero or the p-value is above the level of the test.
    """
    if found.is_verdict:
        return ""
    if math.isnan(found.p_value):
        return "few_windows"
    if found.p_value > Q or not is_sure(found.change, found.margin):
        return "chance"
    return ""


def is_sure(effect: float, margin: float) -> bool:
    """Say whether the interval of an effect leaves zero out; never where the margin is unknown."""
    return abs(effect) > margin


def describe_doubt(spec: ModelSpec, found: Explained) -> str:
    """Say in one sentence that nothing is explained, and what it would take.

    Args:
        spec: The model.
        found: What `explain.explain` returned.
    """
    if find_doubt(found) == "few_windows":
        return f"{describe_few(spec, found)}."
    if not found.change:
        return "Nothing changed, so no cause is named."
    times = _count_times(found)
    if times > _HOPELESS:
        return (
            "No cause is named: even a hundred times as many windows would not tell a change this "
            "small from chance."
        )
    now, then = (_rounded(side.windows * times) for side in (found.now, found.then))
    rows = _rounded(found.now.n * times)
    return (
        f"No cause is named: to settle a change of this size takes about {times:.2g} times as many "
        f"windows on both sides, some {now} ({rows} rows) against {then}."
    )


def describe_few(spec: ModelSpec, found: Explained) -> str:
    """Say what was looked at in too few windows, without a full stop.

    Example:
        ``Looked at origin and carrier, in 3 windows: too few to say which slice got worse; it takes
        8 on each side``
    """
    fewest = min(found.now.windows, found.then.windows)
    if fewest >= FEWEST_WINDOWS:
        return "No cause is named: without one of its windows the metric has no value"
    takes = f"it takes {FEWEST_WINDOWS} on each side"
    if not spec.slices:
        return f"Too few windows ({fewest}) to say what made the difference; {takes}"
    looked = name_slices(spec)
    return (
        f"Looked at {looked}, in {counted(fewest, 'window')}: too few to say which slice got "
        f"worse; {takes}"
    )


def name_slices(spec: ModelSpec) -> str:
    """Name the slice keys that a trace looks at; empty if the spec declares none."""
    keys = [",".join(names) for names in spec.slices]
    return f"{joined(keys)}, the only declared slice" if len(keys) == 1 else joined(keys)


def _count_times(found: Explained) -> float:
    """Return how many times the windows would tell a change of this size from chance.

    The margin is of the level of the test: its square falls with the windows.
    """
    freedom = max(min(found.now.windows, found.then.windows) - 1, 1)
    wider = special.stdtrit(freedom, 1 - Q / 2) / special.stdtrit(freedom, 0.975)
    return max(float((wider * found.margin / found.change) ** 2), 1.1)


def _rounded(number: float) -> str:
    digits = max(len(f"{number:.0f}") - 2, 0)
    return f"{round(number, -digits):,.0f}"
