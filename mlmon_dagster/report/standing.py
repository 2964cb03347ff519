"""What stands of a model in words: the status of each family, and of all of them."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from mlmon_dagster.monitors.wording import NAMES, REASONS
from mlmon_dagster.spec import ModelSpec, window_containing
from mlmon_dagster.spec.names import ALL, TABLE
from mlmon_dagster.spec.tasks import families_of
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results
from mlmon_dagster.store.state.monitor_results import (
    NOT_JUDGED,
    PIPELINE,
    MonitorResult,
    load_standing,
    name_window,
    worst_of,
)

T = TypeVar("T")
_MOST_NAMED = 6


@dataclass(frozen=True)
class Standing:
    """How the monitors of one family judged the newest windows that they could judge.

    Attributes:
        family: The family; ``pipeline`` for what failed outside the data.
        status: ERROR, WARN, NO_DATA, OK, or ``-`` if it never judged.
        window: The newest window with that verdict, in the model's zone; empty if there is none.
        text: What is wrong, or how many verdicts passed.
        n_judged: Monitors that judged, slices included.
        n_not_judged: Monitors that did not.
        why_not: Why not, the commonest reason first.
    """

    family: str
    status: str
    window: str
    text: str
    n_judged: int = 0
    n_not_judged: int = 0
    why_not: str = ""


def standing_of(store: Store, spec: ModelSpec, now: dt.datetime) -> list[Standing]:
    """Return what stands of each family of a model, in the order in which people look at them.

    Args:
        store: The store.
        spec: The model.
        now: Windows that start before this moment.
    """
    return describe_standing(spec, load_standing(store.state, [spec], now)[spec.model])


def describe_standing(spec: ModelSpec, rows: Sequence[MonitorResult]) -> list[Standing]:
    """Return the same of verdicts that have been read.

    Args:
        spec: The model.
        rows: What `load_standing` returns of it.

    Returns:
        One a family that the model has; ``pipeline`` last, and only if something of it failed.
    """
    of_family: dict[str, list[MonitorResult]] = {family: [] for family in families_of(spec)}
    for row in rows:
        of_family.setdefault(row["family"], []).append(row)
    return [_describe_family(spec, family, found) for family, found in of_family.items()]


def overall(standings: Sequence[Standing], *, has_windows: bool = True) -> str:
    """Return a model's status from its families': the worst verdict.

    A family that could judge none of its newest windows is NO_DATA, and then so is the model,
    unless something is failing: what was not judged is not healthy. Nor is a model without windows.

    Example:
        >>> overall([Standing("drift", "NO_DATA", "", ""), Standing("quality", "OK", "", "")])
        'NO_DATA'
    """
    statuses = {standing.status for standing in standings} | (set() if has_windows else {"NO_DATA"})
    return next((s for s in ("ERROR", "WARN", "NO_DATA", "OK") if s in statuses), "NO_DATA")


def name_last_window(spec: ModelSpec, end: dt.datetime) -> str:
    """Write the window that ends at a moment."""
    last = window_containing(spec.time, end - dt.timedelta(microseconds=1))
    return name_window(spec, last.start)


def _describe_family(spec: ModelSpec, family: str, rows: Sequence[MonitorResult]) -> Standing:
    if not rows:
        return Standing(family, NOT_JUDGED, "", "nothing to judge")
    status = worst_of(rows)
    window = name_window(spec, max(r["window_start"] for r in rows if r["status"] == status))
    not_judged = [row["reason"] for row in rows if row["status"] == "NO_DATA"]
    return Standing(
        family,
        status,
        "" if family == PIPELINE else window,
        _describe_verdicts(family, status, rows),
        len(rows) - len(not_judged),
        len(not_judged),
        _count_reasons(not_judged),
    )


def _describe_verdicts(family: str, status: str, rows: Sequence[MonitorResult]) -> str:
    if family == PIPELINE:
        return " ".join(row["message"] for row in rows)
    if status == "NO_DATA":
        reason = Counter(row["reason"] for row in rows if row["reason"]).most_common(1)
        why = f": {REASONS.get(reason[0][0], reason[0][0])}" if reason else ""
        return f"nothing could be judged{why}"
    failing = [row for row in rows if row["status"] in ("ERROR", "WARN")]
    if not failing:
        return f"{_count_of(len(rows), 'verdict')}, all passed"
    names = [_subject(row) for row in failing]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    named = ", ".join(names[:_MOST_NAMED]) + more
    return f"{len(failing)} of {_count_of(len(rows), 'verdict')} failed: {named}"


def _count_reasons(reasons: Sequence[str]) -> str:
    counted = Counter(REASONS.get(reason, reason) for reason in reasons).most_common(3)
    return "; ".join(f"{n}: {reason}" if len(counted) > 1 else reason for reason, n in counted)


def _count_of(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _subject(row: MonitorResult) -> str:
    name = NAMES.get(row["metric"], row["metric"])
    if row["column_name"] not in (TABLE, ""):
        name += f" of {row['column_name']}"
    is_whole = row["slice_key"] == ALL
    return name if is_whole else f"{name} ({row['slice_key']} = {row['slice_value']})"


class StandingVerdicts(Generic[T]):
    """Makes something of each model's standing verdicts, anew only where there are newer ones.

    Args:
        store: The store.
        make: Makes it of a model and what `load_standing` returns of it.
    """

    def __init__(
        self, store: Store, make: Callable[[ModelSpec, Sequence[MonitorResult]], T]
    ) -> None:
        self._store, self._make = store, make
        self._made: dict[str, tuple[ModelSpec, T]] = {}
        self._seen = -1  # the newest verdict that they rest on

    def read(self, specs: Sequence[ModelSpec], now: dt.datetime) -> Mapping[str, T]:
        """Return what there is of some models, in their order; others are forgotten.

        Args:
            specs: The models.
            now: Windows that start before this moment.
        """
        seen, new = monitor_results.changed_since(self._store.state, self._seen)
        known = {
            spec.model: self._made[spec.model]
            for spec in specs
            if spec.model not in new and self._made.get(spec.model, (None,))[0] == spec
        }
        rest = [spec for spec in specs if spec.model not in known]
        standing = load_standing(self._store.state, rest, now)
        known |= {spec.model: (spec, self._make(spec, standing[spec.model])) for spec in rest}
        self._made = {spec.model: known[spec.model] for spec in specs}
        self._seen = seen
        return {name: made for name, (_, made) in self._made.items()}
