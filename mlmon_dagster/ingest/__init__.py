"""Ingest: discover, wait until complete, parse with explicit types, check, quarantine, append."""

from mlmon_dagster.ingest.cycle import ingest_new
from mlmon_dagster.ingest.landing import stray_files, told_of
from mlmon_dagster.ingest.queue import may_have_work, replay_file
from mlmon_dagster.ingest.report import IngestReport, render_report
from mlmon_dagster.ingest.sources.polling import readers

__all__ = [
    "IngestReport",
    "ingest_new",
    "may_have_work",
    "readers",
    "render_report",
    "replay_file",
    "stray_files",
    "told_of",
]
