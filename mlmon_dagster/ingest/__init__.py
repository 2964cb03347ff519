"""Ingest: discover, wait until complete, parse with explicit types, check, quarantine, append."""

from mlmon_dagster.ingest.cycle import ingest_new
from mlmon_dagster.ingest.refuse import quarantine_folder, replay_file
from mlmon_dagster.ingest.report import FileReport, IngestReport, render_report

__all__ = [
    "FileReport",
    "IngestReport",
    "ingest_new",
    "quarantine_folder",
    "render_report",
    "replay_file",
]
