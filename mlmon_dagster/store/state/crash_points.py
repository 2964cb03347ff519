"""Named steps of the writing paths, so that tests can stop a process exactly there."""

from __future__ import annotations

from collections.abc import Callable

on_reached: Callable[[str], None] | None = None


def reached(step: str) -> None:
    """Tell the hook, if there is one, that a step was reached."""
    if on_reached is not None:
        on_reached(step)
