"""A first spec, written from a sample of a model's events."""

from __future__ import annotations

NOTE = "# DECIDE: "  # begins a comment that a written spec leaves to a person


def notes_of(text: str) -> list[str]:
    """Return what a spec's text leaves to a person."""
    return [line.removeprefix(NOTE) for line in text.splitlines() if line.startswith(NOTE)]
