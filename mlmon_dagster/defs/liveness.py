"""Runs whose process was killed: Dagster's own launcher does not notice, and a model would wait.

Without a launcher that watches its workers, such a run stays "started" until the limit of its run
time. So every run notes its process, and whoever plans ends the runs whose process is gone.
"""

from __future__ import annotations

import os
import socket

import dagster as dg

from mlmon_dagster.store.state.writer_lock import process_died

MODEL_TAG = "mlmon/model"
PROCESS_TAG = "mlmon/process"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
STARTED = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
KILLED = "The process of this run was killed."
_noted: set[str] = set()


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
    records = instance.get_run_records(dg.RunsFilter(tags={MODEL_TAG: model}, statuses=STARTED))
    dead = [r.dagster_run for r in records if _is_dead(r.dagster_run.tags.get(PROCESS_TAG, ""))]
    for run in dead:
        instance.report_run_failed(run, KILLED)
    return len(dead)


def is_in_flight(instance: dg.DagsterInstance, model: str) -> bool:
    """Tell whether a run of a model is queued or going on."""
    wanted = dg.RunsFilter(tags={MODEL_TAG: model}, statuses=UNFINISHED)
    return bool(instance.get_run_records(wanted, limit=1))


def models_in_flight(instance: dg.DagsterInstance) -> set[str]:
    """Return the models of which a run is queued or going on, with one query for all.

    Runs whose process is gone are marked as failed, as by `fail_dead_runs`, and do not count.
    """
    busy = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNFINISHED)):
        run = record.dagster_run
        if run.status in STARTED and _is_dead(run.tags.get(PROCESS_TAG, "")):
            instance.report_run_failed(run, KILLED)
        elif MODEL_TAG in run.tags:
            busy.add(run.tags[MODEL_TAG])
    return busy


def _is_dead(process: str) -> bool:
    host, _, pid = process.rpartition(":")
    return pid.isdigit() and process_died(host, int(pid))
