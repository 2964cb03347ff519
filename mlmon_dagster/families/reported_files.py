"""Files that a window reports: refused as a whole, sent again, or not as the spec expects."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np

from mlmon_dagster.spec import ModelSpec, Window, production_end, window_containing
from mlmon_dagster.spec.declaration import TimeSpec
from mlmon_dagster.store import Store
from mlmon_dagster.store.state import manifest
from mlmon_dagster.work import Work

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.ingest.rows.expectations import Result

REFUSED = "schema/bad_rate"  # the monitor whose alerts `refusals_in` is about
_DATE = re.compile(r"(?<!\d)(\d{4})[-_]?(\d{2})[-_]?(\d{2})(?!\d)")


def sent_again(files: pd.DataFrame) -> dict[str, int]:
    """Count the rows of files: all, those that had come before, those that contradict."""
    return {
        "n_sent": int(files["rows_in"].sum()),
        "n_duplicate": int(files["n_duplicate"].sum()),
        "n_conflict": int(files["n_conflict"].sum()),
    }


def expected_of(files: pd.DataFrame) -> list[Result]:
    """Put together what the expectations of the spec found in files, those that fail first."""
    found: dict[str, Result] = {}
    one: Result
    for report in files["schema_report"]:
        for one in json.loads(report).get("expectations", ()):
            key = json.dumps([one["expectation"], one["columns"], one["severity"]])
            sums = found.setdefault(key, {**one, "rows": 0, "values": []})
            if sums["rows"] and one["unexpected"] is not None:
                sums["unexpected"] = (sums["unexpected"] or 0) + one["unexpected"]
            sums["rows"] += one["rows"]
            sums["kept"] = sums["kept"] and one["kept"]
            sums["error"] = sums["error"] or one["error"]
            sums["values"] = list(dict.fromkeys([*sums["values"], *one["values"]]))[:3]
    return sorted(found.values(), key=lambda one: one["kept"])


def quarantined_files(work: Work) -> pd.DataFrame:
    """Return the files of the model that were refused as a whole."""
    return manifest.load_files_frame(
        work.project.store.state, work.spec.model, status="quarantined"
    )


def refusals_behind(work: Work, windows: Sequence[Window]) -> list[dict[str, object]]:
    """Return for each window the refused files that may hold what it misses.

    Returns:
        ``refused_because``, what the first refused file of predictions says that is reported in
        it, and ``refused_is_dated``, whether a date in its name says that it is of no other;
        ``n_refused_actuals`` and ``refused_actuals_because``, of files of ground truth that came
        after it. An empty mapping for each window where no file was ever refused.
    """
    files = quarantined_files(work)
    if files.empty:
        return [{} for _ in windows]
    found: list[dict[str, object]] = []
    for window in windows:
        mine = reported_in(files[files["stream"] == "predictions"], window, work.spec.time)
        later = files[(files["stream"] == "actuals") & (files["first_seen"] >= window.end)]
        named = [window_named_by(str(path), work.spec.time) for path in mine["path"][:1]]
        found.append(
            {"refused_because": first_line_of(mine), "refused_is_dated": window in named,
             "n_refused_actuals": len(later), "refused_actuals_because": first_line_of(later)}
        )  # fmt: skip
    return found


def first_line_of(files: pd.DataFrame) -> str:
    """Return what the first of some refused files says, which names it."""
    return next(iter(files["error"].astype(str)), "").partition("\n")[0]


def unplaced_of(rows: pd.DataFrame) -> dict[str, object]:
    """Put together how many rows of no window the files that a window reports brought."""
    counts = rows.groupby("why")["n_bad"].sum()
    return {
        "unplaced": {str(why): int(n) for why, n in counts.items()},
        "unplaced_in": sorted(set(rows["path"].astype(str))),
    }


def refusals_in(store: Store, spec: ModelSpec, window: Window) -> list[str]:
    """Return what the schema's verdict on a window counts as refused: files, then their rows.

    Each says which file or row it is, what was wrong and what to do; none has values.
    """
    engine = store.state
    found = manifest.load_files_frame(engine, spec.model, status=("quarantined", "done"))
    reported = reported_in(found, window, spec.time)
    told = [str(e).split("\n", 1)[0] for e in reported[reported["status"] != "done"]["error"]]
    rows = manifest.load_refused_rows(engine, spec.model, start=window.start, end=window.end)
    told += map(str, rows["message"])
    for sha in reported[(reported["status"] == "done") & (reported["n_bad"] > 0)]["sha256"]:
        rows = manifest.load_refused_rows(engine, spec.model, sha256=sha, is_unplaced=True)
        told += map(str, rows["message"])
    return told


def reported_in(files: pd.DataFrame, window: Window, time: TimeSpec) -> pd.DataFrame:
    """Return the files that a window reports: refused as a whole, sent again, or with rows of none.

    A file that cannot be read does not say which window its rows belong to. If its name holds one
    date, that is the window; else the last complete one before the file was first seen, since
    files land once their window is over. After the last window of production it is that one.
    """
    end = production_end(time)
    until = None if window.end == end else window.end + (window.end - window.start)
    found = np.zeros(len(files), dtype=bool)
    for place, (path, seen) in enumerate(zip(files["path"], files["first_seen"], strict=True)):
        named = window_named_by(str(path), time)
        if named is not None and named.end <= seen:
            found[place] = named.start == window.start
        else:
            found[place] = window.end <= seen and (until is None or seen < until)
    return files[found]


def window_named_by(path: str, time: TimeSpec) -> Window | None:
    """Return the window of the one date in a file's name; None without one, or by the hour."""
    dates = {"".join(match) for match in _DATE.findall(path.rsplit("/", 1)[-1])}
    if len(dates) != 1 or time.granularity == "hour":
        return None
    try:
        day = dt.datetime.strptime(dates.pop(), "%Y%m%d").replace(tzinfo=ZoneInfo(time.zone))
    except ValueError:
        return None
    if day.date() < time.start:  # of the baseline
        return None
    window = window_containing(time, day.replace(hour=12).astimezone(dt.UTC))
    end = production_end(time)
    return None if end is not None and window.start >= end else window
