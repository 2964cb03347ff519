"""The tables of what stands: the status of each model, and of each of its families in words."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from mlmon_dagster.monitors.wording import REASONS
from mlmon_dagster.project import Project
from mlmon_dagster.spec import BrokenModel, ModelSpec, window_containing
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import ALL, ESTIMATED_PERFORMANCE, PERFORMANCE, counted
from mlmon_dagster.spec.tasks import estimated_metrics, families_of
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import monitor_results, window_state
from mlmon_dagster.store.state.monitor_results import (
    NOT_JUDGED,
    PIPELINE,
    MonitorResult,
    load_standing,
    name_window,
    worst_of,
)
from mlmon_dagster.tables.alerts import (
    NO_ALERTS,
    NO_OPEN_ALERTS,
    OpenAlerts,
    StandingCounts,
    count_standing,
    explain_episode,
    list_alerts,
    load_open_alerts,
    name_metric,
    pick_standing,
    shorten,
)
from mlmon_dagster.tables.table import Column, Table

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

    @property
    def label(self) -> str:
        """What people call the family."""
        return FAMILIES[self.family].label if self.family in FAMILIES else self.family


ORDER = ("BROKEN", "ERROR", "WARN", "NO_DATA", "OK")


@dataclass(frozen=True)
class ModelStatus:
    """How a model is.

    Attributes:
        model: Its name.
        status: Worst status of its families; BROKEN if its declaration does not load.
        window: Its newest window with predictions, in its zone.
        n: Predictions of that window; None without a window.
        actual_coverage: Share of its ground truth that has come.
        alerts: How many of its alerts stand.
        since: The first window of the worst alert that fires, or else recovers; empty without one.
        sentence: What that alert says; without one which verdicts failed, and what explains them.
        families: Family -> its status, ``-`` where there is nothing to judge.
        owners: Who it belongs to.
    """

    model: str
    status: str
    window: str
    n: int | None = None
    actual_coverage: float | None = None
    alerts: StandingCounts = NO_ALERTS
    since: str | None = None
    sentence: str | None = None
    families: Mapping[str, str] = field(default_factory=dict)
    owners: str | None = None

    def fields(self) -> dict[str, object]:
        """Return what programs get: families beside all else."""
        return {
            "model": self.model, "owners": self.owners, "firing": self.alerts.firing,
            "recovering": self.alerts.recovering, "since": self.since, "sentence": self.sentence,
            **self.families, "status": self.status, "window": self.window, "n": self.n,
            "actual_coverage": self.actual_coverage,
        }  # fmt: skip


STATUS: Table[ModelStatus] = Table(
    "status",
    (
        Column("STATUS", "status"),
        Column("MODEL", "model"),
        Column("NEWEST WINDOW", "window"),
        Column("FIRING", lambda row: row.alerts.firing, is_number=True),
        Column("RECOVERING", lambda row: row.alerts.recovering, is_number=True),
        Column("SINCE", "since"),
        Column("WHAT", lambda row: shorten(row.sentence or "")),
    ),
)


def list_models(
    project: Project, specs: Sequence[ModelSpec], broken: Sequence[BrokenModel] = ()
) -> list[ModelStatus]:
    """Return one row per model, worst first; a file that does not load is worse than any.

    A family's status is the worst verdict on the newest window that it could judge: NO_DATA where
    it could judge none, and then the model is NO_DATA too unless something fails; ``-`` where there
    is nothing to judge. A model without windows is NO_DATA unless something fails. What failed
    outside the data is the family ``pipeline``.
    """
    alerts = load_open_alerts(project.store)
    rows = [_ask_model(project, spec, alerts.get(spec.model, NO_OPEN_ALERTS)) for spec in specs]
    rows += [ModelStatus(one.name, "BROKEN", "does not load") for one in broken]
    return sorted(rows, key=lambda row: (ORDER.index(row.status), row.model))


def _ask_model(project: Project, spec: ModelSpec, open_: OpenAlerts) -> ModelStatus:
    store, alerts = project.store, count_standing(open_.standing)
    windows = {k: v for k, v in window_state.load(store.state, spec.model).items() if v.n}
    standings = standing_of(store, spec, project.now())
    row = ModelStatus(
        spec.model,
        overall(standings, has_windows=bool(windows)),
        "none yet",
        alerts=alerts,
        families={standing.family: standing.status for standing in standings},
        owners=", ".join(spec.owners),
    )
    if windows:
        newest = windows[max(windows)]
        row = replace(
            row,
            window=name_window(spec, newest.window_start),
            n=newest.n,
            actual_coverage=round(newest.coverage or 0.0, 4),
        )
    found = list_alerts(store, spec.model) if any(alerts) else []
    of_kind = "firing" if alerts.firing else "recovering"
    standing = [episode for episode in found if episode.standing == of_kind]
    if not standing:
        what, _ = explain_status(standings, row.status, open_.explained_by)
        return replace(row, sentence=what or None)
    worst = pick_standing(standing)[0]
    since = name_window(spec, worst.opened_window)
    sentence = explain_episode(spec, worst)
    if worst.acked_by:
        # The first line is what a table shows of it.
        first, *rest = sentence.split("\n")
        sentence = "\n".join([f"{first} Acknowledged by {worst.acked_by}.", *rest])
    return replace(row, since=since, sentence=sentence)


# Of a table that has a column for each family; the keys of `ModelStatus.fields`.
STATUS_BY_FAMILY = (
    "model", "status", "window", "n", "actual_coverage", "firing", "recovering", *FAMILIES,
    PIPELINE, "owners",
)  # fmt: skip

FAMILIES_OF_MODEL: Table[Standing] = Table(
    "families",
    (
        Column("FAMILY", "label"),
        Column("STATUS", "status"),
        Column("WINDOW", "window"),
        Column("WHAT", "text"),
    ),
)


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


def explain_status(standings: Sequence[Standing], status: str, explained: str) -> tuple[str, str]:
    """Say why a model of which no alert stands is not OK, and in which window; empty if it is OK.

    Args:
        standings: Its families.
        status: Its status.
        explained: What explains alerts of it, see `name_causes`.

    Example:
        >>> explain_status([Standing("drift", "WARN", "2026-03-01", "1 of 2 verdicts failed: PSI")],
        ...                "WARN", "the known event sale")
        ('Drift: 1 of 2 verdicts failed: PSI; explained by the known event sale.', '2026-03-01')
    """
    if status == "OK":
        return "", ""
    ill = next((one for one in standings if one.status == status), None)
    if ill is None:
        return "No window has predictions yet.", ""
    by = f"; explained by {explained}" if explained and status != "NO_DATA" else ""
    return f"{ill.label.capitalize()}: {ill.text}{by}.", ill.window


def name_last_window(spec: ModelSpec, end: dt.datetime) -> str:
    """Write the window that ends at a moment."""
    last = window_containing(spec.time, end - dt.timedelta(microseconds=1))
    return name_window(spec, last.start)


def _describe_family(spec: ModelSpec, family: str, rows: Sequence[MonitorResult]) -> Standing:
    if not rows:
        return Standing(family, NOT_JUDGED, "", _explain_nothing(spec, family))
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


def _explain_nothing(spec: ModelSpec, family: str) -> str:
    """Say why a family has no verdict, where the spec tells it."""
    if family == PERFORMANCE and not (spec.has_actuals or spec.evaluations):
        return "nothing to judge: no ground truth is declared"
    if (
        family == ESTIMATED_PERFORMANCE
        and spec.baseline.is_rolling
        and not spec.monitors.estimated_performance
        and estimated_metrics(spec)
    ):
        return "nothing to judge: estimates need a fixed baseline, such as {dataset: validation}"
    return "nothing to judge"


def _describe_verdicts(family: str, status: str, rows: Sequence[MonitorResult]) -> str:
    if family == PIPELINE:
        return " ".join(row["message"] for row in rows)
    if status == "NO_DATA":
        reason = Counter(row["reason"] for row in rows if row["reason"]).most_common(1)
        why = f": {REASONS.get(reason[0][0], reason[0][0])}" if reason else ""
        return f"nothing could be judged{why}"
    failing = [row for row in rows if row["status"] in ("ERROR", "WARN")]
    if not failing:
        waiting = [row["reason"] for row in rows if row["status"] == "NO_DATA"]
        if waiting:
            passed = counted(len(rows) - len(waiting), "verdict")
            return f"{passed} passed, {len(waiting)} not judged: {_count_reasons(waiting)}"
        return f"{counted(len(rows), 'verdict')}, all passed"
    names = [_subject(row) for row in failing]
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    named = ", ".join(names[:_MOST_NAMED]) + more
    return f"{len(failing)} of {counted(len(rows), 'verdict')} failed: {named}"


def _count_reasons(reasons: Sequence[str]) -> str:
    found = Counter(REASONS.get(reason, reason) for reason in reasons).most_common(3)
    return "; ".join(f"{n}: {reason}" if len(found) > 1 else reason for reason, n in found)


def _subject(row: MonitorResult) -> str:
    name = name_metric(row["metric"], row["column_name"])
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
