"""The code location that ``workspace.yaml`` names: every model in the project's ``models/``.

A file that does not load is an asset that says why; the others are monitored.
"""

from __future__ import annotations

import atexit
import gc

gc.disable()  # of what follows nothing is garbage, and looking for it takes half as long again

import dagster as dg

from mlmon_dagster.defs.build import build_definitions
from mlmon_dagster.defs.instance import models_of_own_run
from mlmon_dagster.project import project_from_environment
from mlmon_dagster.spec import read_models

project = project_from_environment()
models = read_models(project.models_folder, project.now(), known=project.known_specs)
defs = dg.Definitions.merge(
    build_definitions(models, project, only=models_of_own_run()),
    # The steps are so short that a process for each would cost more than they do.
    dg.Definitions(executor=dg.in_process_executor),
)
defs.get_repository_def()  # what Dagster asks for next, and what is kept
gc.freeze()
gc.enable()
atexit.register(gc.freeze)  # nor is there a need to look for it when the process ends
