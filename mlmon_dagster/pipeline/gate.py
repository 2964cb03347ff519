"""An assertion on a model's state that other work depends on: promotion, roll-out, retraining."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlmon_dagster.errors import ConfigError
from mlmon_dagster.families.registry import JUDGED_BY
from mlmon_dagster.pipeline.judge import judge_computed
from mlmon_dagster.project import Project
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import did_you_mean
from mlmon_dagster.store.state.monitor_results import NOT_JUDGED, PIPELINE
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    from mlmon_dagster.tables.standing import Standing


@dataclass(frozen=True)
class Gate:
    """What a gate found.

    Attributes:
        model: The model.
        is_open: Whether what depends on it may go on.
        status: The worst of the families: ERROR, WARN, NO_DATA or OK.
        families: How each family judged the newest window that it could judge.
        closed_by: Those that close it.
    """

    model: str
    is_open: bool
    status: str
    families: tuple[Standing, ...]
    closed_by: tuple[Standing, ...]

    def text(self) -> str:
        """Say in words what closes it, or what it was opened by."""
        if self.closed_by:
            said = "; ".join(_said(standing) for standing in self.closed_by)
            return f"The gate of model {self.model} is closed: {said}"
        said = "; ".join(_said(standing) for standing in self.families)
        return f"The gate of model {self.model} is open: {said}"


def _said(standing: Standing) -> str:
    window = f" ({standing.window})" if standing.window else ""
    status = "NO_DATA" if standing.status == NOT_JUDGED else standing.status
    return f"{standing.family} is {status}{window}: {standing.text}"


def gate_of(
    project: Project,
    spec: ModelSpec,
    families: Sequence[str] = (),
    *,
    closed_at: Literal["WARN", "ERROR"] = "ERROR",
    no_data: Literal["closed", "open"] = "closed",
    run_id: str = "",
) -> Gate:
    """Return whether a model's state lets what depends on it go on.

    Windows that are computed and not judged yet, as in the run that computes them, are judged
    first. What was not judged is not healthy: it closes the gate unless that is asked for. A failed
    run has an alert of its own, and closes no gate.

    Args:
        project: Where the store is.
        spec: The model.
        families: Families of monitors that count; all that the model can be judged by.
        closed_at: The verdict that closes it: errors alone, or warnings too.
        no_data: What becomes of it where a family has no verdict.
        run_id: Who asks.

    Raises:
        ConfigError: If there is no such family.
    """
    from mlmon_dagster.tables.standing import Standing, overall, standing_of

    for family in families:
        if family not in JUDGED_BY:
            hint = did_you_mean(family, JUDGED_BY) or "."
            known = ", ".join(JUDGED_BY)
            raise ConfigError(f"'{family}' is not a family of monitors{hint} Known: {known}")
    for name in families or JUDGED_BY:
        judge_computed(Work(project, spec, (), project.now(), run_id, False), name)
    # A run that failed is no verdict on the model. And if it closed the gate, whatever the gate
    # stops in the run that would mend it fails that run, and the gate stays closed for ever.
    found = [s for s in standing_of(project.store, spec, project.now()) if s.family != PIPELINE]
    watched = {standing.family for standing in found}
    found += [
        Standing(family, NOT_JUDGED, "", "the spec does not have it watched")
        for family in families
        if family not in watched
    ]
    counted = tuple(
        standing
        for standing in found
        if (standing.family in families if families else standing.status != NOT_JUDGED)
    )
    failing = {"ERROR"} if closed_at == "ERROR" else {"ERROR", "WARN"}
    if no_data == "closed":
        failing |= {"NO_DATA", NOT_JUDGED}
    closed_by = tuple(standing for standing in counted if standing.status in failing)
    is_open = not closed_by and (bool(counted) or no_data == "open")
    status = "NO_DATA" if not counted else overall(counted)
    return Gate(spec.model, is_open, status, counted, closed_by)
