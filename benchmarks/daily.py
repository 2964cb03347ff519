"""What `mlmon run` costs on an ordinary second day, and when nothing has changed.

The model of `memory`: 28 features, two slices, a baseline. Measured are the processor's seconds of
the whole process and its children. On the first day the baseline is fitted. On the second a day of
events and the first day's ground truth have come, so two windows are computed. Then nothing has.

    python -m benchmarks daily [--rows 10_000]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.memory import Measured, declare, now_after, write_actuals, write_events
from benchmarks.table import Goal, Row, show

BASELINE = 50_000
DAY, UNCHANGED = 6.0, 3.0  # processor's seconds
_PAUSE = 0.5  # seconds between two looks at the memory


def measured(folder: Path, rows: int) -> Iterator[Row]:
    """Live through two days."""
    declare(folder, ["c00", "c01"])
    landing = folder / "landing"
    for stream, write in (("predictions", write_events), ("actuals", write_actuals)):
        write(landing / stream / "validation.parquet", 0, BASELINE, "validation")
    write_events(landing / "predictions" / "1.parquet", 1, rows)
    yield _row("the first day", Measured(folder, now_after(2), _PAUSE), None)
    write_events(landing / "predictions" / "2.parquet", 2, rows)
    write_actuals(landing / "actuals" / "1.parquet", 1, rows)
    yield _row("the second day", Measured(folder, now_after(3), _PAUSE), DAY)
    yield _row("nothing has changed", Measured(folder, now_after(3), _PAUSE), UNCHANGED)


def _row(name: str, run: Measured, most: float | None) -> Row:
    numbers = (f"{run.busy:.2f}", f"{run.wall:.1f}", f"{run.peak:.0f}")
    return Row(name, numbers, None if most is None else Goal(run.busy, most, unit=" s"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; return how many goals are missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks daily", description=__doc__)
    parser.add_argument("--rows", type=lambda text: int(text.replace("_", "")), default=10_000)
    rows = parser.parse_args(arguments).rows
    # Without bytecode every process would compile a thousand modules: the first day writes it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="mlmon-daily-") as folder:
        columns = ("processor s", "wall s", "peak MB")
        title = f"mlmon run, days of {rows:,} rows"
        return show([(title, columns, measured(Path(folder), rows))], seed="of the day")


if __name__ == "__main__":
    sys.exit(main())
