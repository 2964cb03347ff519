"""From declared models to Dagster definitions."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from mlmon_dagster.defs.assets import (
    broken_definitions,
    keys_of_model,
    model_assets,
    overview_asset,
    refused_by_dagster,
)
from mlmon_dagster.defs.checks import model_checks
from mlmon_dagster.defs.delivery import delivery_check
from mlmon_dagster.defs.resource import declare
from mlmon_dagster.defs.scaffolder import FolderScaffolder, ModelScaffolder
from mlmon_dagster.defs.sensors import (
    cadence_schedules,
    dispatcher_sensor,
    maintenance_asset,
    maintenance_schedule,
    planner_sensor,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project, project_from_environment
from mlmon_dagster.spec import Models, ModelSpec, check_window_count, read_models
from mlmon_dagster.spec.scalars import check_asset

# The user's own assets where they can be seen: not where they are merged after ours were made, in
# another code location, or where a component's post-processing changes a key.
Neighbours = Mapping[dg.AssetKey, dg.PartitionsDefinition | None]

_looking: set[int] = set()  # trees of components that are gone through at this moment


def build_definitions(
    models: Sequence[ModelSpec | MonitoredModel] | Models,
    project: Project | None = None,
    *,
    key_prefix: str | Sequence[str] | None = None,
    beside: dg.Definitions | None = None,
    only: Set[str] | None = None,
) -> dg.Definitions:
    """Return everything Dagster needs to monitor some models, to be merged into any project.

    There is no executor among it: the project's own counts. Without one, runs that our sensors ask
    for execute in process, since the steps are shorter than starting a process for each.

    Args:
        models: The models, as specs or components; or what a folder declares, of which a file
            that is wrong stops no other.
        project: Where their state lives; default: what the environment names.
        key_prefix: What stands before the models' names in the keys of their assets, as Dagster
            writes it: ``"ml/monitoring"`` or its parts; default: the project's. A model that
            declares a prefix keeps its own.
        beside: Your own definitions that these are merged with. Windows then line up with the
            partitions of the assets that a model names. A model of which they have a key is left
            out, and an asset and an alert say so; without it Dagster refuses to load the whole
            code location.
        only: Models whose assets are wanted, in a process that computes nothing else; what serves
            all models together knows all of them all the same. None wants those of every model.

    Raises:
        ConfigError: If one of models that are not read from a folder cannot be monitored.
    """
    project = project or project_from_environment()
    if not isinstance(models, Models):
        models = Models(tuple(m.spec if isinstance(m, MonitoredModel) else m for m in models))
    prefix = (
        key_prefix if key_prefix is None or isinstance(key_prefix, str) else "/".join(key_prefix)
    )
    models = models.under(check_asset(prefix) if prefix else project.key_prefix)
    neighbours = None if beside is None else find_neighbours(beside)
    return _build_beside(project, models, neighbours, only)


def _build_beside(
    project: Project,
    models: Models,
    neighbours: Neighbours | None,
    only: Set[str] | None = None,
) -> dg.Definitions:
    """Return the definitions of models beside the user's assets; None if those are not known."""
    models = leave_out_taken(models, (neighbours or {}).keys())
    folder = models.folder
    # Looked through once: of a thousand models each would look through a thousand files.
    files = {} if folder is None else {path.stem: path for path in sorted(folder.glob("*.y*ml"))}
    parts = []
    for spec in models.specs:
        if only is not None and spec.model not in only:
            continue
        try:
            parts.append(model_definitions(project, spec, files.get(spec.model), neighbours))
        except Exception as error:
            if models.folder is None:
                raise
            models = models.without(refused_by_dagster(models.folder, spec, str(error)))
    shared = shared_definitions(project, models, only)
    return dg.Definitions.merge(*parts, shared, broken_definitions(project, models))


def shared_definitions(
    project: Project, models: Models, only: Set[str] | None = None
) -> dg.Definitions:
    """Return what serves all models together: overview, planner, dispatcher, schedules."""
    specs = models.specs
    return dg.Definitions(
        assets=[overview_asset(project, models, only), maintenance_asset(project, specs)],
        asset_checks=[delivery_check(project, specs)],
        sensors=[planner_sensor(project, models), dispatcher_sensor(project, models)],
        schedules=[*cadence_schedules(project, specs), maintenance_schedule(project)],
    )


def model_definitions(
    project: Project,
    spec: ModelSpec,
    file: Path | None = None,
    neighbours: Neighbours | None = None,
) -> dg.Definitions:
    """Return the assets and checks of one model.

    Args:
        project: Where its state lives.
        spec: The model.
        file: What declares it, if a file is named after it.
        neighbours: The user's own assets, if they are known.

    Raises:
        ConfigError: If the model has more hourly windows than Dagster copes with.
    """
    check_window_count(spec.time, project.now())
    declare(project, spec)
    with warnings.catch_warnings():
        # Partitioned checks are a preview in Dagster; its notice once per check helps nobody.
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.Definitions(
            assets=model_assets(project, spec, file, neighbours),
            asset_checks=model_checks(project, spec),
        )


def find_neighbours(definitions: dg.Definitions) -> Neighbours:
    """Return the partitions of the assets that some definitions hold, by key; None without."""
    found: dict[dg.AssetKey, dg.PartitionsDefinition | None] = {}
    for asset in definitions.assets or ():
        if isinstance(asset, dg.AssetsDefinition):
            found |= {spec.key: spec.partitions_def for spec in asset.specs}
        elif isinstance(asset, dg.AssetSpec | dg.SourceAsset):
            found[asset.key] = asset.partitions_def
    return found


def find_in_components(
    context: dg.ComponentLoadContext, ours: tuple[type[dg.Component], ...]
) -> Neighbours:
    """Return what else is in the folder of definitions that a component is in.

    What another component makes is kept by Dagster, and made once. A component that cannot be
    built says so when Dagster builds it.

    Args:
        context: Of the component that asks.
        ours: Kinds of components that are not gone into.
    """
    tree = context.component_tree
    if id(tree) in _looking:  # what we look at has asked for us
        return {}
    _looking.add(id(tree))
    found: dict[dg.AssetKey, dg.PartitionsDefinition | None] = {}
    try:
        for loc, declared in tree.find_root_decl().iterate_loc_component_decl_pairs():
            is_ours = any(issubclass(declared.component_type, kind) for kind in ours)
            if is_ours or list(declared.iterate_child_component_decls()):
                continue
            with contextlib.suppress(Exception):
                found |= find_neighbours(tree.build_defs_at_path(loc))
    finally:
        _looking.discard(id(tree))
    return found


def leave_out_taken(models: Models, taken: Set[dg.AssetKey]) -> Models:
    """Return the models without those of which a key is taken, which are then broken ones.

    Dagster loads no code location in which two assets have one key.
    """
    for spec in models.specs:
        if both := taken & set(keys_of_model(spec)):
            models = models.without(refused_by_dagster(models.folder, spec, _problem(spec, both)))
    return models


def _problem(spec: ModelSpec, both: Set[dg.AssetKey]) -> str:
    keys = ", ".join(sorted(key.to_user_string() for key in both))
    those = "assets of these keys" if len(both) > 1 else "an asset of this key"
    return (
        f"model '{spec.model}' and your own definitions both have {those}: {keys}. Write "
        f"key_prefix: monitoring into the model's declaration, so that its keys begin with "
        f"monitoring/{spec.model} (MLMON_KEY_PREFIX or build_definitions(key_prefix=...) does so "
        "for all models), or rename your asset. Until then this model is not monitored"
    )


@dg.scaffold_with(ModelScaffolder)
class MonitoredModel(dg.Component):
    """A monitored model: its declaration becomes assets, checks, sensors and schedules.

    In Python: ``build_definitions([MonitoredModel(model="churn", task=...)])``, with the fields of
    `ModelSpec`. In a Dagster project's ``defs.yaml``: ``type: mlmon_dagster.MonitoredModel`` and
    the same fields under ``attributes``. The command line and notebooks read ``models/``; where
    they are used too, declare models there and load them with `MonitoredModels`.
    """

    def __init__(self, spec: ModelSpec | None = None, **declaration: object) -> None:
        self.spec = spec or ModelSpec.model_validate(declaration)

    @classmethod
    def get_model_cls(cls) -> type[ModelSpec]:
        """Return the schema of the YAML attributes."""
        return ModelSpec

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> MonitoredModel:
        """Build the component from YAML attributes, with ``{{ env.X }}`` templates filled in."""
        declared = attributes.model_dump(mode="json", exclude_unset=True, by_alias=True)
        return cls(**context.resolution_context.resolve_value(declared))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the assets and checks of this model.

        What serves all models together comes with the first of the project's models.
        """
        project = project_of(context)
        tree = context.component_tree
        declared = tree.get_all_components(of_type=MonitoredModel)
        specs = sorted((component.spec for component in declared), key=lambda spec: spec.model)
        neighbours = neighbours_of(context)
        models = Models(tuple(specs)).under(project.key_prefix)
        models = leave_out_taken(models, neighbours.keys())
        parts = [
            model_definitions(project, spec, neighbours=neighbours)
            for spec in models.specs
            if spec.model == self.spec.model
        ]
        mine = dg.Definitions.merge(*parts)
        if self.spec.model != specs[0].model:
            return mine
        if tree.get_all_components(of_type=MonitoredModels):
            raise ConfigError(
                "A project declares its models in one place: as MonitoredModel components, or in "
                "models/, which MonitoredModels loads. Found both; move the keys under "
                "'attributes' of each MonitoredModel into a file of models/."
            )
        shared = shared_definitions(project, models)
        return dg.Definitions.merge(mine, shared, broken_definitions(project, models))


class FolderAttributes(BaseModel):
    """What the component of a folder of models takes."""

    model_config = ConfigDict(extra="forbid")

    key_prefix: str | None = Field(
        default=None,
        description="What stands before the models' names in the keys of their assets, such as "
        "ml/monitoring.",
    )


@dg.scaffold_with(FolderScaffolder)
class MonitoredModels(dg.Component):
    """Every model that the project's ``models/`` declares, one YAML file each.

    The same files serve the command line and notebooks; one that does not load stops no other.
    """

    def __init__(self, key_prefix: str | None = None) -> None:
        self.key_prefix = key_prefix

    @classmethod
    def get_model_cls(cls) -> type[FolderAttributes]:
        """Return the schema of the YAML attributes."""
        return FolderAttributes

    @classmethod
    def load(cls, attributes: Any, context: dg.ComponentLoadContext) -> MonitoredModels:
        """Build the component, with ``{{ env.X }}`` templates filled in."""
        declared = attributes.model_dump() if attributes else {}
        prefix = context.resolution_context.resolve_value(declared).get("key_prefix")
        return cls(check_asset(prefix) if prefix else None)

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return everything that monitors the models; nothing for a second one of this kind."""
        project = project_of(context)
        if context.component_tree.get_all_components(of_type=MonitoredModels)[0] is not self:
            return dg.Definitions()
        models = read_models(project.models_folder, project.now(), known=project.known_specs)
        models = models.under(self.key_prefix or project.key_prefix)
        return _build_beside(project, models, neighbours_of(context))


def neighbours_of(context: dg.ComponentLoadContext) -> Neighbours:
    """Return what a Dagster project has besides our components."""
    return find_in_components(context, (MonitoredModel, MonitoredModels))


def project_of(context: dg.ComponentLoadContext) -> Project:
    """Return the project that the environment names, else the Dagster project's own folder."""
    return project_from_environment(fallback=context.project_root)
