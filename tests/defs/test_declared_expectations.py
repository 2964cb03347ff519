"""What the spec itself expects of rows is seen in the check of the window that its file names."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.defs.small_model import DAYS, NOW, customers, drop, landing
from tests.defs.worlds import World, opened

pytestmark = pytest.mark.slow

DAY = dt.timedelta(days=1)
NEXT = DAYS[-1] + DAY
EXPECTATIONS = """\
expectations:
  - {expect: expect_column_values_to_match_regex, arguments: {column: region, regex: "^z"}}
  - {expect: expect_column_values_to_be_in_set, arguments: {column: age, value_set: [1.0]}}
  - {expect: expect_column_pair_values_a_to_be_greater_than_b, severity: refuse,
     arguments: {column_A: balance, column_B: age}}
  - {expect: expect_column_to_exist, severity: ERROR, arguments: {column: age}}
"""


def test_declared_expectations_fail_the_schema_check_by_their_own_severity(
    own_fortnight: World,
) -> None:
    path = own_fortnight.project.models_folder / "churn.yaml"
    path.write_text(path.read_text() + EXPECTATIONS)
    with opened(own_fortnight.folder, NOW + DAY) as world:
        rows, _ = customers(NEXT)
        rows = rows.assign(balance=1000.0)
        rows.loc[3, "balance"] = 0.0
        drop(rows, landing(world.folder, "predictions") / f"{NEXT}.parquet")
        world.launcher.materialize(world.spec, ("event_log",))
        world.work()

        found = world.verdicts("schema", NEXT).set_index("metric")

        own = found.loc["expectations"]
        assert (own["status"], own["value"], own["n"]) == ("WARN", 3, len(rows))
        assert own["message"].startswith("3 of 4 expectations of the spec do not hold: ")
        assert "such as " in own["message"], "region is a slice, whose values are shown"
        assert f"of balance, age fails in 1 of {len(rows)} rows" in own["message"]
        assert found.loc["bad_rate", "status"] == "ERROR"
        assert "broke the schema (expectation of balance)" in found.loc["bad_rate", "message"]
        record = world.evaluations("inference_store", "schema")[str(NEXT)]
        evaluation = record.event.dagster_event.event_specific_data
        table = [r.data for r in evaluation.metadata["expectations"].records]
        by_column = {row["columns"]: row for row in table}
        assert (by_column["region"]["share"], by_column["region"]["kept"]) == (1, "no")
        assert by_column["region"]["values"]
        assert by_column["age"]["values"] == "", "nobody has said that ages may be shown"
        older = world.verdicts("schema", DAYS[0])
        assert "expectations" not in set(older["metric"])
