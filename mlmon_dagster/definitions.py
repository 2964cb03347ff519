"""The code location that ``workspace.yaml`` names: every model in the project's ``models/``."""

from __future__ import annotations

import dagster as dg

from mlmon_dagster.defs.build import build_definitions
from mlmon_dagster.defs.resources import project_from_environment
from mlmon_dagster.spec import load_models

project = project_from_environment()
defs: dg.Definitions = build_definitions(load_models(project.models_folder), project)
