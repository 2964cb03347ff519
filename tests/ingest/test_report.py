"""The report is plain text that a person can act on."""

from __future__ import annotations

from mlmon_dagster.ingest import IngestReport, render_report
from mlmon_dagster.ingest.report import FileReport


def test_report_reads_as_expected() -> None:
    done = FileReport(
        "predictions", "landing/a.csv", "done", "aa", rows_in=1200, n_new=1190, n_duplicate=4,
        n_conflict=1, n_bad=5, warnings=("columns 'x' are not declared and not kept",),
        bad_rows=("landing/a.csv, line 7, column 'score': no value.",),
    )  # fmt: skip
    actuals = FileReport(
        "actuals", "landing/b.csv", "done", "bb", rows_in=3, n_new=3, n_unmatched=2
    )
    refused = FileReport(
        "predictions", "landing/c.csv", "quarantined", "cc", "truncated", "landing/c.csv: cut."
    )

    text = render_report(IngestReport((done, actuals, refused), [], n_waiting=1, n_left=2))

    assert (
        text
        == """\
2 files ingested (1,193 new, 4 duplicate, 1 conflicting, 5 bad rows), 0 windows touched, \
1 quarantined, 1 not complete yet, 2 left for the next run.
  done        predictions landing/a.csv: 1,200 rows = 1,190 new + 4 duplicate + 1 conflicting \
+ 5 bad
      warning: columns 'x' are not declared and not kept
      bad: landing/a.csv, line 7, column 'score': no value.
      5 bad rows in all; the dead letter lists them
  done        actuals     landing/b.csv: 3 rows = 3 new + 0 duplicate + 0 conflicting + 0 bad; \
2 without a prediction yet
  quarantined predictions landing/c.csv
      [truncated] landing/c.csv: cut.
"""
    )
