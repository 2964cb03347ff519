"""How many made-up data sets ``mlmon init`` reads right: ``python -m tests.scaffold``.

Each is written, read by ``mlmon init``, and its spec validated; with ``--compute`` it is also taken
in and computed, after the lines that are wrong were put right. Ends with 1 where more than two
lines are wrong, a command fails, or an output speaks of our code.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.scaffold.layout_check import MOST_LINES, checked
from tests.scaffold.layouts import made


def main() -> int:
    """Check data sets and print what share is right, by layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=72)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first")
    parser.add_argument("--compute", action="store_true", help="take them in and compute, too")
    parser.add_argument("--held-out", action="store_true", help="names that no rule was made for")
    asked = parser.parse_args()
    n, good, untouched = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(asked.first, asked.first + asked.sets):
        data = made(seed, held_out=asked.held_out)
        with tempfile.TemporaryDirectory() as folder:
            found = checked(data, Path(folder), computes=asked.compute)
        is_few = len(found.wrong) <= MOST_LINES and not found.raw and not found.failed
        is_good = found.is_good if asked.compute else is_few
        n[data.layout] += 1
        good[data.layout] += is_good
        untouched[data.layout] += is_good and not found.wrong
        if not is_good or found.wrong:
            told = (found.wrong, found.raw[:3], found.failed[-400:])
            print(
                f"{seed} {data.name}:",
                *filter(None, told),
                f"({found.computed} windows)",
                flush=True,
            )
    print(f"{'layout':28}{'sets':>6}{'as written':>12}{'two lines at most':>19}")
    for layout, sets in n.items():
        print(f"{layout:28}{sets:6}{untouched[layout]:12}{good[layout]:19}")
    print(f"{'all':28}{n.total():6}{untouched.total():12}{good.total():19}")
    return int(good.total() < n.total())


if __name__ == "__main__":
    sys.exit(main())
