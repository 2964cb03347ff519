"""The Dagster-native door: a monitored model as a component of any Dagster project."""

from __future__ import annotations

from typing import Any

import dagster as dg

from mlmon_dagster.defs.resources import project_from_environment
from mlmon_dagster.spec import Models, ModelSpec


class MonitoredModel(dg.Component):
    """A monitored model: its declaration becomes assets, checks, sensors and schedules.

    In Python: ``build_definitions([MonitoredModel(model="churn", task=...)])``, with the fields of
    `ModelSpec`. In a Dagster project's ``defs.yaml``: ``type: mlmon_dagster.MonitoredModel`` and
    the same fields under ``attributes``. Set ``executor=dg.in_process_executor`` there: the steps
    are so short that a process for each costs more than they do.
    """

    def __init__(self, spec: ModelSpec | None = None, **declaration: Any) -> None:
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
        from mlmon_dagster.defs.build import model_definitions, shared_definitions

        project = project_from_environment()
        mine = model_definitions(project, self.spec)
        declared = context.component_tree.get_all_components(of_type=MonitoredModel)
        specs = sorted((component.spec for component in declared), key=lambda spec: spec.model)
        if self.spec.model != specs[0].model:
            return mine
        return dg.Definitions.merge(mine, shared_definitions(project, Models(tuple(specs))))
