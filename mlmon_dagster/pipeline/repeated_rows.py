"""Rows that repeat others in all features under new ids, as those of a feed that is sent twice."""

from __future__ import annotations

import datetime as dt

from mlmon_dagster.families.ground_truth import name_day
from mlmon_dagster.monitors.change_wording import percent
from mlmon_dagster.spec import Window, windows_between
from mlmon_dagster.spec.baseline import PRODUCTION
from mlmon_dagster.store.state.sql import quote_identifier
from mlmon_dagster.work import Work

_BACK = 7  # windows
_FEWEST = 3  # windows, to say what is usual
_MOST = 20_000_000  # rows to look at
_BEYOND = 0.1  # of the rows, more than in any window before


def describe_repeats(work: Work, window: Window) -> str:
    """Say which rows a window's rows repeat: those of a window of the last seven, or its own.

    Few features have few different rows, so that what repeats is compared with what does so in the
    windows before, and among them.

    Returns:
        A sentence without full stop; empty if no more rows repeat than usual, if that is not known,
        or if there are too many rows to look.
    """
    spec, store = work.spec, work.project.store
    back = windows_between(
        spec.time, window.start - _BACK * (window.end - window.start), window.end
    )
    if not spec.logged_features:
        return ""
    records = store.inference_records(spec).from_sql(back, [PRODUCTION])
    if store.query(f"SELECT count(*) AS n FROM {records}").column("n")[0].as_py() > _MOST:
        return ""
    # One side's rows by how often they come are joined with the other's.
    found = store.query(
        "WITH counted AS (SELECT window_start AS at, "
        f"hash({', '.join(map(quote_identifier, spec.logged_features))}) AS row, count(*) AS n "
        f"FROM {records} GROUP BY ALL) "
        "SELECT a.at AS now, b.at AS then, sum(a.n)::BIGINT AS n, count(*) AS different "
        "FROM counted a JOIN counted b ON a.row = b.row AND b.at <= a.at GROUP BY ALL"
    ).to_pylist()
    total = {one["now"]: one["n"] for one in found if one["now"] == one["then"]}
    again = {
        (one["now"], one["then"]): one["n"] - (one["now"] == one["then"]) * one["different"]
        for one in found
    }
    if len(total) <= _FEWEST or window.start not in total:
        return ""

    def share(now: dt.datetime, then: dt.datetime) -> float:
        return float(again.get((now, then), 0) / total[now])

    said, most = "", _BEYOND
    for is_own in (True, False):
        pairs = [
            (share(now, then), now, then)
            for now in total
            for then in total
            if (now == then if is_own else then < now)
        ]
        usual = [repeated for repeated, now, _ in pairs if now != window.start]
        repeated, _, then = max(pair for pair in pairs if pair[1] == window.start)
        if repeated - max(usual) > most:
            most = repeated - max(usual)
            of = "others of this window" if is_own else f"rows of {name_day(spec, then, work.now)}"
            low, high = (f"{100 * end:.0f}" for end in (min(usual), max(usual)))
            before = f"{low} %" if low == high else f"{low} to {high} %"
            said = f"{percent(repeated)} of the rows repeat {of} under new ids, usually {before}"
    return said
