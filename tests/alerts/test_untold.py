"""Events that no message tells of are counted."""

from __future__ import annotations

from mlmon_dagster.alerts.lifecycle.apply_results import fold_results
from mlmon_dagster.alerts.messages.incidents import count_untold
from mlmon_dagster.store import Store
from tests.alerts.worlds import DAY, day, observe, result, settle, spec_of

SPECS = [spec_of()]


def test_an_event_is_untold_from_the_moment_in_which_it_should_have_been_told(
    any_store: Store,
) -> None:
    observe(any_store, result(1), result(2, "OK"), result(1, column_name="b", is_backfill=True))
    fold_results(any_store, SPECS, day(3))  # and the dispatcher dies here

    counted = [count_untold(any_store, SPECS, now) for now in (day(3), day(3) + DAY)]
    others = count_untold(any_store, [spec_of("other")], day(9))
    assert (counted, others) == ([0, 2], 0)
    assert settle(any_store, SPECS, day(4)) == 2  # what was over, and the end of the backfill
    assert count_untold(any_store, SPECS, day(9)) == 0
