"""What reads the sources of models: landing files, and every kind of source that is polled.

The ingest cycle knows none of them: it is handed `readers`.
"""

from __future__ import annotations

import datetime as dt
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType

from mlmon_dagster.ingest.cycle import Readers
from mlmon_dagster.ingest.formats.known import read_file
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.sources.polling import Surroundings, Variables
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import PolledSource, Stream
from mlmon_dagster.store import Store


def _no_variables(_name: str) -> None:
    """Know no variable."""


def readers(variables: Variables = _no_variables) -> Readers:
    """Return what reads the sources of models.

    Args:
        variables: Looks up the environment variables that hold the addresses of sources.
    """
    return Readers(read_file, partial(_poll, variables))


def _poll(
    variables: Variables,
    store: Store,
    spec: ModelSpec,
    stream: Stream,
    source: PolledSource,
    project: Path,
    now: dt.datetime,
) -> list[FileReport]:
    around = Surroundings(project, variables, store.storage_options)
    found: list[FileReport] = _load(source).poll_source(store, spec, stream, source, around, now)
    return found


def check_source(
    spec: ModelSpec, stream: Stream, source: PolledSource, around: Surroundings
) -> str:
    """Connect to a source and say what was found.

    Args:
        spec: The model.
        stream: What the source holds.
        source: The source.
        around: What it is reached with.

    Raises:
        ConfigError: If there is no such table or topic, or it lacks a column.
        StoreError: If it cannot be reached or read.
    """
    return str(_load(source).check_source(spec, stream, source, around))


def _load(source: PolledSource) -> ModuleType:
    return import_module(f"mlmon_dagster.ingest.sources.{source.kind}")
