"""Which models the run is for that this process was started to execute.

Every run of Dagster's launchers loads the whole code location in a process of its own: with a
thousand models that takes longer than what it came for.
"""

from __future__ import annotations

import multiprocessing
import sys

import dagster as dg

from mlmon_dagster.defs.instance import model_of_key
from mlmon_dagster.defs.private_dagster import ExecuteExternalJobArgs, ExecuteRunArgs
from mlmon_dagster.project import read_variable

_COMMAND, _VARIABLE, _TARGET = "execute_run", "DAGSTER_EXECUTE_RUN_ARGS", "start_run_in_subprocess"


def models_of_own_run() -> frozenset[str] | None:
    """Return the models whose assets the run of this process computes.

    Returns:
        None if the process executes no run, or one that names no assets: then it has to know every
        model, which is right in every process, whatever the arguments of the next Dagster are.
    """
    try:
        text = _arguments()
        if text is None:
            return None
        told = dg.deserialize_value(text, (ExecuteRunArgs, ExecuteExternalJobArgs))
        if told.instance_ref is None:
            return None
        with dg.DagsterInstance.from_ref(told.instance_ref) as instance:
            run = instance.get_run_by_id(told.run_id)
    except Exception:  # a shortcut that cannot be taken is no reason to fail
        return None
    if run is None or not run.asset_selection:
        return None
    checked = {check.asset_key for check in run.asset_check_selection or ()}
    return frozenset(model_of_key(key) for key in run.asset_selection | checked)


def _arguments() -> str | None:
    """Return what Dagster told this process to run: a code server its child, else a command."""
    process = multiprocessing.current_process().__dict__
    if getattr(process.get("_target"), "__name__", "") == _TARGET:
        return str(process["_args"][0])
    if _COMMAND in sys.argv[1:-1]:
        return sys.argv[-1]
    return read_variable(_VARIABLE)
