"""What a written spec leaves to a person: one marked comment each, until it is decided."""

from __future__ import annotations

NOTE = "# DECIDE: "


def notes_of(text: str) -> list[str]:
    """Return what a spec's text leaves to a person."""
    return [line.removeprefix(NOTE) for line in text.splitlines() if line.startswith(NOTE)]
