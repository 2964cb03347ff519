"""The second demo: an assistant's quarter, what people, a judge and customers say, and a launch."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from mlmon_dagster.demo.story import (
    Clock,
    declare,
    render_months,
    tell_end,
    tell_history,
    tick,
    timed_stage,
)
from mlmon_dagster.demo.support import BASELINE, FIRST_DAY, LAST_DAY, Support
from mlmon_dagster.spec.names import TABLE

if TYPE_CHECKING:
    import pandas as pd

    from mlmon_dagster.project import Project

MODEL = "assistant"
LIVE = 3  # days, at the end
_CELLS = ("calls", "read", "good (95 %)", "by the judge", "agreement", "helpful")
NEXT = """What to do next:
  mlmon alerts list                                   every alert of the quarter
  mlmon trace assistant --metric good_rate/faithful   what the worse answers have in common
  mlmon rows assistant --worst 20                     calls, the worst first
  mlmon labels draw assistant --output to_label.csv   calls for people to read
  mlmon report assistant                              the page of the assistant"""


def tell(project: Project, *, again: bool = False) -> bool:
    """Run the demo and print what it found.

    Args:
        project: Where; its folder gets ``models/assistant.yaml``, ``landing/`` and ``.mlmon/``.
        again: Remove what an earlier demo left and start over.

    Returns:
        Whether every run succeeded.
    """
    logging.getLogger("dagster").setLevel(logging.WARNING)
    spec = declare(project, again, MODEL)
    live_from = LAST_DAY - dt.timedelta(days=LIVE - 1)
    clock = Clock(live_from)
    project = replace(project, now=clock)
    landing, support = project.folder / "landing" / MODEL, Support()
    stages = list[tuple[str, float]]()
    with timed_stage(stages, "six weeks of validation, then January to March, files by the day"):
        support.write_days(landing, *BASELINE)
        support.write_days(landing, FIRST_DAY, live_from - dt.timedelta(days=1))
    live = timed_stage(stages, f"the last {LIVE} days live")
    with tell_history(project, spec, stages) as (launcher, is_fine), live:
        for i in range(LIVE + 2):
            day = live_from + dt.timedelta(days=i)
            if day <= LAST_DAY:
                support.write_days(landing, day, day)
            clock.move_to(day + dt.timedelta(days=1))
            is_fine &= tick(launcher)
    tell_end(project, spec, render_months(project, spec, _CELLS, _cells), "quarter", stages, NEXT)
    return is_fine


def _cells(month: pd.DataFrame) -> list[str]:
    rows = {(row["metric"], row["column_name"]): row for row in month.to_dict("records")}

    def value(metric: str, column: str) -> str:
        return f"{rows[metric, column]['value']:.3f}"

    good = rows["good_rate", "correct"]
    return [
        f"{int(rows['n', TABLE]['value']):,}",
        f"{int(good['n']):,}",
        f"{good['value']:.3f} ({good['lower']:.3f}-{good['upper']:.3f})",
        value("good_rate", "faithful"),
        value("judge_agreement", "faithful"),
        value("good_rate", "helpful"),
    ]
