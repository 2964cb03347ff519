"""The code location that ``workspace.yaml`` names: every model in the project's ``models/``.

A file that does not load is an asset that says why; the others are monitored.
"""

from __future__ import annotations

import dagster as dg

from mlmon_dagster.defs.build import build_definitions
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.spec import read_models

project = project_from_environment()
defs = dg.Definitions.merge(
    build_definitions(read_models(project.models_folder, project.now()), project),
    # The steps are so short that a process for each would cost more than they do.
    dg.Definitions(executor=dg.in_process_executor),
)
