"""Dagster's own storage, and the runs in it whose process was killed.

Dagster's own launcher does not notice those, and a model would wait: without a launcher that
watches its workers, such a run stays "started" until the limit of its run time. So every run notes
its process, and whoever plans ends the runs whose process is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg

from mlmon_dagster.defs.private_dagster import (
    ConfigurableClass,
    ConfigurableClassData,
    DagsterSqliteStorage,
    DagsterStorage,
    ExecuteExternalJobArgs,
    ExecuteRunArgs,
    InstanceRef,
    LocalComputeLogManager,
    NoOpComputeLogManager,
    is_known,
)
from mlmon_dagster.errors import ConfigError
from mlmon_dagster.project import Project, read_variable, set_dagster_home, set_event_batch
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.names import url_problem
from mlmon_dagster.store.state.writing import process_died

MODEL_TAG = "mlmon/model"
WINDOWS_TAG = "mlmon/windows"  # of an asset: hour, day, week or month
ONE_OF_MANY = "mlmon.model/"  # before the name of each model of a run that is for several
PROCESS_TAG = "mlmon/process"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_NO_FILES = ConfigurableClassData(
    NoOpComputeLogManager.__module__, NoOpComputeLogManager.__name__, "{}"
)
KILLED = "The process of this run was killed."
_COMMAND, _VARIABLE, _TARGET = "execute_run", "DAGSTER_EXECUTE_RUN_ARGS", "start_run_in_subprocess"
_noted: set[str] = set()


def psycopg2_url(url: str) -> str:
    """Name the driver in a PostgreSQL URL; SQLAlchemy 2.1 would otherwise pick another one."""
    scheme, separator, rest = url.partition("://")
    return f"postgresql+psycopg2{separator}{rest}" if scheme in ("postgres", "postgresql") else url


class EnvStorage(DagsterStorage, ConfigurableClass):
    """Storage that ``dagster.yaml`` names once for laptop and team.

    Never instantiated: `from_config_value` returns the real storage. It derives from
    `DagsterStorage` only because Dagster refuses any other class here.
    """

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """Return nothing: the real storage carries it."""
        return None

    @classmethod
    def config_type(cls) -> dict[str, object]:
        """Return the keys that ``dagster.yaml`` gives."""
        return {"url_env": str, "sqlite_dir": str}

    @classmethod
    def from_config_value(  # type: ignore[override]  # the real storage, not this class
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> DagsterStorage[dg.DagsterInstance]:
        """Open the PostgreSQL that ``url_env``'s variable names, else SQLite in ``sqlite_dir``."""
        name = config_value["url_env"]
        url = psycopg2_url(read_variable(name) or "")
        if url and (problem := url_problem(url)):
            raise ConfigError(f"{name} cannot be used: {problem}.")
        home = Path(read_variable("DAGSTER_HOME") or ".").resolve()
        folder = str(home / config_value["sqlite_dir"])
        if not is_known():
            return _open_plain_storage(url, folder, inst_data)
        from mlmon_dagster.defs.batched_events import (
            EVENTS_AT_ONCE,
            BatchedPostgresStorage,
            BatchedSqliteStorage,
        )

        set_event_batch(EVENTS_AT_ONCE)
        if url.startswith("postgresql"):
            return BatchedPostgresStorage(url, inst_data)
        return BatchedSqliteStorage.from_local(folder, inst_data)


def _open_plain_storage(
    url: str, folder: str, inst_data: ConfigurableClassData | None
) -> DagsterStorage[dg.DagsterInstance]:
    """Open Dagster's own storage, to which it hands events one by one."""
    if url.startswith("postgresql"):
        from dagster_postgres import DagsterPostgresStorage

        return DagsterPostgresStorage(url, should_autocreate_tables=True, inst_data=inst_data)
    return DagsterSqliteStorage.from_local(folder, inst_data)


def dagster_home(project: Project) -> Path:
    """Return the folder that is Dagster's home, with a ``dagster.yaml`` in it.

    The project folder is the home; a project that has no ``dagster.yaml`` gets the shipped one.
    """
    config = project.folder / "dagster.yaml"
    if not config.exists():
        config.write_text(
            resources.files("mlmon_dagster.defs").joinpath("dagster.yaml").read_text()
        )
    return project.folder


def open_instance(project: Project) -> dg.DagsterInstance:
    """Open the Dagster instance of a project, the same one that ``dagster dev`` uses there.

    Relative folders of ``dagster.yaml`` are taken from the project, wherever the process runs. What
    a run in this process prints is not put into files beside: its output is where the process's is.

    Raises:
        ConfigError: If the database that the environment names cannot be opened.
    """
    assert project.store  # the same database: it says in one sentence what Dagster tells in pages
    home = dagster_home(project)
    set_dagster_home(home)
    dagster_folder = str(project.state_folder / "dagster")
    overrides: dict[str, object] = {
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": dagster_folder},
        },
    }
    ref = InstanceRef.from_dir(str(home), overrides=overrides)
    if ref.compute_logs_data.class_name == LocalComputeLogManager.__name__:
        # It starts four processes a run, a seventh of what an ordinary day costs.
        ref = ref._replace(compute_logs_data=_NO_FILES)
    return dg.DagsterInstance.from_ref(ref)


def skip_older_events(instance: dg.DagsterInstance) -> None:
    """Let the daemon's reader of ended runs begin with the newest event, if it has never run.

    It would do so by itself, with a warning for each kind of event.
    """
    ended = (dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.RUN_SUCCESS)
    cursors = {f"EVENT_LOG_CONSUMER_CURSOR-{kind.value}" for kind in ended}
    missing = cursors - instance.daemon_cursor_storage.get_cursor_values(cursors).keys()
    if missing:
        newest = instance.event_log_storage.get_maximum_record_id() or 0
        instance.daemon_cursor_storage.set_cursor_values(dict.fromkeys(missing, str(newest)))


def model_tags(specs: Sequence[ModelSpec]) -> dict[str, str]:
    """Return the tags by which the runs of models are found, and those that the models declare.

    Models that share a run declare the same.
    """
    if len(specs) == 1:
        return specs[0].run_tags | {MODEL_TAG: specs[0].model}
    return specs[0].run_tags | {f"{ONE_OF_MANY}{spec.model}": "true" for spec in specs}


def models_of(run: dg.DagsterRun) -> set[str]:
    """Return the models that a run is for."""
    if MODEL_TAG in run.tags:
        return {run.tags[MODEL_TAG]}
    tagged = {tag.removeprefix(ONE_OF_MANY) for tag in run.tags if tag.startswith(ONE_OF_MANY)}
    return tagged or {model_of_key(key) for key in run.asset_selection or ()} - {""}


def model_of_key(key: dg.AssetKey) -> str:
    """Return the model of an asset's key; of another asset's, what stands in that place."""
    return key.path[-2] if len(key.path) > 1 else ""


def note_process(instance: dg.DagsterInstance, run_id: str) -> None:
    """Tag a run with the process that executes it, once per process and run."""
    if run_id not in _noted:
        instance.add_run_tags(run_id, {PROCESS_TAG: f"{socket.gethostname()}:{os.getpid()}"})
        _noted.add(run_id)


def fail_dead_runs(instance: dg.DagsterInstance, model: str) -> int:
    """Mark the runs of a model as failed whose process, on this machine, is gone.

    Returns:
        How many those were.
    """
    started = _runs_of(instance, model, STARTED)
    dead = [run for run in started if _is_dead(run.tags.get(PROCESS_TAG, ""))]
    for run in dead:
        instance.report_run_failed(run, KILLED)
    return len(dead)


def is_in_flight(instance: dg.DagsterInstance, model: str) -> bool:
    """Tell whether a run of a model is queued or going on."""
    return bool(_runs_of(instance, model, UNFINISHED))


def _runs_of(
    instance: dg.DagsterInstance, model: str, statuses: list[dg.DagsterRunStatus]
) -> list[dg.DagsterRun]:
    found = instance.get_run_records(dg.RunsFilter(statuses=statuses))
    return [r.dagster_run for r in found if model in models_of(r.dagster_run)]


def models_in_flight(instance: dg.DagsterInstance) -> set[str]:
    """Return the models of which a run is queued or going on, with one query for all.

    Runs whose process is gone are marked as failed, as by `fail_dead_runs`, and do not count.
    """
    busy: set[str] = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        if run.status in STARTED and _is_dead(run.tags.get(PROCESS_TAG, "")):
            instance.report_run_failed(run, KILLED)
        else:
            busy |= models_of(run)
    return busy


def _is_dead(process: str) -> bool:
    host, _, pid = process.rpartition(":")
    return pid.isdigit() and process_died(host, int(pid))


def models_of_own_run() -> frozenset[str] | None:
    """Return the models whose assets the run of this process computes.

    Every run of Dagster's launchers loads the whole code location in a process of its own: with a
    thousand models that takes longer than what it came for.

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
