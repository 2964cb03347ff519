"""What share of the branches the last measured tests took; ``make coverage`` ends with it.

Lines and branches together look better than branches alone: a line that is taken hides the way
round it that is not. So branches are counted by themselves, room by room. Too few are an error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from coverage import Coverage

from tests.test_architecture import ROOT, room_of

FLOOR = 92.0  # percent of all branches that were measured


def table(files: dict[str, dict[str, Any]]) -> tuple[str, float]:
    """Return a line a room, the least covered first, and the percent of all branches."""
    taken: Counter[str] = Counter()
    known: Counter[str] = Counter()
    for name, file in files.items():
        for place in (room_of(ROOT / name), "all"):
            taken[place] += file["summary"]["covered_branches"]
            known[place] += file["summary"]["num_branches"]
    share = {place: 100 * taken[place] / n for place, n in known.items() if n}
    rows = [
        f"{place:14} {taken[place]:6,} of {known[place]:6,} branches {share[place]:6.1f} %"
        for place in sorted(share, key=lambda place: (place == "all", share[place]))
    ]
    return "\n".join(rows), share.get("all", 0.0)


def measured() -> dict[str, dict[str, Any]]:
    """Return what the tests left in ``.coverage``, by file."""
    found = Coverage()
    found.load()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        found.json_report(outfile=str(report))
        files: dict[str, dict[str, Any]] = json.loads(report.read_text())["files"]
    return files


if __name__ == "__main__":
    text, share = table(measured())
    print(text)
    if share < FLOOR:
        sys.exit(f"{share:.1f} % of the branches were taken, at least {FLOOR} % should be.")
