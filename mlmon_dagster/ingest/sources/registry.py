"""What reads the sources of models: landing files, and every kind of source that is polled.

The ingest cycle knows none of them: it is handed `readers`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from mlmon_dagster.ingest.cycle import Readers
from mlmon_dagster.ingest.formats.known import read_file
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.ingest.sources.delta import check_delta, poll_delta
from mlmon_dagster.ingest.sources.kafka import check_topic, poll_topic
from mlmon_dagster.ingest.sources.polling import Variables
from mlmon_dagster.ingest.sources.sql import check_table, poll_table
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import DeltaSource, KafkaSource, PolledSource, SqlSource, Stream
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
    if isinstance(source, SqlSource):
        return poll_table(store, spec, stream, source, variables, now)
    if isinstance(source, KafkaSource):
        return poll_topic(store, spec, stream, source, variables, now)
    assert isinstance(source, DeltaSource)
    return poll_delta(store, spec, stream, source, project, now)


def check_source(
    spec: ModelSpec,
    stream: Stream,
    source: PolledSource,
    project: Path,
    storage_options: Mapping[str, str],
    variables: Variables,
) -> str:
    """Connect to a source and say what was found.

    Args:
        spec: The model.
        stream: What the source holds.
        source: The source.
        project: The folder that paths are relative to.
        storage_options: How to reach object storage.
        variables: Looks up the environment variables that hold the addresses of sources.

    Raises:
        ConfigError: If there is no such table or topic, or it lacks a column.
        StoreError: If it cannot be reached or read.
    """
    if isinstance(source, SqlSource):
        return check_table(spec, stream, source, variables)
    if isinstance(source, KafkaSource):
        return check_topic(source, variables)
    assert isinstance(source, DeltaSource)
    return check_delta(spec, stream, source, project, storage_options)
