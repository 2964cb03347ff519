"""How much there is to read and to know: ``python -m tests.size``.

Printed are tokens and tokens a line, by room and of the tests and benchmarks, and the counts of
what a person meets: keys, commands, tables of the state, families, and modules that judge.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.test_architecture import FILES, PACKAGE, ROOT, nodes_of, room_of
from tests.tokens import Size, measure_text

LAW = PACKAGE / "metrics/windows/law.py"
# What scipy calls the chance of a value, or of one beyond it, under a distribution.
TAILS = {
    "bdtr", "bdtrc", "betainc", "betaincc", "cdf", "chdtr", "chdtrc", "fdtr", "fdtrc", "gammainc",
    "gammaincc", "kolmogorov", "log_ndtr", "nbdtr", "nbdtrc", "ndtr", "pdtr", "pdtrc", "sf",
    "smirnov", "stdtr",
}  # fmt: skip


def measure_files(paths: list[Path]) -> Size:
    """Add up what files hold."""
    sizes = [measure_text(path.read_text()) for path in paths]
    tokens = sum(size.tokens for size in sizes)
    lines = sum(size.lines for size in sizes)
    return Size(tokens, lines, len(paths))


def find_judges() -> list[str]:
    """Name the modules beside the law that may say how likely a window is.

    They call the tail of a distribution (``TAILS``). Those of ``trace`` do, too, and ask another
    thing: which rows a change came from.
    """
    return [
        str(path.relative_to(PACKAGE))
        for path in FILES
        if path != LAW and room_of(path) != "trace" and TAILS & set(names_called(path))
    ]


def names_called(path: Path) -> Iterator[str]:
    """Yield the last name of everything that a module calls."""
    for node in nodes_of(path):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def count_concepts() -> dict[str, int]:
    """Count what there is to know: keys as `mlmon schema --format text` lists them, and more."""
    from mlmon_dagster.cli import cli
    from mlmon_dagster.spec.files.meanings import explain_keys, read_meanings
    from mlmon_dagster.store.state.schema import METADATA
    from tests.cli.test_cli import commands

    no_family = {"__init__.py", "registry.py"}  # which only say what there is
    families = [p for p in FILES if room_of(p) == "families" and p.name not in no_family]
    return {
        "keys of the spec": sum(len(explain_keys(part)) for part in read_meanings()),
        "commands": len(list(commands(cli))),
        "tables of the state": len(METADATA.tables),
        "modules of families/": len(families),
    }


def show_size(name: str, size: Size) -> str:
    """Return the line of a room: tokens, how many stand on a line, files."""
    density = size.tokens / max(size.lines, 1)
    return f"{name:14} {size.tokens:9,} {density:7.1f} {size.files:6}"


def write_page() -> str:
    """Return all that the command prints."""
    files = Counter(map(room_of, FILES))
    rooms = {room: measure_files([p for p in FILES if room_of(p) == room]) for room in files}
    largest_first = sorted(rooms.items(), key=lambda room: -room[1].tokens)
    lines = [f"{'room':14} {'tokens':>9} {'a line':>7} {'files':>6}"]
    lines += [show_size(room, size) for room, size in largest_first]
    lines += ["", show_size("package", measure_files(FILES))]
    for folder in ("tests", "benchmarks"):
        lines.append(show_size(folder, measure_files(sorted((ROOT / folder).rglob("*.py")))))
    lines += ["", *(f"{name}: {n}" for name, n in count_concepts().items())]
    judges = find_judges()
    lines += [f"modules that judge beside the law: {len(judges)}", *(f"  {j}" for j in judges)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(write_page())
