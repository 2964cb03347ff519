"""The report is plain text that a person can act on."""

from __future__ import annotations

import re
import subprocess
import sys

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


def test_great_expectations_is_imported_only_where_a_suite_runs() -> None:
    code = "import sys, mlmon_dagster.ingest; print('great_expectations' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


def test_rows_are_judged_without_importing_backends_that_can_be_imported_afterwards() -> None:
    code = """if True:
        import importlib.util, sys, boto3, pandas
        assert importlib.util.find_spec("pyspark")
        from mlmon_dagster.ingest.rows.suite import great_expectations, run_suite
        known = great_expectations().expectations
        frame = pandas.DataFrame({"age": [1.0, None]})
        results = run_suite(frame, [known.ExpectColumnValuesToNotBeNull(column="age")])
        print([result.result["unexpected_index_list"] for result in results])
        print([name for name in sys.modules if name.split(".")[0] == "pyspark"])
        from great_expectations.compatibility import aws
        print(aws.boto3 is sys.modules["boto3"] is boto3)
        import pyspark
        print(pyspark.__name__)
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split("\n") == ["[[1]]", "[]", "True", "pyspark", ""]


def test_what_the_library_seldom_needs_is_imported_by_the_expectation_that_needs_it() -> None:
    code = """if True:
        import sys, pandas
        from mlmon_dagster.ingest.rows.suite import great_expectations, run_suite
        known = great_expectations().expectations
        late = ("scipy.stats", "altair")
        print([name for name in late if name in sys.modules])
        even = {"values": ["a", "b"], "weights": [0.5, 0.5]}
        expected = known.ExpectColumnKLDivergenceToBeLessThan(
            column="x", partition_object=even, threshold=0.1
        )
        [found] = run_suite(pandas.DataFrame({"x": list("aaab")}), [expected])
        print(found.success, round(found.result["observed_value"], 4))
        from scipy import stats
        print(stats is sys.modules["scipy.stats"])
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    # .75 ln(.75 / .5) + .25 ln(.25 / .5)
    assert found.stdout.split("\n") == ["[]", "False 0.1308", "True", ""]


def test_expectations_have_the_fields_that_they_have_without_us() -> None:
    code = """if True:
        import sys, warnings
        warnings.simplefilter("ignore")
        if sys.argv[1:]:
            from mlmon_dagster.ingest.rows.suite import great_expectations
            great_expectations()
        import great_expectations.expectations
        from pydantic.v1 import BaseModel

        def below(kind):
            return {kind}.union(*map(below, kind.__subclasses__()))

        for kind in sorted(below(BaseModel), key=lambda kind: (kind.__module__, kind.__name__)):
            if kind.__module__.startswith("great_expectations"):
                for name, field in kind.__fields__.items():
                    print(kind, name, field, field.class_validators.keys(), field.alias)
        print("__deepcopy__" in dir(type(field)))
    """

    def told(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", code, *arguments]
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        return re.sub(" at 0x[0-9a-f]+", "", found.stdout).split("\n")

    ours, theirs = told("ours"), told()
    assert len(theirs) > 1000
    assert ours[-2:] == ["False", ""]
    assert sorted(ours) == sorted(theirs)
