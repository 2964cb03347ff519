"""How large the package is, and how much of that came with what.

``python -m tests.size`` prints files and lines that hold code by room; ``--born-after REV`` leaves
out the files that are not in a revision of git, and counts them apart; ``--periods`` counts each
line of code to the work that wrote it last, as `git blame` tells, moves followed:

- base: up to the revision from which the house was measured, and the moving of the house itself,
  which added nothing;
- "Nothing lost" and "Verdicts people can believe": written side by side between those two, so told
  apart by rooms: what computes and judges is verdicts, what takes in, keeps and tells is the other;
- features: after the house. A line of the base that a feature rewrote counts here, so the base is
  a lower bound; what the house had when it was done, without the two works, is the upper one.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.test_architecture import FILES, PACKAGE, ROOT, lines_of_code, room_of

BASE, JUDGED, HOUSE = "0a54c44", "0efa28e", "9937413"
JUDGES = {"metrics", "monitors", "profiles", "trace", "drill", "report"}


def files_at(revision: str) -> set[str]:
    """Return the package's files of a revision by the names that they have now."""
    listed = _git("ls-tree", "-r", "--name-only", revision, "--", PACKAGE.name)
    moved = _git("diff", "--name-status", "-M40%", "--diff-filter=R", revision, "--", PACKAGE.name)
    names = dict(line.split("\t")[1:] for line in moved)
    return {names.get(name, name) for name in listed}


def _git(*words: str) -> list[str]:
    ran = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.splitlines()


def table(files: list[Path]) -> str:
    """Return a line a room: how many files, and lines that hold code."""
    n_files = Counter(map(room_of, files))
    n_lines: Counter[str] = Counter()
    for path in files:
        n_lines[room_of(path)] += len(lines_of_code(path))
    rows = [f"{room:14} {n_files[room]:4} {n:7,}" for room, n in n_lines.most_common()]
    return "\n".join([*rows, f"{'all':14} {len(files):4} {n_lines.total():7,}"])


def by_period() -> Counter[str]:
    """Return how many lines of code each period wrote last."""
    until = {revision: set(_git("rev-list", revision)) for revision in (BASE, JUDGED, HOUSE)}
    found: Counter[str] = Counter()
    for path in FILES:
        blamed = _git("blame", "-w", "-M", "-C", "--porcelain", "--", str(path.relative_to(ROOT)))
        heads = (re.fullmatch(r"([0-9a-f]{40}) \d+ (\d+)(?: \d+)?", line) for line in blamed)
        wrote = {int(head[2]): head[1] for head in heads if head}
        judges = room_of(path) in JUDGES
        for commit in (wrote[line] for line in lines_of_code(path)):
            if commit in until[BASE]:
                found["base"] += 1
            elif commit in until[JUDGED]:
                found["Verdicts people can believe" if judges else "Nothing lost"] += 1
            elif commit in until[HOUSE]:
                found["base, moved by the house"] += 1
            else:
                found["features"] += 1
    return found


if __name__ == "__main__":
    print(table(FILES))
    if "--born-after" in sys.argv:
        revision = sys.argv[sys.argv.index("--born-after") + 1]
        old = files_at(revision)
        born = [path for path in FILES if str(path.relative_to(ROOT)) not in old]
        print(f"\nnot in {revision}:\n{table(born)}")
    if "--periods" in sys.argv:
        print("", *(f"{name:30} {n:7,}" for name, n in by_period().most_common()), sep="\n")
