"""Every format of files and every kind of source that is polled, with what reads it.

A new format is a row here. The ingest cycle knows none of them: it is handed `readers`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from mlmon_dagster.ingest.cycle import Readers
from mlmon_dagster.ingest.declared_columns import Column
from mlmon_dagster.ingest.formats.delta_source import check_delta, poll_delta
from mlmon_dagster.ingest.formats.kafka_source import check_topic, poll_topic
from mlmon_dagster.ingest.formats.read_csv import read_csv
from mlmon_dagster.ingest.formats.read_jsonl import read_jsonl
from mlmon_dagster.ingest.formats.read_kserve import read_kserve
from mlmon_dagster.ingest.formats.read_parquet import read_parquet
from mlmon_dagster.ingest.formats.read_sagemaker import read_sagemaker
from mlmon_dagster.ingest.formats.sql_source import check_table, poll_table
from mlmon_dagster.ingest.polling import Variables
from mlmon_dagster.ingest.raw import Options, RawFile
from mlmon_dagster.ingest.report import FileReport
from mlmon_dagster.spec import ModelSpec
from mlmon_dagster.spec.sources import DeltaSource, KafkaSource, PolledSource, SqlSource, Stream
from mlmon_dagster.store import Store

Found = TypeVar("Found")
Reader = Callable[[Path, str, Sequence[Column], Options], Found]
_PART_READERS: Final[dict[str, Reader[Iterator[RawFile]]]] = {
    "parquet": read_parquet,
    "csv": read_csv,
    "jsonl": read_jsonl,
}
# What one row is made of may lie anywhere in these.
_WHOLE_READERS: Final[dict[str, Reader[RawFile]]] = {
    "kserve": read_kserve,
    "sagemaker": read_sagemaker,
}


def _no_variables(_name: str) -> None:
    """Know no variable."""


def readers(variables: Variables = _no_variables) -> Readers:
    """Return what reads the sources of models.

    Args:
        variables: Looks up the environment variables that hold the addresses of sources.
    """
    return Readers(read_file, partial(_poll, variables))


def read_file(
    form: str, path: Path, place: str, wanted: Sequence[Column], options: Options
) -> Iterator[RawFile]:
    """Read a file of a format, in parts if the format allows it.

    Raises:
        SchemaError: If the file is no such file, too large or lacks a column.
    """
    if form in _PART_READERS:
        yield from _PART_READERS[form](path, place, wanted, options)
    else:
        yield _WHOLE_READERS[form](path, place, wanted, options)


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
