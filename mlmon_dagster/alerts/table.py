"""A table as plain text."""

from __future__ import annotations

from collections.abc import Sequence


def text_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return columns wide enough for their longest cell, two spaces apart."""
    every = [head, *lines]
    widths = [max(len(line[i]) for line in every) for i in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in every
    )
