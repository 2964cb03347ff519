"""Monitoring as a resource and as checks of a user's own assets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg

from mlmon_dagster.defs.assets import report_changes
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.notebook import Monitoring
from mlmon_dagster.pipeline.gate import Gate, gate_of
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.spec import Models, ModelSpec
from mlmon_dagster.spec.monitors import FAMILIES
from mlmon_dagster.spec.names import DRIFT, PERFORMANCE, QUALITY, SCHEMA
from mlmon_dagster.store.state.monitor_results import NOT_JUDGED

if TYPE_CHECKING:
    import pandas as pd

ON_ASSET = "mlmon/model"  # metadata of a check on a user's asset
FAMILY = "mlmon/family"
_declared: dict[Path, dict[str, ModelSpec]] = {}


def declare(project: Project, spec: ModelSpec) -> None:
    """Remember a model of this process that no file of ``models/`` declares, as a component's."""
    _declared.setdefault(project.folder, {})[spec.model] = spec


def opened(project: Project) -> Monitoring:
    """Open a project for reading, with the models of its files or else of this code location."""
    if project.models_folder.is_dir():
        return Monitoring(project)
    return Monitoring(project, Models(tuple(_declared.get(project.folder, {}).values())))


class MonitoringResource(dg.ConfigurableResource):  # type: ignore[type-arg]  # yields itself
    """What is known of monitored models, for assets that depend on it.

    Example:
        >>> @dg.asset(deps=[dg.AssetKey(["churn", "performance"])])
        ... def rollout(monitoring: MonitoringResource) -> None:
        ...     monitoring.gate("churn", "performance")  # fails the step unless it is open

    Attributes:
        project: The project's folder; default ``MLMON_PROJECT``, else the current folder.
    """

    project: str = ""

    @property
    def monitoring(self) -> Monitoring:
        """The project, open for reading: metrics, verdicts, alerts, records and traces."""
        return opened(self._project)

    @property
    def _project(self) -> Project:
        return project_from_environment(Path(self.project) if self.project else None)

    def status(self, model: str) -> Gate:
        """Return how each family of monitors judged the newest window that it could judge."""
        return self.look(model)

    def metrics(self, model: str, *metric: str, **asked: Any) -> "pd.DataFrame":
        """Return metrics as a pandas frame; the arguments are those of `Monitoring.metrics`."""
        return self.monitoring.metrics(model, *metric, **asked)

    def records(self, model: str, **asked: Any) -> "pd.DataFrame":
        """Return predictions with ground truth as a frame, as `Monitoring.records` does."""
        return self.monitoring.records(model, **asked)

    def look(
        self,
        model: str,
        *families: str,
        closed_at: Literal["WARN", "ERROR"] = "ERROR",
        no_data: Literal["closed", "open"] = "closed",
    ) -> Gate:
        """Return the gate of a model without failing; the arguments are those of `gate`."""
        spec = self.monitoring.spec(model)
        return gate_of(self._project, spec, families, closed_at=closed_at, no_data=no_data)

    def gate(
        self,
        model: str,
        *families: str,
        closed_at: Literal["WARN", "ERROR"] = "ERROR",
        no_data: Literal["closed", "open"] = "closed",
    ) -> Gate:
        """Return the gate of a model if it is open; fail the step if it is closed.

        Where the spec declares a ``registry``, what was found is also a tag of the version there.

        Args:
            model: The model.
            *families: Families of monitors that count, such as ``performance``; all by default.
            closed_at: The verdict that closes it: ``ERROR``, or ``WARN`` too.
            no_data: What becomes of it where a family has no verdict.

        Raises:
            dagster.Failure: If it is closed; not retried, since only new data change that.
            ConfigError: If there is no such model or family.
        """
        found = self.look(model, *families, closed_at=closed_at, no_data=no_data)
        spec = self.monitoring.spec(model)
        if spec.registry is not None:
            from mlmon_dagster.pipeline.model_registry import tell_gate

            dg.get_dagster_logger().info(tell_gate(self._project, spec, found))
        if not found.is_open:
            closed_by = ", ".join(standing.family for standing in found.closed_by)
            metadata = {"status": found.status, "closed by": closed_by}
            raise dg.Failure(found.text(), metadata=metadata, allow_retries=False)
        return found


def mlmon_checks(
    asset: dg.AssetKey | str | Sequence[str] | dg.AssetsDefinition,
    model: str,
    families: Sequence[str] = (SCHEMA, QUALITY, DRIFT, PERFORMANCE),
    *,
    project: Project | None = None,
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """Return checks that show a model's newest verdicts on an asset of your own.

    They run with the asset, and the dispatcher evaluates them again whenever a verdict changes.

    Args:
        asset: Your asset: what writes the predictions, or the trained model.
        model: The monitored model.
        families: Families of monitors, a check each: ``mlmon_<model>_<family>``.
        project: Where the store is; default: what the environment names.
        blocking: Whether an ERROR stops what depends on your asset, in the same run.

    Raises:
        ConfigError: If there is no such family.
    """
    if unknown := sorted(set(families) - set(FAMILIES)):
        raise ConfigError(f"'{unknown[0]}' is no family of monitors. Known: {', '.join(FAMILIES)}")
    key = asset.key if isinstance(asset, dg.AssetsDefinition) else dg.AssetKey.from_coercible(asset)
    names = {f"mlmon_{model}_{family}": family for family in families}
    specs = [
        dg.AssetCheckSpec(
            name,
            asset=key,
            blocking=blocking,
            description=f"Fails while the newest {family} verdict of model {model} does.",
            metadata={ON_ASSET: model, FAMILY: family},
        )
        for name, family in names.items()
    ]

    @dg.multi_asset_check(
        name="__".join(["mlmon", model, "on", *key.path]).replace("-", "_").replace(".", "_"),
        specs=specs,
        can_subset=True,
        compute_kind="mlmon",
    )
    def verdicts(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        found = opened(project or project_from_environment())
        for check in context.selected_asset_check_keys:
            shown = _shown(found, model, names[check.name])
            yield dg.AssetCheckResult(asset_key=key, check_name=check.name, **shown)

    return verdicts


def _shown(monitoring: Monitoring, model: str, family: str) -> dict[str, Any]:
    """Return what a check on a user's asset says of a family."""
    gate = gate_of(monitoring.project, monitoring.spec(model), (family,))
    [standing] = gate.families
    is_judged = standing.status not in (NOT_JUDGED, "NO_DATA")
    severity = dg.AssetCheckSeverity.ERROR if standing.status == "ERROR" else _WARN
    return {
        "passed": standing.status == "OK",
        "severity": severity,
        "description": standing.text if is_judged else f"No verdict yet: {standing.text}",
        "metadata": {"model": model, "window": standing.window or "none", "status": gate.status},
    }


_WARN = dg.AssetCheckSeverity.WARN


def report_on_assets(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition | None, project: Project
) -> int:
    """Evaluate the checks on users' assets where what they say has changed; return how many."""
    if repository is None:
        return 0
    graph = repository.asset_graph
    ours = {
        key: spec.metadata
        for key in graph.asset_check_keys
        if (spec := graph.get_check_spec(key)).metadata and ON_ASSET in spec.metadata
    }
    if not ours:
        return 0
    monitoring = opened(project)
    said = [
        dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            **_shown(monitoring, str(metadata[ON_ASSET]), str(metadata[FAMILY])),
        )
        for key, metadata in ours.items()
        if str(metadata[ON_ASSET]) in monitoring.models
    ]
    return report_changes(instance, said)
